"""How often the mixed model finds a difference where there is none: its level, by simulation.

    python Testing/benchmarks/mixed_model.py [--simulations 2000]

Log times of studies of several shapes, normal, without the difference that is tested (between readers, or between
arms), are fitted as `soars study summarize` does. Prints, per shape, the share of p values below 5 % of the t test with
the degrees of freedom that the program counts, and, to compare, of the normal approximation (Wald's z) and of the
likelihood ratio test by maximum likelihood, each with its 95 % interval (Wilson). Then, of 100 studies as `soars study
simulate` draws them, in how many readers who do not differ are said to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.stats import chi2, norm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "SOARSSegmentation")]

from soars.study.mixed import fit_mixed  # noqa: E402
from soars.study.simulation.truth import Truth, draw_revising, reader_speeds  # noqa: E402

CASE_SD, READER_SD, REST_SD = 0.2, 0.15, 0.25
"""Of log times."""


@dataclass(frozen=True)
class Shape:
    """Sessions as (case, reader, arm), and whether readers or arms are tested."""

    name: str
    sessions: tuple[tuple[int, int, int], ...]
    tested: str


def every(cases: int, readers: int, arms: int) -> tuple[tuple[int, int, int], ...]:
    return tuple(product(range(cases), range(readers), range(arms)))


TWO_READERS = every(30, 2, 1) + tuple((c, r, 1) for c, r, _ in every(5, 2, 1))
ONE_ARM_EACH = tuple((c, r, (c + r) % 2) for c, r, _ in every(8, 4, 1))
SHAPES = (
    Shape("readers: 2 x 30 cases", every(30, 2, 1), "reader"),
    Shape("readers: 2 x 30 cases x 2 arms", every(30, 2, 2), "reader"),
    Shape("readers: 2 x 30 cases, 5 from scratch", TWO_READERS, "reader"),
    Shape("readers: 2 x 5 cases", every(5, 2, 1), "reader"),
    Shape("readers: 4 x 8 cases, one arm each", ONE_ARM_EACH, "reader"),
    Shape("arms: 10 cases x 2 readers", every(10, 2, 2), "arm"),
    Shape("arms: 30 cases, 5 from scratch, 2 readers", TWO_READERS, "arm"),
    Shape("arms: 8 cases x 4 readers, one arm each", ONE_ARM_EACH, "arm"),
)


def drawn(shape: Shape, seed: int) -> np.ndarray:
    """Log times; readers differ only where arms are tested, arms only where readers are."""
    rng = np.random.default_rng([29, seed])
    case, reader = rng.normal(0, CASE_SD, 100), rng.normal(0, READER_SD, 10)
    rest = rng.normal(0, REST_SD, len(shape.sessions))
    by_reader = shape.tested == "arm"
    return np.array(
        [
            case[c] + (reader[r] if by_reader else -0.5 * a) + e
            for (c, r, a), e in zip(shape.sessions, rest, strict=True)
        ]
    )


def p_values(shape: Shape, y: np.ndarray) -> tuple[float, float, float]:
    """Of the t test, of Wald's z, and of the likelihood ratio; of the first coefficient of what is tested."""
    cases, readers, arms = (list(map(str, column)) for column in zip(*shape.sessions, strict=True))
    varying = [name for name, column in (("reader", readers), ("arm", arms)) if len(set(column)) > 1]
    columns = {"reader": readers, "arm": arms, "case": cases}
    if shape.tested == "reader":
        fixed, random = {name: columns[name] for name in varying}, {"case": cases}
    else:
        fixed, random = {"arm": arms}, {"reader": readers, "case": cases}
    fit = fit_mixed(y.tolist(), fixed, random)
    assert fit.converged
    effect = fit.effect(f"{shape.tested}: 1")
    z = 2 * float(norm.sf(abs(effect.value) / effect.standard_error))
    design = [
        (np.array(columns[name]) == one).astype(float)
        for name in fixed
        for one in sorted(set(columns[name]))[1:]
    ]
    names = [f"{name}: {one}" for name in fixed for one in sorted(set(columns[name]))[1:]]
    without = [column for column, name in zip(design, names, strict=True) if name != effect.name]
    blocks = [np.array([[v == one for one in sorted(set(c))] for v in c], float) for c in random.values()]
    ratio = deviance(y, without, blocks) - deviance(y, design, blocks)
    return effect.p, z, float(chi2.sf(max(ratio, 0.0), 1))


def deviance(y: np.ndarray, fixed: list[np.ndarray], blocks: list[np.ndarray]) -> float:
    """Minus twice the log likelihood at its maximum, but for a constant."""
    x = np.stack([np.ones(len(y)), *fixed], axis=1)

    def at(theta: np.ndarray) -> float:
        variance = np.eye(len(y)) + sum(t**2 * b @ b.T for t, b in zip(theta, blocks, strict=True))
        factor = np.linalg.cholesky(variance)
        wx, wy = np.linalg.solve(factor, x), np.linalg.solve(factor, y)
        rest = wy - wx @ np.linalg.lstsq(wx, wy, rcond=None)[0]
        return float(2 * np.log(np.diag(factor)).sum() + len(y) * np.log(rest @ rest / len(y)))

    found = minimize(at, [0.7] * len(blocks), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6})
    return float(found.fun)


def p_values_of(shape: Shape, seed: int) -> tuple[float, float, float]:
    return p_values(shape, drawn(shape, seed))


def share_found(p: Callable[[int], tuple[float, ...]], simulations: int) -> list[str]:
    found = np.array([p(seed) for seed in range(simulations)]) < 0.05
    return [f"{100 * s.mean():4.1f} ({low:.1f} to {high:.1f})" for s in found.T for low, high in [wilson(s)]]


def wilson(found: np.ndarray) -> tuple[float, float]:
    """Percent."""
    n, share, z = len(found), found.mean(), 1.96
    middle, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (100 * (middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return float(low), float(high)


def simulated_study(seed: int) -> float:
    """p of the difference of two readers of 30 patients and 42 organs, who are as fast as each other."""
    keys = [("revise", reader, case) for reader in range(2) for case in range(30)]
    works = draw_revising(Truth(), keys, [str(n) for n in range(42)], reader_speeds(2, 1.0), seed)
    times = [float(np.log(works[key].active_s)) for key in keys]
    readers, cases = [str(key[1]) for key in keys], [str(key[2]) for key in keys]
    fit = fit_mixed(times, {"reader": readers}, {"case": cases})
    return fit.effect("reader: 1").p


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    args = parser.parse_args()
    print(f"{'% below 5 %, of ' + str(args.simulations):45}  {'t test':20} {'Wald z':20} likelihood ratio")
    for shape in SHAPES:
        cells = share_found(partial(p_values_of, shape), args.simulations)
        print(f"{shape.name:45}  " + " ".join(f"{cell:20}" for cell in cells), flush=True)
    said = sum(simulated_study(seed) < 0.05 for seed in range(100))
    print(f"simulated studies in which readers who do not differ are said to: {said} of 100")


if __name__ == "__main__":
    main()

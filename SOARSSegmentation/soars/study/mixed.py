"""Linear mixed models with crossed random effects, by REML.

A study's readers all read the same cases, so a time belongs to a reader and to a case at once: both are random effects,
crossed, not nested. The profiled REML criterion is that of lme4 (Bates, Mächler, Bolker and Walker, J Stat Softw
2015;67(1), equations 39 to 42), which needs a Cholesky factor as large as there are levels, and one parameter a
random effect to search. statsmodels' MixedLM has the model too, as variance components of a single group, but its
optimiser stops short of the optimum on balanced designs of this size: the case variance of 30 patients came out at
0.85 where the analysis of variance, which is REML there, has 0.05, and reader effects were found where there were none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from soars.errors import InputError


@dataclass(frozen=True)
class FixedEffect:
    """A coefficient with its standard error, its 95 % interval and two-sided p by t with ``freedom`` degrees of
    freedom."""

    name: str
    value: float
    standard_error: float
    low: float
    high: float
    p: float
    freedom: int


@dataclass(frozen=True)
class MixedFit:
    """A fitted model: fixed effects, variances of the random effects and of the residual, and ``n`` observations.
    ``criterion`` is minus twice the restricted log likelihood; ``converged`` False: use none of its numbers."""

    fixed: tuple[FixedEffect, ...]
    variances: Mapping[str, float]
    residual: float
    n: int
    converged: bool
    criterion: float

    def effect(self, name: str) -> FixedEffect:
        """The coefficient of that name: the column's, or "column: level"."""
        return next(one for one in self.fixed if one.name == name)


def fit_mixed(
    values: Sequence[float],
    fixed: Mapping[str, Sequence[object]],
    random: Mapping[str, Sequence[object]],
    level: float = 0.95,
) -> MixedFit:
    """Fit ``values`` by REML with an intercept, ``fixed`` columns (numbers as they are; texts by levels against the
    first in alphabetical order) and crossed ``random`` intercepts by the levels of their columns.

    Degrees of freedom of a test: observations less what the fixed and the random effects' levels take up, which is
    exact for balanced designs in which the effect varies within the levels. A random column with one level is left out.
    `InputError` when there are too few observations for that.
    """
    y = np.asarray(values, dtype=np.float64)
    if not np.isfinite(y).all():
        raise InputError("a mixed model needs finite values; decide first what a missing one counts")
    design, names = _design(fixed, len(y))
    crossed = {name: list(map(str, column)) for name, column in random.items() if len(set(column)) > 1}
    freedom = len(y) - design.shape[1] - sum(len(set(column)) - 1 for column in crossed.values())
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        raise InputError(
            f"{len(y)} observations are too few for a model with {design.shape[1]} fixed effects and random "
            f"{', '.join(crossed) or 'nothing'}"
        )
    if not crossed:
        return _least_squares(y, design, names, level)
    return _reml(y, design, names, crossed, freedom, level)


@dataclass(frozen=True)
class _Profiled:
    """The model at one value of its parameters: solution, covariance of it over the residual variance, and both
    sums."""

    criterion: float
    solution: np.ndarray
    covariance: np.ndarray
    residual: float


def _reml(
    y: np.ndarray,
    design: np.ndarray,
    names: Sequence[str],
    crossed: Mapping[str, Sequence[str]],
    freedom: int,
    level: float,
) -> MixedFit:
    """Search the standard deviations of the random effects, relative to the residual's."""
    from scipy.optimize import minimize

    blocks = [_indicators(column) for column in crossed.values()]
    random = np.concatenate(blocks, axis=1)
    widths = [block.shape[1] for block in blocks]
    products = (
        random.T @ random,
        random.T @ design,
        random.T @ y,
        design.T @ design,
        design.T @ y,
        float(y @ y),
    )

    def profiled(theta: np.ndarray) -> _Profiled:
        return _profiled(np.repeat(np.abs(theta), widths), products, len(y))

    def criterion(theta: np.ndarray) -> float:
        try:
            return profiled(theta).criterion
        except (
            np.linalg.LinAlgError
        ):  # so large that nothing is left of the fixed effects in double precision
            return np.inf

    # The criterion may have a local optimum on the boundary: the best of several starts is taken.
    starts = product((0.1, 0.7, 3.0), repeat=len(blocks))
    start = min(starts, key=lambda theta: criterion(np.array(theta)))
    options = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000, "maxfev": 4000}
    found = minimize(criterion, start, method="Nelder-Mead", options=options)
    best = profiled(found.x)
    errors = np.sqrt(best.residual * np.diag(best.covariance))
    fixed = [
        _effect(name, float(v), float(e), freedom, level)
        for name, v, e in zip(names, best.solution, errors, strict=True)
    ]
    variances = {name: float(best.residual * t**2) for name, t in zip(crossed, found.x, strict=True)}
    return MixedFit(tuple(fixed), variances, best.residual, len(y), bool(found.success), best.criterion)


def _profiled(scale: np.ndarray, products: tuple[Any, ...], n: int) -> _Profiled:
    """Bates et al., equations 39 to 42; ``scale`` is the relative standard deviation of each level."""
    zz, zx, zy, xx, xy, yy = products
    factor = np.linalg.cholesky(scale[:, None] * zz * scale + np.eye(len(scale)))
    cu = np.linalg.solve(factor, scale * zy)
    rzx = np.linalg.solve(factor, scale[:, None] * zx)
    rx = np.linalg.cholesky(xx - rzx.T @ rzx)
    cb = np.linalg.solve(rx, xy - rzx.T @ cu)
    rest = n - len(rx)
    penalised = max(yy - float(cu @ cu) - float(cb @ cb), np.finfo(float).tiny)
    logs = 2 * float(np.log(np.diag(factor)).sum() + np.log(np.diag(rx)).sum())
    criterion = logs + rest * (1 + np.log(2 * np.pi * penalised / rest))
    inverse = np.linalg.inv(rx)
    return _Profiled(float(criterion), inverse.T @ cb, inverse.T @ inverse, penalised / rest)


def _least_squares(y: np.ndarray, design: np.ndarray, names: Sequence[str], level: float) -> MixedFit:
    """The model without random effects."""
    products = (
        np.eye(1),
        np.zeros((1, design.shape[1])),
        np.zeros(1),
        design.T @ design,
        design.T @ y,
        float(y @ y),
    )
    found = _profiled(np.zeros(1), products, len(y))
    freedom = len(y) - design.shape[1]
    errors = np.sqrt(found.residual * np.diag(found.covariance))
    fixed = [
        _effect(name, float(v), float(e), freedom, level)
        for name, v, e in zip(names, found.solution, errors, strict=True)
    ]
    return MixedFit(tuple(fixed), {}, found.residual, len(y), True, found.criterion)


def _effect(name: str, value: float, error: float, freedom: int, level: float) -> FixedEffect:
    from scipy.stats import t

    half = float(t.ppf(0.5 + level / 2, freedom)) * error
    p = 2 * float(t.sf(abs(value) / error, freedom)) if error > 0 else float(value == 0)
    return FixedEffect(name, value, error, value - half, value + half, p, freedom)


def _design(fixed: Mapping[str, Sequence[object]], n: int) -> tuple[np.ndarray, list[str]]:
    columns, names = [np.ones(n)], ["intercept"]
    for name, column in fixed.items():
        if len(column) != n:
            raise InputError(f"{name} has {len(column)} values for {n} observations")
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column):
            columns.append(np.asarray(column, dtype=np.float64))
            names.append(name)
            continue
        for one in sorted(set(map(str, column)))[1:]:
            columns.append(np.array([str(value) == one for value in column], dtype=np.float64))
            names.append(f"{name}: {one}")
    return np.stack(columns, axis=1), names


def _indicators(column: Sequence[str]) -> np.ndarray:
    levels = sorted(set(column))
    return np.array([[value == one for one in levels] for value in column], dtype=np.float64)

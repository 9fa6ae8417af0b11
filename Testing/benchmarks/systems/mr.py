"""CT and MR on phantoms: is the MR's motion recovered, and does a network gain by the MR what a CT does not show?

    python Testing/benchmarks/systems/mr.py WORK [--only registration|both|alone]

Twenty phantoms with a synthetic T1-weighted MR of its own field of view and voxels, turned by up to 10 degrees about
each axis and moved by up to 30 mm along each. Registration: 19 of 20 should come back within 1 mm (at the corners of a
cube of 80 mm about the MR's middle) and 1 degree.

Both parotids and submandibular glands are in the MR alone. The CT has fat in their place; each gland, with its label,
is moved by up to 12 mm along each axis to somewhere in soft tissue, where the CT shows what it showed before. So
neither the CT nor the anatomy about a gland says where it is; the printed DSC of the old places with the new ones says
how far a good guess comes. Two networks learn from sixteen of the phantoms as registered, one from CT and MR (system
`ct_mr` with the MR hidden in half of the windows, as by default), one from the CTs alone, and draw the other four. The
MR should help on the glands; without it the first network should lose at most 3 points on the other organs.

The same command goes on wherever it was stopped; with `--only` it comes as far as that, so that two processes can train
the two networks at the same time.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy
import SimpleITK as sitk
import torch

from soars.cascade.preprocess import find_body
from soars.catalogue import SOARS42
from soars.commands.options import add_device_option
from soars.mr.images import MrScan
from soars.mr.laid import lay_mr
from soars.phantom import Phantom, make_phantom
from soars.phantom.mr import SyntheticMr, make_mr
from soars.structures import Box, Mask, StructureSet
from soars.structures.mask import dice
from soars_training.cohorts.cache import CachedCase, CacheIndex, IndexEntry, read_case, write_case
from soars_training.cohorts.prepare import SourceCase, preprocess
from soars_training.fitting.loop import training_device
from soars_training.fitting.options import LAST, RUN_FILE
from soars_training.systems.ct_mr.system import CtMrOptions
from soars_training.systems.interface import Predict, SystemRun
from soars_training.systems.loop_system import score_case
from soars_training.systems.registry import training_system
from soars_training.windows.augment import Augmentation

SEEDS, TEST = range(300, 320), 4
TURN_DEGREES, SHIFT_MM = 10.0, 30.0
MOST_MM, MOST_DEGREES, LEAST_RECOVERED = 1.0, 1.0, 19
CT_MM, SPACING_MM = (2.0, 2.0, 3.0), (4.0, 4.0, 4.0)
HIDDEN = ("Parotid_L", "Parotid_R", "Glnd_Submand_L", "Glnd_Submand_R")
SEEN = (
    "Brainstem",
    "Cerebellum",
    "SpinalCord",
    "Eye_L",
    "Eye_R",
    "Bone_Mandible_L",
    "Bone_Mandible_R",
    "Cavity_Oral",
)
FAT_HU, SOFT_HU = (-150.0, -50.0), (-150.0, 150.0)
MOVED_MM, LEAST_LEFT = 12.0, 0.8
"""How far a hidden gland is moved along each axis, and the least part of it that its new place must have room for."""
MOST_LOST = 0.03
STEPS = 3000


@dataclass(frozen=True)
class Recovered:
    """How far a registration is off, what it took, and the mean DSC of the glands with their places before moving."""

    seed: int
    mm: float
    degrees: float
    turned_degrees: float
    moved_mm: float
    seconds: float
    unmoved_dsc: float


def main() -> int:
    args = parse()
    rows = registered(args.work)
    good = [r for r in rows if r.mm <= MOST_MM and r.degrees <= MOST_DEGREES]
    print(
        f"registration: {len(good)} of {len(rows)} within {MOST_MM:g} mm and {MOST_DEGREES:g} degree; worst "
        f"{max(r.mm for r in rows):.2f} mm, {max(r.degrees for r in rows):.2f} degrees, median "
        f"{np.median([r.mm for r in rows]):.2f} mm; turned by up to {max(r.turned_degrees for r in rows):.0f} degrees, "
        f"moved by up to {max(r.moved_mm for r in rows):.0f} mm; {np.median([r.seconds for r in rows]):.0f} s each",
        flush=True,
    )
    print(f"glands where they were, as a guess: DSC {np.mean([r.unmoved_dsc for r in rows]):.3f}", flush=True)
    failed = len(good) < LEAST_RECOVERED
    if args.only == "registration":
        return 1 if failed else 0
    device, hidden = training_device(args.device), {"both": CtMrOptions.hidden, "alone": 1.0}
    if args.only:
        drawn(args.work, args.only, hidden[args.only], device, args.workers)
        return 0
    both, alone = (drawn(args.work, name, share, device, args.workers) for name, share in hidden.items())
    with_mr, without, ct_only = (
        scores(args.work, p, mr) for p, mr in ((both, True), (both, False), (alone, False))
    )
    print(f"{'DSC of':18}{'with MR':>10}{'without':>10}{'CT alone':>10}")
    for organ in (*HIDDEN, *SEEN):
        print(f"{organ:18}{with_mr[organ]:10.3f}{without[organ]:10.3f}{ct_only[organ]:10.3f}")
    gain = mean(with_mr, HIDDEN) - mean(ct_only, HIDDEN)
    lost = mean(with_mr, SEEN) - mean(without, SEEN)
    print(f"glands that only the MR shows: {gain:+.3f} by the MR; other organs lose {lost:.3f} without it")
    return 1 if failed or gain <= 0 or lost > MOST_LOST else 0


def registered(work: Path) -> list[Recovered]:
    """Every phantom's error, from the table in WORK where it is there; the cache is made along the way."""
    cache, table = work / "cache", work / "registration.csv"
    cache.mkdir(parents=True, exist_ok=True)
    rows: list[Recovered] = []
    if table.exists():
        with table.open(newline="") as stream:
            for line in csv.DictReader(stream):
                values = {k: float(v) for k, v in line.items() if k != "seed"}
                rows.append(Recovered(int(line["seed"]), **values))
    for seed in list(SEEDS)[len(rows) :]:
        row, case = registered_case(seed, *scanned(seed))
        write_case(cache / f"{case.name}.npz", case)
        rows.append(row)
        with table.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if len(rows) == 1:
                writer.writerow(vars(row))
            writer.writerow(vars(row).values())
        print(
            f"phantom {seed}: {row.mm:.2f} mm, {row.degrees:.2f} degrees in {row.seconds:.0f} s", flush=True
        )
    organs = tuple(o for o in SOARS42 if o in (*HIDDEN, *SEEN))
    entries = [
        IndexEntry(f"phantom{s}", f"phantom{s}.npz", "test" if n < TEST else "train", organs)
        for n, s in enumerate(SEEDS)
    ]
    CacheIndex(SPACING_MM, "phantom", entries).save(cache)
    return rows


def scanned(seed: int) -> tuple[Phantom, SyntheticMr, float]:
    """A phantom whose glands its MR alone shows, the MR, and `Recovered.unmoved_dsc`; the MR's place, angle, field
    of view and voxels are the seed's, its middle lies between brainstem and submandibular glands."""
    rng = np.random.default_rng([seed, 2])
    before = make_phantom(seed, spacing_mm=CT_MM, field_of_view="head_neck")
    phantom = replace(before, ct=without_glands(before, seed))
    phantom = replace(phantom, structures=with_glands_moved(phantom, seed))
    shown = np.array([before.structures.centre_of_mass(o) for o in ("Brainstem", *HIDDEN[2:])], float)
    scan = make_mr(
        phantom,
        seed=seed,
        centre_mm=np.average(shown, axis=0, weights=(2, 1, 1)).tolist(),
        rotation_degrees=rng.uniform(-TURN_DEGREES, TURN_DEGREES, 3).tolist(),
        shift_mm=rng.uniform(-SHIFT_MM, SHIFT_MM, 3).tolist(),
        extent_mm=rng.uniform((180, 200, 140), (230, 250, 220)).tolist(),
        spacing_mm=(*[rng.uniform(0.8, 1.4)] * 2, rng.uniform(1.5, 4.0)),
    )
    kept = [dice(before.structures.crop(o), phantom.structures.crop(o)) for o in HIDDEN]
    return phantom, scan, float(np.mean(kept))


def registered_case(
    seed: int, phantom: Phantom, scan: SyntheticMr, unmoved_dsc: float
) -> tuple[Recovered, CachedCase]:
    body = find_body(phantom.ct)
    start = time.perf_counter()
    laid = lay_mr(MrScan(scan.image, Path(f"phantom{seed}")), phantom.ct, body)
    seconds = time.perf_counter() - start
    corners = np.array(scan.to_mr.GetCenter()) + 80 * (np.array(list(np.ndindex(2, 2, 2))) - 0.5)
    found = laid.found.transform
    off = [np.subtract(found.TransformPoint(p), scan.to_mr.TransformPoint(p)) for p in corners.tolist()]
    a, b = (np.array(sitk.Euler3DTransform(t).GetMatrix()).reshape(3, 3) for t in (found, scan.to_mr))
    row = Recovered(
        seed,
        round(float(np.linalg.norm(off, axis=1).max()), 3),
        round(angle(a.T @ b), 3),
        round(angle(b), 1),
        round(float(np.linalg.norm(scan.to_mr.GetTranslation())), 1),
        round(seconds, 1),
        round(unmoved_dsc, 3),
    )
    case = SourceCase(f"phantom{seed}", "train", phantom.ct, phantom.structures, frozenset((*HIDDEN, *SEEN)))
    grid = body.grid(SPACING_MM)
    cached = preprocess(case, grid, body, case.name)
    return row, replace(cached, mr=laid.channels(grid, body).astype(np.float16))


def angle(rotation: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def without_glands(phantom: Phantom, seed: int) -> sitk.Image:
    """The CT with fat, and its noise, in place of `HIDDEN`."""
    rng = np.random.default_rng([seed, 3])
    hu = sitk.GetArrayFromImage(phantom.ct)
    fat = scipy.ndimage.binary_erosion((hu > FAT_HU[0]) & (hu < FAT_HU[1]) & phantom.anatomy.full("Body"))
    glands = phantom.structures.union(HIDDEN)
    hu[glands.slices][glands.array] = rng.choice(hu[fat], glands.voxels)
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(phantom.ct)
    return image


def with_glands_moved(phantom: Phantom, seed: int) -> StructureSet:
    """The phantom's organs with each of `HIDDEN` moved to a place that the seed draws from all those in reach with room
    for it: in soft tissue and clear of every other organ. What has no room there is cut off."""
    rng = np.random.default_rng([seed, 4])
    hu = sitk.GetArrayFromImage(phantom.ct)
    moved = phantom.structures.subset([o for o in phantom.structures if o not in HIDDEN])
    room = phantom.anatomy.full("Body") & (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    taken = moved.union(moved.names)
    room[taken.slices] &= ~taken.array
    reach = (MOVED_MM / np.array(CT_MM[::-1])).astype(int)
    for organ in HIDDEN:
        gland = phantom.structures.crop(organ)
        places: list[Mask] = []
        for step in np.ndindex(*(2 * reach + 1)):
            box = Box.at([int(v) for v in np.add(gland.start, step) - reach], gland.shape)
            if Box.of(hu.shape).contains(box):
                left = gland.array & room[box.slices]
                if left.sum() >= LEAST_LEFT * gland.voxels:
                    places.append(Mask(box.start, left))
        chosen = places[int(rng.integers(len(places)))]
        room[chosen.slices] &= ~chosen.array
        moved.add_crop(organ, chosen.start, chosen.array)
    return moved


def drawn(work: Path, name: str, hidden: float, device: torch.device, workers: int | None) -> Predict:
    system = training_system("ct_mr")
    organs = tuple(o for o in SOARS42 if o in (*HIDDEN, *SEEN))
    options = replace(
        system.options("laptop", organs),
        steps=STEPS,
        patch=(40, 40, 40),
        features=(16, 32, 64, 64),
        strength=replace(Augmentation(), mirror=0.0),
        hidden=hidden,
        threads=1,
        workers=workers,
        device=str(device),
    )
    folder = work / name
    if not (folder / RUN_FILE).exists():
        system.fit(work / "cache", folder, options, resume=(folder / LAST).exists())
    run = SystemRun.load(folder)
    print(f"{name}: {run.cases} phantoms, {STEPS} steps, {run.seconds / 60:.1f} min", flush=True)
    return system.finished(folder, options, device)


def scores(work: Path, predict: Predict, mr: bool) -> dict[str, float]:
    """Organ -> mean DSC over the phantoms that no network has seen."""
    found: dict[str, list[float]] = {}
    for entry in CacheIndex.load(work / "cache").of_split("test"):
        case = read_case(work / "cache" / entry.file)
        case = case if mr else replace(case, mr=None)
        for row in score_case(case, predict(case), (*HIDDEN, *SEEN)):
            found.setdefault(row.organ, []).append(row.dsc)
    return {organ: float(np.mean(values)) for organ, values in found.items()}


def mean(values: dict[str, float], organs: Sequence[str]) -> float:
    return float(np.mean([values[o] for o in organs if o in values]))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for caches and runs")
    parser.add_argument("--only", choices=("registration", "both", "alone"))
    add_device_option(parser)
    parser.add_argument("--workers", type=int, help="processes that draw windows for a training")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

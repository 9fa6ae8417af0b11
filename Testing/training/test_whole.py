"""Training sees a whole patient as inference does: one rule for the windows, and for which are shown mirrored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from soars.cascade.branches import Scan, segment_whole
from soars.cascade.preprocess import find_body
from soars.phantom import make_phantom
from soars.structures import Geometry, StructureSet
from soars_training.cohorts.cache import read_case, write_case
from soars_training.cohorts.prepare import SourceCase, preprocess
from soars_training.fitting.fit import live_spec
from soars_training.fitting.options import FitOptions
from soars_training.windows.task import BranchTask
from soars_training.windows.whole import whole_patient


class AsymmetricEngine:
    """A network that gives its left half more, so that whether a window was shown mirrored is seen in what it found."""

    def run_fixed(self, window: np.ndarray, units: np.ndarray) -> np.ndarray:
        share = np.linspace(0.1, 0.9, window.shape[-1]) * (window[0, 0] > -0.9)
        return np.rint(np.stack([1 - share, 0.7 * share, 0.3 * share]) * units).astype(np.uint16)

    def run(self, window: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def test_a_patient_of_the_cache_is_seen_as_at_inference(tmp_path: Path) -> None:
    """The same windows about the same middle, those on the right mirrored, for a branch that learns from mirror images;
    also after the case was stored."""
    phantom = make_phantom(5, spacing_mm=(4.0, 4.0, 4.0), field_of_view="head")
    body, organs = find_body(phantom.ct), ("Eye_L", "Eye_R")
    task = BranchTask("anchor", organs, ("ct",))
    options = FitOptions(task, features=(4, 8), patch=(32, 32, 32))
    spec = live_spec(task, options, (3.0, 3.0, 3.0))
    case = SourceCase("p", "train", phantom.ct, StructureSet(Geometry.of(phantom.ct)), frozenset(organs))
    write_case(tmp_path / "p.npz", preprocess(case, body.grid(spec.spacing_mm), body, "p"))
    cached, engine = read_case(tmp_path / "p.npz"), AsymmetricEngine()
    found = whole_patient(engine, spec, task, cached).values.astype(int)
    scan = Scan(phantom.ct, body, (-500.0, 1000.0))
    usual = segment_whole(scan, spec, engine, None, lambda _done, _of: None).values.astype(int)
    assert spec.mirror and (abs(found - usual) > 60).mean() < 1e-3  # the cache holds whole HU
    plain = segment_whole(scan, replace(spec, mirror=False), engine, None, lambda _done, _of: None)
    assert (abs(plain.values.astype(int) - usual) > 60).mean() > 0.1
    assert cached.head_mm is not None
    x, y, z = cached.head_mm
    elsewhere = whole_patient(engine, spec, task, replace(cached, head_mm=(x + 12.0, y, z)))
    assert (abs(elsewhere.values.astype(int) - usual) > 60).mean() > 0.1


def test_a_branch_with_a_lone_half_of_a_pair_learns_from_no_mirror_image() -> None:
    lone = BranchTask("anchor", ("Eye_L", "Brainstem"), ("ct",))
    options = FitOptions(lone, features=(4, 8), patch=(32, 32, 32))
    assert options.strength.mirror > 0 and not live_spec(lone, options, (3.0, 3.0, 3.0)).mirror

"""Splits by patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soars.errors import InputError
from soars_training.cohorts.cache import IndexEntry


def hold_out(
    entries: Sequence[IndexEntry], patients: int, seed: int = 0
) -> tuple[list[IndexEntry], list[IndexEntry]]:
    """(the rest, the held-out), all cases of a patient on one side.

    Stratified by what is annotated: the patients are put in order of their organs, at random among equals, and every
    n-th one is taken. Raises `InputError` when fewer than one patient would be left to learn from.
    """
    organs: dict[str, set[str]] = {}
    for entry in entries:
        organs.setdefault(entry.patient, set()).update(entry.annotated)
    if patients >= len(organs):
        raise InputError(f"cannot hold out {patients} of {len(organs)} patients; leave some to learn from")
    shuffled = np.random.default_rng(seed).permutation(sorted(organs)).tolist()
    ordered = sorted(shuffled, key=lambda p: (len(organs[p]), sorted(organs[p])))
    places = (np.arange(patients) + 0.5) * len(ordered) / max(1, patients)
    held = {ordered[int(i)] for i in places}
    return [e for e in entries if e.patient not in held], [e for e in entries if e.patient in held]

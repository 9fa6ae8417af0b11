"""Splits by patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soars.errors import InputError
from soars_training.cohorts.cache import IndexEntry

Parts = tuple[list[IndexEntry], list[IndexEntry]]


def split(entries: Sequence[IndexEntry], held_out: int, fold: tuple[int, int] | None) -> Parts:
    """Cases to learn from and cases held out: one fold if `fold` is given, else `held_out` patients."""
    return one_fold(entries, *fold) if fold else hold_out(entries, held_out)


def hold_out(entries: Sequence[IndexEntry], patients: int, seed: int = 0) -> Parts:
    """(the rest, the held-out), all cases of a patient on one side.

    Stratified by what is annotated: the patients are put in order of their organs, at random among equals, and every
    n-th one is taken. Raises `InputError` when fewer than one patient would be left to learn from.
    """
    ordered = _in_order(entries, seed)
    if patients >= len(ordered):
        raise InputError(f"cannot hold out {patients} of {len(ordered)} patients; leave some to learn from")
    places = (np.arange(patients) + 0.5) * len(ordered) / max(1, patients)
    return _parted(entries, {ordered[int(i)] for i in places})


def one_fold(entries: Sequence[IndexEntry], fold: int, folds: int, seed: int = 0) -> Parts:
    """(the other folds, the fold-th of so many folds, counted from 1), stratified as in `hold_out`."""
    ordered = _in_order(entries, seed)
    if not 2 <= folds <= len(ordered) or not 1 <= fold <= folds:
        raise InputError(
            f"fold {fold} of {folds}: there are {len(ordered)} patients; take 2 to as many folds"
        )
    return _parted(entries, set(ordered[fold - 1 :: folds]))


def _in_order(entries: Sequence[IndexEntry], seed: int) -> list[str]:
    """The patients ordered by what is annotated in them, at random among equals."""
    organs: dict[str, set[str]] = {}
    for entry in entries:
        organs.setdefault(entry.patient, set()).update(entry.annotated)
    shuffled = np.random.default_rng(seed).permutation(sorted(organs)).tolist()
    return sorted(shuffled, key=lambda p: (len(organs[p]), sorted(organs[p])))


def _parted(entries: Sequence[IndexEntry], held: set[str]) -> Parts:
    return [e for e in entries if e.patient not in held], [e for e in entries if e.patient in held]

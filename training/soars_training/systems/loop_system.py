"""Systems that the training loop trains step by step: what they share, and the few things that each must say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from soars.bundle.integrity import read_checked
from soars.bundle.manifest import Bundle
from soars.errors import InputError
from soars.structures.box import Box
from soars.systems.trained import Found
from soars_training.cohorts.cache import CachedCase, IndexEntry, read_case
from soars_training.fitting import processes
from soars_training.fitting.begin import begin
from soars_training.fitting.loop import deterministic, train, training_precision
from soars_training.fitting.models import Model
from soars_training.fitting.options import averaged_weights
from soars_training.fitting.state import TrainingState
from soars_training.fitting.validate import CaseScore
from soars_training.systems.interface import Compared, Predict, SystemOptions, SystemRun
from soars_training.windows.task import TrainingData, require_taught

Options = TypeVar("Options", bound=SystemOptions)
NET = "net"
"""The model's attribute that holds the network; the rest of a model stays behind when it is exported."""


class LoopSystem(ABC, Generic[Options]):
    """A `TrainingSystem` whose network the loop of `soars_training.fitting` trains.

    Cache, split, seeds, checkpoints, resuming, averaged weights, signals and the validation on whole patients are those
    of the cascade's branches. A subclass says what a sample is, what the network and its loss are, how a whole patient
    is drawn, and what its bundle holds.
    """

    name: str
    presets: tuple[str, ...]
    few_shapes = True
    """Whether the network sees the same shapes again and again: cuDNN measures each once then."""

    @abstractmethod
    def options(self, preset: str, organs: tuple[str, ...]) -> Options:
        """See `TrainingSystem.options`."""

    @abstractmethod
    def data(
        self, options: Options, cases: Sequence[CachedCase], spacing_mm: Sequence[float]
    ) -> TrainingData:
        """The training samples of these cases; spacing is (x, y, z)."""

    @abstractmethod
    def model(self, options: Options) -> Model:
        """The network, as the model's `net`, with its loss, at random weights."""

    @abstractmethod
    def untrained(self, settings: Mapping[str, Any]) -> nn.Module:
        """The network that a manifest's settings describe, at any weights."""

    @abstractmethod
    def example_shape(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """Of an input that the network of a manifest's settings takes: [1, C, z, y, x]."""

    def answers(self, network: nn.Module, window: Tensor) -> Sequence[Tensor]:
        """What a network makes of an input: all that its weights have a part in."""
        return (network(window),)

    @abstractmethod
    def find(self, network: nn.Module, options: Options, case: CachedCase) -> Found:
        """What inference finds in a whole patient."""

    @abstractmethod
    def summary(self, options: Options) -> str:
        """One sentence on the network, for the model card."""

    def network(self, model: Model) -> nn.Module:
        """The part of the model that a bundle holds."""
        return model.get_submodule(NET)

    def own_settings(self, options: Options) -> dict[str, Any]:
        """Of the manifest, beside those that all of these systems have."""
        return {}

    def settings(self, options: Options, spacing_mm: Sequence[float]) -> dict[str, Any]:
        """The manifest's settings."""
        return {
            "window_hu": list(options.window_hu),
            "spacing_mm": list(spacing_mm),
            "weights": self.weights,
            "network": options.architecture().to_dict(),
        } | self.own_settings(options)

    @property
    def weights(self) -> str:
        """The file of the weights in a bundle."""
        return f"{self.name}.safetensors"

    def write_member(self, folder: Path, path: Path) -> None:
        """See `TrainingSystem.write_member`."""
        save_weights(folder, f"{NET}.", path)

    def write_weights(self, run: SystemRun, folder: Path, bundle: Path) -> None:
        """See `TrainingSystem.write_weights`."""
        self.write_member(folder, bundle / self.weights)

    def compared(self, run: SystemRun, folder: Path, bundle: Bundle, weights: str) -> Iterator[Compared]:
        """See `TrainingSystem.compared`."""
        window = noise(self.example_shape(run.settings))
        kept = {name: one.float() for name, one in load(read_checked(bundle, weights)).items()}
        found, wanted = (
            self._answers_of(run, each, window) for each in (kept, averaged_weights(folder, f"{NET}."))
        )
        for one, other in zip(found, wanted, strict=True):
            yield "torch", one, other

    def _answers_of(self, run: SystemRun, weights: Mapping[str, Tensor], window: Tensor) -> list[np.ndarray]:
        network = self.untrained(run.settings).eval()
        network.load_state_dict(weights)
        with torch.inference_mode():
            return [answer.numpy() for answer in self.answers(network, window)]

    def predict(
        self, model: Model, options: Options, device: torch.device, precision: torch.dtype
    ) -> Predict:
        """The model as a function that draws the organs of a whole patient, as inference does."""
        network = self.network(model)

        def predict(case: CachedCase) -> dict[str, np.ndarray]:
            with torch.no_grad(), torch.autocast(device.type, precision, precision != torch.float32):
                found = self.find(network, options, case)
            return whole_masks(found, case.ct_hu.shape)

        return predict

    def finished(self, folder: Path, options: Options, device: torch.device) -> Predict:
        """See `TrainingSystem.finished`."""
        model = self.model(options)
        model.load_state_dict(averaged_weights(folder, ""))
        model.eval().to(device)
        return self.predict(model, options, device, training_precision(device))

    def fit(
        self, cache: Path, output: Path, options: Options, *, resume: bool = False, overwrite: bool = False
    ) -> SystemRun:
        """See `TrainingSystem.fit`."""
        start = begin(cache, output, options, resume=resume, overwrite=overwrite, few_shapes=self.few_shapes)
        device, index, held = start.device, start.index, start.held
        check_taught(start.learn, options.organs)
        data = self.data(options, _cases(cache, start.learn, options.organs), index.spacing_mm)
        held_cases = _cases(cache, held, options.organs) if held else []
        model = self.model(options).to(device)
        state = TrainingState.new(options, model, sides=start.sides, spacing_mm=index.spacing_mm)
        if resume:
            state.resume(output)
        precision = training_precision(device)

        def validate() -> list[CaseScore]:
            predict = self.predict(state.averaged, options, device, precision)
            return [score for case in held_cases for score in score_case(case, predict(case), options.organs)]

        with deterministic(options.deterministic):
            train(state, data, output, device, validate)
        run = SystemRun(
            system=self.name,
            organs=options.organs,
            source=index.source,
            spacing_mm=index.spacing_mm,
            cases=len(data.cases),
            held_out=tuple(sorted({e.patient for e in held})),
            validation={organ: dsc for step, organ, dsc in state.scores if step == state.step},
            settings=self.settings(options, index.spacing_mm),
            summary=self.summary(options),
            options=options.to_dict(),
            seconds=round(state.seconds, 1),
            parameters=sum(p.numel() for p in self.network(state.model).parameters()),
        )
        if processes.is_first():
            run.save(output)
        return run


def score_case(case: CachedCase, found: Mapping[str, np.ndarray], organs: Sequence[str]) -> list[CaseScore]:
    """The DSC of every organ that the case has, 0 for one that was not found.

    Of an organ that was drawn on some slices only, these slices alone count (the estimate of Nikolov et al. 2021 for
    sparse reference contours).
    """
    scores = []
    for organ in organs:
        labelled = case.labelled(organ)
        truth = case.full_mask(organ)[labelled]
        if truth.any():
            mine = found[organ][labelled] if organ in found else np.zeros_like(truth)
            both, total = int((mine & truth).sum()), int(mine.sum()) + int(truth.sum())
            scores.append(CaseScore(case.name, organ, 2 * both / total))
    return scores


def noise(shape: Sequence[int]) -> Tensor:
    """An input of that shape: values from -1 to 1, always the same."""
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))


def unwatched(_done: int, _of: int) -> None:
    """For inference whose progress nobody watches."""


def save_weights(folder: Path, prefix: str, path: Path) -> None:
    """A run's averaged weights in half precision as a safetensors file."""
    weights = averaged_weights(folder, prefix)
    halves = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in weights.items()}
    save_file(halves, path)


def whole_masks(found: Found, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Where the probabilities pass one half, as masks of the whole grid [z, y, x]."""
    masks = {}
    for organ, (start, values) in found.items():
        mask, box = np.zeros(tuple(shape), bool), Box.at(start, values.shape)
        common = box & Box.of(shape)
        if not common.is_empty:
            mask[common.slices] = values[common.slices_in(box)] > 0.5
        masks[organ] = mask
    return masks


def check_taught(entries: Sequence[IndexEntry], organs: Sequence[str]) -> None:
    """Raises as `require_taught` does, for organs that nobody drew, beside others that somebody did."""
    taught = {organ for entry in entries for organ in (*entry.annotated, *entry.sparse)}
    missing = [organ for organ in organs if organ not in taught]
    if len(missing) < len(organs):
        require_taught(missing, len(entries))


def _cases(cache: Path, entries: Sequence[IndexEntry], organs: Sequence[str]) -> list[CachedCase]:
    """The whole scans that annotate any of the organs, at least on some slices; raises `InputError` when none does."""
    usable = [e for e in entries if e.group is None and set(organs) & {*e.annotated, *e.sparse}]
    if not usable:
        raise InputError(f"{cache}: none of {len(entries)} cases annotates any of {', '.join(organs)}")
    return [read_case(cache / e.file) for e in usable]

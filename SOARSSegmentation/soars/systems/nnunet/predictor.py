"""nnU-Net's predictor, extended to report each run of its network and to stop on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from soars.errors import CancelledError
from soars.progress import Progress, Reporter

if TYPE_CHECKING:
    import torch


class Steps:
    """Counts the runs of networks: reports progress under a stage's name and honours a cancel."""

    def __init__(self, stage: str, message: str, progress: Reporter, cancelled: Callable[[], bool]) -> None:
        self.stage = stage
        self.message = message
        self.progress = progress
        self.cancelled = cancelled
        self._done, self._of = 0, 0

    def expect(self, runs: int) -> None:
        """Start another volume, for which the network will run ``runs`` times."""
        self._done, self._of = 0, runs

    def step(self) -> None:
        """Before a run of the network; raises `CancelledError` when the user has cancelled."""
        self.check()
        self.progress(Progress(self.stage, min(self._done, self._of), self._of, self.message))
        self._done += 1

    def check(self) -> None:
        """Before a layer of the network; raises `CancelledError` when the user has cancelled."""
        if self.cancelled():
            raise CancelledError("cancelled; nothing was written")


def predictor_class(steps: Steps) -> Any:
    """nnU-Net's predictor as a class that calls ``steps``; needs nnunetv2."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    class Predictor(nnUNetPredictor):
        def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
            patch = self.configuration_manager.patch_size
            shape = tuple(max(n, p) for n, p in zip(input_image.shape[1:], patch, strict=True))
            mirrored = 2 ** len(self.allowed_mirroring_axes or ()) if self.use_mirroring else 1
            steps.expect(len(self._internal_get_sliding_window_slicers(shape)) * mirrored)
            hooks = [self.network.register_forward_pre_hook(lambda *_: steps.step())]
            for layer in self.network.modules():
                if not any(layer.children()):
                    hooks.append(layer.register_forward_pre_hook(lambda *_: steps.check()))
            try:
                logits: torch.Tensor = super().predict_sliding_window_return_logits(input_image)
            finally:
                for hook in hooks:
                    hook.remove()
            return logits

    return Predictor

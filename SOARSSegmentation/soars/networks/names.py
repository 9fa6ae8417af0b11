"""The closed sets of names that bundles, engines, the command lines and training share, each defined here alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar, get_args

Branch = Literal["anchor", "mid_level", "detection", "small_hard"]
"""The networks of the cascade, in their order."""
Input = Literal["ct", "anchor", "heatmap"]
"""What input channels hold: the CT (a channel per window), the anchors' probabilities, the VOI's own heat map."""
Activation = Literal["softmax", "sigmoid", "heatmap"]
"""From logits to values in 0 to 1; with softmax, channel 0 is background."""
WeightKind = Literal["safetensors", "onnx"]
EngineName = Literal["torch", "onnxruntime"]
EngineChoice = Literal["auto", "torch", "onnxruntime"]
Precision = Literal["fp32", "bf16", "fp16"]

BRANCHES: tuple[Branch, ...] = get_args(Branch)
INPUTS: tuple[Input, ...] = get_args(Input)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
WEIGHT_KINDS: tuple[WeightKind, ...] = get_args(WeightKind)
ENGINE_CHOICES: tuple[EngineChoice, ...] = get_args(EngineChoice)

NetworkKind = Literal["unet", "phnn"]
"""A U-Net with skips, or the progressive holistically nested network (SOARS, CVPR 2020), whose blocks' side outputs are
added up."""
LayerOrder = Literal["conv-norm-act", "norm-act-conv"]
"""What surrounds a convolution: instance norm and LeakyReLU after it (nnU-Net), or batch norm and ReLU before it
(SOARS, CVPR 2020, equation 6)."""
NETWORK_KINDS: tuple[NetworkKind, ...] = get_args(NetworkKind)
LAYER_ORDERS: tuple[LayerOrder, ...] = get_args(LayerOrder)

Name = TypeVar("Name", bound=str)


def channels(inputs: Iterable[Input], *, windows: int, anchors: int) -> int:
    """Input channels of a network that sees the CT through so many windows, and so many anchors."""
    width: dict[Input, int] = {"ct": windows, "anchor": anchors, "heatmap": 1}
    return sum(width[name] for name in inputs)


def one_of(text: object, names: Sequence[Name]) -> Name | None:
    """The name that a text is; None when it is none of them."""
    return next((name for name in names if name == text), None)

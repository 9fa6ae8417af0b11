"""The plans of an nnU-Net, checked before nnU-Net's own code acts on them.

nnU-Net imports what plans.json names and calls it with the arguments that stand beside it: a file of text could run any
program. So only names of nnU-Net's own kinds pass here: networks of its library of architectures, layers of torch, and
its preprocessors, normalisations, functions for resampling and label managers. Sizes are bounded as a manifest's are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from soars.bundle.fields import brief
from soars.bundle.manifest import LARGEST_PATCH, SPACING_MM
from soars.errors import BundleError
from soars.networks.architecture import MOST_CHANNELS, MOST_LEVELS

_LIBRARY = "dynamic_network_architectures"
_NETWORK = re.compile(rf"{_LIBRARY}\.architectures\.\w+\.[A-Z]\w*")
_LAYER = re.compile(
    rf"torch\.nn\.(modules\.[a-z]\w*\.)?[A-Z]\w*|{_LIBRARY}\.building_blocks\.[a-z]\w*\.[A-Z]\w*"
)
_NAMES = {
    "preprocessor_name": re.compile(r"\w*Preprocessor\w*"),
    "normalization_schemes": re.compile(r"\w*Normali[sz]ation\w*"),
    "resampling_fn_data": re.compile(r"(resample|no_resampling)_\w+"),
    "resampling_fn_seg": re.compile(r"(resample|no_resampling)_\w+"),
    "resampling_fn_probabilities": re.compile(r"(resample|no_resampling)_\w+"),
    "label_manager": re.compile(r"\w*LabelManager\w*"),
    "UNet_class_name": re.compile(r"[A-Z]\w*"),
}
_TRAINER = re.compile(r"\w*[Tt]rainer\w*")
_LARGEST_KERNEL = 31


def check_trainer(name: object, where: str) -> None:
    """Raise `BundleError` unless this can be the name of a class that trains an nnU-Net."""
    if not isinstance(name, str) or not _TRAINER.fullmatch(name):
        raise BundleError(f"{where}: {brief(name)} is no trainer of nnU-Net")


def check_plans(plans: Any, where: str) -> None:
    """Raise `BundleError`, naming the field, for plans that nnU-Net must not be given."""
    configurations = plans.get("configurations") if isinstance(plans, Mapping) else None
    if not isinstance(configurations, Mapping):
        raise BundleError(f"{where}: not the plans of an nnU-Net v2 (no configurations)")
    _check_names(plans, where)
    for name, configuration in configurations.items():
        here = f"{where}: {brief(name)}"
        if not isinstance(configuration, Mapping):
            raise BundleError(f"{here}: is not a configuration")
        _check_names(configuration, here)
        _check_numbers(configuration, "patch_size", 1, LARGEST_PATCH, here)
        _check_numbers(configuration, "spacing", *SPACING_MM, here)
        if "architecture" in configuration:
            _check_architecture(configuration["architecture"], here)
        for key in ("UNet_base_num_features", "unet_max_num_features"):
            _check_numbers(configuration, key, 1, MOST_CHANNELS, here)


def _check_names(fields: Mapping[str, Any], where: str) -> None:
    for key in _NAMES.keys() & fields.keys():
        found = fields[key]
        for name in found if isinstance(found, list) else [found]:
            if not isinstance(name, str) or not _NAMES[key].fullmatch(name):
                raise BundleError(f"{where}: {key} {brief(name)} is nothing that nnU-Net has")


def _check_architecture(architecture: Any, where: str) -> None:
    fields = architecture if isinstance(architecture, Mapping) else {}
    network, arguments = fields.get("network_class_name"), fields.get("arch_kwargs")
    imports = fields.get("_kw_requires_import")
    if not isinstance(network, str) or not isinstance(arguments, Mapping) or not isinstance(imports, list):
        raise BundleError(f"{where}: the architecture is incomplete")
    if not _NETWORK.fullmatch(network):
        raise BundleError(f"{where}: {brief(network)} is no network of nnU-Net's library; it is not built")
    for key in imports:
        layer = arguments.get(key) if isinstance(key, str) else key
        if layer is not None and not (isinstance(layer, str) and _LAYER.fullmatch(layer)):
            raise BundleError(f"{where}: {brief(key)} {brief(layer)} is no layer of torch; it is not built")
    _check_numbers(arguments, "n_stages", 1, MOST_LEVELS, where)
    _check_numbers(arguments, "features_per_stage", 1, MOST_CHANNELS, where)
    _check_numbers(arguments, "kernel_sizes", 1, _LARGEST_KERNEL, where)


def _check_numbers(fields: Mapping[str, Any], key: str, least: float, most: float, where: str) -> None:
    """A number, or a list of numbers or of such lists, each within the limits; if it is there at all."""
    for value in _leaves(fields[key]) if key in fields else ():
        if type(value) not in (int, float) or not least <= value <= most:
            raise BundleError(f"{where}: {key} must be from {least:g} to {most:g}, got {brief(fields[key])}")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value

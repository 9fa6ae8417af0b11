"""Running an nnU-Net bundle through nnU-Net's own predictor: what its ``nnUNetv2_predict`` does, on one CT."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from soars.bundle.fields import get_numbers, within
from soars.bundle.integrity import read_checked
from soars.bundle.manifest import SPACING_MM, Bundle
from soars.cascade.engine import EngineInfo
from soars.cascade.preprocess import Body, Grid, find_body, patient_hu, whole_hu
from soars.ct.images import CtScan
from soars.errors import BundleError, EngineError
from soars.progress import Progress, Reporter
from soars.structures import Geometry, StructureSet
from soars.systems.bundled import BundledSystem
from soars.systems.devices import running_on, torch_device
from soars.systems.finish import finish, finish_structures, place_part
from soars.systems.interface import Drawn, SegmentOptions
from soars.systems.labels import Labelled, LabelRule, parse_rules, structures_from_labels
from soars.systems.nnunet.checkpoint import with_shared_names
from soars.systems.nnunet.model_folder import DATASET, PLANS
from soars.systems.nnunet.plans import check_plans, check_trainer
from soars.systems.nnunet.predictor import Steps, predictor_class
from soars.systems.packages import requirements
from soars.texts import parse_json

if TYPE_CHECKING:
    import torch

EXTRA = "nnunet"
REQUIREMENTS = requirements("nnunetv2")
"""The packages of the extra; a test compares them with pyproject.toml."""
NAME = "nnunet"


@dataclass(frozen=True)
class Settings:
    """The manifest's settings of an nnU-Net bundle; see `soars.systems.nnunet.importing`.

    ``folds``: fold -> its file; ``orientation``: of the array that the model expects, "LPS" or "RAS";
    ``spacing_mm``: of the working grid that it learned from, (x, y, z), None for a model that sees a CT as it is.
    """

    trainer: str
    configuration: str
    mirroring_axes: tuple[int, ...]
    folds: Mapping[str, str]
    rules: tuple[LabelRule, ...]
    orientation: str
    spacing_mm: tuple[float, float, float] | None = None


def parse_settings(bundle: Bundle) -> Settings:
    """Check the settings of an nnU-Net bundle; raises `BundleError` naming what is wrong."""
    where = f"bundle {bundle.name}: settings"
    keys = {"trainer", "configuration", "mirroring_axes", "folds", "labels", "orientation"}
    given = bundle.settings
    if set(given) - {"spacing_mm"} != keys:
        odd = sorted((keys ^ set(given)) - {"spacing_mm"})
        raise BundleError(f"{where}: missing or unknown: {', '.join(odd)}")
    folds, axes = given["folds"], given["mirroring_axes"]
    if not isinstance(folds, dict) or not folds or not all(isinstance(f, str) for f in folds.values()):
        raise BundleError(f"{where}.folds: expected at least one fold with its file")
    absent = [name for name in (PLANS, DATASET, *folds.values()) if name not in bundle.files]
    if absent:
        raise BundleError(f"{where}: {absent[0]!r} is not listed in files")
    if not isinstance(axes, list) or any(axis not in (0, 1, 2) for axis in axes):
        raise BundleError(f"{where}.mirroring_axes: expected axes 0, 1, 2")
    if given["orientation"] not in ("LPS", "RAS"):
        raise BundleError(f"{where}.orientation: expected LPS or RAS")
    check_trainer(given["trainer"], f"{where}.trainer")
    rules = parse_rules(given["labels"], f"{where}.labels")
    named = {organ for rule in rules for organ in rule.organs}
    if named != set(bundle.organs):
        differing = ", ".join(sorted(named ^ set(bundle.organs)))
        raise BundleError(f"{where}.labels: do not agree with the manifest's organs about {differing}")
    return Settings(
        str(given["trainer"]),
        str(given["configuration"]),
        tuple(axes),
        dict(folds),
        rules,
        str(given["orientation"]),
        _spacing(given, where) if "spacing_mm" in given else None,
    )


def _spacing(given: Mapping[str, Any], where: str) -> tuple[float, float, float]:
    x, y, z = within(get_numbers(given, "spacing_mm", 3, where), SPACING_MM, f"{where}.spacing_mm")
    return x, y, z


class NnUnetSystem(BundledSystem):
    """An nnU-Net bundle, ready to run; see `soars.systems.interface.System`."""

    name = NAME
    title = "nnU-Net"
    extra = EXTRA
    packages = REQUIREMENTS
    definition = "as in the data set that the model was trained on"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.settings = parse_settings(bundle)
        _read_plans(bundle)

    def draw(self, ct: CtScan, organs: tuple[str, ...], options: SegmentOptions, progress: Reporter) -> Drawn:
        problem = self.problem(organs)
        if problem is not None:
            raise EngineError(problem)
        start = time.perf_counter()
        progress(Progress("load", message=f"loading {len(self.settings.folds)} nnU-Net networks"))
        device = torch_device(options.device, options.engine)
        steps = Steps(NAME, "nnU-Net", progress, options.cancel or (lambda: False))
        (source,) = self.sources
        sources = {organ: source for organ in organs}
        engine = EngineInfo("torch", device.type, "fp32", "nnU-Net's own predictor")
        if self.settings.spacing_mm is None:
            labels = predict_labels(self.bundle, self.settings, ct.image, device, options, steps)
            timings = {NAME: time.perf_counter() - start}
            return finish(
                ct, [(labels, self.settings.rules)], organs,
                sources=sources, engine=engine, timings_s=timings, progress=progress,
            )  # fmt: skip
        body = find_body(ct.image)
        grid = body.grid(self.settings.spacing_mm)
        seen = grid.image(whole_hu(patient_hu(ct.image, body, grid)))
        labels = predict_labels(self.bundle, self.settings, seen, device, options, steps)
        structures = placed_labels((labels, self.settings.rules), grid, Geometry.of(ct.image), body)
        timings = {NAME: time.perf_counter() - start}
        return finish_structures(
            structures, body, organs, sources=sources, engine=engine, timings_s=timings, progress=progress
        )


def placed_labels(labelled: Labelled, grid: Grid, geometry: Geometry, body: Body) -> StructureSet:
    """The organs of a label map on a working grid as masks on the CT."""
    found = structures_from_labels([labelled], Geometry.of(grid.image(labelled[0])), body)
    structures = StructureSet(geometry)
    for organ in found.names:
        mask = found.crop(organ)
        z, y, x = mask.start
        placed = place_part((z, y, x), mask.array, grid, geometry)
        if placed is not None:
            structures.add_crop(organ, *placed)
    return structures


def predict_labels(
    bundle: Bundle,
    settings: Settings,
    image: sitk.Image,
    device: torch.device,
    options: SegmentOptions,
    steps: Steps,
) -> npt.NDArray[np.integer[Any]]:
    """The model's label map [z, y, x] on the CT's own grid: what ``nnUNetv2_predict`` writes for the CT as a file.

    The CT is turned to the orientation that the model expects, and the labels back; nothing is resampled.
    """
    predictor = _predictor(bundle, settings, device, options, steps)
    turned = sitk.DICOMOrient(image, settings.orientation)
    array = sitk.GetArrayFromImage(turned).astype(np.float32)[None]
    properties = {
        "spacing": [float(s) for s in turned.GetSpacing()[::-1]],
        "sitk_stuff": {
            "spacing": turned.GetSpacing(),
            "origin": turned.GetOrigin(),
            "direction": turned.GetDirection(),
        },
    }
    with running_on(device.type, "nnU-Net"):
        found = predictor.predict_single_npy_array(array, properties)
    labels = sitk.GetImageFromArray(np.asarray(found))
    labels.CopyInformation(turned)
    own = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    # Turning back is exact except for the rounding of origins, which does not matter: only the array is used.
    return sitk.GetArrayFromImage(sitk.DICOMOrient(labels, own))


def _read_plans(bundle: Bundle) -> Any:
    plans = _read_json(bundle, PLANS)
    check_plans(plans, f"bundle {bundle.name}: {PLANS}")
    return plans


def _read_json(bundle: Bundle, name: str) -> Any:
    try:
        return parse_json(read_checked(bundle, name))
    except ValueError as error:
        raise BundleError(f"bundle {bundle.name}: {name} is not valid JSON ({error})") from error


def _predictor(
    bundle: Bundle, settings: Settings, device: torch.device, options: SegmentOptions, steps: Steps
) -> Any:
    """nnU-Net's predictor with the bundle's weights; as ``nnUNetv2_predict`` sets it up, unless ``fast``."""
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from safetensors.torch import load

    if options.threads:
        torch.set_num_threads(options.threads)
    plans = PlansManager(_read_plans(bundle))
    dataset = _read_json(bundle, DATASET)
    network = _network(plans, dataset, settings, bundle.name)
    parameters = [
        with_shared_names(load(read_checked(bundle, file)), network, f"bundle {bundle.name}, {file}")
        for file in settings.folds.values()
    ]
    network.load_state_dict(parameters[0])
    predictor = predictor_class(steps)(
        use_mirroring=not options.fast,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    axes = settings.mirroring_axes or None
    predictor.manual_initialization(
        network,
        plans,
        plans.get_configuration(settings.configuration),
        parameters,
        dataset,
        settings.trainer,
        axes,
    )
    return predictor


def _network(plans: Any, dataset: dict[str, Any], settings: Settings, name: str) -> torch.nn.Module:
    """The network of the plans, built by the trainer's own method, as nnU-Net's predictor does."""
    from nnunetv2.inference.predict_from_raw_data import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    configuration = plans.get_configuration(settings.configuration)
    try:
        trainer = recursive_find_trainer_class_by_name(settings.trainer)
    except RuntimeError as error:
        raise EngineError(
            f"bundle {name} was trained by {settings.trainer}, which the installed nnunetv2 does not have; "
            "install its publisher's version"
        ) from error
    inputs = determine_num_input_channels(plans, configuration, dataset)
    outputs = plans.get_label_manager(dataset).num_segmentation_heads
    try:
        network: torch.nn.Module = trainer.build_network_architecture(
            plans, configuration, inputs, outputs, enable_deep_supervision=False
        )
    except (AttributeError, ImportError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"bundle {name}: nnU-Net cannot build the network of its plans ({type(error).__name__}: {error})"
        ) from error
    return network

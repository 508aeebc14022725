"""The study's steps, one call each: what the notebooks do, and where each result is kept."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from fwstudy.crops.cropset import ARRAYS, CropSet, to_tensor
from fwstudy.params import Params, Train, Whitening
from fwstudy.runtime import (
    default_device,
    measured_cost,
    partial_folder,
    project_root,
    seed_everything,
)
from fwstudy.training.batches import PairedBatches
from fwstudy.training.launch import launched
from fwstudy.training.trainer import fit, load_backbone, load_weights, predict, save_weights
from fwstudy.training.variants import NORMS, layer_name, make_variant, norm_factory, set_activation
from fwstudy.whitening.statistics import whiteness_by_mode
from fwstudy.whitening.surgery import create_model, find_classifier, replace_norm
from fwstudy.whitening.sync import all_gather_list, rank, wait_for_all

ROOMS = ("crops", "labels.py", "runtime.py", "training", "whitening")  # as in dvc.yaml
LOGGED_IMAGES = 128  # validation faces on which the whiteness is taken while training goes on
FINE_TUNE = 1000  # added to the seed of the batches on which variants are fine-tuned
PREDICTION_COLUMNS = [
    "row",
    "split",
    "group",
    "identity",
    "clip",
    "frame",
    "variant",
    "quality",
    "label",
]


@dataclass(frozen=True)
class Detector:
    """A trained model, the norm layer the study looks at, and how it came about.

    Args:
        model: gives one logit an image; in eval mode.
        layer_name: dotted name of the layer.
        history: see `fwstudy.training.trainer.fit`.
        cost: of training, see `fwstudy.runtime.measured_cost`; empty for a model that was loaded.
    """

    model: nn.Module
    layer_name: str
    history: pd.DataFrame
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def layer(self) -> nn.Module:
        """The norm layer the study looks at."""
        return self.model.get_submodule(self.layer_name)


BASELINE = "baseline"
HUB = "hub"  # of train.backbone.weights: timm's own, by network


def weights_path(name: str, seed: int, folder: str = "models") -> Path:
    """Where the weights of the baseline or of a variant lie, by training seed; folder: in ``data``."""
    return project_root() / "data" / folder / f"seed{seed}" / f"{name}.safetensors"


def predictions_path(name: str, seed: int, folder: str = "predictions") -> Path:
    """Where the test predictions of the baseline or of a variant lie, by training seed."""
    path = project_root() / "data" / folder / f"seed{seed}" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def new_model(train: Train) -> nn.Module:
    """The backbone of the study: untrained, or with the weights of ``backbone.weights``.

    Raises:
        OSError, ValueError: the weights cannot be fetched or read; the message says what to do.
    """
    backbone = train.backbone
    if backbone.weights == HUB:
        model = placed(from_hub(backbone.name, backbone.options))
    else:
        model = empty_model(train)
        if backbone.weights:
            load_backbone(model, project_root() / Path(backbone.weights).expanduser())
    torch.nn.init.zeros_(
        find_classifier(model).weight
    )  # start undecided: learns several times faster
    return model


def empty_model(train: Train) -> nn.Module:
    """The backbone of the study, into which weights are still to be read."""
    backbone = train.backbone
    return placed(create_model(backbone.name, num_classes=1, **backbone.options))


def placed(model: nn.Module) -> nn.Module:
    """The model on the device and in the memory format of the study."""
    return model.to(default_device(), memory_format=torch.channels_last)


def from_hub(name: str, options: dict) -> nn.Module:
    """A timm model with the weights timm has for it, e.g. from ImageNet.

    Raises:
        OSError: there are none, or no network; the message says both ways to get them.
    """
    try:
        return create_model(name, num_classes=1, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise OSError(
            f"train.backbone.weights: {HUB}: timm's weights of {name} cannot be fetched ({error}). "
            "With a network, run `make repro HF_HUB_OFFLINE=0`; without one, copy a .safetensors file of "
            "this backbone from a machine that has one and set train.backbone.weights to its path"
        ) from error


def manifest_path() -> Path:
    """Where the table of the crop set lies."""
    return project_root() / "data" / "crops" / "manifest.csv"


def array_stamps() -> list:
    """Name, size and time of change of the crop set's arrays, which are too large to hash."""
    folder = manifest_path().parent
    files = [path for name in ARRAYS for path in sorted(folder.glob(f"{name}.*"))]
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def settings_of(params: Params, seed: int, schedule: str) -> dict:
    """What a run of the optimiser depends on, as JSON values."""
    train = params.train.model_dump()
    keys = ("batch_size", "partial_forgery_ratio", "backbone", "baseline", schedule)
    return {"seed": seed, "arrays": array_stamps(), **{key: train[key] for key in keys}}


def without(crops: CropSet, family: str) -> CropSet:
    """The crops with one forgery family left out of training and validation, for a test of its own.

    Raises:
        ValueError: no crop of that family.
    """
    forged = crops.manifest["variant"] == family
    if not forged.any():
        known = ", ".join(sorted(crops.select(kind="whole", label=1).manifest["variant"].unique()))
        raise ValueError(f"no crop was forged by {family!r}; there are: {known}")
    kept = ~forged | (crops.manifest["split"] == "test")
    return replace(crops, manifest=crops.manifest[kept])


def train_baseline(params: Params, seed: int, crops: CropSet, folder: str = "models") -> Detector:
    """Train the BatchNorm baseline and keep its weights in a folder of ``data``.

    In as many processes as ``train.launch`` says.
    """
    arguments = params, seed, crops, folder
    history, cost = launched(_fit_baseline, params.train.launch, *arguments)
    return replace(load_baseline(params, seed, folder), history=history, cost=cost)


def _fit_baseline(
    params: Params, seed: int, crops: CropSet, folder: str
) -> tuple[pd.DataFrame, dict[str, float]]:
    train = params.train
    seed_everything(seed)
    model = new_model(train)
    what = settings_of(params, seed, "baseline")
    batches = PairedBatches(
        crops.select(split="train"), train.batch_size, seed, train.partial_forgery_ratio
    )
    state = partial_folder(f"{folder}/{BASELINE}", what, [manifest_path()], rooms=ROOMS) / "state"
    with measured_cost() as cost:
        history = fit(model, batches, validation_of(crops, params), train.baseline, state)
    keep(model, weights_path(BASELINE, seed, folder))
    return history, cost_of_all(cost)


def keep(model: nn.Module, path: Path) -> None:
    """Write the weights, from the first of several processes; all return when it is done."""
    if rank() == 0:
        save_weights(model, path)
    wait_for_all()


def cost_of_all(cost: dict[str, float]) -> dict[str, float]:
    """What training cost all processes together: the longest time, the sum of cores and memory."""
    costs = pd.DataFrame(all_gather_list([cost]))
    return costs.sum().to_dict() | {"minutes": float(costs["minutes"].max())}


def validation_of(crops: CropSet, params: Params) -> CropSet:
    """Whole faces of the validation split at the study's quality.

    Raises:
        ValueError: there are no originals among them, or no forgeries.
    """
    chosen = crops.select(split="validation", kind="whole", quality=params.preprocess.quality)
    if chosen.manifest["label"].nunique() < 2:
        missing = "forgeries" if (chosen.manifest["label"] == 0).any() else "originals"
        raise ValueError(
            f"the validation split holds no {missing}, so that no model can be selected: this data set can "
            "only test models that were trained on another (generalization.other_crops)"
        )
    return chosen


def control(settings: Whitening) -> Whitening:
    """The settings of the control: the baseline as it is, fine-tuned for as many steps."""
    changes = {"norm": "batch", "rotation": "none", "activation": "backbone"}
    return settings.model_copy(update=changes | {"concept_weight": 0.0, "bottleneck": 0.0})


def train_variant(
    params: Params,
    settings: Whitening,
    name: str,
    seed: int,
    crops: CropSet,
    folder: str = "models",
) -> Detector:
    """Fine-tune one variant from a folder's baseline and keep its weights there as ``name``.

    The batches are those of all variants of this seed, and none of the baseline's. In as many processes
    as ``train.launch`` says.
    """
    arguments = params, settings, name, seed, crops, folder
    history, cost = launched(_fit_variant, params.train.launch, *arguments)
    return replace(load_variant(params, settings, name, seed, folder), history=history, cost=cost)


def _fit_variant(
    params: Params, settings: Whitening, name: str, seed: int, crops: CropSet, folder: str
) -> tuple[pd.DataFrame, dict[str, float]]:
    train = params.train
    baseline = load_baseline(params, seed, folder).model
    seed_everything(seed)
    training, validation = crops.select(split="train"), validation_of(crops, params)
    what = settings_of(params, seed, "fine_tune") | {"variant": settings.model_dump()}
    inputs = [manifest_path(), weights_path(BASELINE, seed, folder)]
    state = partial_folder(f"{folder}/{name}", what, inputs, rooms=ROOMS) / "state"
    batches = PairedBatches(
        training,
        train.batch_size,
        FINE_TUNE + seed,
        train.partial_forgery_ratio,
        settings.random_labels,
    )
    with measured_cost() as cost:
        variant = make_variant(baseline, settings, training, seed)
        log = dict
        if settings.norm in NORMS:
            log = whiteness_log(variant.model, variant.layer_name, validation)
        history = fit(
            variant.model,
            batches,
            validation,
            train.fine_tune,
            state,
            variant.loss,
            variant.after_step,
            log,
        )
    keep(variant.model, weights_path(name, seed, folder))
    return history, cost_of_all(cost)


def train_by_name(params: Params, name: str, seed: int, crops: CropSet) -> Detector:
    """Train the baseline, the control, the study's model or a variant; for use under torchrun."""
    if name == BASELINE:
        return train_baseline(params, seed, crops)
    own = {"batch_norm": control(params.whitening), "whitened": params.whitening}
    settings = own.get(name) or params.variant(name)
    return train_variant(params, settings, name if name in own else f"variants/{name}", seed, crops)


def whiteness_log(
    model: nn.Module, layer: str, validation: CropSet
) -> Callable[[], dict[str, float]]:
    """Measures `whiteness_by_mode` on some validation faces, evenly spaced, when it is called."""
    rows = validation.manifest["row"].to_numpy()
    rows = rows[np.linspace(0, len(rows) - 1, min(LOGGED_IMAGES, len(rows))).astype(int)]
    images = to_tensor(validation.images[rows], next(model.parameters()).device)
    return partial(whiteness_by_mode, model, model.get_submodule(layer), images)


def load_baseline(params: Params, seed: int, folder: str = "models") -> Detector:
    """The trained baseline of a folder of ``data``."""
    path = weights_path(BASELINE, seed, folder)
    model = load_weights(empty_model(params.train), path).eval()
    return Detector(model, layer_name(model, params.whitening), pd.DataFrame())


def load_variant(
    params: Params, settings: Whitening, name: str, seed: int, folder: str = "models"
) -> Detector:
    """A fine-tuned variant, by the name it was kept under in a folder of ``data``."""
    model = empty_model(params.train)
    layer = layer_name(model, settings)
    if settings.norm in NORMS:
        replace_norm(model, layer, norm_factory(settings))
    set_activation(model.get_submodule(layer), settings.activation)
    return Detector(
        load_weights(model, weights_path(name, seed, folder)).eval(), layer, pd.DataFrame()
    )


def score(detector: Detector, crops: CropSet) -> pd.DataFrame:
    """Logits of crops: one row an image, columns `PREDICTION_COLUMNS` and score."""
    scores = predict(detector.model, crops).astype(np.float64)
    columns = [*PREDICTION_COLUMNS, *({"video"} & set(crops.manifest))]
    return crops.manifest[columns].assign(score=scores)


def score_held_out(detector: Detector, params: Params, crops: CropSet) -> pd.DataFrame:
    """Logits of all whole faces that the detector did not learn from.

    The validation split is there for the threshold, which must not be chosen on test people.

    Returns:
        see `score`; column split is ``validation`` or ``test``.
    """
    held_out = [validation_of(crops, params), crops.select(split="test", kind="whole")]
    return pd.concat([score(detector, split) for split in held_out], ignore_index=True)

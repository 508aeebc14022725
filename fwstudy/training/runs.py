"""The models of the study: which there are, where each is kept, and one call to train or load it."""

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from fwstudy.crops.cropset import ARRAYS, CropSet
from fwstudy.params import Params, Whitening
from fwstudy.runtime import measured_cost, partial_folder, project_root, seed_everything
from fwstudy.training.batches import PairedBatches
from fwstudy.training.launch import launched
from fwstudy.training.models import (
    HUB,
    PACKAGE,
    backbone_file,
    empty_model,
    load_weights,
    new_model,
    read_weights,
    save_weights,
)
from fwstudy.training.trainer import fit, predict
from fwstudy.training.variants import NORMS, Variant, make_variant, put_layer
from fwstudy.whitening.statistics import whiteness_by_mode
from fwstudy.whitening.sync import all_gather_list, rank, wait_for_all

ROOMS = ("crops", "labels.py", "runtime.py", "training", "whitening")  # as in dvc.yaml
BASELINE, CONTROL, WHITENED = "baseline", "batch_norm", "whitened"
OWN = (BASELINE, CONTROL, WHITENED)  # of every seed; all other names are variants
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


def control(settings: Whitening) -> Whitening:
    """The settings of the control: the baseline as it is, fine-tuned for as many steps."""
    changes = {"norm": "batch", "rotation": "none", "activation": "backbone"}
    return settings.model_copy(update=changes | {"concept_weight": 0.0, "bottleneck": 0.0})


@dataclass(frozen=True)
class Run:
    """One model of the study, by what it is trained from and for; trained or not.

    Args:
        name: ``baseline``, ``batch_norm``, ``whitened``, or that of a variant of params.yaml.
        seed: of training.
        settings: of the norm layer; those of `control` for the baseline.
        folder: in ``data``, for models of their own, e.g. ``leave_one_out/FaceSwap``; None: ``models``
            for weights and ``predictions`` for predictions.
        crops: folders in ``data`` with the crops it is trained on.
    """

    name: str
    seed: int
    settings: Whitening
    folder: str | None = None
    crops: tuple[str, ...] = ("crops",)

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self._file("models", ".safetensors")

    @property
    def predictions(self) -> Path:
        """The file of the logits of validation and test people."""
        return self._file("predictions", ".csv")

    @property
    def baseline(self) -> "Run":
        """The run whose weights this one is fine-tuned from."""
        return replace(self, name=BASELINE, settings=control(self.settings))

    def _file(self, kind: str, suffix: str) -> Path:
        name = self.name if self.name in OWN else f"variants/{self.name}"
        folder = project_root() / "data" / (self.folder or kind)
        return folder / f"seed{self.seed}" / f"{name}{suffix}"


def find_run(params: Params, name: str, seed: int, folder: str | None = None) -> Run:
    """The run of that name.

    Raises:
        KeyError: no such variant in params.yaml; the message lists those there are.
    """
    plain = control(params.whitening)
    own = {BASELINE: plain, CONTROL: plain, WHITENED: params.whitening}
    return Run(name, seed, own[name] if name in own else params.variant(name), folder)


def own_runs(params: Params, seed: int, folder: str | None = None) -> list[Run]:
    """Baseline, control and whitened model of one seed, in the order in which they are trained."""
    return [find_run(params, name, seed, folder) for name in OWN]


def all_runs(params: Params) -> list[Run]:
    """Every run of the stages `train` and `variant`, by name, then by seed."""
    variants = params.ablations
    named = [(name, params.train.seeds) for name in OWN]
    named += [(name, variants.seeds) for name in variants.run]
    return [find_run(params, name, seed) for name, seeds in named for seed in seeds]


@dataclass(frozen=True)
class Detector:
    """A trained model, the norm layer the study looks at, and how it came about.

    Args:
        model: gives one logit an image; in eval mode.
        layer_name: dotted name of the layer.
        history: see `fwstudy.training.trainer.fit`; empty for a model that was loaded.
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


def load(run: Run, params: Params) -> Detector:
    """A trained model.

    Raises:
        FileNotFoundError, ValueError: its weights are missing, truncated or of another architecture.
    """
    model = empty_model(params.train)
    layer = put_layer(model, run.settings)
    return Detector(load_weights(model, run.weights).eval(), layer, pd.DataFrame())


def train(run: Run, params: Params, crops: CropSet) -> Detector:
    """Train one model and keep its weights, in as many processes as ``train.launch`` says.

    The baseline starts from the backbone, every other model from the baseline of its seed and folder,
    which must be trained before. All variants of a seed see the same batches, and none of the
    baseline's. An interrupted run resumes; one that was finished already, in a stage that was not, is
    taken as it is, until `complete` says that the stage is.
    """
    history, cost = launched(_train, params.train.launch, run, params, crops)
    return replace(load(run, params), history=history, cost=cost)


def complete(runs: list[Run], params: Params) -> None:
    """Forget what was kept for the case that the stage is interrupted: its results are written."""
    for run in runs:
        shutil.rmtree(partial_of(run, params))


def _train(run: Run, params: Params, crops: CropSet) -> tuple[pd.DataFrame, dict[str, float]]:
    folder = partial_of(run, params)
    finished = folder / "finished.safetensors"
    if not all(all_gather_list([finished.exists()])):
        model, history, cost = _fit(run, params, crops, folder / "state")
        if rank() == 0:
            known = {"history": json.dumps(history.to_dict("list")), "cost": json.dumps(cost)}
            save_weights(model.state_dict(), finished, known)
    wait_for_all()
    state, known = read_weights(finished)
    if rank() == 0:
        save_weights(state, run.weights)
    wait_for_all()
    return pd.DataFrame(json.loads(known["history"])), json.loads(known["cost"])


def _fit(
    run: Run, params: Params, crops: CropSet, checkpoint: Path
) -> tuple[nn.Module, pd.DataFrame, dict[str, float]]:
    chosen, settings, tuned = params.train, run.settings, run.name != BASELINE
    training, validation = crops.select(split="train"), validation_of(crops, params)
    baseline = load(run.baseline, params).model if tuned else None
    seed_everything(run.seed)
    batches = PairedBatches(
        training,
        chosen.batch_size,
        run.seed + FINE_TUNE * tuned,
        chosen.partial_forgery_ratio,
        settings.random_labels and tuned,
        chosen.self_blended_ratio,
    )
    with measured_cost() as cost:
        variant = (
            make_variant(baseline, settings, training, run.seed)
            if tuned
            else Variant(new_model(chosen))
        )
        measure = dict
        if settings.norm in NORMS:
            layer = variant.model.get_submodule(variant.layer_name)
            images = validation.evenly(LOGGED_IMAGES).tensor(layer.running_mean.device)
            measure = partial(whiteness_by_mode, variant.model, layer, images)
        history = fit(
            variant.model,
            batches,
            validation,
            chosen.fine_tune if tuned else chosen.baseline,
            checkpoint,
            variant.loss,
            variant.after_step,
            measure,
        )
    costs = pd.DataFrame(all_gather_list([cost]))
    together = costs.sum().to_dict() | {"minutes": float(costs["minutes"].max())}
    return variant.model, history, together


def array_stamps(folders: list[Path]) -> list:
    """Name, size and time of change of the crop sets' arrays, which are too large to hash."""
    names = [(folder, name) for folder in folders for name in ARRAYS]
    files = [path for folder, name in names for path in sorted(folder.glob(f"{name}.*"))]
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def partial_of(run: Run, params: Params) -> Path:
    """Where a run keeps its unfinished work, by all that its weights depend on."""
    tuned = run.name != BASELINE
    schedule = ["fine_tune"] if tuned else []
    ratios = ["partial_forgery_ratio", "self_blended_ratio"]
    keys = ["batch_size", *ratios, "backbone", "baseline", *schedule]
    folders = [project_root() / "data" / name for name in run.crops]
    what = {"seed": run.seed, "arrays": array_stamps(folders)}
    what |= params.train.model_dump(include=set(keys))
    inputs = [folder / "manifest.csv" for folder in folders]
    if params.train.backbone.weights not in (None, HUB, PACKAGE):
        inputs.append(backbone_file(params.train.backbone))
    if tuned:
        what |= {"settings": run.settings.model_dump()}
        inputs.append(run.baseline.weights)
    return partial_folder(f"{run.folder or 'models'}/{run.name}", what, inputs, rooms=ROOMS)


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


def without(crops: CropSet, family: str) -> CropSet:
    """The crops with one forgery family left out of training and validation, for a test of its own.

    Of videos, parts that were taken from its forgeries go as well.

    Raises:
        ValueError: no crop of that family.
    """
    forged = crops.manifest["variant"] == family
    if not forged.any():
        known = ", ".join(sorted(crops.select(kind="whole", label=1).manifest["variant"].unique()))
        raise ValueError(f"no crop was forged by {family!r}; there are: {known}")
    forged |= crops.manifest.get("family", crops.manifest["variant"]) == family
    kept = ~forged | (crops.manifest["split"] == "test")
    return replace(crops, manifest=crops.manifest[kept])


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

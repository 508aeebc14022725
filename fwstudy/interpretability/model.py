"""The two models that are compared, the faces they are measured on, and the maps of every method."""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
import torch

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.evaluation.metrics import rank_auc
from fwstudy.interpretability import localization
from fwstudy.interpretability.decomposition import (
    capture,
    center_prior,
    decompose,
    evidence_maps,
    mean_mask_prior,
    resize,
)
from fwstudy.interpretability.explainers import (
    EXPLAINERS,
    Explainer,
    in_evaluation_mode,
    occlusion,
    random_maps,
)
from fwstudy.labels import ORIGINAL
from fwstudy.params import Params, Whitening
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.runs import Detector, control, load_variant
from fwstudy.whitening.concepts import BATCH_SIZE, Concept

PURITY_IMAGES = 96  # per concept
NORMALIZED_IMAGES = 512
LEARNED_IMAGES = 64  # per concept, of training people, on which the best axes of a model are chosen
BATCH_NORM, WHITENED, NONE = "BatchNorm", "whitened", "no model"
CONCEPT_AXES, ALL_AXES = "concept axes", "all axes"
RANDOM, CENTER, MEAN_MASK = "random map", "center prior", "mean-mask prior"


@dataclass(frozen=True)
class Subject:
    """The two models of one training seed that are compared, and the faces they are measured on.

    Args:
        batch_norm: the baseline, fine-tuned for as many steps.
        whitened: with concept axes in its layer.
        settings: of the whitened model.
        crops: all splits, at the study's quality.
        seed: of training; sampling of images uses it too.
        num_images: at most this many images of a subset are explained by every method.
    """

    batch_norm: Detector
    whitened: Detector
    settings: Whitening
    crops: CropSet
    seed: int
    num_images: int

    @cached_property
    def names(self) -> list[str]:
        """Of the concept axes."""
        make = CONCEPT_SETS[self.settings.concepts].images
        found = make(self.crops.select(split="train"), 1, self.seed, self.settings.grid_size)
        return [concept.name for concept in found]

    @property
    def models(self) -> dict[str, Detector]:
        """Both, by the name shown."""
        return {BATCH_NORM: self.batch_norm, WHITENED: self.whitened}

    def faces(self, split: str, count: int | None = None, **values) -> CropSet:
        """Crops of a split with the given column values, at most ``count``, evenly spaced."""
        return evenly(self.crops.select(split=split, **values), count)

    @cached_property
    def typical(self) -> np.ndarray:
        """Mean evidence of each axis on the originals of the validation split: (C,).

        Evidence is told relative to it: what an axis gives every face says nothing about this one.
        """
        originals = self.faces("validation", kind="whole", variant=ORIGINAL)
        return decompose(self.whitened.model, self.whitened.layer, originals).evidence.mean(axis=0)

    @cached_property
    def typical_map(self) -> np.ndarray:
        """Mean map of the concept axes' evidence on the same originals: (S, S) float32."""
        originals = self.faces("validation", kind="whole", variant=ORIGINAL)
        explain = axes_explainer(slice(0, len(self.names)))
        model, layer = self.whitened.model, self.whitened.layer
        batches = tensor_of(originals, self.whitened).split(BATCH_SIZE)
        return np.concatenate([explain(model, layer, batch) for batch in batches]).mean(axis=0)

    @cached_property
    def methods(self) -> dict[tuple[str, str], tuple[Detector, Explainer]]:
        """See `explainers`."""
        return explainers(self)

    def concept_evidence(self, crops: CropSet) -> np.ndarray:
        """Evidence of the concept axes beyond that of a typical original: (N, k)."""
        evidence = decompose(self.whitened.model, self.whitened.layer, crops).evidence
        return (evidence - self.typical)[:, : len(self.names)]


def load_subject(params: Params, seed: int, crops: CropSet) -> Subject:
    """The two models of a training seed, as notebook 2 left them.

    Args:
        crops: all splits; those at the study's quality that have their originals are taken.
    """
    settings = params.whitening
    return Subject(
        load_variant(params, control(settings), "batch_norm", seed),
        load_variant(params, settings, "whitened", seed),
        settings,
        crops.select(quality=params.preprocess.quality).paired(),
        seed,
        params.interpretability.num_images,
    )


def evenly(crops: CropSet, count: int | None) -> CropSet:
    """At most ``count`` of the crops, evenly spaced; all if None."""
    if count is None or count >= len(crops):
        return crops
    places = np.linspace(0, len(crops) - 1, count).astype(int)
    return CropSet(crops.manifest.iloc[places], crops.images, crops.mask, crops.parsing)


def device_of(detector: Detector) -> torch.device:
    """Where the detector's weights lie."""
    return next(detector.model.parameters()).device


def tensor_of(crops: CropSet, detector: Detector) -> torch.Tensor:
    """The crops as a network takes them."""
    return to_tensor(crops.images[crops.manifest["row"].to_numpy()], device_of(detector))


def originals_of(crops: CropSet, detector: Detector) -> torch.Tensor:
    """The untouched original of each crop, as a network takes it."""
    return to_tensor(
        crops.images[crops.manifest["original_row"].to_numpy(int)], device_of(detector)
    )


def truth_of(crops: CropSet) -> tuple[np.ndarray, np.ndarray]:
    """Changed pixels (N, S, S) bool and part maps (N, S, S) uint8 of the crops."""
    rows = crops.manifest["row"].to_numpy()
    return np.asarray(crops.mask[rows]), np.asarray(crops.parsing[rows])


@torch.inference_mode()
def normalized_features(
    detector: Detector, crops: CropSet, count: int = NORMALIZED_IMAGES
) -> torch.Tensor:
    """What the layer makes of its input before its affine map and activation function.

    For batch normalisation: standardised channels. For feature whitening: whitened, rotated axes.

    Args:
        count: at most this many images, evenly spaced.

    Returns:
        (n, C, H, W) float32.
    """
    rows = crops.manifest["row"].to_numpy()
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    found = []
    layer = detector.layer
    handle = layer.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0].float()))
    try:
        for batch in np.array_split(rows, max(1, len(rows) // BATCH_SIZE)):
            detector.model.eval()(to_tensor(crops.images[batch], device_of(detector)))
    finally:
        handle.remove()
    features = torch.cat(found)
    if hasattr(layer, "rotation"):
        return layer.normalize(features)
    scale = (layer.running_var + layer.eps).rsqrt()
    return (features - layer.running_mean[:, None, None]) * scale[:, None, None]


@torch.inference_mode()
def concept_activations(detector: Detector, concepts: list[Concept]) -> pd.DataFrame:
    """Pooled activation of every axis on every concept image.

    Returns:
        columns 0 … C-1, and ``concept`` (index) and ``group``.
    """
    detector.model.eval()
    tables = []
    for number, concept in enumerate(concepts):
        maps = [
            capture(detector.model, detector.layer, batch.to(device_of(detector)))[0].mean(
                dim=(2, 3)
            )
            for batch in concept.shown.split(BATCH_SIZE)
        ]
        table = pd.DataFrame(torch.cat(maps).numpy(force=True))
        tables.append(table.assign(concept=number, group=concept.groups))
    return pd.concat(tables, ignore_index=True)


def best_axes(activations: pd.DataFrame, num_concepts: int) -> list[int]:
    """For each concept the axis that tells it from the others best: for models without names."""
    values = activations.drop(columns=["concept", "group"]).to_numpy()
    concepts = activations["concept"].to_numpy()
    return [int(rank_auc(concepts == j, values).argmax()) for j in range(num_concepts)]


def explainers(subject: Subject) -> dict[tuple[str, str], tuple[Detector, Explainer]]:
    """Every method of the tables: (model, method) to the detector and what makes a map of it.

    The maps of the concept axes are, like their evidence, told relative to a typical original.
    """
    size = subject.crops.images.shape[1]
    quick = {**EXPLAINERS, "occlusion": partial(occlusion, stride=1 / 8)}
    named = axes_explainer(slice(0, len(subject.names)))
    training = subject.faces("train", kind="whole")
    priors = {
        CENTER: partial(repeated, prior=center_prior(size)),
        MEAN_MASK: partial(repeated, prior=mean_mask_prior(training)),
        RANDOM: lambda model, layer, images: random_maps(len(images), size, subject.seed),
    }
    return {
        **{(NONE, name): (subject.whitened, explain) for name, explain in priors.items()},
        **{
            (model, name): (detector, explain)
            for model, detector in subject.models.items()
            for name, explain in quick.items()
        },
        (WHITENED, ALL_AXES): (subject.whitened, axes_explainer(slice(None))),
        (WHITENED, CONCEPT_AXES): (
            subject.whitened,
            lambda model, layer, images: named(model, layer, images) - subject.typical_map,
        ),
    }


def axes_explainer(axes: slice) -> Explainer:
    """`evidence_maps` of some axes as an explainer."""
    return in_evaluation_mode(partial(evidence_maps, axes=axes))


def repeated(model, layer, images: torch.Tensor, prior: np.ndarray) -> np.ndarray:
    """A map that sees no image, as an explainer."""
    return np.broadcast_to(prior, (len(images), *prior.shape))


def maps_of(subject: Subject, key: tuple[str, str], crops: CropSet) -> np.ndarray:
    """The maps of one method of `explainers`: (N, S, S)."""
    detector, explain = subject.methods[key]
    images = tensor_of(crops, detector)
    batches = images.split(BATCH_SIZE)
    return np.concatenate([explain(detector.model, detector.layer, batch) for batch in batches])


@torch.inference_mode()
def concept_maps(subject: Subject, crops: CropSet) -> np.ndarray:
    """Activation of each concept axis at input resolution: (N, k, S, S) float32."""
    detector, size, maps = subject.whitened, crops.images.shape[1], []
    for images in tensor_of(crops, detector).split(BATCH_SIZE):
        found = capture(detector.model.eval(), detector.layer, images)[0][:, : len(subject.names)]
        maps.append(resize(found.flatten(0, 1), size).reshape(len(images), -1, size, size))
    return np.concatenate(maps)


def part_evidence(
    subject: Subject, key: tuple[str, str], maps: np.ndarray, crops: CropSet
) -> np.ndarray:
    """What a method gives each part (N, k): the concept axes' own evidence, else relevance in its region."""
    if key == (WHITENED, CONCEPT_AXES) and subject.settings.concepts == "forged_parts":
        return subject.concept_evidence(crops)
    return localization.part_relevance(maps, truth_of(crops)[1])

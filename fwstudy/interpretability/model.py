"""One trained model, the faces it is measured on, and the maps of every method for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import pandas as pd
import torch
from torch import nn

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.evaluation.metrics import rank_auc
from fwstudy.interpretability import localization
from fwstudy.interpretability.decomposition import (
    Decomposition,
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
    in_batches,
    occlusion,
    random_maps,
)
from fwstudy.labels import ORIGINAL
from fwstudy.params import Params, Whitening
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.runs import CONTROL, Detector, find_run, load
from fwstudy.whitening.concepts import BATCH_SIZE, Concept
from fwstudy.whitening.surgery import last_norm

PURITY_IMAGES = 96  # per concept
NORMALIZED_IMAGES = 512
LEARNED_IMAGES = 64  # per concept, of training people, on which the best axes of a model are chosen
BATCH_NORM, WHITENED, NONE = "BatchNorm", "whitened", "no model"
GRAD_CAM, CONCEPT_AXES, ALL_AXES = "Grad-CAM", "concept axes", "all axes"
BEST_AXES = "best axes"
RANDOM, CENTER, MEAN_MASK = "random map", "center prior", "mean-mask prior"
QUICK: Mapping[str, Explainer] = {**EXPLAINERS, "occlusion": partial(occlusion, stride=1 / 8)}
Method = tuple[str, str]
"""Model and method, as the tables name them."""


@dataclass(frozen=True)
class Subject:
    """One trained model and the faces it is measured on.

    Args:
        name: of the model in the tables.
        detector: the model and its layer.
        settings: it was trained with; None for a detector that was not trained here.
        crops: all splits, at the study's quality.
        seed: of training; the sampling of images uses it too.
        num_images: at most this many images of a kind are explained by every method.
        priors: whether maps that see no image are measured beside the model's.
        shown: names of the methods whose maps are measured; all if None.
        explainers: by name, those that suit the model.
        checked: names of the methods whose sanity and stability are measured.
    """

    name: str
    detector: Detector
    settings: Whitening | None
    crops: CropSet
    seed: int
    num_images: int
    priors: bool = False
    shown: tuple[str, ...] | None = None
    explainers: Mapping[str, Explainer] = field(default_factory=lambda: QUICK)
    checked: tuple[str, ...] = (GRAD_CAM, CONCEPT_AXES)

    @property
    def model(self) -> nn.Module:
        """Of the detector."""
        return self.detector.model

    @property
    def layer(self) -> nn.Module:
        """Of the detector."""
        return self.detector.layer

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        return next(self.model.parameters()).device

    def faces(self, split: str, count: int | None = None, **values) -> CropSet:
        """Crops of a split with the given column values, at most ``count``, evenly spaced."""
        return self.crops.select(split=split, **values).evenly(count)

    def explained(self, kind: str) -> CropSet:
        """The forged test faces that every method explains; kind: ``whole`` or ``part``."""
        return self.faces("test", self.num_images, kind=kind, label=1)

    def concepts(self, split: str, count: int) -> list[Concept]:
        """At most ``count`` images of each concept of the settings."""
        make = CONCEPT_SETS[self.settings.concepts].images
        return make(self.faces(split), count, self.seed, self.settings.grid_size)

    @cached_property
    def names(self) -> list[str]:
        """Of the concepts."""
        return [concept.name for concept in self.concepts("train", 1)]

    @cached_property
    def axes(self) -> dict[str, list[int]]:
        """The axis of each concept: that of its number, where axes stand for concepts, and the best.

        The best axis tells its concept from the others best on training people, so that models
        without concept axes can be compared.
        """
        learned = concept_activations(self, self.concepts("train", LEARNED_IMAGES))
        named = {CONCEPT_AXES: list(range(len(self.names)))} if self.settings.named else {}
        return named | {BEST_AXES: best_axes(learned, len(self.names))}

    @cached_property
    def has_evidence(self) -> bool:
        """Whether the model has concept axes and its verdict is a sum over the axes of its layer."""
        named = self.settings is not None and self.settings.named
        return named and self.detector.layer_name == last_norm(self.model)

    @cached_property
    def _tested(self) -> tuple[pd.Index, Decomposition]:
        test = self.faces("test")
        return pd.Index(test.manifest["row"]), decompose(self.model, self.layer, test)

    def decomposed(self, crops: CropSet) -> Decomposition:
        """The verdicts on some test crops, as a sum over axes; the model sees each crop once."""
        rows, everything = self._tested
        return everything.take(rows.get_indexer(crops.manifest["row"]))

    @cached_property
    def typical(self) -> np.ndarray:
        """Mean evidence of each axis on the originals of the validation split: (C,).

        Evidence is measured relative to it: what an axis adds on every face says nothing about one.
        """
        return decompose(self.model, self.layer, self._originals).evidence.mean(axis=0)

    @cached_property
    def typical_map(self) -> np.ndarray:
        """Mean map of the concept axes' evidence on the same originals: (S, S) float32."""
        explain = axes_explainer(slice(0, len(self.names)))
        return self._explain(explain, self._originals).mean(axis=0)

    @property
    def _originals(self) -> CropSet:
        return self.faces("validation", kind="whole", variant=ORIGINAL)

    def concept_evidence(self, crops: CropSet) -> np.ndarray:
        """Evidence of the concept axes on test crops beyond that of a typical original: (N, k)."""
        return (self.decomposed(crops).evidence - self.typical)[:, : len(self.names)]

    @cached_property
    def methods(self) -> dict[Method, Explainer]:
        """Every method of the tables. The maps of the concept axes are, like their evidence, told
        relative to a typical original."""
        quick = dict(self.explainers)
        if self.has_evidence:
            named = axes_explainer(slice(0, len(self.names)))
            quick[ALL_AXES] = axes_explainer(slice(None))
            quick[CONCEPT_AXES] = lambda *which: named(*which) - self.typical_map
        found = {(self.name, method): explain for method, explain in quick.items()}
        if self.priors:
            found = {(NONE, name): explain for name, explain in priors(self).items()} | found
        return {key: e for key, e in found.items() if self.shown is None or key[1] in self.shown}

    def _explain(self, explain: Explainer, crops: CropSet) -> np.ndarray:
        return in_batches(explain, self.model, self.layer, crops.batches(BATCH_SIZE, self.device))

    def maps(self, key: Method, crops: CropSet) -> np.ndarray:
        """The maps of one of `methods`: (N, S, S)."""
        return self._explain(self.methods[key], crops)

    @cached_property
    def _kept(self) -> dict:
        return {}

    def explained_maps(self, key: Method, kind: str) -> np.ndarray:
        """`maps` of the crops of `explained`, made once and kept for all measures."""
        if (key, kind) not in self._kept:
            self._kept[key, kind] = self.maps(key, self.explained(kind))
        return self._kept[key, kind]

    def evidence_is_by_part(self, key: Method) -> bool:
        """Whether a method tells the evidence of each part by itself, without a look at its map."""
        return key[1] == CONCEPT_AXES and self.settings.concepts == "forged_parts"

    def part_evidence(self, key: Method, kind: str) -> np.ndarray:
        """What a method gives each part of the explained crops: (N, k).

        The concept axes' own evidence, else the positive relevance in the part's region.
        """
        crops = self.explained(kind)
        if self.evidence_is_by_part(key):
            return self.concept_evidence(crops)
        return localization.part_relevance(self.explained_maps(key, kind), truth_of(crops)[1])


def load_subjects(params: Params, seed: int, crops: CropSet) -> dict[str, Subject]:
    """The two models of a training seed that the study compares, by the name in the tables.

    Args:
        crops: all splits; those at the study's quality that have their originals are taken.
    """
    chosen = crops.select(quality=params.preprocess.quality).paired()
    runs = {BATCH_NORM: find_run(params, CONTROL, seed), WHITENED: find_run(params, WHITENED, seed)}
    about = chosen, seed, params.interpretability.num_images
    return {
        name: Subject(name, load(run, params), run.settings, *about, priors=name == WHITENED)
        for name, run in runs.items()
    }


def truth_of(crops: CropSet) -> tuple[np.ndarray, np.ndarray]:
    """Changed pixels (N, S, S) bool and part maps (N, S, S) uint8 of the crops."""
    rows = crops.manifest["row"].to_numpy()
    return np.asarray(crops.mask[rows]), np.asarray(crops.parsing[rows])


def originals_of(crops: CropSet, device: torch.device | None = None) -> torch.Tensor:
    """The untouched original of each crop, as a network takes it."""
    return to_tensor(crops.images[crops.manifest["original_row"].to_numpy(int)], device)


@torch.inference_mode()
def normalized_features(subject: Subject, crops: CropSet) -> torch.Tensor:
    """What the layer makes of its input before its affine map and activation function.

    For batch normalization: standardized channels. For feature whitening: whitened, rotated axes.

    Returns:
        (N, C, H, W) float32.
    """
    model, layer = subject.model.eval(), subject.layer
    batches = crops.batches(BATCH_SIZE, subject.device)
    features = torch.cat([capture(model, layer, batch, before=True)[0] for batch in batches])
    if hasattr(layer, "rotation"):
        return layer.normalize(features)
    scale = (layer.running_var + layer.eps).rsqrt()
    return (features - layer.running_mean[:, None, None]) * scale[:, None, None]


@torch.inference_mode()
def concept_activations(
    subject: Subject, concepts: list[Concept], absent: bool = False
) -> pd.DataFrame:
    """Pooled activation of every axis on every concept image, or on the same without the concept.

    Returns:
        columns 0 … C-1, and ``concept`` (index) and ``group``.
    """
    model, layer = subject.model.eval(), subject.layer
    tables = []
    for number, concept in enumerate(concepts):
        images = concept.absent if absent else concept.shown
        batches = [batch.to(subject.device) for batch in images.split(BATCH_SIZE)]
        pooled = [capture(model, layer, batch)[0].mean(dim=(2, 3)) for batch in batches]
        table = pd.DataFrame(torch.cat(pooled).numpy(force=True))
        tables.append(table.assign(concept=number, group=concept.groups))
    return pd.concat(tables, ignore_index=True)


def best_axes(activations: pd.DataFrame, num_concepts: int) -> list[int]:
    """For each concept the axis that tells it from the others best: for models without names."""
    values = activations.drop(columns=["concept", "group"]).to_numpy()
    concepts = activations["concept"].to_numpy()
    return [int(rank_auc(concepts == j, values).argmax()) for j in range(num_concepts)]


@torch.inference_mode()
def concept_maps(subject: Subject, crops: CropSet) -> np.ndarray:
    """Activation of each concept axis at input resolution: (N, k, S, S) float32."""
    count, size = len(subject.names), crops.images.shape[1]
    model, maps = subject.model.eval(), []
    for images in crops.batches(BATCH_SIZE, subject.device):
        found = capture(model, subject.layer, images)[0][:, :count]
        maps.append(resize(found.flatten(0, 1), size).reshape(len(images), -1, size, size))
    return np.concatenate(maps)


def priors(subject: Subject) -> dict[str, Explainer]:
    """Maps that see no image, which every method must beat."""
    size, training = subject.crops.images.shape[1], subject.faces("train", kind="whole")

    def repeated(model, layer, images, prior: np.ndarray) -> np.ndarray:
        return np.broadcast_to(prior, (len(images), *prior.shape))

    return {
        CENTER: partial(repeated, prior=center_prior(size)),
        MEAN_MASK: partial(repeated, prior=mean_mask_prior(training)),
        RANDOM: lambda model, layer, images: random_maps(images, subject.seed),
    }


def axes_explainer(axes: slice) -> Explainer:
    """`evidence_maps` of some axes as an explainer."""
    return partial(evidence_maps, axes=axes)

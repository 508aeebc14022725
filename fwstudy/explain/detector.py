"""A trained detector with all that is needed to explain it, and its verdict on a face as a sum.

With the whitened layer before the pooling, and a calibration that is affine in the logit, the log-odds
of a forgery are exactly

    log_odds(face) = boundary + sum over the concept axes of evidence(face) + rest(face)

and the face is called forged where they are above 0. Evidence is counted from a typical original, the
mean of the validation originals, whose log-odds are the boundary: bias, calibration and mean evidence
together. Everything on the page is in this unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import expit
from torch import nn
from torch.nn.functional import interpolate

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.surgery import (
    absorb_activation,
    create_model,
    find_classifier,
    replace_norm,
)

LEVEL = 0.99  # share of unseen faces of the study's own kind that count as like the training data
REFERENCE_IMAGES = 1024  # training faces that make the reference
BATCH_SIZE = 64
TOLERANCE = 1e-4  # of the sizes of the terms together: they may cancel


@dataclass(frozen=True)
class MahalanobisOOD:
    """Where the layer's pooled features of known faces lie.

    Args:
        mean: (C,) float32, of training faces.
        precision: (C, C) float32, inverse of their covariance.
        distances: (M,) float32, sorted, of validation faces from that mean.
    """

    mean: np.ndarray
    precision: np.ndarray
    distances: np.ndarray

    @property
    def limit(self) -> float:
        """The distance within which 99 % of the validation faces lie."""
        return float(np.quantile(self.distances.astype(np.float64), LEVEL))

    def share_nearer(self, ood_score: float) -> float:
        """Share of the validation faces nearer than so many times the limit."""
        return float(np.mean(self.distances < ood_score * self.limit))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of features (N, C) from the training faces: (N,) float64."""
        return cdist(features, self.mean[None], "mahalanobis", VI=self.precision)[:, 0]


@dataclass(frozen=True)
class TrainedExplainer:
    """A trained whitened model with what is needed to explain it.

    Args:
        model: gives one logit an image.
        layer: the `FeatureWhitening` before the pooling; its first axes are the concept axes.
        architecture: what `build` makes the untrained model from.
        names: of the concept axes, in plain language.
        slope, intercept: of the calibration, see `fwstudy.interpretability.calibration`.
        reference: of the training data.
        typical: (k + 1, h, w) float32, mean contribution to the logit of each position of the concept
            axes and of all residual axes together, on validation originals.
        crop_size, crop_scale: how its faces were cut, see `fwstudy.faces.inputs.find_face`.
        data: what it was trained on, e.g. "rendered faces".
        seed: of its training.
        origin: where it was read, in plain language.
    """

    model: nn.Module
    layer: nn.Module
    architecture: dict
    names: tuple[str, ...]
    slope: float
    intercept: float
    reference: MahalanobisOOD
    typical: np.ndarray
    crop_size: int
    crop_scale: float
    data: str
    seed: int
    origin: str = ""

    @property
    def boundary(self) -> float:
        """Log-odds of a typical original: how much evidence makes a forgery, with the sign changed."""
        bias = find_classifier(self.model).bias.item()
        return self.slope * (bias + self.typical.sum(dtype=np.float64)) + self.intercept


@dataclass(frozen=True)
class Explanation:
    """N faces: ``log_odds = boundary + evidence.sum(axis=1) + rest``, above 0 the face is called forged.

    Args:
        names: of the k concept axes.
        boundary: log-odds of a typical original.
        evidence: (N, k) float64, of each concept axis beyond that of a typical original; positive
            speaks for a forgery.
        rest: (N,) float64, the same of all residual axes together.
        maps: (N, k, S, S) float32, how the evidence of each concept axis is spread over the face.
        rest_maps: (N, S, S) float32, the same of all residual axes.
        ood_score: (N,) float64, distance from the training data; above 1 is beyond 99 % of unseen
            faces of the same kind.
    """

    names: tuple[str, ...]
    boundary: float
    evidence: np.ndarray
    rest: np.ndarray
    maps: np.ndarray
    rest_maps: np.ndarray
    ood_score: np.ndarray

    @property
    def log_odds(self) -> np.ndarray:
        """(N,) float64."""
        return self.boundary + self.evidence.sum(axis=1) + self.rest

    @property
    def probability(self) -> np.ndarray:
        """(N,) float64, calibrated, where originals and forgeries are as frequent."""
        return expit(self.log_odds)


def build(architecture: dict) -> tuple[nn.Module, nn.Module]:
    """An untrained model of a bundle's architecture, and its whitened layer.

    Args:
        architecture: ``backbone`` and ``options`` of timm, the dotted name of the ``layer``, the options
            ``whitening`` of `FeatureWhitening`, and a class of torch.nn as ``activation``, or None for
            that of the backbone.
    """
    import fwstudy.training.backbone  # noqa: F401  timm then knows the study's own network

    model = absorb_activation(create_model(architecture["backbone"], **architecture["options"]))
    factory = partial(FeatureWhitening.from_batch_norm, **architecture["whitening"])
    layer = replace_norm(model, architecture["layer"], factory)
    if architecture["activation"]:
        layer.act = getattr(nn, architecture["activation"])()
    return model.to(memory_format=torch.channels_last).eval(), layer


@torch.inference_mode()
def contributions(
    model: nn.Module, layer: nn.Module, crops: np.ndarray, num_concept_axes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each position of the layer's axes adds to the logit, in one pass.

    Args:
        crops: (N, S, S, 3) uint8, N >= 1.

    Returns:
        the logits (N,); what the k concept axes and all others together add, (N, k + 1, h, w); the
        whitened, rotated features before scale and activation, averaged over positions, (N, C): the
        mean of whitened features is the whitened mean. All float32.

    Raises:
        ValueError: the sum misses a logit by over 1e-4 of its terms: the layer is not before the pooling.
    """
    model.eval()
    classifier = find_classifier(model)
    weight, bias = classifier.weight.reshape(-1), classifier.bias.item()
    parts, seen = [], []
    for batch in np.array_split(crops, len(crops) // BATCH_SIZE + 1):
        with layer.register_forward_hook(lambda _, given, output: seen.append((given[0], output))):
            logits = model(to_tensor(batch, weight.device))[:, 0]
        given, output = seen.pop()
        gap, terms = np.inf, 1
        if output.shape[1] == len(weight):
            shares = output * weight[:, None, None] / output[0, 0].numel()
            gap = (bias + shares.sum((1, 2, 3)) - logits).abs().max().item()
            terms = max(1, shares.abs().sum((1, 2, 3)).max().item())
        if gap > TOLERANCE * terms:
            raise ValueError(
                "the verdict does not decompose over this layer: it is not before the pooling"
            )
        named, others = shares[:, :num_concept_axes], shares[:, num_concept_axes:]
        maps = torch.cat([named, others.sum(1, keepdim=True)], dim=1)
        features = layer.normalize(given.float().mean((2, 3), keepdim=True)).flatten(1)
        parts.append((logits, maps, features))
    return tuple(torch.cat(tensors).numpy(force=True) for tensors in zip(*parts, strict=True))


def reference_statistics(training: np.ndarray, validation: np.ndarray) -> MahalanobisOOD:
    """Where known faces lie, by which `explain_crops` tells faces unlike them.

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS 2018:
    Mahalanobis distance of pooled features. Departures: one mean for originals and forgeries, since
    the class of a new face is not known; the covariance shrunk as by Ledoit and Wolf, since the mean
    over positions of white features is not white; one layer; no perturbation of the input; the
    limit from unseen people. It sees what the layer sees, and misses what that ignores.

    Args:
        training, validation: (N, C), pooled features of different people.
    """
    from sklearn.covariance import LedoitWolf  # slow to import, and not needed to explain

    fitted = LedoitWolf().fit(training.astype(np.float64))
    distances = np.sort(fitted.mahalanobis(validation.astype(np.float64)) ** 0.5)
    return MahalanobisOOD(
        *(np.float32(part) for part in (fitted.location_, fitted.precision_, distances))
    )


def make_trained(
    model: nn.Module, layer: nn.Module, names: Sequence[str], crops: CropSet, **about
) -> TrainedExplainer:
    """Calibrate a model on the validation faces of a crop set, and take its reference.

    Args:
        names: of the first axes of the layer; underscores become blanks.
        crops: of the quality that the model has learned from.
        about: the further fields of `TrainedExplainer`.
    """
    from fwstudy.interpretability.calibration import calibrate  # slow to import, as above

    rows = crops.select(split="train", kind="whole").evenly(REFERENCE_IMAGES).manifest["row"]
    validation = crops.select(split="validation", kind="whole").manifest
    labels, held_out = validation["label"].to_numpy(), validation["row"].to_numpy()
    training = contributions(model, layer, crops.images[rows.to_numpy()], len(names))[2]
    logits, maps, features = contributions(model, layer, crops.images[held_out], len(names))
    calibration = calibrate(labels, logits)
    return TrainedExplainer(
        model=model,
        layer=layer,
        names=tuple(name.replace("_", " ") for name in names),
        slope=calibration.slope,
        intercept=calibration.intercept,
        typical=maps[labels == 0].mean(axis=0),
        reference=reference_statistics(training, features),
        **about,
    )


def explain_crops(trained: TrainedExplainer, crops: np.ndarray) -> Explanation:
    """Evidence, verdict, heat maps and ood_score of face crops.

    Args:
        crops: (N, S, S, 3) uint8, N >= 1, cut as in training.

    Raises:
        ValueError: see `contributions`.
    """
    model, layer, num_concept_axes = trained.model, trained.layer, len(trained.names)
    _, maps, features = contributions(model, layer, crops, num_concept_axes)
    beyond = trained.slope * (maps.astype(np.float64) - trained.typical)
    evidence = beyond.sum(axis=(2, 3))
    shown = interpolate(torch.from_numpy(beyond).float(), crops.shape[1:3], mode="bilinear").numpy()
    return Explanation(
        names=trained.names,
        boundary=trained.boundary,
        evidence=evidence[:, :num_concept_axes],
        rest=evidence[:, num_concept_axes],
        maps=shown[:, :num_concept_axes],
        rest_maps=shown[:, num_concept_axes],
        ood_score=trained.reference.distance(features) / trained.reference.limit,
    )

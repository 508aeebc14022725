"""The verdict, decomposed over the axes of the last norm layer, and where in the face they speak.

With the norm layer directly before the pooling, the logit is exactly

    logit = bias + Σ_c weight_c · mean_{h,w} a_c(h, w)

so ``weight_c · a_c(h, w) / (H W)`` is the contribution of position (h, w) of axis c, and nothing is
left over. Summed over all axes this is the class activation map (Zhou et al. 2016). For such a head,
Grad-CAM (Selvaraju et al. 2017) at the same layer is the same map without its negative part. What
whitening adds is that *single* axes stand for concepts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn

from fwstudy.crops.cropset import CropSet
from fwstudy.whitening.concepts import BATCH_SIZE
from fwstudy.whitening.statistics import evaluation_mode
from fwstudy.whitening.surgery import find_classifier

TOLERANCE = 1e-4  # of the sizes of the terms together: they may cancel


@dataclass(frozen=True)
class Decomposition:
    """The logits of N images as a sum over C axes.

    Args:
        bias: of the classifier.
        evidence: (N, C) float32, weight times pooled activation.
        logits: (N,) float32; ``bias + evidence.sum(axis=1)`` to the rounding of its terms.
    """

    bias: float
    evidence: np.ndarray
    logits: np.ndarray

    def take(self, places: np.ndarray) -> "Decomposition":
        """Some of the images, by their places; one may be taken more than once."""
        return Decomposition(self.bias, self.evidence[places], self.logits[places])


def capture(
    model: nn.Module, layer: nn.Module, images: torch.Tensor, before: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a layer, after its activation function, or its input, and the logits.

    Args:
        before: the input, in float32.
    """
    found = []
    if before:
        handle = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].float()))
    else:
        handle = layer.register_forward_hook(lambda _, inputs, output: found.append(output))
    with handle:
        logits = model(images)
    return found[0], logits[:, 0]


@torch.inference_mode()
def decompose(model: nn.Module, layer: nn.Module, crops: CropSet) -> Decomposition:
    """Decompose the verdict on every crop over the axes of a layer.

    Raises:
        ValueError: the sum misses the logit by more than 1e-4 of its terms: the layer is not the last one.
    """
    model.eval()
    classifier = find_classifier(model)
    weight, bias = classifier.weight.reshape(-1), classifier.bias.item()
    pooled, logits = [], []
    for batch in crops.batches(BATCH_SIZE, weight.device):
        maps, scores = capture(model, layer, batch)
        pooled.append(maps.mean(dim=(2, 3)))
        logits.append(scores)
    pooled, logits = torch.cat(pooled), torch.cat(logits)
    if pooled.shape[1] == len(weight):
        evidence = pooled * weight
        gap = (bias + evidence.sum(dim=1) - logits).abs().max().item()
        terms = max(1, evidence.abs().sum(dim=1).max().item())
    if pooled.shape[1] != len(weight) or gap > TOLERANCE * terms:
        raise ValueError(
            "the verdict does not decompose over this layer: it is not before the pooling"
        )
    return Decomposition(bias, evidence.numpy(force=True), logits.numpy(force=True))


def resize(maps: torch.Tensor, size: int) -> np.ndarray:
    """Maps (N, h, w) at input resolution, bilinear: (N, size, size) float32."""
    return LayerAttribution.interpolate(maps[:, None], (size, size), "bilinear")[:, 0].numpy(
        force=True
    )


def layer_map(values: torch.Tensor, images: torch.Tensor) -> np.ndarray:
    """Relevance of each channel (N, C, h, w), summed and cut at zero: (N, S, S) float32.

    At the resolution of the images (N, 3, S, S).
    """
    return np.clip(resize(values.detach().sum(dim=1), images.shape[-1]), 0, None)


@torch.inference_mode()
def evidence_maps(
    model: nn.Module, layer: nn.Module, images: torch.Tensor, axes: list[int] | slice = slice(None)
) -> np.ndarray:
    """What each position contributes to the logit through the given axes, at input resolution.

    Args:
        images: (N, 3, S, S) float32 in [-1, 1].
        axes: which axes to sum over; all by default.

    Returns:
        (N, S, S) float32, signed: positive speaks for a forgery.
    """
    weight = find_classifier(model).weight.reshape(-1)
    with evaluation_mode(model):
        maps, _ = capture(model, layer, images)
    contribution = maps[:, axes] * weight[axes][:, None, None] / maps[0, 0].numel()
    return resize(contribution.sum(dim=1), images.shape[-1])


def grad_cam(model: nn.Module, layer: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Grad-CAM at input resolution, with its final ReLU, which Captum leaves out by default.

    The ReLU comes after the interpolation, so that all maps of this module are cut alike: images
    (N, 3, S, S) float32 in [-1, 1] to (N, S, S) float32.
    """
    with evaluation_mode(model):
        return layer_map(LayerGradCam(model, layer).attribute(images, target=0), images)


def center_prior(size: int) -> np.ndarray:
    """A Gaussian in the middle, a quarter of the width wide: what a map earns that sees nothing."""
    offset = (np.arange(size) + 0.5) / size - 0.5
    bell = np.exp(-(offset**2) / (2 * 0.25**2))
    return np.outer(bell, bell).astype(np.float32)


def mean_mask_prior(crops: CropSet) -> np.ndarray:
    """How often each pixel is changed in the forgeries of (the training) crops: (S, S) float32."""
    rows = crops.manifest.loc[crops.manifest["label"] == 1, "row"].to_numpy()
    return crops.mask[rows].mean(axis=0, dtype=np.float32)


def concept_share(decomposition: Decomposition, num_concept_axes: int) -> float:
    """Share of the logit's variance over images that flows through the first ``num_concept_axes`` axes.

    cov(concept evidence, logit) / var(logit). With the share of the residual axes it sums to one, and it
    can leave [0, 1] where the two oppose each other.
    """
    named = decomposition.evidence[:, :num_concept_axes].sum(axis=1).astype(np.float64)
    total = decomposition.evidence.sum(axis=1).astype(np.float64)
    return float(np.cov(named, total)[0, 1] / total.var(ddof=1))

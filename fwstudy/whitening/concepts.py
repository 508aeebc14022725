"""Concepts: what chosen axes of a whitening layer stand for, and turning the axes towards them.

Sources: Hua et al., arXiv:2106.10834, 2021 ("feature constraint"); Chen, Bei, Rudin, Nature Machine
Intelligence 2020. The rotation comes in closed form from `fwstudy.whitening.rotation`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import align_mean
from fwstudy.whitening.statistics import evaluation_mode
from fwstudy.whitening.sync import all_reduce_count, all_reduce_sum

BATCH_SIZE = 64


@dataclass(frozen=True)
class Concept:
    """One thing for an axis to stand for.

    Args:
        name: shown in figures.
        shown: (n, 3, S, S) float32 in [-1, 1], images with the concept.
        absent: (n, 3, S, S), the same images without it; None compares with the average image.
        groups: (n,) str, the group of people of each image, for splits and intervals; not used here.
    """

    name: str
    shown: torch.Tensor
    absent: torch.Tensor | None = None
    groups: np.ndarray | None = None


@torch.no_grad()
def layer_inputs(model: nn.Module, layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Spatial mean of what a layer is given, image by image.

    Args:
        images: (n, 3, S, S).

    Returns:
        (n, C) float32.
    """
    found = []
    device = next(model.parameters()).device
    with layer.register_forward_pre_hook(
        lambda module, inputs: found.append(inputs[0].float().mean(dim=(2, 3)))
    ):
        for batch in images.split(BATCH_SIZE):
            model(batch.to(device))
    return torch.cat(found)


@torch.no_grad()
def whitened_means(layer: FeatureWhitening, model: nn.Module, concepts: list[Concept]) -> Tensor:
    """Mean whitened, not yet rotated, activation of each concept, less that of its absence.

    Whitening is affine, so the mean of whitened maps is the whitened mean map: one product with W.
    The model runs in evaluation mode and is left in its own. Where several processes run, each brings
    its own images of every concept.

    Returns:
        (C, k) float32.
    """

    def mean(images: Tensor) -> Tensor:
        inputs = layer_inputs(model, layer, images)
        return all_reduce_sum(inputs.sum(dim=0)) / all_reduce_count(len(inputs), inputs.device)

    with evaluation_mode(model):
        columns = [
            mean(concept.shown)
            - (layer.running_mean if concept.absent is None else mean(concept.absent))
            for concept in concepts
        ]
        return layer.decorrelate(torch.stack(columns, dim=1))


@torch.no_grad()
def align(model: nn.Module, layer: FeatureWhitening, concepts: list[Concept]) -> None:
    """Turn the first k axes of a layer towards k concepts; the other axes move as little as possible.

    Args:
        model: contains `layer`; it runs in evaluation mode and is left in its own.
        concepts: at most as many as channels.

    Raises:
        ValueError: too many concepts, or their means are not finite.
    """
    means = whitened_means(layer, model, concepts)
    layer.set_rotation(align_mean(means, previous=layer.rotation))


class Alignment:
    """Turns a layer's first k axes towards k concepts, now and then again while training goes on.

    Args:
        model, layer: the layer sits in the model.
        concepts: at most as many as channels.
        interval: steps between two updates.
    """

    def __init__(
        self, model: nn.Module, layer: FeatureWhitening, concepts: list[Concept], interval: int
    ):
        self.model, self.layer, self.concepts, self.interval = model, layer, concepts, interval

    def update(self) -> None:
        """`align` now."""
        align(self.model, self.layer, self.concepts)

    def __call__(self, step: int) -> None:
        """Update every ``interval`` steps; to be called after each, counted from 1."""
        if step and step % self.interval == 0:
            self.update()

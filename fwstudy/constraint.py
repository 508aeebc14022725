"""The feature constraint: axes of the whitening layer are turned towards concepts during training.

Hua et al. 2021 ("feature constraint"); Chen, Bei, Rudin 2020. The rotation itself comes in closed form
from `fwstudy.alignment`.

The classifier reads the axes, so a rotation must not change them more than needed: a named axis follows
its concept, which moves little between two updates, and the axes without a concept change as little
as orthogonality allows. The first rotation, which changes all, is followed by fitting the classifier
anew (`fwstudy.variants.refit_classifier`).
"""

import torch
from torch import Tensor, nn

from fwstudy.alignment import align_mean
from fwstudy.concepts import Concept, layer_inputs
from fwstudy.distributed import total, total_count
from fwstudy.whitening import FeatureWhitening, evaluation_mode


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
        return total(inputs.sum(dim=0)) / total_count(len(inputs), inputs.device)

    with evaluation_mode(model):
        columns = [
            mean(concept.shown)
            - (layer.running_mean if concept.absent is None else mean(concept.absent))
            for concept in concepts
        ]
        return layer.decorrelate(torch.stack(columns, dim=1))


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

    @torch.no_grad()
    def update(self) -> None:
        """Compute the concepts' mean activations and the rotation that aligns with them."""
        means = whitened_means(self.layer, self.model, self.concepts)
        self.layer.set_rotation(align_mean(means, previous=self.layer.rotation))

    def __call__(self, step: int) -> None:
        """Update every ``interval`` steps; to be called after each."""
        if step % self.interval == 0:
            self.update()

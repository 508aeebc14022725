"""The feature constraint: axes of the whitening layer are turned towards concepts during training.

Hua et al. 2021 ("feature constraint"); Chen, Bei, Rudin 2020. The rotation itself comes in closed form
from `fwstudy.whitening.rotation`.

A rotation can only find what the layers below have learned. So there is a second half: a *concept
loss* that teaches them, cell by cell, where the concept of each concept axis is present. It reads the
axis before its activation function as log-odds. The activation function is then the softplus,
log(1 + exp(x)) = -log P(absent): it grows with the odds (SiLU falls before it rises), and its sum over
positions is -log of the chance that the concept is nowhere, if positions are independent.
Third, the *bottleneck* of the verdict to the concept axes, between 0 (free) and 1 (they alone decide).

The classifier reads the axes, so a rotation must not change them more than needed: a concept axis follows
its concept, which moves little between two updates, and the axes without a concept change as little
as orthogonality allows. The first rotation, which changes all, is followed by fitting the classifier
anew (`fwstudy.training.variants.refit_classifier`).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fwstudy.training.batches import Batch
from fwstudy.whitening.surgery import find_classifier, pooled_and_logits
from fwstudy.whitening.sync import all_reduce_count, all_reduce_sum, world_size

PRESENT = 0.04  # share of a cell of the map that must show a concept for the cell to count
PRESENT_WEIGHT = 4.0  # of a cell that shows a concept, against one that does not: few cells do
RARE = 0.05  # what a concept axis takes the chance of its concept in a cell to be, before it has learned


def concept_loss(axes: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of concept axes, read as log-odds, and the presence of their concepts: mean over cells.

    A cell that shows its concept counts `PRESENT_WEIGHT` times, so the odds come out as many times higher.

    Args:
        axes: (B, k, H, W), before the activation function.
        present: (B, k, H, W) bool.

    Returns:
        ().
    """
    return functional.binary_cross_entropy_with_logits(
        axes, present.to(axes.dtype), pos_weight=axes.new_tensor(PRESENT_WEIGHT)
    )


class ConstrainedLoss:
    """Classification, plus concept loss, plus the price of evidence on residual axes.

    classification + concept_weight · `concept_loss`
    + bottleneck / (1 − bottleneck) · (variance over the batch of the evidence of all residual axes)

    With bottleneck = 1 the residual axes are cut off instead (`cut_residual`, after every step).

    Args:
        layer: whose first axes are the concept axes; it feeds the pooling, unless bottleneck is 0.
        num_concept_axes: number k of concept axes.
        masks: changed and parts of a batch to the pixels that show each concept, (B, k, S, S) bool.
        concept_weight: at least 0.
        bottleneck: in [0, 1].
    """

    def __init__(
        self,
        layer: nn.Module,
        num_concept_axes: int,
        masks: Callable[[Tensor, Tensor], Tensor],
        concept_weight: float,
        bottleneck: float,
    ):
        self.layer, self.num_concept_axes, self.masks = layer, num_concept_axes, masks
        self.concept_weight = concept_weight
        self.price = bottleneck / (1 - bottleneck) if bottleneck < 1 else 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of one batch: ()."""
        found: list[Tensor] = []
        with self.layer.act.register_forward_pre_hook(
            # a copy, because backbones' activations work in place
            lambda module, inputs: found.append(inputs[0][:, : self.num_concept_axes].clone())
        ):
            pooled, logits = pooled_and_logits(model, batch.images)
        loss = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        if self.concept_weight:
            axes = found[0]
            masks = self.masks(batch.mask, batch.parsing).to(axes.dtype)
            present = functional.adaptive_avg_pool2d(masks, axes.shape[-2:]) > PRESENT
            loss = loss + self.concept_weight * concept_loss(axes, present)
        if self.price:
            weight = find_classifier(model).weight.reshape(-1)[self.num_concept_axes :]
            loss = loss + self.price * variance(pooled[:, self.num_concept_axes :] @ weight)
        return loss


def variance(values: Tensor) -> Tensor:
    """Variance over the batch, of all processes that share it: (B,) to ()."""
    if world_size() == 1:
        return values.var()
    count = all_reduce_count(len(values), values.device)
    mean = all_reduce_sum(values.sum()) / count
    return all_reduce_sum((values - mean).square().sum()) / (count - 1)


@torch.no_grad()
def cut_residual(model: nn.Module, num_concept_axes: int) -> None:
    """Let the verdict read the concept axes alone."""
    find_classifier(model).weight.flatten(1)[:, num_concept_axes:] = 0


@torch.no_grad()
def keep_positive(model: nn.Module, num_concept_axes: int) -> None:
    """Let the concept axes speak for a forgery only: what they stand for is evidence of one."""
    find_classifier(model).weight.flatten(1)[:, :num_concept_axes].clamp_(min=0)


@torch.no_grad()
def start_log_odds(layer: nn.Module, num_concept_axes: int) -> None:
    """Give the concept axes scale 1 and the log-odds of a rare concept (Lin et al. 2017, section 3.3)."""
    layer.weight[:num_concept_axes] = 1.0
    layer.bias[:num_concept_axes] = math.log(RARE / (1 - RARE))

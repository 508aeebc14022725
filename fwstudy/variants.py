"""From the baseline to a variant: replace one norm layer, turn its axes, refit the classifier.

All variants of one study start from the same baseline weights, see the same batches in the same
order for the same number of steps, and differ in `fwstudy.params.Whitening` alone.
"""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from fwstudy.alignment import random_rotation
from fwstudy.concepts import BATCH_SIZE, CONCEPT_SETS
from fwstudy.constraint import Alignment
from fwstudy.crops import CropSet, to_tensor
from fwstudy.models import find_classifier, last_norm, pooled_and_logits, replace_norm
from fwstudy.params import Whitening
from fwstudy.published import PublishedWhitening
from fwstudy.whitening import FeatureWhitening, update_statistics

CONCEPT_IMAGES = 32  # per concept, at one update of the rotation
CALIBRATION_IMAGES = 512  # from which the statistics of a new whitening layer start
REGULARIZATION = 0.01  # inverse strength (scikit-learn's C) of the refitted classifier


def layer_name(model: nn.Module, settings: Whitening) -> str:
    """The dotted name of the layer to replace; ``last`` is the norm before the pooling."""
    return last_norm(model) if settings.layer == "last" else settings.layer


NORMS = {
    "whitening": (
        FeatureWhitening,
        ("num_groups", "solver", "shrinkage", "refresh_interval"),
    ),
    "published": (PublishedWhitening, ("num_groups",)),
}  # of params.yaml: the layer, and which settings it takes


def norm_factory(settings: Whitening) -> Callable[[nn.BatchNorm2d], FeatureWhitening]:
    """What makes the whitening layer of the settings from the norm layer it replaces."""
    layer, options = NORMS[settings.norm]
    return partial(
        layer.from_batch_norm, **{option: getattr(settings, option) for option in options}
    )


@torch.no_grad()
def turn_randomly(layer: FeatureWhitening, seed: int) -> None:
    """Give the layer a rotation drawn from the Haar measure: the control for alignment."""
    generator = torch.Generator().manual_seed(seed)
    layer.set_rotation(random_rotation(layer.num_features, generator))


@torch.no_grad()
def pooled_activations(model: nn.Module, crops: CropSet) -> torch.Tensor:
    """What the classifier reads.

    Returns:
        (len(crops), C) float32.
    """
    model.eval()
    device = next(model.parameters()).device
    images = crops.images[crops.manifest["row"].to_numpy()]
    batches = np.array_split(images, max(1, len(images) // BATCH_SIZE))
    read = [pooled_and_logits(model, to_tensor(batch, device))[0].cpu() for batch in batches]
    return torch.cat(read)


@torch.no_grad()
def refit_classifier(model: nn.Module, training: CropSet) -> None:
    """Replace the classifier by a logistic regression on what it now reads.

    New axes mean nothing to the old classifier; the refit makes every variant start fine-tuning
    from a working detector.

    Args:
        training: whole-face crops; originals weigh as much as all forgeries together.
    """
    features = pooled_activations(model, training).double().numpy()
    labels = training.manifest["label"].to_numpy()
    regression = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=REGULARIZATION, class_weight="balanced", max_iter=1000),
    ).fit(features, labels)
    scaler, logistic = regression[0], regression[1]
    weight = logistic.coef_ / scaler.scale_
    bias = logistic.intercept_ - weight @ scaler.mean_
    classifier = find_classifier(model)
    classifier.weight.copy_(torch.from_numpy(weight).reshape(classifier.weight.shape))
    classifier.bias.copy_(torch.from_numpy(bias))


def make_variant(
    baseline: nn.Module, settings: Whitening, training: CropSet, seed: int
) -> tuple[nn.Module, str, Callable[[int], None]]:
    """A copy of the baseline, changed as the settings say and ready to be fine-tuned.

    Args:
        baseline: trained; left as it is.
        settings: of the variant.
        training: crops of the training split, whole faces and forged parts.
        seed: of the random rotation and of the concept images.

    Returns:
        the model, the dotted name of the layer, and what to call after every training step.
    """
    model = copy.deepcopy(baseline)
    name = layer_name(model, settings)
    after_step: Callable[[int], None] = lambda step: None
    whole = training.select(kind="whole")
    if settings.norm in NORMS:
        layer = replace_norm(model, name, norm_factory(settings))
        rows = whole.manifest["row"].sample(min(CALIBRATION_IMAGES, len(whole)), random_state=seed)
        batches = to_tensor(whole.images[np.sort(rows.to_numpy())]).split(BATCH_SIZE)
        update_statistics(model, layer, batches)
        if settings.rotation == "random":
            turn_randomly(layer, seed)
        if settings.rotation == "aligned":
            concepts = CONCEPT_SETS[settings.concepts](
                training, CONCEPT_IMAGES, seed, settings.grid_size
            )
            after_step = Alignment(model, layer, concepts, settings.rotation_interval)
            after_step.update()
    refit_classifier(model, whole)
    return model, name, after_step

"""From the baseline to a variant: replace one norm layer, turn its axes, refit the classifier.

All variants of one study start from the same baseline weights, see the same batches in the same
order for the same number of steps, and differ in `fwstudy.params.Whitening` alone.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from fwstudy.crops.cropset import CropSet
from fwstudy.params import Whitening
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.losses import ConstrainedLoss, cut_residual, keep_positive, start_log_odds
from fwstudy.training.trainer import Loss, classification_loss, own_share
from fwstudy.whitening.concepts import BATCH_SIZE, Alignment
from fwstudy.whitening.iternorm import IterNormWhitening
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import random_rotation
from fwstudy.whitening.statistics import update_statistics
from fwstudy.whitening.surgery import find_classifier, last_norm, pooled_and_logits, replace_norm
from fwstudy.whitening.sync import all_gather_list

CONCEPT_IMAGES = 32  # per concept, at one update of the rotation
CALIBRATION_IMAGES = 512  # from which the statistics of a new whitening layer start
REGULARIZATION = 0.01  # inverse strength (scikit-learn's C) of the refitted classifier


def layer_name(model: nn.Module, settings: Whitening) -> str:
    """The dotted name of the layer to replace; ``last`` is the norm before the pooling."""
    return last_norm(model) if settings.layer == "last" else settings.layer


NORMS = {
    "whitening": (
        FeatureWhitening,
        {name: name for name in ("num_groups", "solver", "shrinkage", "whiten_every")},
    ),
    "iternorm": (IterNormWhitening, {"num_groups": "num_groups", "steps": "newton_steps"}),
}  # of params.yaml: the layer, and which of its arguments is which setting


ACTIVATIONS = {"softplus": nn.Softplus}


def norm_factory(settings: Whitening) -> Callable[[nn.BatchNorm2d], FeatureWhitening]:
    """What makes the whitening layer of the settings from the norm layer it replaces."""
    layer, options = NORMS[settings.norm]
    values = {argument: getattr(settings, setting) for argument, setting in options.items()}
    return partial(layer.from_batch_norm, **values)


def set_activation(layer: nn.Module, name: str) -> None:
    """Give a norm layer another activation function; ``backbone`` leaves the one it has."""
    if name != "backbone":
        layer.act = ACTIVATIONS[name]()


def put_layer(model: nn.Module, settings: Whitening) -> str:
    """Put the norm layer and activation of the settings into a model; returns the layer's name."""
    name = layer_name(model, settings)
    if settings.norm in NORMS:
        replace_norm(model, name, norm_factory(settings))
    set_activation(model.get_submodule(name), settings.activation)
    return name


@torch.no_grad()
def pooled_activations(model: nn.Module, crops: CropSet) -> torch.Tensor:
    """What the classifier reads. Processes divide the crops.

    Returns:
        (len(crops), C) float32.
    """
    model.eval()
    batches = own_share(crops).batches(BATCH_SIZE, next(model.parameters()).device)
    return torch.cat(all_gather_list([pooled_and_logits(model, x)[0].cpu() for x in batches]))


@torch.no_grad()
def refit_classifier(model: nn.Module, training: CropSet) -> None:
    """Replace the classifier by a logistic regression on what it now reads.

    New axes mean nothing to the old classifier; the refit makes every variant start fine-tuning
    from a working detector.

    Args:
        training: whole-face crops; originals weigh as much as all forgeries together.
    """
    # slow to import, and loaded models need none of it
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

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


@dataclass(frozen=True)
class Variant:
    """A model ready to be fine-tuned, and how.

    Args:
        model: gives one logit an image.
        layer_name: dotted name of the layer that the settings are about; empty for the baseline.
        loss: what to minimise.
        after_step: to be called after every training step.
    """

    model: nn.Module
    layer_name: str = ""
    loss: Loss = classification_loss
    after_step: Callable[[int], None] = lambda step: None


def make_variant(baseline: nn.Module, settings: Whitening, training: CropSet, seed: int) -> Variant:
    """A copy of the baseline, changed as the settings say and ready to be fine-tuned.

    Args:
        baseline: trained; left as it is.
        settings: of the variant.
        training: crops of the training split, whole faces and forged parts.
        seed: of the random rotation and of the concept images.
    """
    model = copy.deepcopy(baseline)
    name = put_layer(model, settings)
    layer = model.get_submodule(name)
    whole = training.select(kind="whole")
    steps: list[Callable[[int], None]] = []
    chosen, size = CONCEPT_SETS[settings.concepts], settings.grid_size
    if settings.norm in NORMS:
        shown = whole.manifest.sample(min(CALIBRATION_IMAGES, len(whole)), random_state=seed)
        shown = own_share(replace(whole, manifest=shown.sort_values("row")))
        update_statistics(model, layer, shown.batches(BATCH_SIZE))
        if settings.rotation == "random":
            generator = torch.Generator().manual_seed(seed)
            layer.set_rotation(random_rotation(layer.num_features, generator))
        if settings.rotation == "aligned":
            concepts = chosen.images(training, CONCEPT_IMAGES, seed, size)
            alignment = Alignment(model, layer, concepts, settings.rotate_every)
            alignment.update()  # before the classifier is refitted
            steps.append(alignment)
    loss = classification_loss
    if settings.concept_weight or settings.bottleneck:
        named = len(chosen.images(training, 1, 0, size))
        masks = partial(chosen.masks, grid_size=size)
        loss = ConstrainedLoss(layer, named, masks, settings.concept_weight, settings.bottleneck)
        if settings.concept_weight:
            start_log_odds(layer, named)
    refit_classifier(model, whole)
    if settings.concept_weight and settings.concepts == "forged_parts":
        steps.append(lambda step: keep_positive(model, named))
    if settings.bottleneck == 1:
        steps.append(lambda step: cut_residual(model, named))

    def after_step(step: int) -> None:
        for action in steps:
            action(step)

    after_step(0)
    return Variant(model, name, loss, after_step)

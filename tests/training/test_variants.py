"""Concept sets and variants, on a tiny model with random weights and the blob data set."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fwstudy.labels import PARTS
from fwstudy.training import concept_sets, variants
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.whitening.iternorm import IterNormWhitening
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.surgery import find_classifier

from ..models import quick_settings


@pytest.fixture(scope="module")
def settings():
    return quick_settings()


@pytest.mark.parametrize(("name", "number"), [("grid", 9), ("parts", 4), ("forged_parts", 4)])
def test_concept_sets(training, name, number):
    found = CONCEPT_SETS[name].images(training, 3, 0, 3)
    assert len(found) == number and len({concept.name for concept in found}) == number
    for concept in found:
        assert concept.shown.shape == (3, 3, 64, 64) and len(concept.groups) == 3
        assert concept.absent is None or concept.absent.shape == concept.shown.shape


def test_grid_cells_tile_the_image(training):
    cells = concept_sets.grid_concepts(training, 2, 0, 3)
    whole = concept_sets.sample(training.select(kind="whole"), 2, 0).tensor()
    torch.testing.assert_close(sum(cell.shown for cell in cells), whole)


def test_part_concept_shows_the_part_alone(training):
    rows = concept_sets.sample(training.select(kind="whole"), 2, 0).manifest["row"].to_numpy()
    for concept in concept_sets.part_concepts(training, 2, 0, 3):
        outside = torch.from_numpy(training.parsing[rows] != PARTS.index(concept.name))
        assert (concept.shown.movedim(1, -1)[outside] == 0).all()
        assert (concept.shown != 0).any()


def test_forged_part_differs_from_its_original_at_the_part(training):
    for concept in concept_sets.forged_part_concepts(training, None, 0, 3):
        assert len(concept.shown) == 2 * training.manifest["identity"].nunique()
        assert ((concept.shown - concept.absent).abs() > 0.2).any()


def test_missing_part_is_named(training):
    with pytest.raises(ValueError, match="no crop has a forged left_eye"):
        concept_sets.forged_part_concepts(training.select(label=0), 2, 0, 3)


def test_parts_are_transplanted_where_the_data_set_has_none_forged(training):
    """In the blobs each family forges one square, in which all parts lie."""
    whole = training.select(kind="whole")
    images, originals = concept_sets.transplants(whole, "left_eye", 3, 0)
    assert images.shape == (3, 64, 64, 3) and len(originals) == 3
    part = training.parsing[originals] == PARTS.index("left_eye")
    differs = (images != training.images[originals]).any(axis=-1)
    assert differs[part].mean() > 0.5 and differs.mean() < 0.2
    assert (training.manifest.set_index("row").loc[originals, "label"] == 0).all()


def test_updates_keep_the_rotation_orthogonal_and_the_residual_axes_still(
    baseline, settings, training
):
    variant = variants.make_variant(baseline, settings, training, seed=0)
    layer, after_step = variant.model.get_submodule(variant.layer_name), variant.after_step
    before = layer.rotation.clone()
    after_step(1)
    assert torch.equal(layer.rotation, before)  # not yet
    for step in range(2, 22, 2):
        after_step(step)
    identity = torch.eye(layer.num_features)
    torch.testing.assert_close(layer.rotation @ layer.rotation.T, identity, rtol=0, atol=1e-4)
    torch.testing.assert_close(layer.rotation, before, rtol=0, atol=1e-3)  # nothing was trained


def test_variants_differ_as_they_say_and_the_baseline_is_left_alone(baseline, settings, training):
    before = {name: value.clone() for name, value in baseline.state_dict().items()}
    layers = {}
    changes = ("norm", "batch"), ("norm", "iternorm"), ("rotation", "none"), ("rotation", "random")
    for key, value in changes:
        wanted = settings.model_copy(update={key: value})
        variant = variants.make_variant(baseline, wanted, training, seed=0)
        layers[value] = variant.model.get_submodule(variant.layer_name)
        assert variant.after_step(2) is None
    assert isinstance(layers["batch"], nn.BatchNorm2d)
    assert isinstance(layers["iternorm"], IterNormWhitening)
    assert isinstance(layers["none"], FeatureWhitening)
    assert torch.equal(layers["none"].rotation, torch.eye(256))
    assert not torch.equal(layers["random"].rotation, torch.eye(256))
    for name, value in baseline.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_refitted_classifier_detects(baseline, training):
    model, whole = copy.deepcopy(baseline), training.select(kind="whole")
    variants.refit_classifier(model, whole)
    pooled = variants.pooled_activations(model, whole)
    logits = find_classifier(model)(pooled)[:, 0]
    labels = whole.manifest["label"].to_numpy()
    assert np.mean((logits.detach().numpy() > 0) == labels) > 0.9

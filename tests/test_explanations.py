"""Concepts, variants and evidence, on a tiny trained-like model and the blob data set."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fwstudy import concepts, constraint, evidence, measures, variants
from fwstudy.alignment import random_rotation
from fwstudy.concepts import CONCEPT_SETS
from fwstudy.crops import to_tensor
from fwstudy.faces.clips import FORGED_PARTS, PARTS
from fwstudy.models import create_model, find_classifier
from fwstudy.params import load_params
from fwstudy.published import PublishedWhitening
from fwstudy.study import Detector
from fwstudy.whitening import FeatureWhitening, update_statistics, whiteness

from .test_params import ROOT


@pytest.fixture(scope="module")
def settings():
    default = load_params(ROOT / "params.yaml").whitening
    return default.model_copy(update={"num_groups": 8, "rotation_interval": 2})


@pytest.fixture(scope="module")
def baseline(crops):
    """Random weights, but running statistics of the data."""
    torch.manual_seed(0)
    model = create_model("test_efficientnet").train()
    with torch.no_grad():
        for step in range(30):
            model(to_tensor(crops.images[4 * step : 4 * step + 4]))
    return model.eval()


@pytest.fixture(scope="module")
def training(crops):
    return crops.select(split="train", quality="c23")


@pytest.fixture(scope="module")
def aligned(baseline, settings, training):
    model, name, _ = variants.make_variant(baseline, settings, training, seed=0)
    return Detector(model.eval(), name, pd.DataFrame())


@pytest.mark.parametrize(("name", "number"), [("grid", 9), ("parts", 6), ("forged_parts", 6)])
def test_concept_sets(training, name, number):
    found = CONCEPT_SETS[name](training, 3, 0, 3)
    assert len(found) == number and len({concept.name for concept in found}) == number
    for concept in found:
        assert concept.shown.shape == (3, 3, 64, 64) and len(concept.groups) == 3
        assert concept.absent is None or concept.absent.shape == concept.shown.shape


def test_grid_cells_tile_the_image(training):
    cells = concepts.grid_concepts(training, 2, 0, 3)
    whole = to_tensor(training.images[concepts.sample_rows(training.select(kind="whole"), 2, 0)])
    torch.testing.assert_close(sum(cell.shown for cell in cells), whole)


def test_part_concept_shows_the_part_alone(training):
    rows = concepts.sample_rows(training.select(kind="whole"), 2, 0)
    for concept in concepts.part_concepts(training, 2, 0, 3):
        outside = torch.from_numpy(training.parts[rows] != PARTS.index(concept.name))
        assert (concept.shown.movedim(1, -1)[outside] == 0).all()
        assert (concept.shown != 0).any()


def test_forged_part_differs_from_its_original_at_the_part(training):
    for concept in concepts.forged_part_concepts(training, None, 0, 3):
        assert len(concept.shown) == 2 * training.manifest["identity"].nunique()
        assert ((concept.shown - concept.absent).abs() > 0.2).any()


def test_missing_part_is_named(training):
    with pytest.raises(ValueError, match="no crop has a forged left_brow"):
        concepts.forged_part_concepts(training.select(kind="whole"), 2, 0, 3)


def test_whitened_means_equal_means_of_whitened_maps(aligned, training):
    concept = concepts.forged_part_concepts(training, None, 0, 3)[0]
    means = constraint.whitened_means(aligned.layer, aligned.model, [concept])
    found = []
    hook = aligned.layer.register_forward_pre_hook(
        lambda layer, inputs: found.append(layer.normalize(inputs[0]).mean(dim=(0, 2, 3)))
    )
    with torch.no_grad():
        aligned.model(concept.shown), aligned.model(concept.absent)
    hook.remove()
    rotated = aligned.layer.rotation @ means[:, 0]
    torch.testing.assert_close(rotated, found[0] - found[1], rtol=1e-3, atol=1e-3)


def test_aligned_axes_answer_to_their_concepts_more_than_random_ones(baseline, settings, training):
    means = {}
    for rotation in ("aligned", "random"):
        wanted = settings.model_copy(update={"rotation": rotation})
        model, name, _ = variants.make_variant(baseline, wanted, training, seed=0)
        layer = model.get_submodule(name)
        concept = concepts.forged_part_concepts(training, variants.CONCEPT_IMAGES, 0, 3)
        answer = layer.rotation[: len(concept)] @ constraint.whitened_means(layer, model, concept)
        means[rotation] = answer.diagonal().sum().item()
    assert means["aligned"] > 3 * abs(means["random"])


def test_updates_keep_the_rotation_orthogonal_and_the_unnamed_axes_still(
    baseline, settings, training
):
    model, name, after_step = variants.make_variant(baseline, settings, training, seed=0)
    layer = model.get_submodule(name)
    before = layer.rotation.clone()
    after_step(1)
    assert torch.equal(layer.rotation, before)  # not yet
    for step in range(2, 22, 2):
        after_step(step)
    identity = torch.eye(layer.num_features)
    torch.testing.assert_close(layer.rotation @ layer.rotation.T, identity, rtol=0, atol=1e-4)
    torch.testing.assert_close(layer.rotation, before, rtol=0, atol=1e-3)  # nothing was trained


def test_variants_differ_as_they_say(baseline, settings, training):
    layers = {}
    changes = ("norm", "batch"), ("norm", "published"), ("rotation", "none"), ("rotation", "random")
    for key, value in changes:
        wanted = settings.model_copy(update={key: value})
        model, name, after_step = variants.make_variant(baseline, wanted, training, seed=0)
        layers[value] = model.get_submodule(name)
        assert after_step(2) is None
    assert isinstance(layers["batch"], nn.BatchNorm2d)
    assert isinstance(layers["published"], PublishedWhitening)
    assert isinstance(layers["none"], FeatureWhitening)
    assert torch.equal(layers["none"].rotation, torch.eye(256))
    assert not torch.equal(layers["random"].rotation, torch.eye(256))


def test_baseline_is_left_alone(baseline, settings, training):
    before = {name: value.clone() for name, value in baseline.state_dict().items()}
    variants.make_variant(baseline, settings, training, seed=0)
    for name, value in baseline.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_refitted_classifier_detects(baseline, training):
    model, whole = copy.deepcopy(baseline), training.select(kind="whole")
    variants.refit_classifier(model, whole)
    pooled = variants.pooled_activations(model, whole)
    logits = find_classifier(model)(pooled)[:, 0]
    labels = whole.manifest["label"].to_numpy()
    assert np.mean((logits.detach().numpy() > 0) == labels) > 0.9


def test_unknown_layer_lists_the_known(baseline, settings, training):
    wanted = settings.model_copy(update={"layer": "blocks.99"})
    with pytest.raises(ValueError, match=r"blocks"):
        variants.make_variant(baseline, wanted, training, seed=0)


def test_decomposition_is_exact(aligned, crops):
    test = crops.select(split="test", quality="c23")
    parts = evidence.decompose(aligned.model, aligned.layer, test)
    np.testing.assert_allclose(parts.bias + parts.evidence.sum(axis=1), parts.logits, atol=1e-4)
    assert parts.evidence.shape == (len(test), 256)
    share, rest = (evidence.named_share(parts, number) for number in (6, 256))
    assert rest == pytest.approx(1) and share < 1


def test_earlier_layer_does_not_decompose(aligned, crops):
    layer = aligned.model.get_submodule("blocks.1.0.bn2")
    with pytest.raises(ValueError, match="not before the pooling"):
        evidence.decompose(aligned.model, layer, crops.select(split="test"))


def test_evidence_map_sums_to_the_logit_and_matches_grad_cam(aligned, crops):
    images = to_tensor(crops.images[:4])
    maps = evidence.evidence_maps(aligned.model, aligned.layer, images)
    assert maps.shape == (4, 64, 64)
    with torch.no_grad():
        activations, logits = evidence.capture(aligned.model, aligned.layer, images)
    bias = find_classifier(aligned.model).bias.item()
    weight = find_classifier(aligned.model).weight.reshape(-1)
    coarse = (activations * weight[:, None, None]).sum(dim=1) / activations[0, 0].numel()
    torch.testing.assert_close(coarse.sum(dim=(1, 2)) + bias, logits, rtol=1e-4, atol=1e-4)
    # For a linear head after the pooling, Grad-CAM is this map less its negative part.
    cam = evidence.grad_cam(aligned.model, aligned.layer, images)
    expected = evidence.resize(coarse.detach(), 64).clip(min=0)
    np.testing.assert_allclose(cam, expected, rtol=1e-3, atol=1e-5)


def test_no_hook_survives(aligned, crops):
    images = to_tensor(crops.images[:2])
    evidence.grad_cam(aligned.model, aligned.layer, images)
    with pytest.raises(RuntimeError):
        evidence.capture(aligned.model, aligned.layer, images[:, :1])
    assert not aligned.layer._forward_hooks and not aligned.layer._forward_pre_hooks


def test_priors(training):
    center = evidence.centre_prior(9)
    assert center.argmax() == 40 and center[0, 0] == pytest.approx(center[8, 8])
    prior = evidence.mean_mask_prior(training.select(kind="whole"))
    assert prior.shape == (64, 64) and 0 < prior.max() <= 1


def test_normalized_features_are_white_or_standardised(aligned, baseline, training):
    plain = Detector(baseline, aligned.layer_name, pd.DataFrame())
    whole = training.select(kind="whole")
    before, after = (
        whiteness(measures.normalized_features(detector, whole))["mean_correlation"]
        for detector in (plain, aligned)
    )
    assert after < before / 2
    features = measures.normalized_features(plain, training, count=4)
    norm = baseline.get_submodule(aligned.layer_name)
    found = []
    hook = norm.register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0]))
    rows = training.manifest["row"].to_numpy()[np.linspace(0, len(training) - 1, 4).astype(int)]
    with torch.no_grad():
        baseline(to_tensor(training.images[rows]))
    hook.remove()
    expected = torch.nn.functional.batch_norm(
        found[0], norm.running_mean, norm.running_var, eps=norm.eps
    )
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_purity_table(aligned, settings, training, crops):
    unseen = crops.select(split=["validation", "test"], quality="c23")  # two groups of people
    table = measures.purity_table(aligned, settings, training, unseen, seed=0)
    assert table["concept"].tolist() == [*FORGED_PARTS, "mean"]
    mean = table.set_index("concept").loc["mean"]
    assert mean["purity"] == pytest.approx(table["purity"][:-1].mean())
    assert 0 <= mean["purity_low"] <= mean["purity"] <= mean["purity_high"] <= 1


def test_localisation_table(aligned, baseline, training, crops):
    plain = Detector(baseline, aligned.layer_name, pd.DataFrame())
    forged = crops.select(split="test", quality="c23", kind="whole", label=1)
    table = measures.localisation_table(plain, aligned, 6, training, forged)
    assert len(table) == 5 * len(forged)
    assert table["mass"].dropna().between(0, 1).all()
    summary = measures.summarize(table, "mass", ["variant", "method"])
    assert len(summary) == 4 * 5 and (summary["num_images"] == len(forged) / 4).all()


def test_whiteness_inside_the_space_of_a_low_rank_input():
    """8 channels from 3: correlated axes by Welch's bound, white in 3 dimensions."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 3, generator=generator)
    images = [torch.randn(16, 3, 8, 8, generator=generator) for _ in range(2)]
    seen, unseen = (torch.einsum("ck,nkhw->nchw", mixing, image) for image in images)
    layer = FeatureWhitening(8, shrinkage=0.0, eps=1e-6)
    update_statistics(nn.Sequential(layer), layer, [seen])
    layer.set_rotation(random_rotation(8, generator))
    features = layer.eval().normalize(unseen)
    inside, outside = measures.subspace_whiteness(layer, features), whiteness(features)
    assert inside["rank"] == 3
    assert inside["least_correlation"] == pytest.approx((5 / 21) ** 0.5)
    assert inside["mean_correlation"] < 0.08 and abs(inside["mean_variance"] - 1) < 0.1
    assert outside["mean_correlation"] > 0.3

"""Concepts, variants and evidence, on a tiny trained-like model and the blob data set."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fwstudy.crops.cropset import CropSet, to_tensor
from fwstudy.evaluation.comparison import image_difference
from fwstudy.interpretability import decomposition, exhibits, measures, model, records
from fwstudy.interpretability.localization import relevance_mass
from fwstudy.labels import FORGED_PARTS, PARTS
from fwstudy.params import load_params
from fwstudy.training import concept_sets, variants
from fwstudy.training.concept_sets import CONCEPT_SETS
from fwstudy.training.runs import Detector
from fwstudy.whitening.concepts import whitened_means
from fwstudy.whitening.iternorm import IterNormWhitening
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import random_rotation
from fwstudy.whitening.statistics import update_statistics, whiteness
from fwstudy.whitening.surgery import create_model, find_classifier

from .test_params import ROOT


@pytest.fixture(scope="module")
def settings():
    default = load_params(ROOT / "params.yaml").whitening
    changes = {"num_groups": 8, "rotate_every": 2, "concept_weight": 0.0, "bottleneck": 0.0}
    return default.model_copy(update=changes | {"activation": "backbone"})


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
    variant = variants.make_variant(baseline, settings, training, seed=0)
    return Detector(variant.model.eval(), variant.layer_name, pd.DataFrame())


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
    rows = concept_sets.sample(training.select(kind="whole"), 2, 0).manifest["row"]
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


def test_whitened_means_equal_means_of_whitened_maps(aligned, training):
    concept = concept_sets.forged_part_concepts(training, None, 0, 3)[0]
    means = whitened_means(aligned.layer, aligned.model, [concept])
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
        variant = variants.make_variant(baseline, wanted, training, seed=0)
        model, layer = variant.model, variant.model.get_submodule(variant.layer_name)
        concept = concept_sets.forged_part_concepts(training, variants.CONCEPT_IMAGES, 0, 3)
        answer = layer.rotation[: len(concept)] @ whitened_means(layer, model, concept)
        means[rotation] = answer.diagonal().sum().item()
    assert means["aligned"] > 3 * abs(means["random"])


def test_updates_keep_the_rotation_orthogonal_and_the_unnamed_axes_still(
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


def test_variants_differ_as_they_say(baseline, settings, training):
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
    parts = decomposition.decompose(aligned.model, aligned.layer, test)
    np.testing.assert_allclose(parts.bias + parts.evidence.sum(axis=1), parts.logits, atol=1e-4)
    assert parts.evidence.shape == (len(test), 256)
    share, rest = (decomposition.concept_share(parts, number) for number in (4, 256))
    assert rest == pytest.approx(1) and share < 1


def test_earlier_layer_does_not_decompose(aligned, crops):
    layer = aligned.model.get_submodule("blocks.1.0.bn2")
    with pytest.raises(ValueError, match="not before the pooling"):
        decomposition.decompose(aligned.model, layer, crops.select(split="test"))


def test_evidence_map_sums_to_the_logit_and_matches_grad_cam(aligned, crops):
    images = to_tensor(crops.images[:4])
    maps = decomposition.evidence_maps(aligned.model, aligned.layer, images)
    assert maps.shape == (4, 64, 64)
    with torch.no_grad():
        activations, logits = decomposition.capture(aligned.model, aligned.layer, images)
    bias = find_classifier(aligned.model).bias.item()
    weight = find_classifier(aligned.model).weight.reshape(-1)
    coarse = (activations * weight[:, None, None]).sum(dim=1) / activations[0, 0].numel()
    torch.testing.assert_close(coarse.sum(dim=(1, 2)) + bias, logits, rtol=1e-4, atol=1e-4)
    # For a linear head after the pooling, Grad-CAM is this map less its negative part.
    cam = decomposition.grad_cam(aligned.model, aligned.layer, images)
    expected = decomposition.resize(coarse.detach(), 64).clip(min=0)
    np.testing.assert_allclose(cam, expected, rtol=1e-3, atol=1e-5)


def test_no_hook_survives(aligned, crops):
    images = to_tensor(crops.images[:2])
    decomposition.grad_cam(aligned.model, aligned.layer, images)
    with pytest.raises(RuntimeError):
        decomposition.capture(aligned.model, aligned.layer, images[:, :1])
    assert not aligned.layer._forward_hooks and not aligned.layer._forward_pre_hooks


def test_priors(training):
    center = decomposition.center_prior(9)
    assert center.argmax() == 40 and center[0, 0] == pytest.approx(center[8, 8])
    prior = decomposition.mean_mask_prior(training.select(kind="whole"))
    assert prior.shape == (64, 64) and 0 < prior.max() <= 1


def test_normalized_features_are_white_or_standardised(aligned, baseline, training):
    plain = Detector(baseline, aligned.layer_name, pd.DataFrame())
    whole = training.select(kind="whole")
    before, after = (
        whiteness(model.normalized_features(detector, whole))["mean_correlation"]
        for detector in (plain, aligned)
    )
    assert after < before / 2
    features = model.normalized_features(plain, training, count=4)
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


@pytest.fixture(scope="module")
def pair(aligned, baseline, settings, crops):
    """The two models on the tiny data; validation and test both have one group of people."""
    plain = Detector(baseline, aligned.layer_name, pd.DataFrame())
    chosen = crops.select(quality="c23")
    splits = {"validation": "test"}  # two groups of people to be measured on
    manifest = chosen.manifest.assign(split=chosen.manifest["split"].replace(splits))
    held_out = chosen.manifest[chosen.manifest["split"] == "validation"]
    both = CropSet(pd.concat([manifest, held_out]), chosen.images, chosen.mask, chosen.parsing)
    return model.Subject(plain, aligned, settings, both, seed=0, num_images=8)


@pytest.mark.parametrize("topic", measures.TOPICS)
def test_every_topic_gives_rows_of_one_form(pair, topic):
    table = measures.TOPICS[topic](pair)
    assert list(table) == measures.COLUMNS and len(table)
    assert set(table["measure"]) <= set(measures.GLOSSARY)
    assert not table.duplicated(["topic", "model", "method", "subset", "measure"]).any()
    assert set(table["model"]) <= {"BatchNorm", "whitened", "no model"}
    numbers = table[["value", "low", "high"]].astype(float)
    assert not np.isinf(numbers).any(axis=None)
    assert numbers[numbers["value"].isna()].isna().all(axis=None)  # undefined: no interval either
    means = table[table["topic"].isin(["localization", "parts"])].dropna()
    assert (means["low"] <= means["value"] + 1e-9).all()
    assert (means["value"] <= means["high"] + 1e-9).all()


def test_codec_topic_pairs_the_same_frames(pair, crops):
    same = measures.codec_topic(
        pair, crops.select(split=["test", "validation"], quality="c23"), "c23"
    )
    assert (same["value"].dropna() > 0.999).all() and set(same["subset"]) == {"c23"}


def test_evidence_is_told_relative_to_a_typical_original(pair):
    originals = pair.faces("validation", kind="whole", variant="original")
    np.testing.assert_allclose(pair.concept_evidence(originals).mean(axis=0), 0, atol=1e-5)
    maps = model.maps_of(pair, ("whitened", "concept axes"), originals)
    np.testing.assert_allclose(maps.mean(axis=0), 0, atol=1e-5)


def test_images_are_chosen_evenly(training):
    rows = training.manifest["row"].to_numpy()
    chosen = model.evenly(training, 3).manifest["row"].to_numpy()
    assert chosen.tolist() == rows[[0, (len(rows) - 1) // 2, -1]].tolist()
    assert model.evenly(training, None) is model.evenly(training, len(rows)) is training


def test_every_method_explains_every_image(pair):
    crops = pair.faces("test", 3, kind="whole", label=1)
    assert len(crops) == 3
    for key in pair.methods:
        maps = model.maps_of(pair, key, crops)
        assert maps.shape == (3, 64, 64) and np.isfinite(maps).all(), key
        given = model.part_evidence(pair, key, maps, crops)
        assert given.shape == (3, len(FORGED_PARTS)), key


def test_whiteness_interval_holds_the_whiteness(pair):
    whole = pair.faces("test", kind="whole")
    features = model.normalized_features(pair.whitened, whole)
    expected = whiteness(features)
    found = measures.whiteness_interval(features, whole.manifest["group"].to_numpy())
    for key in ("mean_variance", "effective_rank"):
        assert found[key][0] == pytest.approx(expected[key], rel=1e-2), key
        assert found[key][1] <= found[key][2]


def test_metrics_of_a_variant(pair, settings):
    values, images = records.explanation_metrics(pair)
    for name, table in images.groupby("measure"):
        assert table["value"].mean() == pytest.approx(values[name])
    assert set(images["measure"]) == {"relevance_mass", "part_top1"}
    assert values["purity_low"] <= values["purity"] <= values["purity_high"]
    assert 0 <= values["purity"] <= 1 and 0 <= values["relevance_mass"] <= 1
    assert 0 <= values["part_top1"] <= 1 and np.isfinite(values["concept_share"])
    residual = dataclasses.replace(pair, settings=settings.model_copy(update={"rotation": "none"}))
    values, images = records.explanation_metrics(residual)
    assert images.empty
    assert values["purity"] is None and values["concept_share"] is None
    assert 0 <= values["best_purity"] <= 1


def test_records_of_all_variants(pair, crops, monkeypatch):
    """Variants without concept axes come first; what is told image by image can be compared still."""
    found = {"batch": pair.batch_norm, "whitening": pair.whitened}
    monkeypatch.setattr(records, "load_variant", lambda p, settings, *which: found[settings.norm])
    params = load_params(ROOT / "params.yaml")
    changes = {
        "train": {"seeds": [0]},
        "ablations": {"run": ["whitening_only", "random_rotation"], "seeds": [0]},
        "interpretability": {"num_images": 4},
    }
    sections = {key: getattr(params, key).model_copy(update=new) for key, new in changes.items()}
    table, images = records.variant_records(params.model_copy(update=sections), crops)
    assert table["variant"].tolist() == [
        "batch_norm", "whitened", "whitening_only", "random_rotation"
    ]  # fmt: skip
    assert set(images["variant"]) == {"whitened", "random_rotation"}
    assert image_difference(images, "part_top1", "whitened", "random_rotation")["value"] == 0


def test_trust_tables(pair):
    tables = measures.trust_tables(pair)
    assert set(tables) == {"calibration", "reliability", "slices", "gaps", "leakage"}
    assert set(tables["slices"]["model"]) == {"BatchNorm", "whitened"}
    assert len(tables["leakage"]) == 4


def test_exhibits(pair):
    table = exhibits.average_activations(pair)
    assert table.shape == (4, 4) and np.isfinite(table.to_numpy()).all()
    rows = exhibits.panel_rows(pair)
    assert [row["label"] for row in rows][-2:] == ["left eye", "mouth"]
    assert all(row["concept axes"].shape == (64, 64, 3) for row in rows)
    bounds = {kind: exhibits.resolution_bound(pair, kind) for kind in ("whole", "part")}
    sharper = exhibits.sharper_maps(pair)
    assert sharper.loc["concept axes", "part"] == pytest.approx(
        np.nanmean(
            relevance_mass(
                model.maps_of(
                    pair,
                    ("whitened", "concept axes"),
                    pair.faces("test", pair.num_images, kind="part"),
                ),
                model.truth_of(pair.faces("test", pair.num_images, kind="part"))[0],
            )
        )
    )
    assert sharper.shape == (4, 2) and sharper.to_numpy().min() > 0
    assert bounds["whole"][1] == 2 and bounds["part"][0] < bounds["whole"][0] < 1


def test_random_map_depends_on_the_seed(pair):
    """Two calls give one map; another seed another."""
    crops = pair.faces("test", 2, kind="whole", label=1)
    one, same = (model.maps_of(pair, ("no model", "random map"), crops) for _ in range(2))
    other = model.maps_of(dataclasses.replace(pair, seed=1), ("no model", "random map"), crops)
    assert (one == same).all() and (one != other).any()


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
    inside, outside = exhibits.subspace_whiteness(layer, features), whiteness(features)
    assert inside["rank"] == 3
    assert inside["least_correlation"] == pytest.approx((5 / 21) ** 0.5)
    assert inside["mean_correlation"] < 0.08 and abs(inside["mean_variance"] - 1) < 0.1
    assert outside["mean_correlation"] > 0.3

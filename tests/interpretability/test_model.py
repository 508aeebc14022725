"""One model, its faces and the maps of every method."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy.interpretability import model
from fwstudy.interpretability.decomposition import capture
from fwstudy.interpretability.model import BATCH_NORM, CONCEPT_AXES, NONE, RANDOM, WHITENED
from fwstudy.labels import FORGED_PARTS
from fwstudy.whitening.statistics import whiteness


def test_normalized_features_are_white_or_standardized(pair, training):
    whole = training.select(kind="whole").evenly(70)  # more than one batch
    features = {name: model.normalized_features(subject, whole) for name, subject in pair.items()}
    plain, white = (whiteness(features[n])["mean_correlation"] for n in (BATCH_NORM, WHITENED))
    assert white < plain / 2
    norm = pair[BATCH_NORM].layer
    with torch.no_grad():
        given, _ = capture(pair[BATCH_NORM].model, norm, whole.tensor(), before=True)
        statistics = norm.running_mean, norm.running_var
        expected = torch.nn.functional.batch_norm(given, *statistics, eps=norm.eps)
    torch.testing.assert_close(features[BATCH_NORM], expected, rtol=1e-3, atol=1e-3)


def test_evidence_is_told_relative_to_a_typical_original(pair):
    subject = pair[WHITENED]
    originals = subject.faces("validation", kind="whole", variant="original")
    maps = subject.maps((WHITENED, CONCEPT_AXES), originals)
    np.testing.assert_allclose(maps.mean(axis=0), 0, atol=1e-5)
    typical = dataclasses.replace(subject, crops=dataclasses.replace(
        subject.crops, manifest=originals.manifest.assign(split="test")))  # fmt: skip
    gap = typical.decomposed(typical.faces("test")).evidence - subject.typical
    np.testing.assert_allclose(gap.mean(axis=0), 0, atol=1e-5)


def test_verdicts_are_found_in_any_order(pair):
    subject = pair[WHITENED]
    test = subject.faces("test")
    chosen = test.take([5, 0, 3])
    expected = subject.decomposed(test).evidence[[5, 0, 3]]
    np.testing.assert_array_equal(subject.decomposed(chosen).evidence, expected)
    with torch.no_grad():
        logits = subject.model(chosen.tensor())[:, 0].numpy()
    np.testing.assert_allclose(subject.decomposed(chosen).logits, logits, atol=1e-4)


def test_every_method_explains_every_image(pair):
    for subject in pair.values():
        crops = subject.faces("test", 3, kind="whole", label=1)
        assert len(crops) == 3
        for key in subject.methods:
            maps = subject.maps(key, crops)
            assert maps.shape == (3, 64, 64) and np.isfinite(maps).all(), key
            given = subject.part_evidence(key, "part")
            assert given.shape == (len(subject.explained("part")), len(FORGED_PARTS)), key
    assert (WHITENED, CONCEPT_AXES) in pair[WHITENED].methods
    assert (NONE, RANDOM) in pair[WHITENED].methods
    assert {method for _, method in pair[BATCH_NORM].methods} == set(model.EXPLAINERS)
    few = dataclasses.replace(pair[WHITENED], shown=(CONCEPT_AXES,))
    assert list(few.methods) == [(WHITENED, CONCEPT_AXES)]


def test_a_model_without_concept_axes_has_its_best_alone(pair):
    subject = pair[BATCH_NORM]
    assert list(subject.axes) == ["best axes"] and not subject.has_evidence
    assert list(pair[WHITENED].axes) == ["concept axes", "best axes"]
    learned = model.concept_activations(subject, subject.concepts("train", model.LEARNED_IMAGES))
    values, concepts = learned.drop(columns=["concept", "group"]), learned["concept"]
    for number, axis in enumerate(subject.axes["best axes"]):
        auc = model.rank_auc(concepts.to_numpy() == number, values.to_numpy())
        assert auc[axis] == auc.max() > 0.6


def test_an_earlier_layer_has_no_evidence(pair):
    subject = pair[WHITENED]
    detector = dataclasses.replace(subject.detector, layer_name="blocks.1.0.bn2")
    earlier = dataclasses.replace(subject, detector=detector)
    assert not earlier.has_evidence
    assert not {method for _, method in earlier.methods} & {"concept axes", "all axes"}


def test_random_map_depends_on_the_seed(pair):
    """Two calls give one map; another seed another."""
    subject, key = pair[WHITENED], (NONE, RANDOM)
    crops = subject.faces("test", 2, kind="whole", label=1)
    one, same = (subject.maps(key, crops) for _ in range(2))
    other = dataclasses.replace(subject, seed=1).maps(key, crops)
    assert (one == same).all() and (one != other).any()


def test_best_axes_planted():
    table = pd.DataFrame(np.eye(5)[[3, 3, 1, 1]]).assign(concept=[0, 0, 1, 1], group="a")
    assert model.best_axes(table, 2) == [3, 1]


@pytest.mark.parametrize("before", [False, True])
def test_no_hook_survives(pair, before, crops):
    detector, images = pair[WHITENED].detector, crops.take([0, 1]).tensor()
    with pytest.raises(RuntimeError):
        capture(detector.model, detector.layer, images[:, :1], before)
    assert not detector.layer._forward_hooks and not detector.layer._forward_pre_hooks

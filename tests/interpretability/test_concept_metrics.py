"""Measures of what axes mean, on planted axes: perfect, swapped, leaking, useless."""

import numpy as np
import pandas as pd
import pytest
from sklearn.inspection import permutation_importance as permutation_importance_of_columns
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

from fwstudy.interpretability import concept_metrics
from fwstudy.labels import FORGED_PART_OF, FORGED_PARTS, PARTS

NUM_CONCEPTS = 3
CONCEPTS = np.repeat(np.arange(NUM_CONCEPTS), 24)  # exclusive concepts
CONCEPT_PEOPLE = np.tile(np.repeat(["a", "b", "c", "d", "e", "f"], 4), NUM_CONCEPTS)
MAPS = np.ones((2, 6, 8, 8))
NO_AXIS = "concept 2 has no axis: there are 2"


def one_hot(concepts, num_axes):
    return np.eye(num_axes)[concepts]


def table_of(activations, groups=CONCEPT_PEOPLE):
    return pd.DataFrame(activations).assign(concept=CONCEPTS, group=groups)


def test_purity_planted():
    perfect = one_hot(CONCEPTS, 3)
    purity = concept_metrics.concept_purity
    np.testing.assert_array_equal(purity(perfect, CONCEPTS), 1)
    np.testing.assert_array_equal(purity(0 * perfect, CONCEPTS), 0.5)
    # Axis j answers to half of the images of other concepts: lost to them, tied with the rest.
    np.testing.assert_array_equal(purity(np.roll(perfect, 1, axis=1), CONCEPTS), 0.25)
    noise = np.random.default_rng(0).normal(size=(3000, 3))
    np.testing.assert_allclose(purity(noise, np.arange(3000) % 3), 0.5, atol=0.04)
    assert np.isnan(purity(np.ones((4, 2)), np.zeros(4, int))[1])


def test_ranks_golden():
    activations = np.array([[2.0, 0, 5], [0, 256, 5], [0, 0, 5]])
    # Standardized: columns 1 and 2 are 1.41 on their image and -0.71 elsewhere, column 3 is 0.
    ranks = concept_metrics.channel_ranks(activations, np.array([0, 1, 0]))
    np.testing.assert_array_equal(ranks, [1, 1, 2.5])


def test_ranks_planted():
    perfect = one_hot(CONCEPTS, 10)
    ranks = concept_metrics.channel_ranks
    np.testing.assert_array_equal(ranks(perfect, CONCEPTS), 1)
    np.testing.assert_array_equal(ranks(0 * perfect, CONCEPTS), 5.5)  # all tied
    swapped = np.roll(perfect, 1, axis=1)
    assert (ranks(swapped, CONCEPTS) > 1).all()
    np.testing.assert_array_equal(ranks(swapped, CONCEPTS, axes=[1, 2, 3]), 1)


def test_ranks_of_random_axes_are_chance():
    noise = np.random.default_rng(0).normal(size=(4000, 20))
    ranks = concept_metrics.channel_ranks(noise, np.arange(4000) % 3)
    assert np.mean(ranks <= 1) == pytest.approx(1 / 20, abs=0.015)
    assert np.mean(ranks <= 5) == pytest.approx(5 / 20, abs=0.03)
    assert np.mean(ranks) == pytest.approx(10.5, abs=0.4)


def similarity_by_pairs(activations, concepts):
    cosine, numbers = cosine_similarity(activations), np.arange(len(concepts))
    others = numbers[:, None] != numbers
    pairs = [(i, j) for i in range(3) for j in range(3)]
    one = {(i, j): cosine[np.outer(concepts == i, concepts == j) & others].mean() for i, j in pairs}
    return np.mean([one[i, j] / np.sqrt(one[i, i] * one[j, j]) for i, j in pairs if j < i])


def test_similarity_ratio_against_all_pairs():
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(len(CONCEPTS), 8)) + 2 * one_hot(CONCEPTS, 8) + 0.5
    ratio = concept_metrics.similarity_ratio(activations, CONCEPTS)
    assert ratio == pytest.approx(similarity_by_pairs(activations, CONCEPTS))
    assert 0.1 < ratio < 0.9


def test_similarity_ratio_planted():
    perfect = one_hot(CONCEPTS, 5)
    ratio = concept_metrics.similarity_ratio
    assert ratio(perfect, CONCEPTS) == 0
    assert ratio(np.ones((len(CONCEPTS), 5)), CONCEPTS) == pytest.approx(1)
    useless = np.random.default_rng(0).normal(size=(600, 200)) + 0.5
    assert ratio(useless, np.arange(600) % 3) == pytest.approx(1, abs=0.01)
    assert np.isnan(ratio(perfect, 0 * CONCEPTS))  # one concept
    opposed = np.array([[1.0, 0], [-1, 0], [0, 1], [0, 1]])
    assert np.isnan(ratio(opposed, np.array([0, 0, 1, 1])))  # concept 0 has no direction


def test_similarity_ratio_does_not_compare_an_image_with_its_copy():
    """Drawn twice, images keep their ratio; given as rows of their own they lower it."""
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(len(CONCEPTS), 30)) + 0.5
    once = concept_metrics.similarity_ratio(activations, CONCEPTS)
    twice = concept_metrics.similarity_ratio(activations, CONCEPTS, np.full(len(CONCEPTS), 2))
    assert twice == pytest.approx(once)
    repeated = concept_metrics.similarity_ratio(np.tile(activations, (2, 1)), np.tile(CONCEPTS, 2))
    assert repeated < once - 0.02


@pytest.fixture(scope="module")
def evidence():
    """Six axes on 400 images: 0 informs, 1 is noise that counts, 2 misleads, the others are unused."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    columns = np.zeros((400, 6), np.float32)
    columns[:, 0] = 3 * labels + rng.normal(size=400)
    columns[:, 1] = rng.normal(size=400)
    columns[:, 2] = -labels + 0.5 * rng.normal(size=400)
    return columns, labels


def importance(evidence, labels, axes, repeats=concept_metrics.PERMUTATIONS, seed=0):
    scores = concept_metrics._permuted(evidence, labels, axes, repeats, seed)
    return concept_metrics._fall(labels, scores)


def test_importance_of_unused_axes_is_zero(evidence):
    for axes in ([3], [3, 4, 5], []):
        assert importance(*evidence, axes) == 0


def test_importance_against_scikit_learn(evidence):
    columns, labels = evidence
    head = LinearRegression(fit_intercept=False).fit(np.eye(6), np.ones(6))  # sums the evidence
    expected = permutation_importance_of_columns(
        head, columns, labels, n_repeats=50, random_state=0,
        scoring=lambda model, features, truth: roc_auc_score(truth, model.predict(features)),
    ).importances_mean  # fmt: skip
    found = [importance(*evidence, [axis], 50) for axis in range(6)]
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert found[0] > 0.2 and found[2] < 0


def test_axes_are_permuted_together():
    """Two axes that cancel: apart each drowns the verdict, together nothing is lost."""
    rng = np.random.default_rng(0)
    labels, noise = np.arange(400) % 2, 10 * rng.normal(size=400)
    columns = np.stack([labels, noise, -noise], axis=1)
    single, both = (importance(columns, labels, axes) for axes in ([1], [1, 2]))
    assert single > 0.4 and both == pytest.approx(0, abs=1e-3)


def test_importance_of_one_class_is_undefined(evidence):
    columns, labels = evidence
    assert np.isnan(importance(columns, 0 * labels, [0]))


@pytest.fixture(scope="module")
def faces():
    """Two faces of 40 x 40 pixels with a nose of 10 x 10; the second has no mouth."""
    parts = np.zeros((2, 40, 40), np.uint8)
    parts[:, 10:20, 10:20] = PARTS.index("nose")
    parts[0, 30, 30] = PARTS.index("mouth")
    return parts


def share(maps, parts, margin):
    return concept_metrics.part_share(maps, parts, ["nose", "mouth"], margin)


def test_part_share_planted(faces):
    maps = np.full((2, 2, 40, 40), -1.0)  # negative activation does not count
    maps[0, 0, 12, 12] = 3  # inside
    maps[1, 0, 12, 12], maps[1, 0, 35, 35] = 3, 1
    maps[0, 1, 12, 12] = 1  # outside the mouth
    found, _ = share(maps, faces, 0)
    np.testing.assert_array_equal(found, [[1, 0], [0.75, np.nan]])


def test_part_share_of_a_constant_map_is_the_area(faces):
    for margin in (0, 0.1):
        found, area = share(np.ones((2, 2, 40, 40)), faces, margin)
        np.testing.assert_allclose(found, area)
        assert np.isnan(area[1, 1]) and np.isfinite(area).sum() == 3
    assert share(np.zeros((2, 2, 40, 40)), faces, 0)[0][0, 0] == 0  # a silent axis


def test_part_share_margin(faces):
    maps = np.zeros((2, 2, 40, 40))
    maps[:, 0, 15, 21] = 1  # two pixels beside the nose
    assert [share(maps, faces, margin)[0][0, 0] for margin in (0, 1 / 40, 2 / 40)] == [0, 0, 1]


def test_part_share_takes_the_named_parts_in_order():
    parts = np.random.default_rng(0).integers(0, len(PARTS), (3, 32, 32)).astype(np.uint8)
    maps = FORGED_PART_OF[parts][:, None] == np.arange(len(FORGED_PARTS))[:, None, None]
    found, area = concept_metrics.part_share(maps.astype(np.float32), parts, margin=0)
    np.testing.assert_array_equal(found, 1)
    np.testing.assert_allclose(area, maps.mean(axis=(2, 3)))


def test_importance_table(evidence):
    people = np.arange(400) // 2 % 10
    table = concept_metrics.importance_table(*evidence, people, ["nose", "mouth"], repeats=5)
    assert list(table) == ["nose", "mouth", "all concept axes", "all residual axes"]
    sets = [0], [1], [0, 1], [2, 3, 4, 5]
    for (value, low, high), axes in zip(table.values(), sets, strict=True):
        assert value == importance(*evidence, axes, 5)
        assert low <= value <= high
    assert table["nose"][1] > table["mouth"][2]  # what informs counts more than noise


def summary_of(activations, axes=(0, 1, 2)):
    return concept_metrics.concept_summary(table_of(activations), axes, repeats=20)


def test_summary_of_perfect_axes():
    perfect = {"purity": 1, "hit_at_1": 1, "hit_at_5": 1, "mean_rank": 1, "similarity_ratio": 0}
    assert summary_of(one_hot(CONCEPTS, 8)) == {name: (v, v, v) for name, v in perfect.items()}
    assert set(perfect) <= set(concept_metrics.MEASURES)


def test_summary_of_given_axes():
    swapped = np.roll(one_hot(CONCEPTS, 8), 2, axis=1)
    assert summary_of(swapped)["purity"][0] < 0.5
    right = summary_of(swapped, axes=[2, 3, 4])
    assert right["purity"][0] == right["hit_at_1"][0] == 1


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("concept_purity", (np.ones((4, 2)), np.ones(3)), r"\(4, 2\) and \(3,\)"),
        ("concept_purity", (np.ones((2, 2)), np.array([0, 2])), NO_AXIS),
        ("channel_ranks", (np.ones((2, 5)), np.array([0, 2]), [0, 1]), NO_AXIS),
        ("concept_summary", (table_of(one_hot(CONCEPTS, 8)), [0, 1]), NO_AXIS),
        ("similarity_ratio", (np.full((2, 2), np.nan), np.array([0, 1])), "evidence hold NaN"),
        ("_permuted", (np.ones((4, 2)), np.ones(4), [1, 2], 1, 0), r"\[2\] are not among the 2"),
        ("_permuted", (np.ones((4, 2)), np.ones(3), [1], 1, 0), r"not \(4, 2\) and \(3,\)"),
        (
            "part_share",
            (MAPS, MAPS[:, 0, 1:, 1:]),
            r"shape \(2, 6, 8, 8\); .* call for \(2, 4, 7, 7\)",
        ),
    ],
)
def test_bad_input_is_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(concept_metrics, name)(*arguments)

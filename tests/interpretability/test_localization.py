"""Measures of a map against an exact mask: planted maps, golden values, ties, degenerate masks."""

import numpy as np
import pandas as pd
import pytest

from fwstudy.interpretability import localization
from fwstudy.interpretability.localization import MEASURES, SCORES, localization_scores
from fwstudy.labels import FORGED_PARTS, PARTS

ORDER_ONLY = ["relevance_rank", "pixel_auc"]


@pytest.fixture
def masks():
    """Three masks of 8 x 8: 12, 16 and 1 of 64 pixels."""
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 1:4, 2:6] = True
    masks[1, 4:, 4:] = True
    masks[2, 7, 0] = True
    return masks


@pytest.fixture
def part_map():
    """Four parts of 4 x 8 pixels with 12 pixels of skin between two of them: (1, 64, 64)."""
    parts = np.full((1, 64, 64), PARTS.index("skin"), np.uint8)
    for j, name in enumerate(FORGED_PARTS):
        y, x = 8 + 16 * (j // 2), 12 + 20 * (j % 2)
        parts[0, y : y + 4, x : x + 8] = PARTS.index(name)
    return parts


def test_perfect_and_opposite_maps(masks):
    assert (localization_scores(masks.astype(float), masks) == 1).all(axis=None)
    assert (localization_scores((~masks).astype(float), masks) == 0).all(axis=None)


def test_random_maps_earn_chance(masks):
    rng = np.random.default_rng(0)
    many = np.repeat(masks[:2], 1000, axis=0)
    table = localization_scores(rng.random(many.shape), many)
    for rows, share in ((slice(0, 1000), 12 / 64), (slice(1000, 2000), 16 / 64)):
        mean = table[rows].mean()
        for name in ("relevance_mass", "relevance_rank", "pointing_game"):
            assert mean[name] == pytest.approx(share, abs=0.04)
        assert mean["pixel_auc"] == pytest.approx(MEASURES["pixel_auc"].chance, abs=0.02)


def test_constant_map_earns_chance_exactly(masks):
    share = masks.mean(axis=(1, 2))
    table = localization_scores(np.full(masks.shape, 0.3), masks)
    for name in ("relevance_mass", "relevance_rank", "pointing_game"):
        np.testing.assert_allclose(table[name], share)
    assert (table["pixel_auc"] == 0.5).all()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_without_positive_relevance_nothing_is_pointed_at(masks, value):
    table = localization_scores(np.full(masks.shape, value), masks)
    assert (table[["relevance_mass", "pointing_game"]] == 0).all(axis=None)
    np.testing.assert_allclose(table["relevance_rank"], masks.mean(axis=(1, 2)))


def test_golden_values_with_ties():
    relevance = np.array([[[4.0, 2, 2], [2, -5, 1]]])
    mask = np.array([[[True, True, False], [False, True, False]]])
    scores = localization_scores(relevance, mask).loc[0]
    assert scores["relevance_mass"] == pytest.approx(6 / 11)  # -5 does not count
    # The 4 is in; two places are left for three pixels of 2, one of them inside.
    assert scores["relevance_rank"] == pytest.approx((1 + 2 / 3) / 3)
    assert scores["pointing_game"] == 1
    # 4 beats 2, 2, 1; 2 ties with 2, 2 and beats 1; -5 beats none: (3 + 2 + 0) of 9.
    assert scores["pixel_auc"] == pytest.approx(5 / 9)


def test_two_maxima_share_the_point():
    relevance = np.array([[[3.0, 3, 3], [0, 1, 2]]])
    mask = np.array([[[True, False, False], [True, True, True]]])
    assert localization.pointing_game(relevance, mask) == pytest.approx(1 / 3)


def test_invariances(masks):
    """Scale changes nothing; measures of the order alone allow any rising function."""
    relevance = np.random.default_rng(0).normal(size=masks.shape)
    table = localization_scores(relevance, masks)
    pd.testing.assert_frame_equal(table, localization_scores(1e6 * relevance, masks))
    risen = localization_scores(np.exp(relevance) - 9, masks)
    pd.testing.assert_frame_equal(table[ORDER_ONLY], risen[ORDER_ONLY])
    assert not np.allclose(table["relevance_mass"], risen["relevance_mass"])
    turned = localization_scores(relevance[:, ::-1].swapaxes(1, 2), masks[:, ::-1].swapaxes(1, 2))
    pd.testing.assert_frame_equal(table, turned)


def test_empty_mask_is_neither_hit_nor_miss(masks):
    masks[1] = False
    table = localization_scores(np.random.default_rng(0).random(masks.shape), masks)
    assert table.loc[1].isna().all() and table.loc[[0, 2]].notna().all(axis=None)


def test_full_mask_tells_nothing_apart():
    table = localization_scores(
        np.random.default_rng(0).random((1, 4, 4)), np.ones((1, 4, 4), bool)
    )
    assert table.loc[0].isna().to_dict() == {name: name == "pixel_auc" for name in SCORES}
    assert (table.drop(columns="pixel_auc") == 1).all(axis=None)


def test_prior_may_be_broadcast_and_no_image_give_no_row(masks):
    prior = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    table = localization_scores(np.broadcast_to(prior, masks.shape), masks)
    pd.testing.assert_frame_equal(table, localization_scores(np.stack([prior] * 3), masks))
    assert len(localization_scores(np.zeros((0, 8, 8)), masks[:0])) == 0
    none = localization.part_relevance(np.zeros((0, 8, 8)), np.zeros((0, 8, 8), np.uint8))
    assert none.shape == (0, len(FORGED_PARTS))


@pytest.mark.parametrize("name", SCORES)
def test_bad_input_is_named(masks, name):
    relevance = np.zeros(masks.shape)
    with pytest.raises(ValueError, match=r"must both be \(N, H, W\), not \(3, 8\) and \(3, 8, 8\)"):
        SCORES[name](relevance[..., 0], masks)
    with pytest.raises(ValueError, match="mask must be bool, not uint8"):
        SCORES[name](relevance, masks.astype(np.uint8))
    relevance[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="relevance must be finite"):
        SCORES[name](relevance, masks)


def test_region_is_the_part_and_its_rim(part_map):
    exact = localization.part_regions(part_map, margin=0)
    for j, name in enumerate(FORGED_PARTS):
        np.testing.assert_array_equal(exact[0, j], part_map[0] == PARTS.index(name))
    wide = localization.part_regions(part_map, margin=2 / 64)
    rows, columns = np.nonzero(wide[0, 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 13, 10, 21)
    assert not wide[0, 0, 6, 10]  # a disc, not a square
    assert wide.sum() > 1.5 * exact.sum()


def test_rim_spares_other_named_parts(part_map):
    part_map[0, 12:16, 12:20] = PARTS.index("nose")  # touches the eye above it
    regions = localization.part_regions(part_map, margin=0.05)[0]
    numbers = [PARTS.index(name) for name in FORGED_PARTS]
    for j, number in enumerate(numbers):
        others = np.isin(part_map[0], numbers) & (part_map[0] != number)
        assert not (regions[j] & others).any() and regions[j][part_map[0] == number].all()


def test_part_relevance_golden(part_map):
    part_map[part_map == PARTS.index("mouth")] = PARTS.index("hair")
    relevance = np.zeros(part_map.shape, np.float32)
    relevance[0, 8, 12] = 2  # left eye
    relevance[0, 7, 12] = 1  # just above it
    relevance[0, 9, 12] = -9  # negative relevance does not count
    relevance[0, 0, 0] = 5  # background
    expected = np.zeros((1, 4))
    expected[0, 0] = 3
    np.testing.assert_array_equal(localization.part_relevance(relevance, part_map), expected)
    expected[0, 0] = 2
    np.testing.assert_array_equal(localization.part_relevance(relevance, part_map, 0), expected)


def test_planted_part_is_found(part_map):
    number = len(FORGED_PARTS)
    parts = np.repeat(part_map, number, axis=0)
    forged = np.arange(number)
    regions = localization.part_regions(part_map, margin=0.02)[0]
    evidence = localization.part_relevance(regions + 0.1, parts)
    np.testing.assert_array_equal(localization.part_top1(evidence, forged), 1)
    np.testing.assert_array_equal(localization.part_top1(evidence, (forged + 1) % number), 0)
    noise = np.random.default_rng(0).random((600, 64, 64), dtype=np.float32)
    evidence = localization.part_relevance(noise, np.repeat(part_map, 600, axis=0))
    hits = localization.part_top1(evidence, np.tile(forged, 600 // number))
    assert hits.mean() == pytest.approx(MEASURES["part_top1"].chance, abs=0.06)


def test_top1_of_ties_is_an_expectation():
    evidence = np.array([[1.0, 3, 3], [0, 0, 0], [-1, -2, -3], [1, 3, 3]])
    hits = localization.part_top1(evidence, np.array([1, 2, 0, 0]))
    np.testing.assert_allclose(hits, [1 / 2, 1 / 3, 1, 0])


def test_bad_parts_are_named(part_map):
    with pytest.raises(ValueError, match=r"not \(64, 64\) and 0.1"):
        localization.part_regions(part_map[0], 0.1)
    with pytest.raises(ValueError, match="margin 0 or more"):
        localization.part_regions(part_map, -0.1)
    with pytest.raises(ValueError, match=r"must both be \(N, H, W\)"):
        localization.part_relevance(np.zeros((1, 8, 8)), part_map)
    with pytest.raises(ValueError, match=r"0 ... 2, not -1 ... 3"):
        localization.part_top1(np.zeros((2, 3)), np.array([-1, 3]))
    with pytest.raises(ValueError, match=r"not \(2, 3\) and \(3,\)"):
        localization.part_top1(np.zeros((2, 3)), np.zeros(3, int))
    with pytest.raises(ValueError, match="part_evidence must be finite"):
        localization.part_top1(np.array([[0, np.nan]]), np.array([0]))


QUANTUS = {  # Quantus 0.6.0, abs=True and abs=False, normalise=False, on the maps of the test below
    "relevance_mass": ([0.150821, 0.157053, 0.130817, 0.218671], None),
    "relevance_rank": ([0.25, 0.2, 0.1, 0.35], [0.25, 0.3, 0.25, 0.4]),
    "pointing_game": ([0, 1, 0, 0], [1, 1, 0, 1]),
    "pixel_auc": (
        [0.499597, 0.516935, 0.502016, 0.754032],
        [0.634677, 0.681855, 0.689516, 0.841129],
    ),
}


@pytest.mark.parametrize("name", QUANTUS)
def test_measures_are_those_of_quantus(name):
    """RelevanceMassAccuracy, RelevanceRankAccuracy (and TopKIntersection with k the size of the mask),
    PointingGame, AUC. The mass of a signed map is another there: -3.0 to 1.04 on these, as positive and
    negative relevance cancel; ours takes the positive part."""
    rng = np.random.default_rng(0)
    maps, masks = rng.normal(size=(4, 12, 12)), np.zeros((4, 12, 12), bool)
    for number, (y, x) in enumerate([(1, 2), (4, 4), (0, 6), (6, 0)]):
        masks[number, y : y + 4, x : x + 5] = True
        maps[number][masks[number]] += 0.8
    for given, expected in zip((np.abs(maps), maps), QUANTUS[name], strict=True):
        found = getattr(localization, name)(given, masks)
        if expected is not None:
            np.testing.assert_allclose(found, expected, atol=1e-6)
        else:
            assert ((found >= 0) & (found <= 1)).all()

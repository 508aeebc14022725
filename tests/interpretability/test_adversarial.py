"""The adversarial test of maps on a model that reads one block of pixels."""

import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy.interpretability.adversarial import attack, attack_table, best_segments
from fwstudy.interpretability.agreement import rank_agreement
from tests.interpretability.test_more_explainers import block_model, images, mask

QUICK = {"pairs": 30, "steps": 40}


def weak_model():
    """Sure by 0.015 of brightness: 16 / 255 of [0, 1] are 0.125 of [-1, 1]."""
    model = block_model()
    with torch.no_grad():
        model[-1].bias.fill_(-40 * 0.785 * 4 / 64)
    return model


def test_a_map_of_what_is_read_turns_the_verdict_and_another_does_not():
    model, block = weak_model(), mask().astype(float)
    found = attack_table(model, images(), block, counts=(3,), **QUICK)
    elsewhere = attack_table(model, images(), 1 - block, (1, 3), pairs=5, steps=5)
    assert list(elsewhere["segments"]) == [1] * 3 + [3] * 3
    assert list(elsewhere["image"]) == [0, 1, 2] * 2
    assert (found["accuracy_drop"] == 1).all() and (found["sufficiency"] > 0).all()
    assert (elsewhere["accuracy_drop"] == 0).all() and (elsewhere["sufficiency"] == 0).all()
    np.testing.assert_allclose(found["before"] - found["after"], found["sufficiency"])
    again = attack_table(model, images()[1:2], block[1:2], counts=(3,), **QUICK)
    np.testing.assert_allclose(again["after"], found["after"][1:2], rtol=1e-5)


def test_a_verdict_that_was_wrong_before_does_not_count_as_turned():
    model, block = weak_model(), mask(1).astype(float)
    table = attack_table(model, images(1), block, threshold=100.0, **QUICK)
    assert (table["accuracy_drop"] == 0).all() and (table["sufficiency"] == 0).all()


def test_the_attack_keeps_its_bounds():
    model, image = block_model(), images(1)[0]
    image[:, 8:12, 8:16] = 1
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[8:14, 8:16] = True
    found = attack(model, image, region, threshold=-100.0, steps=10, pairs=40)
    change = found - image
    assert not change[:, ~region].any() and found.abs().max() <= 1
    assert (change.abs().max() - 20 / 255).abs() < 1e-6 and change[:, region].mean() < -0.03
    bounded = attack(model, image, region, threshold=-100.0, steps=4, pairs=5, bound=2 / 255)
    assert (bounded - image).abs().max() <= 4 / 255 + 1e-6
    assert torch.equal(found, attack(model, image, region, -100.0, steps=10, pairs=40))
    assert torch.equal(attack(model, image, region, threshold=100.0), image)


def test_best_segments_are_those_of_highest_mean():
    labels = np.array([[0, 0, 1], [2, 2, 2]])
    relevance = np.array([[2.0, 0, 1.5], [1, 1, 1.1]])
    np.testing.assert_array_equal(best_segments(relevance, labels, 1, 0), labels == 1)
    np.testing.assert_array_equal(best_segments(relevance, labels, 2, 0), labels > 0)
    chosen = {int(labels[best_segments(0 * relevance, labels, 1, seed)][0]) for seed in range(20)}
    assert chosen == {0, 1, 2}


def test_maps_of_another_shape_or_with_nan_are_an_error():
    wrong = np.full((1, 32, 32), np.nan), np.zeros((1, 16, 16))
    for relevance in wrong:
        with pytest.raises(ValueError, match=r"must be finite and \(N, S, S\) like images"):
            attack_table(block_model(), images(1), relevance)


def measured(order: list[int], spread: float = 0.1) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "group": group,
            "method": method,
            "mass": method + spread * rng.normal(),
            "drop": place + spread * rng.normal(),
        }
        for group in range(6)
        for method, place in enumerate(order)
    ]
    return pd.DataFrame(rows)


def test_rank_agreement_of_measures_that_agree_and_that_do_not():
    assert rank_agreement(measured([0, 1, 2, 3]), "mass", "drop") == pytest.approx((1, 1, 1))
    assert rank_agreement(measured([3, 2, 1, 0]), "mass", "drop") == pytest.approx((-1, -1, -1))
    value, low, high = rank_agreement(measured([1, 0, 3, 2], spread=1.5), "mass", "drop")
    assert low <= value <= high and low < high
    assert rank_agreement(measured([1, 0, 3, 2]), "mass", "drop")[0] == pytest.approx(0.6)


def test_rank_agreement_joins_tables_of_different_images_and_names_what_is_missing():
    table = measured([1, 0, 3, 2])
    apart = pd.concat([table.drop(columns="drop"), table.drop(columns="mass")])
    expected = rank_agreement(table, "mass", "drop")
    np.testing.assert_allclose(rank_agreement(apart, "mass", "drop"), expected)
    alone = rank_agreement(table[table["method"] == 0], "mass", "drop")
    assert np.isnan(alone).all()
    with pytest.raises(ValueError, match="has no column deletion"):
        rank_agreement(table, "mass", "deletion")

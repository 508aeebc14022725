"""Deletion, insertion and restoration on detectors that add up what they see."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from fwstudy.evaluation.metrics import group_interval
from fwstudy.interpretability import faithfulness
from fwstudy.labels import FORGED_PARTS, PARTS

SIDE = 16


class Adding(nn.Module):
    """The logit is the sum of the red pixels; dropout would spoil it outside evaluation mode."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.scale * self.dropout(images[:, 0]).sum(dim=(1, 2))[:, None]


def block(count: int, rows: int = 4, columns: int = 4, value: float = 1.0) -> torch.Tensor:
    """Images that are zero but for a block at the left and upper border."""
    images = torch.zeros(count, 3, SIDE, SIDE)
    images[:, 0, :rows, :columns] = value
    return images


def places(images: torch.Tensor) -> np.ndarray:
    return images[:, 0].numpy()


@pytest.mark.parametrize(
    ("sign", "deletion", "insertion"),
    # 16 of 256 pixels are forged: the logit of 16 is gone after a sixteenth, or comes at last.
    [(1, 16 / 32, 16 - 16 / 32), (-1, 16 - 16 / 32, 16 / 32)],
)
def test_true_mask_has_the_best_areas_and_its_opposite_the_worst(sign, deletion, insertion):
    images, reference = block(2), torch.zeros(1, 3, 1, 1)
    relevance = sign * places(images)
    # So many portions that those next to the corner of the curve hardly count.
    table = faithfulness.deletion_insertion(
        Adding(), images, relevance, reference, steps=256, output=np.asarray
    )
    np.testing.assert_allclose(table["deletion"], deletion, atol=0.07)
    np.testing.assert_allclose(table["insertion"], insertion, atol=0.07)


def test_areas_by_hand():
    """4 of 256 pixels, exchanged at 0, 1, 4, 9, ... pixels: the second portion takes the last."""
    images = block(1, 2, 2)
    ranked = places(images) * np.arange(1, SIDE + 1)  # the order within the block does not matter
    table = faithfulness.deletion_insertion(
        Adding(), images, ranked, torch.zeros_like(images), steps=16, output=np.asarray
    )
    assert table["deletion"][0] == pytest.approx((4 + 3) / 2 / 256 + 3 / 2 * 3 / 256)
    assert table["insertion"][0] == pytest.approx(4 - table["deletion"][0])


def test_a_constant_map_is_a_random_order():
    images = block(256)
    table = faithfulness.deletion_insertion(
        Adding(), images, np.ones((256, SIDE, SIDE)), torch.zeros_like(images), output=np.asarray
    )
    error = 4 * table["deletion"].std() / 16
    assert table["deletion"].std() > 0.1  # the lot differs from image to image
    for area in ("deletion", "insertion"):
        assert table[area].mean() == pytest.approx(8, abs=error)
    flat = np.ones((1, SIDE, SIDE))
    first, again, other = (faithfulness.pixel_order(flat, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_pixel_order_is_a_permutation_that_follows_the_relevance():
    rng = np.random.default_rng(0)
    relevance = rng.integers(0, 5, (3, 6, 6)).astype(float)
    order = faithfulness.pixel_order(relevance)
    np.testing.assert_array_equal(np.sort(order.reshape(3, -1)), np.tile(np.arange(36), (3, 1)))
    for image in range(3):
        by_place = relevance[image].ravel()[order[image].ravel().argsort()]
        assert (np.diff(by_place) <= 0).all()


def test_probability_by_default_and_any_reference():
    images = block(3, value=0.25)
    tables = [
        faithfulness.deletion_insertion(Adding(), images, places(images), reference, steps=1)
        for reference in (torch.zeros_like(images), torch.zeros(1, 3, 1, 1))
    ]
    pd.testing.assert_frame_equal(*tables)
    np.testing.assert_allclose(tables[0], (1 / (1 + np.exp(-4)) + 0.5) / 2)  # the mean of both ends


def test_modes_are_restored():
    model = Adding().train()
    model.dropout.eval()
    images = block(2)
    faithfulness.deletion_insertion(model, images, places(images), 0 * images, steps=2)
    assert model.training and not model.dropout.training
    with pytest.raises(IndexError):
        faithfulness.predict_logits(model, images[:, :0])
    assert model.training and not model.dropout.training


def test_batches_do_not_matter(monkeypatch):
    images = block(5) * torch.arange(1, 6)[:, None, None, None]
    whole = faithfulness.predict_logits(Adding(), images)
    monkeypatch.setattr(faithfulness, "BATCH_SIZE", 2)
    np.testing.assert_array_equal(faithfulness.predict_logits(Adding(), images), whole)
    np.testing.assert_array_equal(whole, 16 * np.arange(1, 6))


def test_bad_relevance_is_named():
    images = block(2)
    with pytest.raises(ValueError, match=r"relevance must be \(N, S, S\) like images.*\(2, 8, 8\)"):
        faithfulness.deletion_insertion(Adding(), images, np.ones((2, 8, 8)), images)
    broken = places(images).copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="relevance must be finite"):
        faithfulness.deletion_insertion(Adding(), images, broken, images)


def planted_parts(count: int, size: int = 64) -> np.ndarray:
    """A square of 6 x 6 for each part, far enough from each other for a margin of 2."""
    parts = np.full((count, size, size), PARTS.index("skin"), np.uint8)
    for number, name in enumerate(FORGED_PARTS):
        y, x = 4 + 20 * (number // 3), 4 + 20 * (number % 3)
        parts[:, y : y + 6, x : x + 6] = PARTS.index(name)
    return parts


def planted_forgeries(count: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Originals, forgeries changed in every part, part maps and the true effect of each part."""
    rng = np.random.default_rng(0)
    parts = planted_parts(count)
    effect = rng.normal(size=(count, len(FORGED_PARTS)))
    originals = rng.normal(size=(count, 3, 64, 64))
    forged = originals.copy()
    for number, name in enumerate(FORGED_PARTS):
        forged[:, 0] += (parts == PARTS.index(name)) * effect[:, number, None, None] / 36
    tensors = (torch.from_numpy(images).float() for images in (forged, originals))
    return *tensors, parts, effect


def manifest_of(count: int) -> pd.DataFrame:
    rows = 10 * np.arange(count) + 3
    table = pd.DataFrame({"row": rows, "group": [f"g{i // 4}" for i in range(count)]})
    return table.assign(variant="Face2Face", label=1).set_index(rows + 1)


def test_restoration_of_an_additive_detector_is_its_evidence():
    forged, originals, parts, effect = planted_forgeries(40)
    fall = faithfulness.restoration(Adding(3.0), forged, originals, parts)
    np.testing.assert_allclose(fall, 3 * effect, atol=1e-3)
    table = faithfulness.restoration_table(manifest_of(40), fall, effect)
    assert len(table) == 160 and set(table.columns) == {
        "row", "group", "variant", "part", "fall", "evidence"
    }  # fmt: skip
    mouth = table[(table["part"] == "mouth") & (table["row"] == 23)].iloc[0]
    assert mouth["evidence"] == effect[2, 3] and mouth["group"] == "g0"
    assert faithfulness.restoration_correlation(table) == pytest.approx(1, abs=1e-6)
    assert faithfulness.restoration_rank_correlation(table) == pytest.approx(1, abs=1e-3)
    low, high = group_interval(table, faithfulness.restoration_correlation, repeats=20)
    assert low == pytest.approx(1, abs=1e-6) and high == pytest.approx(1, abs=1e-6)
    opposite = faithfulness.restoration_table(manifest_of(40), fall, -effect)
    assert faithfulness.restoration_correlation(opposite) == pytest.approx(-1, abs=1e-6)


def test_restoration_reaches_as_far_as_its_margin():
    """Margin 2 of 64: a change two pixels from the part is restored, three pixels off is not."""
    parts = planted_parts(2)
    forged, originals = torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    row, last = 6, 9  # of the first part
    forged[0, 0, row, last + 2] = forged[1, 0, row, last + 3] = 1
    fall = faithfulness.restoration(Adding(), forged, originals, parts, margin=2 / 64)
    np.testing.assert_array_equal(fall[:, 0], [1, 0])
    np.testing.assert_array_equal(fall[:, 1:], 0)
    exact = faithfulness.restoration(Adding(), forged, originals, parts, margin=0)
    np.testing.assert_array_equal(exact, 0)


def test_a_part_that_is_not_visible_is_undefined():
    forged, originals, parts, effect = planted_forgeries(4)
    parts[1][parts[1] == PARTS.index("mouth")] = PARTS.index("skin")
    fall = faithfulness.restoration(Adding(), forged, originals, parts)
    assert np.isnan(fall[1, 3]) and np.isfinite(np.delete(fall.ravel(), 7)).all()
    table = faithfulness.restoration_table(manifest_of(4), fall, effect)
    assert faithfulness.restoration_correlation(table) == pytest.approx(1, abs=1e-4)


@pytest.mark.filterwarnings("error")
def test_correlations_without_variation_are_undefined_and_silent():
    varied = np.random.default_rng(0).random((5, 4))
    flat = faithfulness.restoration_table(manifest_of(5), np.full((5, 4), 0.1), varied)
    assert np.isnan(faithfulness.restoration_correlation(flat))
    assert np.isnan(faithfulness.restoration_rank_correlation(flat))
    assert np.isnan(faithfulness.restoration_correlation(flat.iloc[:1]))
    assert np.isnan(faithfulness.restoration_correlation(flat.assign(fall=np.nan)))


def test_correlations_against_scipy():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 20))
    one[2] = other[2] ** 3
    for image in range(3):
        expected = stats.spearmanr(one[image], other[image]).statistic
        assert faithfulness.rank_correlation(one, other)[image] == pytest.approx(expected)
        expected = np.corrcoef(one[image], other[image])[0, 1]
        assert faithfulness.correlation(one, other)[image] == pytest.approx(expected)


def test_tables_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"fall \(4, 4\) and evidence \(4, 5\) must both be"):
        faithfulness.restoration_table(manifest_of(4), np.ones((4, 4)), np.ones((4, 5)))

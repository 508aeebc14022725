"""Crop sets behind each other: the same pixels, strangers to each other, no one in two splits."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from fwstudy.crops.cropset import ARRAYS, CropSet
from fwstudy.crops.joined import Stack, join
from fwstudy.training.batches import PairedBatches


@pytest.fixture(scope="module")
def joined(crops):
    """The blobs twice, once from the test split alone: two data sets with the same names."""
    return join({"first": crops, "second": crops.select(split="test", quality="c23")})


def test_every_crop_keeps_its_pixels(crops, joined):
    first, second = (joined.select(dataset=name).manifest for name in ("first", "second"))
    rows = crops.select(split="test", quality="c23").manifest["row"].to_numpy()
    assert first["row"].tolist() == crops.manifest["row"].tolist()
    assert second["row"].tolist() == (rows + len(crops)).tolist()
    order = np.random.default_rng(0).permutation(len(rows))
    for name in ARRAYS:
        one, both = getattr(crops, name), getattr(joined, name)
        assert both.shape == (2 * len(one), *one.shape[1:]) and both.dtype == one.dtype
        found = both[second["row"].to_numpy()[order]]
        np.testing.assert_array_equal(found, one[rows[order]])
        np.testing.assert_array_equal(both[len(one) - 2 : len(one) + 1], one[[-2, -1, 0]])
        np.testing.assert_array_equal(both[len(one) + 3], one[3])
        np.testing.assert_array_equal(both[-1], one[-1])
        assert both[np.array([], int)].shape == (0, *one.shape[1:])
        with pytest.raises(IndexError):
            both[2 * len(one)]


def test_originals_are_those_of_the_same_data_set(joined):
    known = joined.manifest.set_index("row")
    originals = known.loc[joined.manifest["original_row"].astype(int)]
    for column in ("dataset", "clip", "frame", "identity", "quality"):
        assert originals[column].tolist() == joined.manifest[column].tolist()
    assert set(originals["variant"]) == {"original"}


def test_people_are_strangers_and_in_one_split(crops, joined):
    people = joined.manifest.melt(["dataset", "split"], ["identity", "source"], value_name="person")
    assert people.groupby("person")["dataset"].nunique().max() == 1
    assert people.groupby("person")["split"].nunique().max() == 1
    assert joined.manifest.groupby("group")["dataset"].nunique().max() == 1
    before = crops.manifest.groupby("split")["identity"].nunique()
    after = joined.manifest.groupby("split")["identity"].nunique()
    assert after["train"] == before["train"] and after["test"] == 2 * before["test"]


def test_nothing_is_read_before_it_is_asked_for(joined):
    sent = pickle.dumps(joined)
    assert len(sent) < joined.images[:].nbytes / 4  # where arrays lie, not what is in them
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.images[:], joined.images[:])
    assert all(isinstance(part, np.memmap) for part in again.images.arrays)


def test_a_model_is_trained_on_both(crops):
    train = crops.select(split="train", quality="c23")
    both = join({"first": train, "second": train})
    batch = PairedBatches(both, 8, 0, 0.5).batch(0)
    assert batch.images.shape == (8, 3, 64, 64)
    assert batch.mask[4:].any() and not batch.mask[:4].any()
    seen = PairedBatches(both, len(train), 0, 0.5).rows(0)
    assert (seen < len(crops)).any() and (seen >= len(crops)).any()


def test_crops_of_two_sizes_are_refused(crops):
    small = replace(crops, **{name: getattr(crops, name)[:, ::2, ::2] for name in ARRAYS})
    with pytest.raises(ValueError, match="joined: first 64 pixels, second 32 pixels"):
        join({"first": crops, "second": small})
    with pytest.raises(ValueError, match="arrays differ: there are none"):
        Stack([])


def test_one_data_set_alone_is_what_it_was(crops):
    alone = join({"only": crops})
    assert isinstance(alone, CropSet) and alone.manifest["row"].equals(crops.manifest["row"])
    assert alone.manifest["identity"].str.removeprefix("only:").equals(crops.manifest["identity"])

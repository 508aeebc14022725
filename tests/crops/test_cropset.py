"""A crop set: opened, selected, stored in two ways, sent to a process; how its crops are cut and mixed."""

import dataclasses
import pickle
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from fwstudy.crops import boxes
from fwstudy.crops.composites import forged_parts, transplant
from fwstudy.crops.cropset import ARRAYS, CropSet, to_tensor
from fwstudy.crops.writers import WRITERS
from fwstudy.labels import FORGED_PARTS, PARTS
from fwstudy.preprocess import build

from ..conftest import NUM_PEOPLE


def test_select(crops):
    part = crops.select(kind="part", variant=["nose", "mouth"])
    assert len(part) == 2 * 2 * NUM_PEOPLE
    assert set(part.manifest["variant"]) == {"nose", "mouth"}


@pytest.mark.parametrize("storage", WRITERS)
def test_missing_and_mismatched_files_are_named(clip_paths, tmp_path, storage):
    settings = {"crop_scale": 1.3, "crop_size": 32}
    shares = {"train": 0.5, "test": 0.5}
    build.build_crops(clip_paths[:4], tmp_path, ["raw"], shares, 0, settings, 1, storage)
    manifest = pd.read_csv(tmp_path / "manifest.csv", dtype=str)
    manifest[:3].to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(ValueError, match=rf"images has {len(manifest)} rows, the manifest 3"):
        CropSet.open(tmp_path)
    for path in tmp_path.glob("images.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=r"images\.npy: no such file; run the stage"):
        CropSet.open(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"manifest\.csv: no such file; run the stage"):
        CropSet.open(tmp_path / "none")


def test_both_ways_to_store_hold_the_same(clip_paths, tmp_path, monkeypatch):
    monkeypatch.setattr("fwstudy.crops.writers.SHARD", 7)  # many shards, the last one not full
    settings = {"crop_scale": 1.3, "crop_size": 32}
    arguments = ["raw", "c40"], {"train": 0.5, "test": 0.5}, 0, settings, 1
    plain, sharded = (
        build.build_crops(clip_paths[:4], tmp_path, *arguments, storage)[0]
        for storage in ("npy", "zarr")
    )
    assert not list(tmp_path.glob("*.npy")) and len(list(tmp_path.glob("*.zarr"))) == 3
    pd.testing.assert_frame_equal(plain.manifest, sharded.manifest)
    rows = np.random.default_rng(0).permutation(len(plain))[:20]
    for name in ARRAYS:
        one, other = getattr(plain, name), getattr(sharded, name)
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_array_equal(one[rows], other[rows])
        np.testing.assert_array_equal(one[int(rows[0])], other[int(rows[0])])


def test_a_person_whose_name_looks_like_a_missing_value_is_not_lost(tmp_path):
    """pandas reads NA, None, null and nan as nobody; intervals left such people out."""
    names = {"identity": "NA", "source": "None", "group": "null", "clip": "nan"}
    writer = WRITERS["npy"](tmp_path)
    row = names | {"frame": 0, "quality": "c23", "variant": "original", "split": "test"}
    arrays = (np.zeros(shape, np.uint8) for shape in ((2, 2, 3), (2, 2), (2, 2)))
    writer.add(row | {"age_years": None}, *arrays)
    table = writer.close().manifest
    assert table[list(names)].to_dict("records") == [names] and table["age_years"].isna().all()


def test_to_tensor_range():
    tensor = to_tensor(np.array([[[[0, 127, 255]]]], np.uint8))
    assert tensor.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(tensor.flatten(), [-1, 127 / 127.5 - 1, 1], atol=1e-6)


def test_forgeries_without_originals_are_told_before_anything_is_measured(crops):
    manifest = crops.manifest.copy()
    alone = (manifest["split"] == "test") & (manifest["label"] == 1)
    manifest["original_row"] = manifest["original_row"].astype(float).mask(alone)
    unpaired = dataclasses.replace(crops, manifest=manifest)
    with pytest.raises(ValueError, match="no forgery of the split test has its original beside it"):
        unpaired.paired()
    assert len(crops.paired()) == len(crops)


def test_what_is_sent_to_a_process_is_the_place_of_the_arrays(crops):
    sent = pickle.dumps(crops)
    assert len(sent) < crops.images.nbytes / 4
    np.testing.assert_array_equal(pickle.loads(sent).images, crops.images)
    part = CropSet(crops.manifest[:2], crops.images[1:3], crops.mask[1:3], crops.parsing[1:3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).images, crops.images[1:3])


def test_batches_hold_every_crop_once_and_differ_by_one_at_most(crops):
    chosen = crops.select(split="train", kind="whole")
    parts = list(chosen.batches(7))
    assert len(parts) == -(-len(chosen) // 7) and max(map(len, parts)) <= 7
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert torch.equal(torch.cat(parts), chosen.tensor())
    assert torch.equal(chosen.tensor(), to_tensor(crops.images[chosen.manifest["row"]]))
    assert [x.shape for x in crops.take([]).batches(7)] == [(0, 3, 64, 64)]


def test_taken_crops_keep_their_order_and_even_ones_reach_both_ends(crops):
    chosen = crops.select(split="test")
    rows = chosen.manifest["row"].tolist()
    assert chosen.take([5, 0]).manifest["row"].tolist() == [rows[5], rows[0]]
    even = chosen.evenly(4).manifest["row"].tolist()
    last = len(rows) - 1
    assert even == [rows[0], rows[last // 3], rows[last * 2 // 3], rows[last]]
    assert len(chosen.evenly(10**6)) == len(chosen)
    assert chosen.evenly(None) is chosen.evenly(len(chosen)) is chosen


# The square around a face


def test_face_box_golden():
    landmarks = np.array([[10, 20], [50, 40]])
    # longer side 40, times 1.5 = 60, about (30, 30)
    assert boxes.face_box(landmarks, 1.5).tolist() == [0, 0, 60, 60]


def test_crop_reaches_outside_by_mirroring():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    cut = boxes.crop(image, np.array([-1, -1, 3, 3]), 4, cv2.INTER_NEAREST)
    np.testing.assert_array_equal(cut, np.pad(image, 1, mode="reflect")[:4, :4])


def test_image_and_mask_are_cut_alike():
    rng = np.random.default_rng(0)
    image = np.zeros((50, 60, 3), np.uint8)
    mask = np.zeros((50, 60), np.uint8)
    y, x = rng.integers(10, 40, 2)
    image[y : y + 5, x : x + 5] = mask[y : y + 5, x : x + 5] = 255
    box = np.array([-7, 3, 61, 71])
    a = boxes.crop(image, box, 32, cv2.INTER_AREA)
    b = boxes.crop(mask, box, 32, cv2.INTER_AREA)
    np.testing.assert_array_equal(a[..., 0], b)
    assert b.any()


# One part of a face taken from its forgery


def test_transplant_takes_its_parts_and_nothing_else():
    parts = np.zeros((64, 64), np.uint8)
    parts[10:20, 10:20], parts[40:50, 40:50] = PARTS.index("nose"), PARTS.index("mouth")
    original = np.random.default_rng(0).integers(0, 100, (64, 64, 3)).astype(np.uint8)
    forged = original + 100
    image, where = transplant(original, forged, parts, [2])
    assert np.array_equal(image[~where], original[~where])
    assert np.array_equal(image[12:18, 12:18], forged[12:18, 12:18])
    assert where[10:20, 10:20].all() and not where[30:].any()
    assert not transplant(original, forged, parts, [0])[1].any()


def test_forged_parts_are_those_that_changed_for_the_most_part():
    parts = np.zeros((20, 20), np.uint8)
    parts[:10, :10], parts[10:, 10:] = PARTS.index("nose"), PARTS.index("mouth")
    changed = np.zeros((20, 20), bool)
    changed[:10, :6], changed[10:, 10:14] = True, True  # 60 % and 40 %
    found = forged_parts(changed, parts)
    assert np.array(list(FORGED_PARTS))[found].tolist() == ["nose"]

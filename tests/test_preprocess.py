import dataclasses
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from fwstudy.clips import VideoOrigin, load_clip, load_header, save_clip
from fwstudy.crops.cropset import ARRAYS, CropSet, to_tensor
from fwstudy.crops.writers import WRITERS
from fwstudy.labels import FAMILIES, FORGED_PART_OF, FORGED_PARTS, ORIGINAL
from fwstudy.preprocess import build
from fwstudy.preprocess.splits import assign_splits, clusters, lending_groups, split_identities

from .conftest import NUM_PEOPLE, SIZE, make_clip

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def crop_rows(clip):
    with tempfile.TemporaryDirectory() as folder:
        path = save_clip(Path(folder), clip)
        return build.crop_clip(path, ["c23"], {"crop_scale": 1.3, "crop_size": 64})


def test_clip_round_trip(tmp_path):
    clip = make_clip(3, 1)
    path = save_clip(tmp_path, clip)
    read = load_clip(path)
    assert (read.name, read.identity, read.attributes) == (clip.name, "003", clip.attributes)
    np.testing.assert_array_equal(read.parsing, clip.parsing)
    for name, variant in clip.variants.items():
        np.testing.assert_array_equal(read.variants[name].frames, variant.frames)
        np.testing.assert_array_equal(read.variants[name].mask, variant.mask)
        np.testing.assert_array_equal(read.variants[name].region, variant.region)
        assert load_header(path)["sources"][name] == variant.source
    assert [file.name for file in tmp_path.iterdir()] == ["003_1.npz"]


def test_truncated_clip_is_named(tmp_path):
    path = save_clip(tmp_path, make_clip(0, 0))
    for content in (path.read_bytes()[:-400], b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"000_0\.npz is not a readable clip"):
            load_clip(path)


def test_face_box_golden():
    landmarks = np.array([[10, 20], [50, 40]])
    # longer side 40, times 1.5 = 60, about (30, 30)
    assert build.face_box(landmarks, 1.5).tolist() == [0, 0, 60, 60]


def test_crop_reaches_outside_by_mirroring():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    cut = build.crop(image, np.array([-1, -1, 3, 3]), 4, cv2.INTER_NEAREST)
    np.testing.assert_array_equal(cut, np.pad(image, 1, mode="reflect")[:4, :4])


def test_image_and_mask_are_cut_alike():
    rng = np.random.default_rng(0)
    image = np.zeros((50, 60, 3), np.uint8)
    mask = np.zeros((50, 60), np.uint8)
    y, x = rng.integers(10, 40, 2)
    image[y : y + 5, x : x + 5] = mask[y : y + 5, x : x + 5] = 255
    box = np.array([-7, 3, 61, 71])
    a = build.crop(image, box, 32, cv2.INTER_AREA)
    b = build.crop(mask, box, 32, cv2.INTER_AREA)
    np.testing.assert_array_equal(a[..., 0], b)
    assert b.any()


def test_lending_groups_follow_chains():
    pairs = pd.DataFrame({"identity": ["b", "c", "d", "e"], "source": ["a", "b", "d", "d"]})
    groups = lending_groups(pairs)
    assert groups == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "d"}


def test_split_keeps_lenders_together_and_shares():
    people = [f"{i:03d}" for i in range(40)]
    pairs = pd.DataFrame({"identity": people, "source": [f"{i ^ 1:03d}" for i in range(40)]})
    groups = lending_groups(pairs)
    split = split_identities(groups, SHARES, seed=3)
    assert all(split[a] == split[b] for a, b in pairs.to_numpy())
    counts = pd.Series(split).value_counts()
    assert counts.to_dict() == {"train": 24, "validation": 8, "test": 8}
    shuffled = lending_groups(pairs.sample(frac=1, random_state=0))
    assert split == split_identities(shuffled, SHARES, seed=3)
    assert split != split_identities(groups, SHARES, seed=4)


def test_split_of_one_group_is_refused():
    groups = lending_groups(pd.DataFrame({"identity": ["a", "b", "c"], "source": ["b", "c", "a"]}))
    with pytest.raises(ValueError, match="3 identities form 1 group"):
        split_identities(groups, SHARES, seed=0)


def test_short_variants_meet_the_same_codec():
    """A variant of the first frames alone differs from its original by the forgery alone."""
    clip = make_clip(0, 0, num_frames=4)
    unchanged = dataclasses.replace(
        clip.variants["part:nose"], frames=clip.variants["original"].frames[:2]
    )
    variants = {"original": clip.variants["original"], "part:nose": unchanged}
    rows = crop_rows(dataclasses.replace(clip, variants=variants))
    found = {(row["variant"], row["frame"]): image for row, image, *_ in rows}
    assert len(found) == 6
    for frame in range(2):
        np.testing.assert_array_equal(found["nose", frame], found["original", frame])


def test_crop_set(crops):
    manifest = crops.manifest
    assert manifest["identity"].nunique() == NUM_PEOPLE
    people = {
        name: set(part["identity"]) | set(part["source"])
        for name, part in manifest.groupby("split")
    }
    assert len(people) == 3
    assert not people["train"] & people["test"] and not people["train"] & people["validation"]
    assert set(manifest.loc[manifest["quality"] == "c40", "split"]) == {"test"}
    originals = manifest.set_index("row").loc[manifest["original_row"]]
    assert (originals["variant"] == "original").all()
    for key in ("clip", "frame", "quality"):
        assert (originals[key].to_numpy() == manifest[key].to_numpy()).all()
    changed = crops.mask.any(axis=(1, 2))
    np.testing.assert_array_equal(changed, manifest["label"] == 1)


def test_changed_pixels_are_where_the_crops_differ(crops):
    forged = crops.select(kind="whole", variant="FaceSwap", quality="c23")
    rows, originals = forged.manifest["row"], forged.manifest["original_row"]
    difference = np.abs(crops.images[rows].astype(int) - crops.images[originals].astype(int)).max(
        axis=-1
    )
    inside = difference[crops.mask[rows]].mean()
    assert inside > 10 * difference[~crops.mask[rows]].mean()


def test_select(crops):
    part = crops.select(kind="part", variant=["nose", "mouth"])
    assert len(part) == 2 * 2 * NUM_PEOPLE
    assert set(part.manifest["variant"]) == {"nose", "mouth"}


def test_workers_do_not_change_a_pixel(clip_paths, crops, tmp_path):
    settings = {"crop_scale": 1.3, "crop_size": 64}
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    again, _ = build.build_crops(clip_paths, tmp_path, ["c23", "c40"], shares, 0, settings, 2)
    np.testing.assert_array_equal(again.images, crops.images)
    pd.testing.assert_frame_equal(again.manifest, crops.manifest)


def test_no_clips(tmp_path):
    with pytest.raises(ValueError, match="no clips to crop"):
        build.build_crops([], tmp_path, ["c23"], SHARES, 0, {}, 1)


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


def test_to_tensor_range():
    tensor = to_tensor(np.array([[[[0, 127, 255]]]], np.uint8))
    assert tensor.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(tensor.flatten(), [-1, 127 / 127.5 - 1, 1], atol=1e-6)


def video_crops(num_frames=6, without_original=False):
    """The crops of a clip that was cut out of a video."""
    clip = make_clip(0, 0, num_frames)
    origin = VideoOrigin("c23", list(range(10, 10 + num_frames)), None, None, [], [])
    names = [ORIGINAL, *FAMILIES][1 if without_original else 0 :]
    variants = {name: clip.variants[name] for name in names}
    return build.crop_video(dataclasses.replace(clip, variants=variants, video=origin), SIZE)


def test_a_film_without_forged_parts_lends_them_from_whole_forgeries():
    crops = video_crops()
    found = build.parts_one_by_one(crops)
    # Frames 10 and 14 of 10 to 15; the square of the forgeries covers the eye, nose and mouth in part.
    assert {row["frame"] for row, *_ in found} == {10, 14}
    assert {row["kind"] for row, *_ in found} == {"part"}
    named = {row["variant"] for row, *_ in found}
    assert named and named <= set(FORGED_PARTS)
    whole = {(row["frame"], row["variant"]): rest for row, *rest in crops}
    for row, image, changed, parts in found:
        original = whole[row["frame"], ORIGINAL][0]
        differs = (image != original).any(axis=-1)
        inside = FORGED_PART_OF[parts] == list(FORGED_PARTS).index(row["variant"])
        assert differs.any() and changed.any() and not (differs & ~changed).any()
        soft = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert not (differs & ~soft).any()
        assert row["label"] == 1 and row["source"] == "001"


def test_no_parts_without_an_original():
    assert build.parts_one_by_one(video_crops(without_original=True)) == []


def test_forgeries_without_originals_are_told_before_anything_is_measured(crops):
    manifest = crops.manifest.copy()
    alone = (manifest["split"] == "test") & (manifest["label"] == 1)
    manifest["original_row"] = manifest["original_row"].astype(float).mask(alone)
    unpaired = dataclasses.replace(crops, manifest=manifest)
    with pytest.raises(ValueError, match="no forgery of the split test has its original beside it"):
        unpaired.paired()
    assert len(crops.paired()) == len(crops)


def test_where_all_lend_to_all_people_are_resampled_one_by_one():
    groups = {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e", "f": "e"}
    splits = dict.fromkeys("abcd", "test") | dict.fromkeys("ef", "train")
    found = clusters(groups, splits)
    assert found == {"a": "a", "b": "b", "c": "c", "d": "d", "e": "e", "f": "f"}
    pairs = {"a": "a", "b": "a", "c": "c", "d": "c"}
    assert clusters(pairs, dict.fromkeys("abcd", "test")) == pairs


def video_header(identity, source, split=None, group=None):
    video = {"split": split, "group": group}
    return {"identity": identity, "sources": {"original": identity, "X": source}, "video": video}


def test_people_of_one_folder_stay_together_or_are_too_few():
    """DFDC: nobody knows who is who within a folder."""
    headers = [video_header(f"{g}{n}", f"{g}{n}", group=g) for g in "abc" for n in range(4)]
    _, splits = assign_splits(headers, SHARES, 0)
    assert all(len({splits[f"{g}{n}"] for n in range(4)}) == 1 for g in "abc")
    with pytest.raises(ValueError, match=r"8 identities form 2 group\(s\).*too few for the splits"):
        assign_splits(headers[:8], SHARES, 0)


def test_where_all_lend_to_all_people_are_drawn_one_by_one():
    names = [f"p{n}" for n in range(10)]
    headers = [video_header(a, b) for a in names for b in names if a != b]
    groups, splits = assign_splits(headers, SHARES, 0)
    assert len(set(groups.values())) == 1 and set(splits.values()) == set(SHARES)


def test_people_without_official_split_are_drawn_where_all_splits_are_official():
    headers = [video_header(name, name, split) for name, split in zip("abc", SHARES, strict=True)]
    headers += [video_header(f"d{n}", f"d{n}") for n in range(6)]
    _, splits = assign_splits(headers, SHARES, 0)
    assert [splits[name] for name in "abc"] == list(SHARES)
    assert {splits[f"d{n}"] for n in range(6)} == set(SHARES)

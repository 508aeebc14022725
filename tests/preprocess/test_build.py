import dataclasses
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from fwstudy.clips import VideoOrigin, save_clip
from fwstudy.labels import FAMILIES, FORGED_PART_OF, FORGED_PARTS, ORIGINAL, PARTS
from fwstudy.preprocess import build

from ..conftest import NUM_PEOPLE, SIZE, make_clip

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def crop_rows(clip):
    with tempfile.TemporaryDirectory() as folder:
        path = save_clip(Path(folder), clip)
        return build.crop_clip(path, ["c23"], {"crop_scale": 1.3, "crop_size": 64})


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


def test_part_maps_lie_where_the_pixels_do():
    """INTER_NEAREST of OpenCV moves what it scales by half a pixel; the mouth was changed, and no more."""
    mouths = [crop for crop in crop_rows(make_clip(0, 0)) if crop[0]["variant"] == "mouth"]
    assert mouths
    for _, _, changed, parts in mouths:
        mouth = parts == PARTS.index("mouth")
        gap = np.argwhere(mouth).mean(axis=0) - np.argwhere(changed).mean(axis=0)
        np.testing.assert_allclose(gap, 0, atol=0.15)


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


def test_workers_do_not_change_a_pixel(clip_paths, crops, tmp_path):
    settings = {"crop_scale": 1.3, "crop_size": 64}
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25}
    again, _ = build.build_crops(clip_paths, tmp_path, ["c23", "c40"], shares, 0, settings, 2)
    np.testing.assert_array_equal(again.images, crops.images)
    pd.testing.assert_frame_equal(again.manifest, crops.manifest)


def test_no_clips(tmp_path):
    with pytest.raises(ValueError, match="no clips to crop"):
        build.build_crops([], tmp_path, ["c23"], SHARES, 0, {}, 1)


def video_clip(num_frames=6, without_original=False):
    """A clip that was cut out of a video."""
    clip = make_clip(0, 0, num_frames)
    origin = VideoOrigin("c23", list(range(10, 10 + num_frames)), None, None, [], [])
    names = [ORIGINAL, *FAMILIES][1 if without_original else 0 :]
    variants = {name: clip.variants[name] for name in names}
    return dataclasses.replace(clip, variants=variants, video=origin)


@pytest.mark.parametrize("size", [SIZE // 2 + 1, 2 * SIZE - 5])
def test_part_maps_of_videos_lie_where_the_pixels_do(size):
    """The same where crops of videos are scaled, up or down."""
    clip, mouth = video_clip(), PARTS.index("mouth")
    forgery = clip.variants["FaceSwap"]
    clip = dataclasses.replace(clip, parsing=np.where(forgery.mask, mouth, 0).astype(np.uint8))
    crops = build.crop_video(clip, size)
    forged = [crop for crop in crops if crop[0]["variant"] == "FaceSwap"]
    assert forged
    for _, _, changed, parts in forged:
        gap = np.argwhere(parts == mouth).mean(axis=0) - np.argwhere(changed).mean(axis=0)
        np.testing.assert_allclose(gap, 0, atol=0.15)


def test_a_film_without_forged_parts_lends_them_from_whole_forgeries():
    crops = build.crop_video(video_clip(), SIZE)
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
        assert row["label"] == 1 and row["source"] == "001" and row["family"] in FAMILIES


def test_no_parts_without_an_original():
    crops = build.crop_video(video_clip(without_original=True), SIZE)
    assert build.parts_one_by_one(crops) == []

"""Videos as people have them: what becomes of them on the way to clips, and what is reported."""

import dataclasses
import os
import shutil
import subprocess
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from fwstudy.clips import load_clip, load_header
from fwstudy.faces.parts import FaceShape
from fwstudy.faces.videos import assemble, tracking
from fwstudy.faces.videos.assemble import cut_group, video_dataset
from fwstudy.faces.videos.cutting import Shot, cut_beside, cut_masks, look_for_faces
from fwstudy.faces.videos.footage import Video
from fwstudy.faces.videos.layouts import Forgery, Outline, VideoGroup
from fwstudy.faces.videos.pairing import Original
from fwstudy.faces.videos.remarks import Remarks
from fwstudy.labels import ORIGINAL
from fwstudy.runtime import workers

from ..test_inputs import write_clip

SIZE = 96
HEIGHT, WIDTH = 150, 330
LEFT, RIGHT = (12, 20), (12, 190)  # corners at which a person stands in the scene
NUM_FRAMES = 6
FINE = {"crf": "8"}
SEVERAL = f"several faces in {NUM_FRAMES} of {NUM_FRAMES} frames"
ANOTHER = "another face, or none that was forged, in {} of 6 frames: left out"


def face() -> np.ndarray:
    """The astronaut of scikit-image."""
    return np.array(Image.fromarray(data.astronaut()[45:195, 150:300]).resize((112, 112)))


@pytest.fixture(scope="module")
def persons(person) -> list[np.ndarray]:
    """Of a rendered person and of the astronaut of scikit-image one frame, and of the first one forged."""
    first = person.variants
    return [first[ORIGINAL].frames[0], face(), first["Deepfakes"].frames[0]]


def scene(*placed, level=90, count=NUM_FRAMES, shape=(HEIGHT, WIDTH)) -> np.ndarray:
    """Frames of pictures set into a wall of one gray level, at corners (top, left)."""
    canvas = np.full((*shape, 3), level, np.uint8)
    for picture, (top, left) in placed:
        canvas[top : top + len(picture), left : left + picture.shape[1]] = picture
    return np.stack([canvas] * count)


def film(*scenes: np.ndarray) -> np.ndarray:
    return np.concatenate(scenes)


def write(path: Path, frames: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, list(frames), **{"codec_options": FINE, **options})


def mask_of(original: np.ndarray, forged: np.ndarray) -> np.ndarray:
    """White where a frame was changed, without holes."""
    away = np.abs(original.astype(np.float32) - forged).max(axis=-1)
    changed = [cv2.GaussianBlur(image, (0, 0), 5) > 4 for image in away]
    return np.repeat(np.uint8(255) * np.stack(changed)[..., None], 3, axis=-1)


def video_group(
    original: Path | None, forged: Path | None = None, mask: Path | None = None
) -> VideoGroup:
    made = () if forged is None else (Forgery("Deepfakes", forged, "b", mask),)
    return VideoGroup("video", "a", original, made)


def cut(one: VideoGroup, root: Path, num_frames: int = NUM_FRAMES):
    clips, rows = cut_group(one, root, SIZE, num_frames, 1.3, "c23")
    return clips, {(row["file"], row["reason"], row["left_out"]) for row in rows}


def only_clip(one: VideoGroup, root: Path, num_frames: int = NUM_FRAMES):
    (clip,), rows = cut(one, root, num_frames)
    return clip, rows


def mirrored(person: np.ndarray) -> np.ndarray:
    """The same person with the middle of the face mirrored."""
    forged = person.copy()
    forged[30:80, 25:90] = person[30:80, 25:90][:, ::-1]
    return forged


def likeness(crop: np.ndarray, person: np.ndarray) -> float:
    """Mean distance in color, in gray levels, between a crop and a picture's middle."""
    middle = person[len(person) // 4 : -len(person) // 4, len(person) // 4 : -len(person) // 4]
    inner = crop[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    return float(np.abs(middle.mean((0, 1)) - inner.mean((0, 1))).mean())


def is_of(clip, person, other) -> bool:
    frames = clip.variants[ORIGINAL].frames
    return all(likeness(frame, person) < likeness(frame, other) for frame in frames)


# Two people


@pytest.fixture(scope="module")
def two(persons, tmp_path_factory):
    """The one who was forged, at the left, is smaller than the other."""
    folder = tmp_path_factory.mktemp("two")
    one, other, forged = persons
    small, small_forged = (np.ascontiguousarray(image[4:-4, 4:-4]) for image in (one, forged))
    large = np.array(Image.fromarray(other).resize((170, 170)))
    shape = (182, 370)
    original = scene((small, LEFT), (large, (6, 190)), shape=shape)
    changed = scene((small_forged, LEFT), (large, (6, 190)), shape=shape)
    write(folder / "real.mp4", original)
    write(folder / "fake.mp4", changed)
    write(folder / "mask.mp4", mask_of(original, changed))
    return folder


@pytest.mark.parametrize("with_mask", [True, False])
def test_of_two_people_the_forged_one_is_taken(two, persons, with_mask):
    one, other, _ = persons
    mask = two / "mask.mp4" if with_mask else None
    clip, rows = only_clip(video_group(two / "real.mp4", two / "fake.mp4", mask), two)
    assert is_of(clip, one, other)
    variant = clip.variants["Deepfakes"]
    assert variant.mask_source == ("given" if with_mask else "difference")
    assert 0.05 < variant.mask.mean() < 0.8 and len(variant.frames) == NUM_FRAMES
    assert ("real.mp4", f"{SEVERAL}: the one forged or outlined was taken", False) in rows


def test_of_two_people_and_no_forgery_the_one_shown_most_is_taken(two, persons):
    one, other, _ = persons
    clip, rows = only_clip(video_group(two / "real.mp4"), two)
    assert is_of(clip, other, one)
    assert {row[1] for row in rows} == {f"{SEVERAL}: the one shown most was taken"}


def test_each_of_two_forgeries_keeps_the_face_that_it_changed(persons, tmp_path):
    """As in DFDC: forgeries of one original, each of another person; a third that changed nobody."""
    one, other, forged = persons
    faces = {"real": (one, other), "left": (forged, other), "right": (one, mirrored(other))}
    paths = {
        name: write(tmp_path / f"{name}.mp4", scene((left, LEFT), (right, RIGHT)))
        for name, (left, right) in faces.items()
    }
    made = tuple(Forgery("DFDC", paths[name], "a") for name in ("left", "right"))
    clips, rows = cut(VideoGroup("video", "a", paths["real"], made), tmp_path)
    assert [clip.name for clip in clips] == ["video", "video~DFDC~right"]
    assert [is_of(clip, one, other) for clip in clips] == [True, False]
    for clip in clips:
        assert [*clip.variants] == [ORIGINAL, "DFDC"] and clip.identity == "a"
        assert clip.variants["DFDC"].mask.mean() > 0.03
    assert ("right.mp4", "another face than in the first forgery: in its own clip", False) in rows
    # One of which nothing can be cut joins nobody: its first picture is of another shape.
    (tmp_path / "odd").mkdir()
    for number, frame in enumerate(scene((one, LEFT), (other, RIGHT))):
        picture = Image.fromarray(frame[:, : None if number else HEIGHT])
        picture.save(tmp_path / "odd" / f"{number:04d}.png")
    odd = Forgery("DFDC", tmp_path / "odd", "a")
    clips, rows = cut(VideoGroup("video", "a", paths["real"], (odd, *made)), tmp_path)
    assert [clip.name for clip in clips] == ["video", "video~DFDC~right"]
    assert ("odd", "video of 150x150, the original has 330x150", True) in rows
    clip, rows = only_clip(video_group(paths["real"], paths["real"]), tmp_path)
    assert [*clip.variants] == [ORIGINAL]  # whom it changed cannot be told
    assert ("real.mp4", "no pixel of the face differs from its original", True) in rows


def test_of_two_people_in_a_picture_the_outlined_one_is_taken(persons, tmp_path):
    one, other, forged = persons
    path = tmp_path / "picture.png"
    Image.fromarray(scene((forged, LEFT), (other, RIGHT))[0]).save(path)

    def outline(left: int) -> Outline:
        low, high = left + 30, left + 80
        return Outline(path, (HEIGHT, WIDTH), ((low, 40, high, 40, high, 100, low, 100),))

    real = VideoGroup("real", "a", path, face=outline(RIGHT[1]))
    clip, _ = only_clip(real, tmp_path, 1)
    assert is_of(clip, other, one) and [*clip.variants] == [ORIGINAL]
    mask = outline(LEFT[1])
    made = (Forgery("X", path, "b", mask),)
    clip, _ = only_clip(VideoGroup("fake", "b", None, made, face=mask), tmp_path, 1)
    variant = clip.variants["X"]
    assert variant.mask_source == "given" and 0.05 < variant.mask.mean() < 0.95
    assert likeness(variant.frames[0], forged) < likeness(variant.frames[0], other)


# Cuts


def test_a_cut_ends_a_track_even_where_the_next_face_is_in_the_same_place(persons, tmp_path):
    one, other, _ = persons
    frames = film(scene((one, LEFT), level=70, count=4), scene((other, LEFT), level=190, count=2))
    clip, rows = only_clip(video_group(write(tmp_path / "cut.mp4", frames)), tmp_path)
    assert clip.video.numbers == [0, 1, 2, 3] and is_of(clip, one, other)
    assert rows == {("cut.mp4", ANOTHER.format(2), False)}


def test_a_face_that_was_not_forged_is_left_out_where_a_mask_tells(persons, tmp_path):
    one, other, forged = persons
    rest = scene((other, LEFT), level=190, count=4)
    real, fake = (film(scene((face, LEFT), level=70, count=2), rest) for face in (one, forged))
    paths = [
        write(tmp_path / f"{name}.mp4", frames)
        for name, frames in (("real", real), ("fake", fake), ("mask", mask_of(real, fake)))
    ]
    clip, rows = only_clip(video_group(*paths), tmp_path)
    assert clip.video.numbers == [0, 1] and is_of(clip, one, other)
    assert {row[1] for row in rows} == {ANOTHER.format(4)}


def test_a_moving_face_is_no_cut(persons):
    steps = [scene((persons[0], (12, 20 + 25 * n)), count=1)[0] for n in range(6)]
    small = [tracking.thumbnail(frame) for frame in steps]
    assert not any(tracking.is_cut(a, b) for a, b in pairwise(small))
    assert tracking.is_cut(
        tracking.thumbnail(scene(level=40)[0]), tracking.thumbnail(scene(level=90)[0])
    )


def test_nothing_to_follow():
    assert tracking.follow([[], []], [False, False]) == [None, None]
    assert tracking.follow([], []) == [] and tracking.forged_face([]) is None


# What cannot be used


BROKEN = {
    "gone.mp4": (lambda path: None, "no such file"),
    "cut.mp4": (lambda p: p.write_bytes(write(p, scene()).read_bytes()[:-900]), "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(persons, tmp_path, name):
    one, _, forged = persons
    make, reason = BROKEN[name]
    real = write(tmp_path / "real.mp4", scene((one, LEFT)))
    fake = write(tmp_path / "fake.mp4", scene((forged, LEFT)))
    broken = tmp_path / name
    make(broken)
    clips, rows = cut(video_group(broken, fake), tmp_path)
    assert not clips
    assert {row[0] for row in rows} == {name, "fake.mp4"} and all(row[2] for row in rows)
    assert any(reason in row[1] for row in rows)
    assert ("fake.mp4", f"its original {name} cannot be read", True) in rows
    clip, rows = only_clip(video_group(real, broken), tmp_path)
    assert list(clip.variants) == [ORIGINAL] and len(rows) == 1
    clip, rows = only_clip(video_group(real, fake, broken), tmp_path)
    assert clip.variants["Deepfakes"].mask_source == "difference"
    assert [(row[0], row[2]) for row in rows] == [(name, False)]


def test_a_film_that_breaks_off_is_used_as_far_as_it_goes(persons, tmp_path):
    one, _, forged = persons
    paths = []
    for name, face in (("real", one), ("fake", forged)):
        noise = np.random.default_rng(0).integers(0, 60, (60, HEIGHT, WIDTH, 3), dtype=np.uint8)
        frames = np.maximum(scene((face, LEFT), count=60), noise)
        paths.append(write(tmp_path / f"{name}.mp4", frames, options={"movflags": "faststart"}))
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: len(content) // 2])
    clip, rows = only_clip(video_group(*paths), tmp_path)
    forged_frames = clip.variants["Deepfakes"].frames
    # The frame at which it breaks off cannot be decoded, and is passed over in both.
    assert 1 <= len(forged_frames) < len(clip.variants[ORIGINAL].frames) in (5, 6)
    assert any("truncated: the file ends after" in row[1] for row in rows if row[0] == "fake.mp4")
    assert any("its original 60" in row[1] for row in rows)


def test_a_film_without_a_face_is_reported(tmp_path):
    wall = video_group(write(tmp_path / "wall.mp4", scene()))
    clips, rows = cut(wall, tmp_path)
    assert not clips and rows == {("wall.mp4", f"no face found in {NUM_FRAMES} frames", True)}
    with pytest.raises(ValueError, match="no usable face in the 1 groups of videos"):
        build([wall], tmp_path / "clips")


def test_a_video_that_is_in_no_clip_is_reported(persons, tmp_path):
    """Its original shows no face; or shows it only after the forgery has ended."""
    one, _, forged = persons
    wall = write(tmp_path / "wall.mp4", scene())
    late = write(tmp_path / "late.mp4", film(scene(count=4), scene((one, LEFT), count=2)))
    short = write(tmp_path / "short.mp4", scene(count=3))
    seen = write(tmp_path / "seen.mp4", scene((forged, LEFT)))
    options = {"size": SIZE, "num_frames": NUM_FRAMES, "scale": 1.3, "quality": "c23"}
    for original, fake in ((wall, wall), (wall, seen), (late, short)):
        paths, rows = assemble.work(video_group(original, fake), tmp_path, tmp_path, options)
        used = {name for path in paths for name in load_header(path)["videos"].values()}
        told = {Path(row["file"]).stem for row in rows if row["left_out"]}
        assert {original.stem, fake.stem} <= used | told, rows


def test_a_video_of_the_name_of_another_is_reported_too(person, tmp_path):
    """As in FaceForensics++, where names recur in families, and FFIW, where they are the original's."""
    paths = [tmp_path / name / "000_003.mp4" for name in ("real", "Deepfakes", "Face2Face")]
    made = tuple(Forgery(path.parent.name, path, "b") for path in paths[1:])
    group = VideoGroup("v", "a", paths[0], made)
    seen = {name: person.variants[name] for name in (ORIGINAL, "Deepfakes")}
    variants = {n: dataclasses.replace(v, video="000_003") for n, v in seen.items()}
    clip = dataclasses.replace(person, variants=variants)
    (row,) = assemble.unused(group, tmp_path, [clip], [])
    assert row["file"] == "Face2Face/000_003.mp4" and row["left_out"]


def test_frames_without_the_face_are_counted(persons, tmp_path):
    frames = film(scene((persons[0], LEFT), count=4), scene(count=2))
    clip, rows = only_clip(video_group(write(tmp_path / "gone.mp4", frames)), tmp_path)
    assert clip.video.numbers == [0, 1, 2, 3]
    assert rows == {("gone.mp4", "no face in 2 of 6 frames", False)}


def test_masks_of_other_length_and_size(persons, tmp_path):
    one, _, forged = persons
    real, fake = scene((one, LEFT)), scene((forged, LEFT))
    original, video = write(tmp_path / "real.mp4", real), write(tmp_path / "fake.mp4", fake)
    mask = mask_of(real, fake)
    whole = write(tmp_path / "whole.mp4", mask)
    used, rows = only_clip(video_group(original, video, whole), tmp_path)
    assert not rows and used.variants["Deepfakes"].mask_source == "given"
    unused = {
        "short": (mask[:4], "only 4 of 6 frames have a mask: not used"),
        "black": (0 * mask, "nothing is marked in it where the face is: not used"),
        "white": (0 * mask + 255, "all is marked in it where the face is, less differs: not used"),
        "inverted": (255 - mask, "it marks what is as in the original (inverted?): not used"),
    }
    for name, (frames, reason) in unused.items():
        path = write(tmp_path / f"{name}.mp4", frames)
        clip, rows = only_clip(video_group(original, video, path), tmp_path)
        variant = clip.variants["Deepfakes"]
        assert variant.mask_source == "difference" and len(variant.frames) == NUM_FRAMES
        assert (f"{name}.mp4", reason, False) in rows
    half = write(tmp_path / "half.mp4", mask[:, ::2, ::2][:, :74, :164])
    smaller, rows = only_clip(video_group(original, video, half), tmp_path)
    masks = [c.variants["Deepfakes"].mask for c in (smaller, used)]
    assert not rows and (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.8
    other = write(tmp_path / "other.mp4", mask[:, :, :200])
    clip, rows = only_clip(video_group(original, video, other), tmp_path)
    assert clip.variants["Deepfakes"].mask_source == "difference"
    assert rows == {("other.mp4", "mask of 200x150, the original has 330x150", True)}


@pytest.mark.parametrize(
    ("sign", "known", "reason"),
    [
        (1, "given", None),
        (-1, "face", "it marks what is around the face (inverted?): not used"),
        (0, "given", "all is marked in it where the face is"),
    ],
)
def test_masks_of_a_forgery_without_its_original(persons, tmp_path, sign, known, reason):
    one, _, forged = persons
    real, fake = scene((one, LEFT)), scene((forged, LEFT))
    marked = (255 + sign * (2 * mask_of(real, fake).astype(int) - 255)) // 2 if sign else 255
    path = write(tmp_path / "mask.mp4", np.zeros_like(real) + np.uint8(marked))
    video = write(tmp_path / "fake.mp4", fake)
    clip, rows = only_clip(video_group(None, video, path), tmp_path)
    assert clip.variants["Deepfakes"].mask_source == known
    assert rows == ({("mask.mp4", reason, False)} if reason else set())


def test_mask_pictures_that_may_be_numbered_otherwise_are_reported(persons, tmp_path):
    one, _, forged = persons
    real, fake = scene((one, LEFT)), scene((forged, LEFT))
    videos = write(tmp_path / "real.mp4", real), write(tmp_path / "fake.mp4", fake)
    masks = tmp_path / "masks"
    masks.mkdir()
    for number, mask in enumerate(mask_of(real, fake)[1:], 1):
        Image.fromarray(mask).save(masks / f"{number:04d}.png")
    _, rows = only_clip(video_group(*videos, masks), tmp_path)
    assert ("masks", "numbered from 1, its video from 0: laid on it by number", False) in rows


def test_a_forgery_shorter_than_its_original_is_used_as_far_as_it_goes(persons, tmp_path):
    one, _, forged = persons
    paths = [
        write(tmp_path / "real.mp4", scene((one, LEFT))),
        write(tmp_path / "fake.mp4", scene((forged, LEFT), count=3)),
    ]
    clip, rows = only_clip(video_group(*paths), tmp_path, 32)
    assert len(clip.variants["Deepfakes"].frames) == 3
    assert len(clip.variants[ORIGINAL].frames) == 6
    assert rows == {
        ("real.mp4", "short: 6 of 32 frames", False),
        ("fake.mp4", "3 frames, its original 6", False),
    }


def test_frames_behind_one_of_another_shape_are_not_laid_on_the_one_before(tmp_path):
    """A forgery of which the second picture is of another shape than the original's."""
    sides = 8, 4, 8
    read = lambda numbers: iter(np.zeros((8, sides[n], 3), np.uint8) for n in numbers)
    video = Video(tmp_path, np.arange(3), None, read, [])
    black = np.zeros((8, 8, 3), np.uint8)
    face = tracking.Candidate(np.array([0, 0, 4, 4]), FaceShape(np.ones((68, 2)), {}), {}, {}, {})
    shots = [
        Shot(number, (8, 8), tracking.guide_picture(black), black, [face]) for number in range(3)
    ]
    for cut_out, kind in ((cut_beside, "video"), (cut_masks, "mask")):
        remarks = Remarks(tmp_path)
        cuts = cut_out(shots, video, 4, remarks)
        assert list(cuts.faces) == [0] and not cuts.damaged
        (row,) = remarks.rows
        assert row["reason"] == f"{kind} of 4x8, the original has 8x8" and row["left_out"]


def test_a_frame_that_cannot_be_decoded_in_one_video_is_passed_over_in_all(persons, tmp_path):
    """Here a picture that is none, one in the original and another in the forgery."""
    one, _, forged = persons
    for name, faces, gap in (("real", one, 1), ("fake", forged, 4)):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(scene((faces, LEFT))):
            Image.fromarray(frame).save(tmp_path / name / f"{number:04d}.png")
        (tmp_path / name / f"{gap:04d}.png").write_bytes(b"nothing")
    clip, rows = only_clip(video_group(tmp_path / "real", tmp_path / "fake"), tmp_path)
    assert clip.video.numbers == [0, 2, 3, 5]
    assert {len(variant.frames) for variant in clip.variants.values()} == {4}
    told = "1 of 6 frames missing or not decodable"
    assert rows == {("real", told, False), ("fake", told, False)}


def moving(face: np.ndarray, shift: int = 0, count: int = 12) -> np.ndarray:
    places = [20 + 6 * min(max(n - shift, 0), count - 1) for n in range(count)]
    return film(*(scene((face, (12, left)), count=1) for left in places))


def test_a_forgery_lies_on_its_original_whatever_its_rate_and_number(persons, tmp_path):
    """Cut exactly as if it had the original's rate and began with it; masks and pictures from 1 too."""
    one, _, forged = persons
    original = write(tmp_path / "real.mp4", moving(one))
    plain = video_group(original, write(tmp_path / "plain.mp4", moving(forged)))
    expected = only_clip(plain, tmp_path, 4)[0].variants["Deepfakes"].mask
    slow = write(tmp_path / "slow.mp4", moving(forged), times=range(0, 960, 80))
    late = write(tmp_path / "late.mp4", moving(forged, 1))
    mask = write(tmp_path / "mask.mp4", mask_of(moving(one, 1), moving(forged, 1)))
    for number, frame in enumerate(moving(forged), 1):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "pictures" / f"{number:04d}.png")
    for path, given, reason in (
        (slow, None, None),
        (late, None, "frames shifted by +1 from its original's: laid on them"),
        (late, mask, "frames shifted by +1 from its original's: laid on them"),
        (tmp_path / "pictures", None, "frames shifted by +1 from its original's: laid on them"),
    ):
        clip, rows = only_clip(video_group(original, path, given), tmp_path, 4)
        variant = clip.variants["Deepfakes"]
        assert variant.mask_source == ("given" if given else "difference")
        share = (expected & variant.mask).sum() / (expected | variant.mask).sum()
        assert len(variant.frames) == 4 and share > (0.4 if given else 0.85), (path, share)
        assert [row[1] for row in rows] == ([reason] if reason else [])


def test_a_forgery_written_from_stored_pixels_is_stretched_with_its_original(persons, tmp_path):
    """What was said of it before it was stretched, that it has another shape, is not reported."""
    one, _, forged = (
        cv2.resize(face, None, fx=0.75, fy=1, interpolation=cv2.INTER_AREA) for face in persons
    )
    real, fake = scene((one, LEFT)), scene((forged, LEFT))
    original = write(tmp_path / "real.mp4", real, sample_aspect_ratio=Fraction(4, 3))
    group = video_group(
        original,
        write(tmp_path / "fake.mp4", fake),
        write(tmp_path / "mask.mp4", mask_of(real, fake)),
    )
    clip, rows = only_clip(group, tmp_path)
    told = "its pixels are not square as its original's say: stretched to its shape"
    assert rows == {("fake.mp4", told, False)}
    variant = clip.variants["Deepfakes"]
    assert variant.mask_source == "given" and len(variant.frames) == NUM_FRAMES
    assert 0.3 < variant.mask.mean() < 0.7


def test_a_forgery_of_another_scene_stands_alone(persons, tmp_path):
    one, _, forged = persons
    real = write(tmp_path / "real.mp4", scene((one, LEFT)))
    fake = write(tmp_path / "fake.mp4", scene((forged, RIGHT)))
    clips, rows = cut(video_group(real, fake), tmp_path)
    assert [list(clip.variants) for clip in clips] == [[ORIGINAL], ["Deepfakes"]]
    assert clips[1].variants["Deepfakes"].mask_source == "face"
    told = "around the face is not its original's: used without its original"
    assert any(told in row[1] for row in rows)


def test_a_lone_face_is_not_the_forged_one_where_the_difference_lies_elsewhere(persons, tmp_path):
    """In the last frames the one who was forged has turned away: a picture without a face."""
    one, other, forged = persons

    def turning(face: np.ndarray) -> np.ndarray:
        shown = ((face, 4), (np.ascontiguousarray(face[::-1]), 2))
        return film(*(scene((one, LEFT), (other, RIGHT), count=count) for one, count in shown))

    real, fake = turning(one), turning(forged)
    paths = [write(tmp_path / "real.mp4", real), write(tmp_path / "fake.mp4", fake)]
    clip, _ = only_clip(video_group(*paths), tmp_path)
    assert clip.video.numbers == [0, 1, 2, 3] and is_of(clip, one, other)


@pytest.mark.parametrize("shift", [0, 3])
def test_crops_that_lie_elsewhere_than_their_original_stand_alone(person, tmp_path, shift):
    """As in DeepfakeBench, where every video was cut out by its own landmarks."""
    clip = person
    for name, moved in ((ORIGINAL, 0), ("Deepfakes", shift)):
        for kind in ("frames", "landmarks"):
            (tmp_path / kind / name).mkdir(parents=True)
        for number, frame in enumerate(clip.variants[name].frames):
            Image.fromarray(frame).save(tmp_path / "frames" / name / f"{number:03d}.png")
            np.save(
                tmp_path / "landmarks" / name / f"{number:03d}.npy", clip.landmarks[number] + moved
            )
    folder = tmp_path / "frames"
    one = VideoGroup(
        "video", "a", folder / ORIGINAL, (Forgery("Deepfakes", folder / "Deepfakes", "b"),),
        landmarks=tmp_path / "landmarks" / ORIGINAL,
    )  # fmt: skip
    clips, rows = cut(one, tmp_path, 2)
    reasons = {row[1] for row in rows}
    if shift:
        assert [list(found.variants) for found in clips] == [[ORIGINAL], ["Deepfakes"]]
        assert reasons == {"landmarks 4.2 px from the original's: used without its original"}
        np.testing.assert_allclose(
            clips[1].landmarks - clips[0].landmarks, 3 * SIZE / 112, atol=0.1
        )
    else:
        assert [list(found.variants) for found in clips] == [[ORIGINAL, "Deepfakes"]] and not rows


@pytest.mark.parametrize("side", [48, 300])
def test_a_face_lies_in_its_crop_where_its_landmarks_do(side):
    spot = np.uint8(255 * np.exp(-(np.hypot(*(np.indices((400, 400)) - 200.0)) ** 2) / 72))
    frame, low = np.repeat(spot[..., None], 3, 2), 200 - side // 2
    boxed = np.array([low, low, low + side, low + side]), FaceShape(np.full((68, 2), 200.0), {})
    video = Video(Path("x"), np.arange(1), None, lambda numbers: iter([frame]), [])
    only = np.arange(1)
    (shot,), _ = look_for_faces(
        video, only, ORIGINAL, lambda *_: ([boxed], 0), Original(video, only), SIZE, None
    )
    (found,) = shot.faces
    image = found.images[ORIGINAL][..., 0]
    places = np.average(np.indices(image.shape), axis=(1, 2), weights=np.stack([image, image]))
    np.testing.assert_allclose(found.face.landmarks[0], places, atol=0.05)


def test_landmarks_that_are_missing_are_not_said_to_be_nan_pixels_away(tmp_path):
    video = Video(tmp_path, np.arange(2), None, None, [])
    for name, count in (("real", 2), ("fake", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            np.save(tmp_path / name / f"{number:03d}.npy", np.ones((68, 2)))
    reason = assemble.apart(video, video, tmp_path / "real", tmp_path / "fake")
    assert reason == "landmarks of a compared frame are missing or not readable"


# A whole data set


@pytest.fixture
def dataset(persons, tmp_path) -> list[VideoGroup]:
    one, other, forged = persons
    video_groups = []
    for number, (face, swapped) in enumerate(((one, forged), (other, mirrored(other)))):
        real = write(tmp_path / "videos" / f"r{number}.mp4", scene((face, LEFT)))
        fake = write(tmp_path / "videos" / f"f{number}.mp4", scene((swapped, LEFT)))
        made = (Forgery("X", fake, "q"),)
        video_groups.append(VideoGroup(f"video{number}", f"p{number}", real, made))
    return video_groups


def build(video_groups: list[VideoGroup], folder: Path, num_workers: int = 1):
    root = video_groups[0].original.parent
    return video_dataset(video_groups, root, folder, SIZE, 3, 1.3, "c23", num_workers)


def test_only_what_changed_is_cut_again(dataset, tmp_path, monkeypatch):
    cut_again = []
    true = assemble.cut_group
    monkeypatch.setattr(
        assemble, "cut_group", lambda one, *a, **k: cut_again.append(one.name) or true(one, *a, **k)
    )
    films = sorted(dataset[0].original.parent.iterdir())
    paths, report = build(dataset, tmp_path / "clips")
    assert cut_again == ["video0", "video1"] and len(paths) == 2
    assert sorted(dataset[0].original.parent.iterdir()) == films  # they are only read
    assert build(dataset, tmp_path / "clips") == (paths, report)
    assert cut_again == ["video0", "video1"]
    dataset[0] = dataclasses.replace(dataset[0], split="test")  # lists were corrected
    build(dataset, tmp_path / "clips")
    assert cut_again == ["video0", "video1", "video0"] and load_clip(paths[0]).video.split == "test"
    cut_again.pop()
    os.utime(dataset[1].original)
    build(dataset, tmp_path / "clips")
    assert cut_again == ["video0", "video1", "video1"]
    paths[0].write_bytes(paths[0].read_bytes()[:100])  # interrupted, or damaged
    build(dataset, tmp_path / "clips")
    assert cut_again[3:] == ["video0"] and load_clip(paths[0]).name == "video0"


def test_what_stood_alone_is_forgotten_once_its_video_was_exchanged(dataset, tmp_path):
    one = dataset[0]
    film, elsewhere = one.forgeries[0].path, tmp_path / "elsewhere.mp4"
    good = film.read_bytes()
    film.write_bytes(write(elsewhere, scene((data.astronaut()[::4, ::4], RIGHT))).read_bytes())
    names = [[path.name for path in build([one], tmp_path / "clips")[0]]]
    film.write_bytes(good)
    names += [[path.name for path in build([one], tmp_path / "clips")[0]] for _ in range(2)]
    assert names[0] == ["video0@c23.npz", "video0~X@c23.npz"]
    assert names[1] == names[2] == ["video0@c23.npz"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 kB; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    done = (
        subprocess.run(mount, capture_output=True, check=False) if shutil.which("mount") else None
    )
    if done is None or done.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_or_read_only_is_an_error_that_names_it(dataset, small_disk):
    with pytest.raises(OSError, match=r"disk: cannot write the clip of video0.*space"):
        build(dataset, small_disk)
    assert not list(small_disk.glob("*.npz"))  # no half clip that looks like a whole one
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"disk: cannot write the clip of video0.*[Rr]ead-only"):
        build(dataset, small_disk)


def test_no_scheduler_is_an_error_that_names_the_address():
    with (
        pytest.raises(OSError, match=r"faces\.scheduler: no Dask scheduler answers at nonsense"),
        workers("nonsense://x"),
    ):
        pass

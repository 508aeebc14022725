"""A forgery and its original compared around the face: rates, numbers, shifts and shapes."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fwstudy.faces.videos.footage import open_video
from fwstudy.faces.videos.pairing import Match, Original, shrink

from ..test_inputs import write_clip

COUNT = 24
STILL = [30] * COUNT
MOVING = [20 + 3 * number for number in range(COUNT)]


def head() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, (100, 100, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.uint8(np.clip(128 + 60 * smooth / smooth.std(), 1, 254))


def scene(places: list[int], forged: bool) -> list[np.ndarray]:
    """A head on a wall at some columns; of a forged one the middle, 10 % of the picture, is another."""
    frames = []
    for left in places:
        frame, shown = np.full((160, 240, 3), 90, np.uint8), head()
        if forged:
            shown[30:80, 25:75] = shown[30:80, 25:75][::-1, ::-1]
        frame[30:130, left : left + 100] = shown
        frames.append(frame)
    return frames


def boxes(frame: np.ndarray) -> list[np.ndarray]:
    """The middle of the head."""
    columns = np.flatnonzero((np.abs(frame.astype(int) - 90) > 25).any((0, 2)))
    left, scale = columns[0], frame.shape[1] / 240
    box = [left + 20 * scale, 55, left + 80 * scale, 115]
    return [np.array(box, int)]


def film(path: Path, places=MOVING, forged=False, **options) -> Path:
    return write_clip(path, scene(places, forged), codec_options={"crf": "18"}, **options)


def pictures(folder: Path, places=MOVING, first=1) -> Path:
    folder.mkdir()
    for number, frame in enumerate(scene(places, True)):
        Image.fromarray(frame).save(folder / f"{number + first:04d}.png")
    return folder


def found(original: Path, forged: Path) -> Match:
    real, fake = open_video(original), open_video(forged)
    shown = Original(real, real.numbers)
    comparison = shown.compared_with(fake)
    near, probes = np.array(sorted(shown.near)), np.array(sorted(comparison.probes))
    for number, frame in zip(near.tolist(), real.frames(near), strict=True):
        shown.show(number, frame)
        if number in shown.probes:
            shown.show_faces(number, boxes(frame), frame.shape[:2])
    for number, frame in zip(probes, fake.frames(probes + comparison.shift), strict=True):
        comparison.show(int(number), frame)
    return comparison.result()


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    return film(tmp_path_factory.mktemp("real") / "real.mp4")


def test_the_rate_that_a_container_names_does_not_matter(real, tmp_path):
    """FaceForensics++ writes a forgery at the rate of its source, frame n made of frame n of the target."""
    slow = film(tmp_path / "slow.mp4", forged=True, times=range(0, 10**6, 33))
    assert found(real, slow) == Match()
    uneven = [40 * n + 17 * (n % 3) for n in range(COUNT)]
    assert found(film(tmp_path / "phone.mp4", times=uneven), slow) == Match()


def test_milliseconds_of_matroska_do_not_matter(tmp_path):
    """60 frames a second in whole milliseconds: steps of 16 and 17, 2 % off in the median."""
    stamps = [round(1000 * n / 60) for n in range(COUNT)]
    one = film(tmp_path / "real.mp4", times=stamps)
    assert found(one, film(tmp_path / "fake.mkv", forged=True, times=stamps)) == Match()


@pytest.mark.parametrize("shift", [-2, -1, 1, 3])
def test_a_shift_is_found(real, tmp_path, shift):
    places = [MOVING[min(max(n - shift, 0), COUNT - 1)] for n in range(COUNT)]
    assert found(real, film(tmp_path / "fake.mp4", places, True)) == Match(shift)


def test_pictures_numbered_from_1_lie_on_a_film(real, tmp_path):
    assert found(real, pictures(tmp_path / "moving")) == Match(1)
    still = film(tmp_path / "still.mp4", STILL)
    assert found(still, pictures(tmp_path / "still", STILL)) == Match(1)
    assert found(real, pictures(tmp_path / "short", MOVING[:-4])) == Match(1)
    assert found(real, pictures(tmp_path / "zero", first=0)) == Match()


def test_a_picture_of_another_size_is_compared_with_none(tmp_path):
    original = pictures(tmp_path / "real")
    odd = scene([30], True)[0][:, :120]  # the last of those that are looked at
    Image.fromarray(odd).save(original / "0022.png")
    assert found(original, pictures(tmp_path / "fake")) == Match()


def test_pixels_that_are_not_square_in_the_original_alone(tmp_path):
    wide = film(tmp_path / "real.mp4", sample_aspect_ratio=Fraction(4, 3))
    assert found(wide, film(tmp_path / "fake.mp4", forged=True)) == Match(0, (160, 320))


def test_what_does_not_lie_on_it_is_told(real, tmp_path):
    elsewhere = film(tmp_path / "elsewhere.mp4", [left + 45 for left in MOVING], True)
    assert "of its picture around the face is not its original's" in found(real, elsewhere).reason
    half = film(tmp_path / "half.mp4", MOVING[::2], True, times=range(0, 10**6, 80))
    assert "original's" in found(real, half).reason
    still = film(tmp_path / "still.mp4", STILL)
    fast = film(tmp_path / "fast.mp4", STILL[:12], True, times=range(0, 10**6, 80))
    assert found(still, fast).reason.startswith("12.5 frames a second, its original 25")
    assert found(still, film(tmp_path / "short.mp4", STILL[:12], True)) == Match()


def test_frames_that_are_read_anyway_are_compared(real):
    """Unless there are too few of them."""
    video = open_video(real)
    every = np.arange(1, COUNT, 2)
    few, some = (np.linspace(0, COUNT - 1, count).astype(int) for count in (5, 6))
    for wanted, pool in ((every, every), (few, video.numbers), (some, some)):
        original = Original(video, wanted)
        probes = original.compared_with(video).probes
        assert len(probes) == 4 and probes <= set(pool.tolist()) and max(probes) > COUNT / 2
        assert original.probes == probes < original.near


@pytest.mark.parametrize(("shape", "size"), [((1080, 1920), (160, 90)), ((97, 131), (30, 22))])
def test_a_picture_shrunk_in_steps_is_the_mean_of_areas(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 4)
    once = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    assert np.abs(shrink(image, size).astype(int) - once).max() <= 2

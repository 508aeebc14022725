import numpy as np
import pytest

from fwstudy.preprocess import codec


def video(count: int, height: int = 64, width: int = 80) -> np.ndarray:
    """A bright blob that wanders over a textured ground."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((height, width))
    ground = 90 + 40 * np.sin(rows / 5)[..., None] + rng.normal(0, 6, (count, height, width, 3))
    for number, frame in enumerate(ground):
        near = np.hypot(rows - height / 2, columns - 10 - 3 * number) < 12
        frame[near] = (200, 120, 80)
    return ground.clip(0, 255).astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2))


@pytest.mark.parametrize("quality", codec.QUALITIES)
@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_no_frame_is_lost(quality, count):
    frames = video(count)
    result, _ = codec.compress(frames, quality)
    assert result.shape == frames.shape
    assert result.dtype == np.uint8


@pytest.mark.parametrize("size", [(64, 81), (65, 80), (63, 79), (96, 96)])
def test_odd_sizes_come_back_whole(size):
    frames = video(2, *size)
    result, _ = codec.compress(frames, "c23")
    assert result.shape == frames.shape
    assert psnr(frames[:, -4:, -4:], result[:, -4:, -4:]) > 20


def test_frames_keep_their_order_and_colours():
    colors = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)
    frames = np.broadcast_to(colors[:, None, None], (3, 32, 32, 3)).copy()
    means = codec.compress(frames, "c23")[0].mean((1, 2))
    assert np.abs(means - colors).max() < 6


def test_raw_is_untouched():
    frames = video(2)
    result, num_bytes = codec.compress(frames, "raw")
    assert result is frames and num_bytes == 2 * 64 * 80 * 3


def test_higher_rate_factor_is_coarser():
    frames = video(4)
    quality = {name: psnr(frames, codec.compress(frames, name)[0]) for name in ("c23", "c40")}
    assert quality["c23"] > quality["c40"] + 2
    assert quality["c40"] > 18
    assert len(codec.encode(frames, 23)) > len(codec.encode(frames, 40))


@pytest.mark.parametrize("size", [(64, 80), (63, 79), (96, 96), (50, 70)])
def test_same_frames_same_bytes(size):
    frames = video(4, *size)
    videos = {codec.encode(frames, 23) for _ in range(8)}
    assert len(videos) == 1
    encoded = videos.pop()
    assert len({codec.decode(encoded).tobytes() for _ in range(8)}) == 1


def test_colour_planes_are_inverse_for_grey_and_known_for_white():
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.abs(codec.from_planes(codec.to_planes(gray)).astype(int) - gray).max() <= 1
    planes = codec.to_planes(np.full((4, 4, 3), 255, np.uint8))
    assert (planes[:4] == 235).all() and (planes[4:] == 128).all()


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"'c30'; known: raw, c23, c40"):
        codec.compress(video(1), "c30")
    with pytest.raises(ValueError, match=r"\(F, H, W, 3\) uint8, got \(64, 80, 3\)"):
        codec.encode(video(1)[0], 23)
    with pytest.raises(ValueError, match="float64"):
        codec.encode(video(1) / 255, 23)

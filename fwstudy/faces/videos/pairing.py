"""Whether a forgery lies on its original frame by frame, and at which shift: seen from the pictures.

What a container says (frame rate, number of frames) is no evidence. Public scripts write a forgery at the rate
of another video, a change of container rounds time stamps, and pictures are numbered from 0 or 1. So a few
frames are compared: around the faces, a forgery and its original show the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fwstudy.faces.videos.footage import Video

PROBES = 4  # frames of the original that are looked at
REACH = 3  # frames by which a forgery may be shifted
SIDE = 320  # px, longer side of the compared pictures
LEVEL = 16.0  # gray levels by which pixels differ more than by compression
MOVES = 12.0  # gray levels by which a pixel changes from frame to frame where something moves
MAX_APART = 0.1  # share of the surroundings that may differ by more than LEVEL
MIN_MOVING = 0.005  # share of a picture that must move to tell one frame from the next
BETTER = 0.6  # share of the moving pixels that must prefer another shift
IN_STEP = 0.6  # of the movement, what may remain as a difference
SAME_RATE = 0.02  # relative difference up to which two videos have the same frame rate
SAME_SHAPE = 0.02  # relative difference up to which two frames have the same shape


@dataclass(frozen=True)
class Match:
    """How a forgery lies on its original.

    Args:
        shift: number of a forged frame minus that of its original.
        shape: (H, W) of the original where the forgery has square pixels and the original has not, so
            that forged frames must be stretched; else None.
        reason: why it does not lie on it; empty if it does.
    """

    shift: int = 0
    shape: tuple[int, int] | None = None
    reason: str = ""


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two pictures, given by height and width, have the same ratio of the two."""
    return abs(one[1] * other[0] / (one[0] * other[1]) - 1) < SAME_SHAPE


def highest(image: np.ndarray) -> np.ndarray:
    """The largest of a pixel's colors, (H, W, 3) to (H, W): twenty times as fast as ``max(axis=-1)``."""
    return cv2.max(cv2.max(image[..., 0], image[..., 1]), image[..., 2])


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture at another width and height; a smaller one by the mean of areas, halved first: faster."""
    while min(image.shape[1] / size[0], image.shape[0] / size[1]) >= 4:
        half = image.shape[1] // 2, image.shape[0] // 2
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def first_shift(video: Video, original: Video) -> int:
    """The shift between two videos of one length where a folder of pictures counts from another number."""
    counted = video.path.is_dir() or original.path.is_dir()
    if not counted or len(video.numbers) != len(original.numbers):
        return 0
    return int(video.numbers[0] - original.numbers[0])


class Original:
    """An original as its forgeries are compared with it: small pictures at and around some of its frames.

    It is read once for all its forgeries, so `compared_with` comes first and `show` afterwards.

    Args:
        video: its frames.
        wanted: (N,) int, numbers of the frames that are read anyway.
    """

    def __init__(self, video: Video, wanted: np.ndarray):
        self.video, self.wanted, self.shape = video, wanted, (1, 1)
        self.probes: set[int] = set()
        self.shown: dict[int, np.ndarray] = {}  # small pictures
        self.around: dict[int, np.ndarray] = {}  # (h, w) bool, where no face is, if there are any

    @property
    def near(self) -> set[int]:
        """Numbers of the frames that it must be shown."""
        reach = range(-REACH, REACH + 1)
        return {probe + shift for probe in self.probes for shift in reach} & set(
            self.video.numbers.tolist()
        )

    def compared_with(self, video: Video) -> "Comparison":
        """A comparison with a forgery."""
        shift = first_shift(video, self.video)
        common = np.intersect1d(self.video.numbers, video.numbers - shift)
        read = np.intersect1d(common, self.wanted)
        common = read if len(read) >= PROBES + 2 else common  # as many places, once each
        places = np.linspace(0, max(0, len(common) - 1), PROBES + 2)[1:-1].round().astype(int)
        probes = set(common[places].tolist()) if len(common) else set()
        self.probes |= probes
        return Comparison(self, video, shift, probes)

    def show(self, number: int, image: np.ndarray) -> None:
        """One of the frames `near`, (H, W, 3) uint8."""
        self.shown[number] = _small(image)

    def show_faces(self, number: int, boxes: Sequence[np.ndarray], shape: tuple[int, int]) -> None:
        """The squares around the faces in one of `probes` that was shown, a frame of that shape."""
        if boxes:
            self.shape = shape
            self.around[number] = _around(self.shown[number].shape, boxes, shape)


class Comparison:
    """A forgery that is compared with its original at a few frames in which faces are seen.

    Args:
        original, video: the two.
        shift: by which the forgery is taken to be shifted.
        probes: numbers of the original's frames that are compared.
    """

    def __init__(self, original: Original, video: Video, shift: int, probes: set[int]):
        self.original, self.video, self.shift, self.probes = original, video, shift, probes
        self.looks, self.stretched = [], False

    def show(self, number: int, image: np.ndarray) -> None:
        """The forgery's frame, (H, W, 3) uint8, for a probe of that number."""
        original = self.original
        if number not in original.around:
            return
        self.stretched = not same_shape(image.shape, original.shape)
        image = _small(image, original.shown[number].shape)
        self.looks.append(_Look.of(image, number, original.shown, original.around[number]))

    def result(self) -> Match:
        """How the forgery lies on its original, going by what was shown."""
        told = Match(self.shift, self.original.shape if self.stretched else None)
        if not self.looks:
            return _by_container(told, self.original.video, self.video)
        return _judge(self.looks, told, self.original.video, self.video)


def _around(
    small: tuple[int, ...], boxes: Sequence[np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    around = np.ones(small[:2], bool)
    for box in boxes:
        left, top, right, bottom = np.round(box * small[1] / shape[1]).astype(int).clip(min=0)
        around[top:bottom, left:right] = False
    return around


def _small(image: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    if shape is None:
        scale = min(1.0, SIDE / max(image.shape[:2]))
        shape = [max(1, round(side * scale)) for side in image.shape[:2]]
    small = shrink(image, (shape[1], shape[0]))
    return cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.0)


@dataclass(frozen=True)
class _Look:
    """One forged frame against the original's frames around it.

    Args:
        away: shift to (H, W) differences in gray levels.
        moving: (H, W) by how much the original changes there.
        around: (H, W) bool, where no face is.
    """

    away: dict[int, np.ndarray]
    moving: np.ndarray
    around: np.ndarray

    @classmethod
    def of(cls, image, number: int, shown: dict[int, np.ndarray], around: np.ndarray):
        # An original may change its size: a picture of another one is compared with none.
        shown = {n: one for n, one in shown.items() if one.shape == image.shape}
        near = {s: shown[number - s] for s in range(-REACH, REACH + 1) if number - s in shown}
        away = {s: highest(cv2.absdiff(image, other)) for s, other in near.items()}
        stack = np.stack([shown[number + s] for s in (-1, 0, 1) if number + s in shown])
        return cls(away, highest(np.ptp(stack, axis=0)), around)

    def of_moving(self, anywhere: bool) -> np.ndarray:
        """(H, W) bool: pixels that tell one frame from the next."""
        return (self.moving > MOVES) & (self.around | anywhere)


def _judge(looks: list[_Look], told: Match, original: Video, video: Video) -> Match:
    shifts = set.intersection(*(set(look.away) for look in looks)) | {0}
    size = sum(look.moving.size for look in looks)
    outside = sum(look.of_moving(False).sum() for look in looks) >= MIN_MOVING * size
    chosen = [look.of_moving(not outside) for look in looks]
    informed = sum(area.sum() for area in chosen) >= MIN_MOVING * size
    best = 0
    if informed:
        away = {
            s: np.concatenate([k.away[s][area] for k, area in zip(looks, chosen, strict=True)])
            for s in sorted(shifts, key=abs)
        }
        other = min(away, key=lambda shift: float(np.median(away[shift])))
        best = other if np.mean(away[other] < away[0]) > BETTER else 0
    shares = [np.mean(k.away[best][k.around] > LEVEL) for k in looks if k.around.any()]
    apart = float(np.median(shares)) if shares else 0.0
    if apart > MAX_APART:
        return Match(reason=f"{apart:.0%} of its picture around the face is not its original's")
    if not informed:
        return _by_container(told, original, video)
    moved = np.concatenate([k.moving[area] for k, area in zip(looks, chosen, strict=True)])
    if outside and np.median(away[best]) > IN_STEP * np.median(moved):
        return Match(reason="its frames are not in step with its original's")
    return Match(told.shift + best, told.shape)


def _by_container(told: Match, original: Video, video: Video) -> Match:
    """Where the pictures tell nothing: by number, unless both rate and number of frames differ.

    A frame or two that cannot be decoded, where a file breaks off, change the mean rate of a short video.
    """
    rates = [1 / step if step else 0 for step in (video.step, original.step)]
    tolerance = max(SAME_RATE, 2 / max(1, len(video.numbers)))
    same_rate = not min(rates) or abs(rates[1] / rates[0] - 1) <= tolerance
    if same_rate or len(video.numbers) == len(original.numbers):
        return told
    what = f"{rates[0]:.3g} frames a second, its original {rates[1]:.3g}"
    return Match(reason=f"{what}, and nothing moves by which to compare them")

"""Videos and pictures read frame by frame: upright, RGB, with no more decoded than is needed.

The content of a file decides what it is, not its name. A file is first tried as a picture (Pillow),
then as a video (PyAV, FFmpeg); a folder is a video of numbered pictures. Whatever cannot be used is an
`InputError` that names the file and says why.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fwstudy.faces.photos import SUFFIXES as PHOTO_SUFFIXES

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg"}
VIDEO_SUFFIXES |= {".3gp", ".ogv", ".flv", ".mts", ".m2ts", ".gif"}
MAX_SIDE = 1920  # px, longer side of a video's frames; larger ones are shrunk


UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class InputError(ValueError):
    """A file that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Frames:
    """The frames of one file.

    Args:
        times: seconds from the start, one a frame; 0 for a photograph.
        images: (H, W, 3) uint8, RGB, upright.
        is_clip: False for a photograph.
        notes: what the reader should know of the file, in plain language.
    """

    times: list[float]
    images: list[np.ndarray]
    is_clip: bool
    notes: list[str]


def read_frames(path: Path | str, count: int) -> Frames:
    """A photograph as one frame; of a clip, ``count`` frames evenly spaced in time (or all it has).

    Args:
        path: a file.
        count: at least 1.

    Raises:
        InputError: missing, empty, truncated, without a picture, or of an unknown format.
        ValueError: ``count`` is below 1.
    """
    path = Path(path)
    if count < 1:
        raise ValueError(f"the number of frames must be at least 1, not {count}")
    _check_file(path)
    with _naming(path):
        return _read_photo(path) or _read_clip(path, count)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns what goes wrong inside into an `InputError` that names the file."""
    try:
        yield
    except (*UNREADABLE, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as a photograph or clip: {reason}") from error


def _read_photo(path: Path) -> Frames | None:
    """The file as a picture, turned as its EXIF orientation says; None if it is another thing."""
    try:
        photo = Image.open(path)
    except UnidentifiedImageError:
        return None
    with photo:
        count = getattr(photo, "n_frames", 1)
        if photo.format == "MPEG" or (count > 1 and photo.format in ("GIF", "PNG")):
            return None  # moving pictures: FFmpeg's
        pages = count > 1 and photo.format != "MPO"  # MPO: JPEG with previews
        notes = [f"the first of {count} pictures in the file"] if pages else []
        return Frames([0.0], [_to_rgb(ImageOps.exif_transpose(photo))], False, notes)


def _to_rgb(photo: Image.Image) -> np.ndarray:
    """Any mode as 8 bit RGB: deeper gray is scaled (Pillow would clip it), alpha laid on white."""
    if photo.mode[0] in "IF":
        values = np.nan_to_num(np.asarray(photo, np.float64))
        limit = max(1 if photo.mode == "F" else 65535, values.max())
        photo = Image.fromarray((values.clip(0) / limit * 255).round().astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.array(photo.convert("RGB"))


def _read_clip(path: Path, count: int) -> Frames:
    index = _index(path)
    wanted = spread(index.stamps, index.end, count)
    images = list(_images(path, index, wanted))
    if not images:
        raise ValueError("not one frame can be decoded")
    notes = list(index.notes)
    if len(images) < len(wanted):
        notes.append(f"{len(wanted) - len(images)} of {len(wanted)} frames cannot be decoded")
    times = [float((pts - index.stamps[0]) * index.time_base) for pts, _ in images]
    return Frames(times, [image for _, image in images], True, notes)


@dataclass(frozen=True)
class VideoIndex:
    """What the packets of a video tell without decoding.

    Args:
        stamps: (F,) int, when each frame is shown, sorted, in units of ``time_base``.
        end: when the last frame ends.
        keys: time of showing and of decoding of the frames at which decoding can begin, sorted.
        time_base: seconds.
        notes: as in `Footage`.
    """

    stamps: np.ndarray
    end: float
    keys: list[tuple]
    time_base: Fraction
    notes: list[str]


@contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """The container of a video and its first stream of pictures (a cover is none).

    A file object: no name is taken for a pattern or a protocol. The white list: no file that refers
    to other files or addresses is followed.
    """
    with (
        open(path, "rb") as file,
        av.open(file, options={"protocol_whitelist": "none"}) as container,
    ):
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if container.format.name == "tty" or not streams:
            raise ValueError("it holds no pictures")
        yield container, streams[0]


def _index(path: Path) -> VideoIndex:
    with _opened(path) as (container, stream):
        stamps, keys = [], []
        for packet in container.demux(stream):
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None:
                continue
            if not packet.is_discard:  # an edit list hides it
                stamps.append(pts)
            if packet.is_keyframe:  # where to seek to: FFmpeg goes by the time of decoding
                keys.append((pts, packet.dts if packet.dts is not None else pts))
        # Read before the container is closed: a stream's memory is freed with it.
        time_base, told = stream.time_base, float((stream.duration or 0) * stream.time_base)
    if not keys or not stamps:
        raise ValueError("its pictures carry no time stamps")
    stamps = np.array(sorted(stamps))
    step = np.diff(stamps).mean() if len(stamps) > 1 else 1
    end = stamps[-1] + step
    seconds = float((end - stamps[0]) * time_base)
    short = told > 1.1 * seconds + 0.5
    notes = [f"truncated: the file ends after {seconds:.1f} of {told:.1f} s"] if short else []
    return VideoIndex(stamps, end, sorted(keys), time_base, notes)


def _images(path: Path, index: VideoIndex, wanted: np.ndarray) -> Iterator[tuple]:
    """Time stamp and image of the frames at (or next after) the wanted time stamps."""
    with _opened(path) as (container, stream):
        yield from _decode(container, stream, wanted, index.keys)


def spread(stamps: np.ndarray, end: float, count: int) -> np.ndarray:
    """Of sorted time stamps, those shown in the middle of ``count`` equal spans of time, once each.

    In time and not in number: where the frame rate varies, no part of a clip counts twice.
    """
    middles = stamps[0] + (np.arange(count) + 0.5) / count * (end - stamps[0])
    return stamps[np.unique(np.searchsorted(stamps, middles, side="right") - 1)]


def _decode(container, stream, wanted: np.ndarray, keys: list[tuple]) -> Iterator[tuple]:
    """The frames at (or next after) the wanted time stamps; seeks only where that saves decoding.

    Args:
        keys: time stamp and decoding time of the frames at which decoding can begin.
    """
    position, decoded = None, iter(())
    for pts in wanted.tolist():
        key = keys[max(0, bisect_right(keys, (pts, pts)) - 1)]
        if position is None or key[0] > position:
            container.seek(key[1], stream=stream)
            decoded = _undamaged(container, stream)
        for frame in decoded:
            position = frame.pts if frame.pts is not None else pts
            if position >= pts:
                yield position, _upright(frame, stream.sample_aspect_ratio or 1)
                break


def _undamaged(container, stream) -> Iterator[av.VideoFrame]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue  # the caller counts what is missing


def _upright(frame: av.VideoFrame, aspect: Fraction | int) -> np.ndarray:
    """RGB with square pixels, of at most `MAX_SIDE`, turned and mirrored by the display matrix."""
    image = frame.to_ndarray(format="rgb24")
    width, height = float(image.shape[1] * aspect), image.shape[0]
    shrink = min(1.0, MAX_SIDE / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    if size != image.shape[1::-1]:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
        if abs(b) > abs(a):  # x and y change places
            image, a, d = image.swapaxes(0, 1), c, b
        image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)


@dataclass(frozen=True, eq=False)
class Video:
    """A video, a folder of numbered pictures, or one picture, whose frames can be asked for by number.

    Args:
        path: of the file or folder.
        numbers: (F,) int, rising, of the frames that there are: counted from 0, or what the names of
            pictures say.
        evenly: of a count, the numbers of that many frames evenly spaced in time, or of all there are.
        frames: numbers, rising, to the images (H, W, 3) uint8 RGB, upright, one at a time; None for a
            frame that cannot be decoded.
        notes: as in `Footage`.
        step: median time from frame to frame in seconds; 0 for pictures and for one frame alone.
    """

    path: Path
    numbers: np.ndarray
    evenly: Callable[[int], np.ndarray]
    frames: Callable[[Sequence[int]], Iterator[np.ndarray | None]]
    notes: list[str]
    step: float = 0.0


def open_video(path: Path | str) -> Video:
    """Look at a video without decoding it.

    Raises:
        InputError: missing, empty, truncated, without a picture, or of an unknown format; the message
            names it. While frames are read, too.
    """
    path = Path(path)
    if path.is_dir():
        return _picture_video(path, numbered_pictures(path))
    _check_file(path)
    with _naming(path):
        if _is_photo(path):
            return _picture_video(path, [path])
        index = _index(path)

    def evenly(count: int) -> np.ndarray:
        return np.searchsorted(index.stamps, spread(index.stamps, index.end, count))

    def frames(numbers: Sequence[int]) -> Iterator[np.ndarray | None]:
        with _naming(path):
            wanted = index.stamps[np.asarray(numbers, int)]
            images = _images(path, index, wanted)
            pts, image = next(images, (None, None))
            for stamp in wanted:
                while pts is not None and pts < stamp:
                    pts, image = next(images, (None, None))
                yield image if pts == stamp else None

    steps = np.diff(index.stamps)
    step = float(np.median(steps) * index.time_base) if len(steps) else 0.0
    return Video(path, np.arange(len(index.stamps)), evenly, frames, index.notes, step)


def _is_photo(path: Path) -> bool:
    try:
        with Image.open(path) as photo:
            moving = getattr(photo, "n_frames", 1) > 1 and photo.format in ("GIF", "PNG")
            return photo.format != "MPEG" and not moving
    except UnidentifiedImageError:
        return False


def numbered_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, ordered by the last number in their names.

    Raises:
        InputError: there are none.
    """
    pictures = [file for file in folder.iterdir() if file.suffix.lower() in PHOTO_SUFFIXES]
    if not pictures:
        raise InputError(f"{folder}: no pictures in this folder")
    return sorted(pictures, key=lambda file: (_last_number(file), file.name))


def _last_number(file: Path) -> int:
    found = re.findall(r"\d+", file.stem)
    return int(found[-1]) if found else -1


def _picture_video(path: Path, pictures: list[Path]) -> Video:
    numbers = np.array([_last_number(picture) for picture in pictures])
    if len(pictures) == 1 or len(np.unique(numbers)) < len(numbers):
        numbers = np.arange(len(pictures))
    files = dict(zip(numbers.tolist(), pictures, strict=True))

    def evenly(count: int) -> np.ndarray:
        return numbers[spread(np.arange(len(pictures)), len(pictures), count)]

    def frames(wanted: Sequence[int]) -> Iterator[np.ndarray | None]:
        for number in map(int, wanted):
            try:
                with _naming(path):
                    footage = _read_photo(files[number]) if number in files else None
            except InputError:
                footage = None
            yield footage.images[0] if footage else None

    return Video(path, numbers, evenly, frames, [])

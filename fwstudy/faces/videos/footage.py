"""Videos and pictures read frame by frame: upright, RGB, with no more decoded than is needed.

The content of a file decides what it is, not its name. A file is first tried as a picture (Pillow),
then as a video (PyAV, FFmpeg); a folder is a video of numbered pictures. Whatever cannot be used is an
`InputError` that names the file and says why.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from fwstudy.faces.pictures import SUFFIXES as PHOTO_SUFFIXES
from fwstudy.faces.pictures import InputError, check_file, is_picture, naming, read_picture

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg"}
VIDEO_SUFFIXES |= {".3gp", ".ogv", ".flv", ".mts", ".m2ts", ".gif"}
MAX_SIDE = 1920  # px, longer side of a video's frames; larger ones are shrunk
HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
WIDE_GAMUTS = {
    ColorPrimaries.BT2020: "BT.2020",
    ColorPrimaries.SMPTE431: "DCI-P3",
    ColorPrimaries.SMPTE432: "Display P3",
}
BT709 = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
WHOLE_FRAMES = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # containers with one frame a packet
UNREADABLE_MATRICES = {  # ITU-T H.273; FFmpeg's swscale does not convert them
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}


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
    check_file(path)
    with naming(path):
        picture = read_picture(path)
        if picture is None:
            return _read_clip(path, count)
        return Frames([0.0], [picture[0]], False, picture[1])


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
    return Frames(times, [image for _, image in images], not index.still, notes)


@dataclass(frozen=True)
class VideoIndex:
    """What the packets of a video and its first frame tell.

    Args:
        stamps: (F,) int, when each frame is shown, sorted, in units of ``time_base``.
        end: when the last frame ends.
        keys: time of showing and of decoding of the frames at which decoding can begin, sorted.
        time_base: seconds.
        notes: as in `Frames`.
        still: a picture of a kind that only FFmpeg reads.
        skippable: frames that no other refers to can be told and passed over: H.264, progressive, of
            which each packet is a frame.
        counted: frames come in order, but with the stamps of others: H.264 in AVI, which stores no times
            of showing. Decoding then begins at the first key frame, and frames are given the times of
            decoding in order.
    """

    stamps: np.ndarray
    end: float
    keys: list[tuple]
    time_base: Fraction
    notes: list[str]
    still: bool
    skippable: bool
    counted: bool


@contextmanager
def _opened(path: Path) -> Iterator[tuple]:
    """The container of a video and its main stream of pictures: the default one, or the largest.

    Covers, thumbnails and tiles of a larger picture are none. A file object: no name is taken for a
    pattern or a protocol. The white list: no file that refers to other files or addresses is followed.
    """
    with (
        open(path, "rb") as file,
        av.open(file, options={"protocol_whitelist": "none"}) as container,
    ):
        kinds = av.stream.Disposition
        parts = kinds.attached_pic | kinds.timed_thumbnails | kinds.dependent
        streams = [s for s in container.streams.video if not s.disposition & parts]
        if container.format.name == "tty" or not streams:
            raise ValueError("it holds no pictures")
        default = [s for s in streams if s.disposition & kinds.default]
        yield container, max(default or streams, key=lambda s: s.width * s.height)


def _index(path: Path) -> VideoIndex:
    with _opened(path) as (container, stream):
        stamps, keys, whole = [], [], False
        is_h264, kind = stream.codec_context.codec.name == "h264", container.format.name
        counted = is_h264 and kind == "avi"
        for packet in container.demux(stream):
            pts = packet.pts if packet.pts is not None and not counted else packet.dts
            if pts is None:
                continue
            if not packet.is_discard:  # an edit list hides it
                stamps.append(pts)
            if packet.is_keyframe:  # where to seek to: FFmpeg goes by the time of decoding
                keys.append((pts, packet.dts if packet.dts is not None else pts))
        # Read before the container is closed: a stream's memory is freed with it.
        time_base, told = stream.time_base, float((stream.duration or 0) * stream.time_base)
        still = kind.endswith("_pipe")
        notes = _stream_notes(container, stream)
        if keys:
            container.seek(min(keys)[1], stream=stream)
            for frame in _undamaged(container, stream):
                notes += _frame_notes(frame)
                whole = kind in WHOLE_FRAMES and not frame.interlaced_frame
                break
    if not keys or not stamps:
        raise ValueError("its pictures carry no time stamps")
    stamps = np.array(sorted(stamps))
    step = np.diff(stamps).mean() if len(stamps) > 1 else 1
    end = stamps[-1] + step
    seconds = float((end - stamps[0]) * time_base)
    if told > 1.1 * seconds + 0.5:
        notes.insert(0, f"truncated: the file ends after {seconds:.1f} of {told:.1f} s")
    keys = sorted(keys)[: 1 if counted else None]
    return VideoIndex(stamps, end, keys, time_base, notes, still, is_h264 and whole, counted)


def _stream_notes(container, stream) -> list[str]:
    """What is passed over of a container."""
    notes, count = [], len(container.streams.video)
    if count > 1:
        size = f"{stream.width} x {stream.height}"
        notes.append(f"{count} streams of pictures: number {stream.index} ({size}) is read")
    if stream.metadata.get("alpha_mode") == "1":  # WebM: in a side channel
        notes.append("its transparency is not read")
    return notes


def _frame_notes(frame: av.VideoFrame) -> list[str]:
    """What is done to the frames of a video, told from its first.

    Raises:
        ValueError: colors that are not read.
    """
    matrix = UNREADABLE_MATRICES.get(frame.colorspace)
    if matrix:
        raise ValueError(
            f"its color matrix ({matrix}) is not read, convert it "
            "(ffmpeg -i IN -vf zscale=matrix=709 OUT.mp4)"
        )
    notes, wide = [], _wide_colors(frame)
    if wide:
        notes.append(f"colors converted from {wide} to BT.709")
    if frame.interlaced_frame:
        notes.append("interlaced and read as it is: each frame mixes two moments")
    if _has_alpha(frame) and frame.to_ndarray(format="rgba")[..., 3].min() < 255:
        notes.append("transparent parts laid on white")
    if _display_matrix(frame) is None:
        notes.append("its frames carry EXIF data: turned by it, a mirrored one stays mirrored")
    return notes


def _wide_colors(frame: av.VideoFrame) -> str:
    """The transfer or primaries of a frame that an sRGB screen does not show, else empty."""
    return HDR.get(frame.color_trc) or WIDE_GAMUTS.get(frame.color_primaries, "")


def _has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def spread(stamps: np.ndarray, end: float, count: int) -> np.ndarray:
    """Of sorted time stamps, those shown in the middle of ``count`` equal spans of time, once each.

    In time and not in number: where the frame rate varies, no part of a clip counts twice.
    """
    middles = stamps[0] + (np.arange(count) + 0.5) / count * (end - stamps[0])
    return stamps[np.unique(np.searchsorted(stamps, middles, side="right") - 1)]


def _images(path: Path, index: VideoIndex, wanted: np.ndarray) -> Iterator[tuple]:
    """Time stamp and image of the frames at the wanted time stamps, or of the next that is decoded.

    Seeks only where that saves decoding.
    """
    # One reformatter: its table for HDR takes seconds to make, and is kept from frame to frame.
    position, decoded, reformatter = None, iter(()), VideoReformatter()
    needed = set(wanted.tolist()) if index.skippable else None
    with _opened(path) as (container, stream):
        aspect = stream.sample_aspect_ratio or 1
        for pts in wanted.tolist():
            key = index.keys[max(0, bisect_right(index.keys, (pts, pts)) - 1)]
            if position is None or key[0] > position:
                container.seek(key[1], stream=stream)
                if index.counted:
                    stamps = index.stamps[index.stamps >= key[0]].tolist()
                    decoded = zip(stamps, _until_damaged(container, stream), strict=False)
                else:
                    frames = _undamaged(container, stream, needed)
                    decoded = ((frame.pts, frame) for frame in frames)
            for stamp, frame in decoded:
                position = stamp if stamp is not None else pts
                if position >= pts:
                    yield position, _upright(frame, _to_rgb(frame, reformatter), aspect)
                    break


def _undamaged(container, stream, needed: set[int] | None = None) -> Iterator[av.VideoFrame]:
    """Frames that can be decoded; with ``needed``, others only where frames may refer to them.

    Of a sound stream the pixels of the frames with these time stamps are the same.
    """
    for packet in container.demux(stream):
        if needed is not None:
            free = packet.pts is not None and packet.pts not in needed
            stream.codec_context.skip_frame = "NONREF" if free else "DEFAULT"
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue  # the caller counts what is missing


def _until_damaged(container, stream) -> Iterator[av.VideoFrame]:
    """Frames up to the first that cannot be decoded: behind it they could not be counted."""
    with suppress(av.error.FFmpegError):
        for packet in container.demux(stream):
            yield from packet.decode()


def _to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """(H, W, 3) uint8, BT.709 primaries and transfer, transparent parts on white."""
    alpha, target = _has_alpha(frame), BT709 if _wide_colors(frame) else {}
    image = reformatter.reformat(frame, format="rgba" if alpha else "rgb24", **target).to_ndarray()
    if not alpha:
        return image
    weight = image[..., 3:].astype(np.float32) / 255
    return np.round(weight * image[..., :3] + (1 - weight) * 255).astype(np.uint8)


def _display_matrix(frame: av.VideoFrame) -> tuple[float, float, float, float] | None:
    """a, b, c, d of x' = a x + c y, y' = b x + d y; None where PyAV cannot tell.

    PyAV 18.1 does not know the EXIF side data of FFmpeg 8 and refuses all side data beside it.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        return None
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    return a, b, c, d


def _upright(frame: av.VideoFrame, image: np.ndarray, aspect: Fraction | int) -> np.ndarray:
    """The image with square pixels, of at most `MAX_SIDE`, as the display matrix turns it."""
    width, height = float(image.shape[1] * aspect), image.shape[0]
    shrink = min(1.0, MAX_SIDE / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    if size != image.shape[1::-1]:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    turn = np.radians(frame.rotation)  # counterclockwise
    turned = np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)
    a, b, c, d = _display_matrix(frame) or turned
    if abs(b) > abs(a):  # x and y change places
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


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
        notes: as in `Frames`.
        step: mean time from frame to frame in seconds; 0 for pictures and for one frame alone.
    """

    path: Path
    numbers: np.ndarray
    evenly: Callable[[int], np.ndarray]
    frames: Callable[[Sequence[int]], Iterator[np.ndarray | None]]
    notes: list[str]
    step: float = 0.0


def open_video(path: Path | str) -> Video:
    """Look at a video without decoding more than its first frame.

    Raises:
        InputError: missing, empty, truncated, without a picture, or of an unknown format; the message
            names it. While frames are read, too.
    """
    path = Path(path)
    if path.is_dir():
        return _picture_video(path, numbered_pictures(path))
    check_file(path)
    with naming(path):
        if is_picture(path):
            return _picture_video(path, [path])
        index = _index(path)

    def evenly(count: int) -> np.ndarray:
        return np.searchsorted(index.stamps, spread(index.stamps, index.end, count))

    def frames(numbers: Sequence[int]) -> Iterator[np.ndarray | None]:
        with naming(path):
            wanted = index.stamps[np.asarray(numbers, int)]
            images = _images(path, index, wanted)
            pts, image = next(images, (None, None))
            for stamp in wanted:
                while pts is not None and pts < stamp:
                    pts, image = next(images, (None, None))
                yield image if pts == stamp else None

    steps = np.diff(index.stamps)
    step = float(steps.mean() * index.time_base) if len(steps) else 0.0
    return Video(path, np.arange(len(index.stamps)), evenly, frames, index.notes, step)


def numbered_pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, ordered by the last number in their names.

    Raises:
        InputError: there are none.
    """
    pictures = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in PHOTO_SUFFIXES and not file.name.startswith(".")
    ]
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

    def read(file: Path) -> tuple[np.ndarray | None, list[str]]:
        try:
            with naming(file):
                return read_picture(file) or (None, [f"{file}: no still picture"])
        except InputError as error:
            return None, [str(error)]

    def frames(wanted: Sequence[int]) -> Iterator[np.ndarray | None]:
        for number in map(int, wanted):
            yield read(files[number])[0] if number in files else None

    return Video(path, numbers, evenly, frames, read(pictures[0])[1])

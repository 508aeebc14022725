"""What a user hands in: a photograph, a clip, or a folder of them, read into upright RGB frames.

The content of a file decides what it is, not its name. A file is first tried as a picture (Pillow),
then as a video (PyAV, FFmpeg); whatever cannot be used is an `InputError` that names the file and
says why.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.ops import generalized_box_iou

from fwstudy.faces.detection import DETECTION_SIDE, MIN_FACE, detect_faces, landmarks_from_points
from fwstudy.faces.photos import SUFFIXES as PHOTO_SUFFIXES
from fwstudy.faces.warp import interocular
from fwstudy.preprocess import crop, face_box

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg"}
VIDEO_SUFFIXES |= {".3gp", ".ogv", ".flv", ".mts", ".m2ts", ".gif"}
MAX_SIDE = 1920  # px, longer side of a clip's frames; larger ones are shrunk
MAX_ENLARGEMENT = 2.0  # of a face to the size of a crop, above which it is called small
GREY = 3.0  # mean difference of the colours below which a face counts as grey
OUTSIDE = 0.1  # share of the landmarks beyond the picture above which a face counts as cut off


class InputError(ValueError):
    """A file that cannot be explained; the message names it and says why."""


@dataclass(frozen=True)
class Footage:
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


@dataclass(frozen=True)
class FaceCrop:
    """One face, cut out as in training.

    Args:
        crop: (S, S, 3) uint8, RGB.
        box: (4,) int, the square that was cut: left, top, right, bottom; may leave the picture.
        landmarks: (68, 2) float32, pixel coordinates; a mean face fitted to five detected points.
        num_faces: faces found in the picture.
        interocular: distance between the eyes in pixels of the picture.
        notes: what makes this face doubtful, in plain language.
    """

    crop: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    num_faces: int
    interocular: float
    notes: list[str]


def list_inputs(path: Path | str) -> list[Path]:
    """The files to explain: the file itself, or all photographs and clips below a folder, sorted.

    Args:
        path: a file of any name, or a folder, searched by suffix; hidden files are passed over.

    Raises:
        InputError: there is no such file, or nothing of use in the folder.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    suffixes = PHOTO_SUFFIXES | VIDEO_SUFFIXES
    found = (file for file in path.rglob("*") if file.suffix.lower() in suffixes)
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    if not files:
        raise InputError(
            f"{path}: no photograph or clip in this folder ({' '.join(sorted(suffixes))})"
        )
    return files


def read_frames(path: Path | str, count: int) -> Footage:
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
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    try:
        return _read_photo(path) or _read_clip(path, count)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as a photograph or clip: {reason}") from error


def _read_photo(path: Path) -> Footage | None:
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
        return Footage([0.0], [_to_rgb(ImageOps.exif_transpose(photo))], False, notes)


def _to_rgb(photo: Image.Image) -> np.ndarray:
    """Any mode as 8 bit RGB: deeper grey is scaled (Pillow would clip it), alpha laid on white."""
    if photo.mode[0] in "IF":
        values = np.nan_to_num(np.asarray(photo, np.float64))
        limit = max(1 if photo.mode == "F" else 65535, values.max())
        photo = Image.fromarray((values.clip(0) / limit * 255).round().astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.array(photo.convert("RGB"))


def _read_clip(path: Path, count: int) -> Footage:
    """Two passes: one over the packets for their times, one that decodes what is needed."""
    # A file object: no name is taken for a pattern or a protocol. The white list: no file that
    # refers to other files or addresses is followed.
    with (
        open(path, "rb") as file,
        av.open(file, options={"protocol_whitelist": "none"}) as container,
    ):
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if container.format.name == "tty" or not streams:
            raise ValueError("it holds no pictures")
        stream = streams[0]
        packets = [(p.pts if p.pts is not None else p.dts, p) for p in container.demux(stream)]
        keys = sorted(  # where to seek to: FFmpeg goes by the time of decoding
            (pts, packet.dts if packet.dts is not None else pts)
            for pts, packet in packets
            if pts is not None and packet.is_keyframe
        )
        stamps = np.array(sorted(pts for pts, _ in packets if pts is not None))
        if not keys:
            raise ValueError("its pictures carry no time stamps")
        step = np.diff(stamps).mean() if len(stamps) > 1 else 1
        wanted = spread(stamps, stamps[-1] + step, count)
        frames = list(_decode(container, stream, wanted, keys))
        # Read before the container is closed: a stream's memory is freed with it.
        time_base, told = stream.time_base, float((stream.duration or 0) * stream.time_base)
    if not frames:
        raise ValueError("not one frame can be decoded")
    notes, seconds = [], float((stamps[-1] + step - stamps[0]) * time_base)
    if told > 1.1 * seconds + 0.5:
        notes.append(f"truncated: the file ends after {seconds:.1f} of {told:.1f} s")
    if len(frames) < len(wanted):
        notes.append(f"{len(wanted) - len(frames)} of {len(wanted)} frames cannot be decoded")
    times = [float((pts - stamps[0]) * time_base) for pts, _ in frames]
    return Footage(times, [image for _, image in frames], True, notes)


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
        except av.error.InvalidDataError:
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


def find_face(
    image: np.ndarray, size: int, scale: float, near: np.ndarray | None = None
) -> FaceCrop | None:
    """The face to explain, cut out as in training; None if there is none.

    Of several faces the largest is taken, or the one nearest to a box: by the generalised
    intersection over union (Rezatofighi et al. 2019), which also ranks boxes that do not overlap.

    Args:
        image: (H, W, 3) uint8, RGB.
        size: side of the crop in pixels.
        scale: see `fwstudy.preprocess.face_box`.
        near: (4,) the face's box in the frame before.
    """
    faces = detect_faces(image)
    if not faces:
        return None
    landmarks = [landmarks_from_points(face.points) for face in faces]
    boxes = np.stack([face_box(points, scale) for points in landmarks])
    chosen, notes = 0, []
    if near is not None:
        overlap = generalized_box_iou(*(torch.from_numpy(b).float() for b in (boxes, near[None])))
        chosen = int(overlap[:, 0].argmax())
        if overlap[chosen, 0] < 0:
            notes.append("the face has moved far since the frame before: perhaps another person")
    elif len(faces) > 1:
        notes.append(f"{len(faces)} faces found, the largest taken")
    box, points = boxes[chosen], landmarks[chosen]
    side = box[2] - box[0]
    if size > MAX_ENLARGEMENT * side:
        notes.append(f"small face: enlarged more than {MAX_ENLARGEMENT:.0f} times")
    beyond = ((points < 0) | (points > image.shape[1::-1])).any(axis=1)
    if beyond.mean() > OUTSIDE:
        notes.append("the border of the picture cuts the face; what is missing is mirrored")
    how = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    cut = crop(image, box, size, how)
    if np.ptp(cut.astype(int), axis=2).mean() < GREY:
        notes.append("grey-scale: the model has learned from colour")
    return FaceCrop(cut, box, points, len(faces), float(interocular(points)), notes)


def find_faces(footage: Footage, size: int, scale: float) -> list[FaceCrop | None]:
    """The same face through a clip: the largest of the first frame with one, then the nearest."""
    faces, near = [], None
    for image in footage.images:
        faces.append(find_face(image, size, scale, near))
        near = near if faces[-1] is None else faces[-1].box
    return faces


def smallest_face(image: np.ndarray) -> int:
    """About the width in pixels below which the detector finds no face in a picture."""
    return int(np.ceil(MIN_FACE * max(1.0, max(image.shape[:2]) / DETECTION_SIDE)))

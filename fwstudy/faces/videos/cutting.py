"""The faces of a group's videos, cut out one video after another.

The faces are looked for in one video, the original if there is one. The others are read once, or a second
time where they are shifted or stretched, and of each frame the same squares are cut out. Nothing but these
crops and small pictures is kept, so that memory does not grow with a video's length. Crops keep the
compression of the video; they are encoded once, by whoever made the data set.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fwstudy.crops.boxes import crop, face_box
from fwstudy.faces.detection import SIDES, detect_faces
from fwstudy.faces.mesh import fit_shape
from fwstudy.faces.parts import FaceShape, shape_from_landmarks
from fwstudy.faces.videos.footage import InputError, Video
from fwstudy.faces.videos.layouts import Outline
from fwstudy.faces.videos.pairing import Comparison, Match, Original, same_shape
from fwstudy.faces.videos.remarks import Remarks, filled
from fwstudy.faces.videos.tracking import (
    Candidate,
    guide_picture,
    share_inside,
    thumbnail,
    where_different,
    where_marked,
)
from fwstudy.labels import ORIGINAL

MAX_FACES = 4  # of a frame, the largest, that are followed
LARGE = 1 / 8  # of a frame's longer side, longer side of a face's landmarks
MASK_LEVEL = 32  # gray level of a mask video above which a pixel is forged: codecs blur black


def cut(image: np.ndarray, box: np.ndarray, shape: tuple[int, int], size: int) -> np.ndarray:
    """A square that is given in a frame of that shape, cut out of one that may be larger or smaller."""
    if image.shape[:2] != shape:
        scale = image.shape[1] / shape[1]
        left, top = np.round(box[:2] * scale).astype(int)
        side = max(2, round((box[2] - box[0]) * scale))
        box = np.array([left, top, left + side, top + side])
    how = cv2.INTER_AREA if box[2] - box[0] >= size else cv2.INTER_LINEAR
    return crop(image, box, size, how)


def into_crop(box: np.ndarray, size: int) -> np.ndarray:
    """From pixels of a frame to those of its `cut`, (2, 3): whole numbers are the centers of pixels."""
    scale = size / (box[2] - box[0])
    return np.column_stack([scale * np.eye(2), scale * (0.5 - box[:2]) - 0.5])


Boxed = tuple[np.ndarray, FaceShape]
"""The square around a face and its shape, in pixels of a frame."""


def find_boxes(
    frame: np.ndarray, scale: float, before: Sequence[Boxed] = ()
) -> tuple[list[Boxed], int]:
    """The largest faces of a frame, and how many there are besides that no mesh fits.

    A frame is searched at half the size first, in a quarter of the time, if there was a large face in the
    frame before (`LARGE`); at the full size then only where none half as large is found. Parts are placed as
    well; faces of less than about 24 px of 640 beside a large one are overlooked (benchmarks/README.md).

    Args:
        frame: (H, W, 3) uint8, RGB.
        scale: see `face_box`.
        before: what was found in the frame before.
    """
    widest = max((box[2] - box[0] for box, _ in before), default=0) / scale
    was_large = widest >= LARGE * max(frame.shape[:2])
    small_first = {"sides": SIDES[::-1], "enough": LARGE * SIDES[1] / 2}
    faces = detect_faces(frame, **(small_first if was_large else {}))
    shapes = [fit_shape(frame, face)[0] for face in faces[:MAX_FACES]]
    found = [shape for shape in shapes if shape is not None]
    return [(face_box(shape.landmarks, scale), shape) for shape in found], len(shapes) - len(found)


def read_landmarks(path: Path, frame: np.ndarray) -> tuple[list[Boxed], int]:
    """The same of a frame that is a crop already, with its landmarks in a ``.npy`` file beside it."""
    face = shape_from_landmarks(load_points(path))
    return [(np.array([0, 0, *[max(frame.shape[:2])] * 2]), face)], 0


def load_points(path: Path) -> np.ndarray:
    """Landmarks in a ``.npy`` file: (68, 2) float32.

    Raises:
        InputError: the file holds no 68 points (more are cut off: DeepfakeBench has 81).
    """
    try:
        points = np.load(path, allow_pickle=False).astype(np.float32).reshape(-1, 2)[:68]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no landmarks can be read: {error}") from error
    if len(points) < 68:
        raise InputError(f"{path}: {len(points)} landmarks, not 68")
    return points


@dataclass(frozen=True)
class Shot:
    """One frame of the video in which the faces of a group are looked for.

    Args:
        number: of the frame.
        shape: height and width.
        guide: see `guide_picture`.
        thumbnail: see there.
        faces: the largest first; what is cut out of further videos is added to them.
    """

    number: int
    shape: tuple[int, int]
    guide: np.ndarray
    thumbnail: np.ndarray
    faces: list[Candidate]


@dataclass(frozen=True)
class Cuts:
    """What was cut out of one video, or of one of masks, at the faces of each `Shot`.

    Args:
        faces: number of the shot to what is cut at each of its faces: a crop, (S, S, 3) or, of masks,
            (S, S) uint8, and the share of the forgery in its box, None where the frame tells nothing of it.
        damaged: numbers of the shots whose frames are missing or cannot be decoded; not of frames that
            the original lacks, too.
    """

    faces: dict[int, list[tuple[np.ndarray, float | None]]]
    damaged: set[int]

    def reached(self, shots: Iterable[Shot]) -> list[Shot]:
        """The shots at which something was cut."""
        return [shot for shot in shots if shot.number in self.faces]

    def added_to(self, shots: Iterable[Shot], name: str, are_masks: bool = False) -> None:
        """Give them to the faces as images, or as masks, of a variant."""
        for shot in self.reached(shots):
            for face, (image, share) in zip(shot.faces, self.faces[shot.number], strict=True):
                (face.masks if are_masks else face.images)[name] = image
                if share is not None:
                    face.shares[name] = share


def frames_at(
    video: Video,
    numbers: Iterable[int],
    remarks: Remarks,
    shift: int = 0,
    shape: tuple[int, int] | None = None,
) -> Iterator[tuple[int, np.ndarray | None]]:
    """The frames of a video at some numbers, until it ends or cannot be read on.

    Args:
        numbers: in any order.
        shift: added to the numbers.
        shape: (H, W) to which frames are stretched, or None.

    Yields:
        the numbers in rising order, each with its frame, None if that cannot be decoded or lies before
        the video's first.
    """
    first, last = video.numbers.min(), video.numbers.max()
    own = np.array(sorted(numbers), int) + shift
    own = own[own <= last]
    images = video.frames(own[own >= first])
    for number in own.tolist():
        try:
            image = next(images) if number >= first else None
        except InputError as error:
            remarks.add(video.path, f"frame {number}: {error}")
            return
        if image is not None and shape is not None:
            image = cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR)
        yield number - shift, image


def look_for_faces(
    reference: Video,
    numbers: np.ndarray,
    name: str,
    find: Callable[[int, np.ndarray, list[Boxed]], tuple[list[Boxed], int]],
    original: Original,
    size: int,
    remarks: Remarks,
    meant: Outline | None = None,
) -> tuple[list[Shot], set[int]]:
    """The faces of the video in which those of a group are looked for, cut out of it.

    Args:
        numbers: of the frames that are wanted.
        name: of the variant that the video is.
        find: number, frame, and the faces of the frame before to the faces of the frame, and how many
            there are besides that no mesh fits.
        original: is shown the frames with which forgeries are compared.
        size: side of the crops in pixels.
        meant: the face that is meant, if that is known.

    Returns:
        one shot a frame, and the numbers of those that cannot be decoded.
    """
    wanted, near = set(numbers.tolist()), original.near
    boxes, shots, damaged, unfit = [], [], set(), 0
    for number, image in frames_at(reference, wanted | near, remarks):
        if image is None:
            damaged |= {number} & wanted
            continue
        if number in near:
            original.show(number, image)
        if number not in wanted and number not in original.probes:
            continue
        try:
            boxes, odd = find(number, image, boxes)
        except InputError as error:
            remarks.add(reference.path, str(error))
            boxes, odd = [], 0
        if number in original.probes:
            original.show_faces(number, [box for box, _ in boxes], image.shape[:2])
        if number not in wanted:
            continue
        unfit += odd
        shape, guide = image.shape[:2], guide_picture(image)
        outlined = where_marked(filled(meant), guide.shape) if meant is not None else None
        faces = [
            Candidate(
                box,
                face.moved(into_crop(box, size)),
                {name: cut(image, box, shape, size)},
                {},
                {} if outlined is None else {ORIGINAL: share_inside(outlined, box, shape[1])},
            )
            for box, face in boxes
        ]
        shots.append(Shot(number, shape, guide, thumbnail(image), faces))
    if unfit:
        text = f"{unfit} faces in {len(shots)} frames that no mesh fits: left out"
        remarks.add(reference.path, text)
    return shots, damaged


def cut_beside(
    shots: Sequence[Shot],
    video: Video,
    size: int,
    remarks: Remarks,
    shift: int = 0,
    shape: tuple[int, int] | None = None,
    comparison: Comparison | None = None,
) -> Cuts:
    """Cut the faces of shots out of a forgery's frames, up to the first of another shape than its shot's.

    Args:
        shift, shape: see `frames_at`.
        comparison: is shown the frames that it compares.
    """
    by_number, cuts, fits = {shot.number: shot for shot in shots}, Cuts({}, set()), True
    probes = comparison.probes if comparison is not None else set()
    for number, image in frames_at(video, by_number.keys() | probes, remarks, shift, shape):
        if image is not None and number in probes:
            comparison.show(number, image)
        shot = by_number.get(number)
        if image is None and shot is not None:
            cuts.damaged.add(number)
        if image is None or shot is None or not fits:
            continue
        fits = same_shape(image.shape, shot.shape)
        if not fits:
            remarks.add(video.path, _misfit("video", image, shot), left_out=True)
            continue
        _cut_shot(cuts, shot, image, where_different(shot.guide, image), size)
    return cuts


def cut_masks(
    shots: Sequence[Shot],
    mask: Video,
    size: int,
    remarks: Remarks,
    shift: int = 0,
    shape: tuple[int, int] | None = None,
) -> Cuts:
    """The same of a forgery's masks."""
    by_number, cuts = {shot.number: shot for shot in shots}, Cuts({}, set())
    for number, image in frames_at(mask, by_number, remarks, shift, shape):
        if image is None:
            continue
        shot = by_number[number]
        if not same_shape(image.shape, shot.shape):
            remarks.add(mask.path, _misfit("mask", image, shot), left_out=True)
            break
        marked = cv2.bitwise_not(cv2.inRange(image, (0, 0, 0), (MASK_LEVEL,) * 3))
        _cut_shot(cuts, shot, marked, where_marked(marked, shot.guide.shape), size)
    return cuts


def _misfit(kind: str, image: np.ndarray, shot: Shot) -> str:
    height, width = image.shape[:2]
    return f"{kind} of {width}x{height}, the original has {shot.shape[1]}x{shot.shape[0]}"


def _cut_shot(
    cuts: Cuts, shot: Shot, image: np.ndarray, guide: np.ndarray | None, size: int
) -> None:
    cuts.faces[shot.number] = [
        (
            cut(image, face.box, shot.shape, size),
            None if guide is None else share_inside(guide, face.box, shot.shape[1]),
        )
        for face in shot.faces
    ]


def cut_matched(
    shots: Sequence[Shot], video: Video, comparison: Comparison, size: int, remarks: Remarks
) -> tuple[Match, Cuts]:
    """Read a forgery once to compare and to cut it; again where it is shifted or must be stretched."""
    told = Remarks(remarks.root)
    cuts = cut_beside(shots, video, size, told, comparison.shift, comparison=comparison)
    found = comparison.result()
    if not found.reason and (found.shift, found.shape) != (comparison.shift, None):
        told = Remarks(remarks.root)
        cuts = cut_beside(shots, video, size, told, found.shift, found.shape)
    if not found.reason:
        remarks.rows += told.rows
    return found, cuts

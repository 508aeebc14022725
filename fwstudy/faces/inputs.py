"""What a user hands in: a photograph, a clip, or a folder of them, and the face in it.

`fwstudy.faces.pictures` and `fwstudy.faces.videos.footage` read the files.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.ops import generalized_box_iou

from fwstudy.crops.boxes import crop, face_box
from fwstudy.faces.detection import MIN_FACE, SIDES, detect_faces
from fwstudy.faces.forging.warp import interocular
from fwstudy.faces.mesh import NO_MESH, fit_first
from fwstudy.faces.people import printable
from fwstudy.faces.pictures import SUFFIXES as PHOTO_SUFFIXES
from fwstudy.faces.pictures import InputError
from fwstudy.faces.videos.footage import VIDEO_SUFFIXES, Frames

MAX_ENLARGEMENT = 2.0  # of a face to the size of a crop, above which it is called small
GRAY = 3.0  # mean difference of the colors below which a face counts as gray
OUTSIDE = 0.1  # share of the landmarks beyond the picture above which a face counts as cut off


@dataclass(frozen=True)
class FaceCrop:
    """One face, cut out as in training.

    Args:
        crop: (S, S, 3) uint8, RGB.
        box: (4,) int, the square that was cut: left, top, right, bottom; may leave the picture.
        landmarks: (68, 2) float32, pixel coordinates.
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
        ValueError: a name that cannot be written.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [printable(path)]
    suffixes = PHOTO_SUFFIXES | VIDEO_SUFFIXES
    found = (file for file in path.rglob("*") if file.suffix.lower() in suffixes)
    files = sorted(
        printable(file) for file in found if file.is_file() and not file.name.startswith(".")
    )
    if not files:
        raise InputError(
            f"{path}: no photograph or clip in this folder ({' '.join(sorted(suffixes))})"
        )
    return files


def find_face(
    image: np.ndarray, size: int, scale: float, near: np.ndarray | None = None
) -> tuple[FaceCrop | None, str]:
    """The face to explain, cut out as in training; or None, and why there is none.

    Of several faces the largest that a mesh fits is taken, or the one nearest to a box: by the generalised
    intersection over union (Rezatofighi et al. 2019), which also ranks boxes that do not overlap.

    Args:
        image: (H, W, 3) uint8, RGB.
        size: side of the crop in pixels.
        scale: see `fwstudy.crops.boxes.face_box`.
        near: (4,) the face's box in the frame before.
    """
    faces, notes = detect_faces(image), []
    if not faces:
        return None, "no face found"
    if near is not None:
        boxes = torch.from_numpy(np.stack([face.box for face in faces]))
        overlap = generalized_box_iou(boxes, torch.from_numpy(near[None]).float())[:, 0].tolist()
        if max(overlap) < 0:
            notes.append("the face has moved far since the frame before: perhaps another person")
        wanted = [faces[int(np.argmax(overlap))]]  # no other: it may be of another person
    else:
        wanted = faces
        if len(faces) > 1:
            notes.append(f"{len(faces)} faces found, the largest clear one taken")
    shape = fit_first(image, wanted)
    if shape is None:
        return None, NO_MESH
    points, box = shape.landmarks, face_box(shape.landmarks, scale)
    side = box[2] - box[0]
    if size > MAX_ENLARGEMENT * side:
        notes.append(f"small face: enlarged more than {MAX_ENLARGEMENT:.0f} times")
    beyond = ((points < 0) | (points > image.shape[1::-1])).any(axis=1)
    if beyond.mean() > OUTSIDE:
        notes.append("the border of the picture cuts the face; what is missing is mirrored")
    how = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    cut = crop(image, box, size, how)
    if np.ptp(cut.astype(int), axis=2).mean() < GRAY:
        notes.append("gray-scale: the model has learned from color")
    return FaceCrop(cut, box, points, len(faces), float(interocular(points)), notes), ""


def find_faces(frames: Frames, size: int, scale: float) -> tuple[list[FaceCrop | None], list[str]]:
    """The same face through a clip: the largest of the first frame with one, then the nearest.

    Returns:
        of each frame its face, or None; and why there is none, empty where there is one.
    """
    faces, reasons, near = [], [], None
    for image in frames.images:
        face, reason = find_face(image, size, scale, near)
        faces.append(face), reasons.append(reason)
        near = near if face is None else face.box
    return faces, reasons


def smallest_face(image: np.ndarray) -> int:
    """About the width in pixels below which the detector finds no face in a picture."""
    return int(np.ceil(MIN_FACE * max(1.0, max(image.shape[:2]) / SIDES[0])))

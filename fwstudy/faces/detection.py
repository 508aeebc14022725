"""Find faces in pictures: a box, five points and a score for each, by YuNet through OpenCV.

Source: Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023.
It expects upright faces: one on its side is found too, with points as if it were upright. So where a
picture may be turned it is looked at in all four turns (`turn_upright`).
"""

from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from fwstudy.faces.networks import read_weights
from fwstudy.faces.videos.footage import Frames

WEIGHTS = "face_detection_yunet_2023mar.onnx"
SIDES = (640, 320)  # px, longer sides at which a picture is searched, one after the other
MIN_FACE = 16  # px, width of a face at the larger of them
MIN_SCORE = 0.7
OVERLAP = 0.3  # intersection over union above which the weaker of two boxes is dropped

QUARTERS = ("", "90° anticlockwise", "180°", "90° clockwise")


@dataclass(frozen=True)
class Face:
    """One detected face.

    Args:
        box: (4,) float32, left, top, right, bottom in pixels; may reach outside the picture.
        points: (5, 2) float32, (x, y) of the subject's right eye, left eye, the tip of the nose,
            the right and left corner of the mouth.
        score: confidence of the detector, 0..1.
    """

    box: np.ndarray
    points: np.ndarray
    score: float


@cache
def _detector() -> cv2.FaceDetectorYN:
    weights = read_weights(WEIGHTS)
    return cv2.FaceDetectorYN.create(
        "onnx", weights, np.empty(0, np.uint8), (SIDES[0],) * 2, MIN_SCORE, OVERLAP
    )


def detect_faces(
    image: np.ndarray, sides: tuple[int, ...] = SIDES, enough: float = 0
) -> list[Face]:
    """All upright faces in a picture, the largest first.

    A face that is wider than most of `SIDES` has a low score. So a picture in which none is found, or
    none that is large enough, is searched at the next of them.

    Args:
        image: (H, W, 3) uint8, RGB.
        sides: px, see `SIDES`.
        enough: px of the searched size, width of the largest face that ends the search.

    Returns:
        One `Face` for each detection of at least `MIN_SCORE` and `MIN_FACE`, of the last size at which there
        was any; an empty list if there is none.

    Raises:
        ValueError: the weights are missing or altered.
    """
    scales = list(dict.fromkeys(min(1.0, side / max(image.shape[:2])) for side in sides))
    least = MIN_FACE / max(scales)
    if min(image.shape[:2]) < least:
        return []
    found = []
    for scale in scales:
        faces = _search(image, scale)
        found = [face for face in faces if face.box[2] - face.box[0] >= least] or found
        if found and scale * max(face.box[2] - face.box[0] for face in found) >= enough:
            break
    return sorted(found, key=lambda face: -np.prod(face.box[2:] - face.box[:2]))


def _search(image: np.ndarray, scale: float) -> list[Face]:
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    detector = _detector()
    detector.setInputSize(small.shape[1::-1])
    rows = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]
    if rows is None:
        return []
    places = rows[:, :14].reshape(-1, 7, 2) / np.float32(scale)
    return [
        Face(np.concatenate([place[0], place[0] + place[1]]), place[2:], float(score))
        for place, score in zip(places, rows[:, 14], strict=True)
    ]


def turn_upright(frames: Frames) -> Frames:
    """The frames of a file in that quarter turn in which their faces have the highest scores.

    The detector finds a face on its side or upside down too, but with a lower score. A clip is turned as
    a whole, by its first, middle and last frame. Where no face is found nothing is turned.
    """
    places = np.linspace(0, len(frames.images) - 1, 3).astype(int)
    probes = [frames.images[place] for place in np.unique(places)]
    scores = [sum(_best(np.rot90(image, turns)) for image in probes) for turns in range(4)]
    turns = int(np.argmax(scores))
    if not turns:
        return frames
    images = [np.ascontiguousarray(np.rot90(image, turns)) for image in frames.images]
    note = f"turned by {QUARTERS[turns]}, so that the face is upright"
    return replace(frames, images=images, notes=[*frames.notes, note])


def _best(image: np.ndarray) -> float:
    return max((face.score for face in detect_faces(image)), default=0.0)

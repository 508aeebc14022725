"""The shape of a detected face by MediaPipe's face mesh, its eyes and brows by the iris network.

Sources: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019;
Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020; their model
cards for the input (RGB in 0..1, 192 and 64 px) and the numbering of the 468 points, of which the iris
network places 71 around each eye anew. OpenCV reads both networks.
"""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from fwstudy.faces.detection import Face
from fwstudy.faces.forging.warp import similarity, transform
from fwstudy.faces.networks import read_weights
from fwstudy.faces.parts import FaceShape

MESH, IRIS = "face_landmark.tflite", "iris_landmark.tflite"
POINTS, PRESENCE = "conv2d_20", "conv2d_30"  # outputs of the mesh
EYE_AND_BROW = "output_eyes_contours_and_brows"  # output of the iris network
MESH_SIDE, EYE_SIDE = 192, 64  # px, of the networks' inputs
FACE_MARGIN = 1.25  # side of the square that the mesh sees, of the longer side of the face's box
EYE_MARGIN = 2.3  # side of the square that the iris network sees, of the eye's width
MIN_PRESENCE = 10.0  # logit; upright faces have 28 to 68, cats and faces upside down up to 5
NO_MESH = "a face was found, but no mesh fits it: turned away, covered or unclear"
LEVEL = np.radians(5)  # a turn of the eye line below which the mesh is not fitted again

EYES = {  # lower lid from the outer corner, then upper lid; brow, lower edge and upper edge
    "right": (
        (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
        (46, 53, 52, 65, 70, 63, 105, 66, 107, 55),
    ),
    "left": (
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
        (276, 283, 282, 295, 300, 293, 334, 296, 336, 285),
    ),
}
IRIS_POINTS = (*range(16), *range(50, 54), *range(64, 70))  # of its 71, the lids and the brow
CORNERS = 0, 8  # of the lids: the outer and the inner one
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
NOSE = (168, 122, 351, 196, 419, 198, 420, 49, 279, 129, 358, 64, 294, 98, 327, 97, 326, 2)
OUTLINES = {
    "skin": OVAL,
    "right_brow": EYES["right"][1],
    "left_brow": EYES["left"][1],
    "right_eye": EYES["right"][0],
    "left_eye": EYES["left"][0],
    "nose": NOSE,
    "mouth": LIPS,
}
LANDMARKS = (
    *(127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356),  # jaw
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # brows
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # outer lips
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lips
)
"""Of each iBUG-68 landmark the point of the mesh."""


@cache
def _network(name: str) -> cv2.dnn.Net:
    return cv2.dnn.readNetFromTFLite(read_weights(name))


def fit_shape(image: np.ndarray, face: Face) -> tuple[FaceShape | None, float]:
    """The shape of a detected face, and the network's confidence that there is one.

    The mesh is fitted with the detector's eye line level, and once more with its own where that turns
    by more than `LEVEL`; then each eye is looked at for itself.

    Args:
        image: (H, W, 3) uint8, RGB.
        face: see `fwstudy.faces.detection.detect_faces`.

    Returns:
        the shape in pixels of the picture, None where the confidence is below `MIN_PRESENCE`; the
        confidence, a logit.

    Raises:
        ValueError: the weights are missing or altered.
    """
    center = (face.box[:2] + face.box[2:]) / 2
    side = FACE_MARGIN * np.ptp(face.box.reshape(2, 2), 0).max()
    line = face.points[1] - face.points[0]
    for _ in range(2):
        points, presence = _mesh(image, _square(center, side, line, MESH_SIDE))
        lids = [points[list(EYES[eye][0])] for eye in ("right", "left")]
        before, line = line, lids[1].mean(0) - lids[0].mean(0)
        if abs(np.angle((line @ (1, 1j)) / (before @ (1, 1j)))) < LEVEL:
            break
    if presence < MIN_PRESENCE:
        return None, presence
    for eye, (lids, brow) in EYES.items():
        points[[*lids, *brow]] = _eye(image, points[list(lids)][list(CORNERS)], line, eye == "left")
    outlines = {name: points[list(numbers)] for name, numbers in OUTLINES.items()}
    return FaceShape(points[list(LANDMARKS)], outlines), presence


def fit_first(image: np.ndarray, faces: Sequence[Face]) -> FaceShape | None:
    """The shape of the first of some faces that a mesh fits; None if there is none."""
    shapes = (fit_shape(image, face)[0] for face in faces)
    return next((shape for shape in shapes if shape is not None), None)


def cut_out(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """A picture under a similarity in a (size, size) frame, without aliasing.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), from pixels of the picture to pixels of the frame.

    Returns:
        (size, size, 3) uint8; beyond the picture its border is repeated.
    """
    fine = max(1, int(np.ceil(1 / np.hypot(*matrix[:, 0]))))
    matrix = matrix * fine + [[0, 0, (fine - 1) / 2]]  # whole numbers are the centers of pixels
    large = cv2.warpAffine(image, matrix, (size * fine,) * 2, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def _square(center: np.ndarray, side: float, line: np.ndarray, size: int) -> np.ndarray:
    """The similarity that lays a square of the picture, `line` level in it, on (size, size) pixels."""
    right = center + line * (side / 2 / np.hypot(*line))
    return similarity(np.array([center, right]), np.array([[size / 2] * 2, [size, size / 2]]))


def _run(name: str, image: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
    network = _network(name)
    network.setInput(cv2.dnn.blobFromImage(image, 1 / 255))
    return network.forward(outputs)


def _mesh(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """The 468 points in pixels of the picture, and the presence."""
    points, presence = _run(MESH, cut_out(image, matrix, MESH_SIDE), (POINTS, PRESENCE))
    back = cv2.invertAffineTransform(matrix)
    return transform(points.reshape(-1, 3)[:, :2], back).astype(np.float32), float(presence.item())


def _eye(image: np.ndarray, corners: np.ndarray, line: np.ndarray, mirror: bool) -> np.ndarray:
    """Lids and brow of one eye, (26, 2); the network knows the eye at the picture's left alone."""
    side = EYE_MARGIN * np.linalg.norm(corners[1] - corners[0])
    matrix = _square(corners.mean(0), side, line, EYE_SIDE)
    seen = cut_out(image, matrix, EYE_SIDE)
    (points,) = _run(IRIS, np.ascontiguousarray(seen[:, ::-1]) if mirror else seen, (EYE_AND_BROW,))
    points = points.reshape(-1, 3)[list(IRIS_POINTS), :2]
    if mirror:
        points = (EYE_SIDE, 0) + points * (-1, 1)
    # The network counts from the edge of the first pixel, the matrix from its center.
    return transform(points - 0.5, cv2.invertAffineTransform(matrix))

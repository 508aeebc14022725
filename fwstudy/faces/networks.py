"""The weights of the networks that find faces and their parts: files in the box, checked before use.

``data/assets/NOTICE`` tells where they come from, ``make assets`` fetches them anew. They are ONNX and
TensorFlow Lite files that OpenCV reads, so that nothing is unpickled.
"""

import hashlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "data" / "assets" / "networks"
SUMS = {
    "face_detection_yunet_2023mar.onnx": (
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
    ),
    "face_landmark.tflite": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    "iris_landmark.tflite": "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
}
"""SHA-256 of each file."""


def read_weights(name: str, folder: Path = FOLDER) -> np.ndarray:
    """The bytes of one of the files of `SUMS`: (N,) uint8, as OpenCV's readers take them.

    Raises:
        ValueError: the file is missing, truncated or altered; the message names it and the remedy.
    """
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{path} is missing: restore it, or run `make assets`")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SUMS[name]:
        raise ValueError(
            f"{path} is truncated or altered (its SHA-256 is not {SUMS[name][:12]}...): "
            "restore it, or run `make assets`"
        )
    return np.frombuffer(content, np.uint8)

"""A clip: a few frames of one face, its forged variants, and the exact truth about both.

One ``.npz`` file holds one clip. Forged frames are stored as the difference (modulo 256) to the
original, which is zero wherever nothing was forged, so that a file with ten variants is little
larger than one with the original alone.
"""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ORIGINAL = "original"
FAMILIES = ("FaceSwap", "Face2Face", "Deepfakes", "NeuralTextures")
PART_PREFIX = "part:"
PARTS = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "nose",
    "mouth",
    "hair",
    "clothes",
)
"""Values of a part map, by index. Left and right are the *subject's*."""
FORGED_PARTS = {
    "left_eye": ("left_eye", "left_brow"),
    "right_eye": ("right_eye", "right_brow"),
    "nose": ("nose",),
    "mouth": ("mouth",),
}
"""The parts that are forged one at a time and give axes their names, and their values of a part map. An
eye comes with its brow, which alone is smaller than what a network's last map resolves."""
FORGED_PART_OF = np.array(
    [
        next((i for i, labels in enumerate(FORGED_PARTS.values()) if label in labels), -1)
        for label in PARTS
    ]
)
"""Index into FORGED_PARTS of each value of a part map; -1 for none: ``FORGED_PART_OF[parts]``."""


@dataclass(frozen=True)
class Portrait:
    """One image of one face.

    Args:
        image: (H, W, 3) uint8, RGB.
        landmarks: (68, 2) float32, pixel coordinates (x, y) in the iBUG-68 order.
        parts: (H, W) uint8, indices into `PARTS`.
    """

    image: np.ndarray
    landmarks: np.ndarray
    parts: np.ndarray


@dataclass(frozen=True)
class Variant:
    """The frames of a clip after (or, for the original, without) one forgery.

    A forged variant may hold the first frames of the clip only; F is then smaller than the clip's.

    Args:
        frames: (F, H, W, 3) uint8, RGB.
        changed: (F, H, W) bool, the pixels that differ from the original: exact, before any codec.
        region: (F, H, W) uint8, the blending weight of the forgery, 0 (outside) to 255.
        source: identity that lent the forged face; the clip's own identity where none did.
    """

    frames: np.ndarray
    changed: np.ndarray
    region: np.ndarray
    source: str


@dataclass(frozen=True)
class Clip:
    """A few frames of one face and its variants.

    Args:
        name: unique, a legal file stem.
        identity: the person seen; forged variants keep the identity of the original.
        landmarks: (F, 68, 2) float32, as in `Portrait`, of the original.
        parts: (F, H, W) uint8, indices into `PARTS`, of the original.
        variants: `ORIGINAL`, then `FAMILIES` and ``part:<name>`` for forged parts, as far as made.
        attributes: what is known of the person (JSON values), e.g. age in years, sex, skin tone.
    """

    name: str
    identity: str
    landmarks: np.ndarray
    parts: np.ndarray
    variants: dict[str, Variant]
    attributes: dict = field(default_factory=dict)


def pristine(frames: np.ndarray, identity: str) -> Variant:
    """The variant in which nothing was forged."""
    empty = np.zeros(frames.shape[:3], np.uint8)
    return Variant(frames, empty.astype(bool), empty, identity)


def save_clip(folder: Path, clip: Clip) -> Path:
    """Write ``<folder>/<clip.name>.npz`` in one step: an interrupted run leaves no half file."""
    original = clip.variants[ORIGINAL].frames
    arrays = {"landmarks": clip.landmarks.astype(np.float32), "parts": clip.parts}
    for name, variant in clip.variants.items():
        frames = variant.frames
        if name != ORIGINAL:
            frames = frames - original[: len(frames)]  # uint8 arithmetic: modulo 256
        arrays[f"{name}/frames"] = frames
        if name != ORIGINAL:
            arrays[f"{name}/region"] = variant.region
    header = {
        "name": clip.name,
        "identity": clip.identity,
        "attributes": clip.attributes,
        "sources": {name: variant.source for name, variant in clip.variants.items()},
    }
    path = Path(folder) / f"{clip.name}.npz"
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)
    os.replace(partial, path)
    return path


def load_header(path: Path) -> dict:
    """The name, identity, attributes and ``sources`` (variant to identity) of a clip: no pixels.

    Raises:
        ValueError: the file is truncated or is not a clip; the message names it.
    """
    try:
        with np.load(path) as file:
            return json.loads(str(file["header"]))
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable clip ({error}); delete it and run again"
        ) from error


def is_finished(path: Path) -> bool:
    """Whether a clip was written and can be read in full."""
    try:
        return path.exists() and bool(load_clip(path))
    except ValueError:
        return False


def load_clip(path: Path) -> Clip:
    """Read what `save_clip` wrote.

    Raises:
        ValueError: the file is truncated or is not a clip; the message names it.
    """
    header = load_header(path)
    try:
        with np.load(path) as file:
            arrays = dict(file)
        original = arrays[f"{ORIGINAL}/frames"]
        variants = {ORIGINAL: pristine(original, header["sources"][ORIGINAL])}
        for name, source in header["sources"].items():
            if name == ORIGINAL:
                continue
            difference = arrays[f"{name}/frames"]
            variants[name] = Variant(
                frames=original[: len(difference)] + difference,
                changed=difference.any(axis=-1),
                region=arrays[f"{name}/region"],
                source=source,
            )
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable clip ({error}); delete it and run again"
        ) from error
    return Clip(
        name=header["name"],
        identity=header["identity"],
        landmarks=arrays["landmarks"],
        parts=arrays["parts"],
        variants=variants,
        attributes=header["attributes"],
    )

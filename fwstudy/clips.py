"""A clip: a few frames of one face, its forged variants, and the exact truth about both.

One ``.npz`` file holds one clip. Forged frames are stored as the difference (modulo 256) to the
original, which is zero wherever nothing was forged, so that a file with ten variants is little
larger than one with the original alone.
"""

import json
import os
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import isal_zlib

from fwstudy.labels import ORIGINAL

COMPRESSION = 1  # of DEFLATE: files are 4 to 8 % larger than with zlib's default


@dataclass(frozen=True)
class Portrait:
    """One image of one face.

    Args:
        image: (H, W, 3) uint8, RGB.
        landmarks: (68, 2) float32, pixel coordinates (x, y) in the iBUG-68 order.
        parsing: (H, W) uint8, indices into `PARTS`.
    """

    image: np.ndarray
    landmarks: np.ndarray
    parsing: np.ndarray


@dataclass(frozen=True)
class Variant:
    """The frames of a clip after (or, for the original, without) one forgery.

    A forged variant may hold the first frames of the clip only; F is then smaller than the clip's.

    Args:
        frames: (F, H, W, 3) uint8, RGB.
        mask: (F, H, W) bool, the pixels that differ from the original: exact, before any codec.
        region: (F, H, W) uint8, the blending weight of the forgery, 0 (outside) to 255.
        source: identity that lent the forged face; the clip's own identity where none did.
        video: name of the video that the frames were taken from; empty where they were made here.
        mask_source: how the changed pixels are known, see `MASK_SOURCES`.
    """

    frames: np.ndarray
    mask: np.ndarray
    region: np.ndarray
    source: str
    video: str = ""
    mask_source: str = "exact"


@dataclass(frozen=True)
class VideoOrigin:
    """Where a clip was cut out of a video: faces, already compressed, already cropped.

    Args:
        quality: H.264 quality of the video, as in `fwstudy.preprocess.codec.QUALITIES`.
        numbers: of the frames in the video, counted from 0.
        split: the official one, or None.
        group: people known to be mixed with each other, or None.
        remarks: what there is to report of the videos (dicts with ``file``, ``reason``, ``left_out``).
        fingerprint: name, size in bytes and time of change of each file that was read.
    """

    quality: str
    numbers: list[int]
    split: str | None
    group: str | None
    remarks: list[dict]
    fingerprint: list


@dataclass(frozen=True)
class Clip:
    """A few frames of one face and its variants.

    Args:
        name: unique, a legal file stem.
        identity: the person seen; forged variants keep the identity of the original.
        landmarks: (F, 68, 2) float32, as in `Portrait`, of the original.
        parsing: (F, H, W) uint8, indices into `PARTS`, of the original.
        variants: `ORIGINAL` (if there is one), then the forgeries: their family and, where several of
            one family were made of one original, ``~`` and the video; ``part:<name>`` for forged parts.
        attributes: what is known of the person (JSON values), e.g. age in years, sex, skin tone.
        video: of a clip that was cut out of a video; None if it was made here.
    """

    name: str
    identity: str
    landmarks: np.ndarray
    parsing: np.ndarray
    variants: dict[str, Variant]
    attributes: dict = field(default_factory=dict)
    video: VideoOrigin | None = None


def pristine(frames: np.ndarray, identity: str, video: str = "") -> Variant:
    """The variant in which nothing was forged."""
    empty = np.zeros(frames.shape[:3], np.uint8)
    return Variant(frames, empty.astype(bool), empty, identity, video)


def clip_file(folder: Path, name: str, quality: str | None = None) -> Path:
    """Where a clip lies; one video may be there at several qualities."""
    return Path(folder) / (f"{name}.npz" if quality is None else f"{name}@{quality}.npz")


def write_arrays(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """What `numpy.savez_compressed` writes, in a tenth of the time.

    The level of its compression cannot be set, and ISA-L's DEFLATE takes a fifth of zlib's time for as
    small a file; its bytes depend on the processor, what is read from them does not. `zipfile` has no
    public place for another compressor: if its private one should move, zlib does the work.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member._compressor = isal_zlib.compressobj(
                    COMPRESSION, zlib.DEFLATED, -zlib.MAX_WBITS
                )
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def save_clip(folder: Path, clip: Clip) -> Path:
    """Write a clip to its file (`clip_file`) in one step: an interrupted run leaves no half file.

    Raises:
        OSError: it cannot be written (disk full, read-only); the message names the folder.
    """
    original = clip.variants[ORIGINAL].frames if ORIGINAL in clip.variants else None
    arrays = {"landmarks": clip.landmarks.astype(np.float32), "parsing": clip.parsing}
    for name, variant in clip.variants.items():
        frames = variant.frames
        if name != ORIGINAL and original is not None:
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
    if clip.video is not None:
        header["video"] = asdict(clip.video)
        header["videos"] = {name: variant.video for name, variant in clip.variants.items()}
        header["mask_sources"] = {
            name: variant.mask_source for name, variant in clip.variants.items()
        }
    path = clip_file(folder, clip.name, clip.video.quality if clip.video else None)
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "wb") as file:
            write_arrays(file, {"header": np.array(json.dumps(header)), **arrays})
        os.replace(partial, path)
    except OSError as error:
        raise OSError(f"{folder}: cannot write the clip of {clip.name}: {error}") from error
    return path


def load_header(path: Path) -> dict:
    """The name, identity, attributes and ``sources`` (variant to identity) of a clip: no pixels.

    Raises:
        ValueError: the file is truncated or is not a clip; the message names it.
    """
    try:
        with np.load(path) as file:
            return json.loads(str(file["header"]))
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, ValueError) as error:
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
        origin = VideoOrigin(**header["video"]) if "video" in header else None
        videos, mask_sources = header.get("videos", {}), header.get("mask_sources", {})
        original = arrays.get(f"{ORIGINAL}/frames")
        variants = {}
        for name, source in header["sources"].items():
            video = videos.get(name, "")
            if name == ORIGINAL:
                variants[name] = pristine(original, source, video)
                continue
            frames, region = arrays[f"{name}/frames"], arrays[f"{name}/region"]
            # Compressed frames differ everywhere: there the region says what was changed.
            changed = frames.any(axis=-1) if origin is None else region > 127
            if original is not None:
                frames = original[: len(frames)] + frames
            variants[name] = Variant(
                frames, changed, region, source, video, mask_sources.get(name, "exact")
            )
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable clip ({error}); delete it and run again"
        ) from error
    return Clip(
        name=header["name"],
        identity=header["identity"],
        landmarks=arrays["landmarks"],
        parsing=arrays["parsing"],
        variants=variants,
        attributes=header["attributes"],
        video=origin,
    )

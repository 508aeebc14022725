"""Still pictures of any kind as upright 8-bit sRGB: the one reader of photographs.

Pillow decodes. A picture is turned as its EXIF orientation says, deep gray is scaled, transparent
parts are laid on white, and colors of another profile (as Display P3) are converted to sRGB.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"}
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, av.error.FFmpegError)
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}  # brands, ISO/IEC 23008-12
HEIC_REFUSED = (
    "HEIC pictures are not read, convert them to JPEG or PNG "
    "(macOS: sips -s format jpeg IN --out OUT.jpg; Linux: heif-convert IN OUT.jpg)"
)
LONGEST = 32766  # px of a side: OpenCV warps no larger picture
SAME_COLOR = 2  # gray levels: a profile that moves no color farther counts as sRGB


class InputError(ValueError):
    """A file that cannot be used; the message names it and says why."""


def check_file(path: Path) -> None:
    """Raises `InputError` if a file is missing or empty."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns whatever fails while a file is read into an `InputError` that names the file."""
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as a photograph or clip: {reason}") from error


def read_picture(path: Path) -> tuple[np.ndarray, list[str]] | None:
    """A still picture and what was done to it; None if the file is no still picture.

    Returns:
        (H, W, 3) uint8, sRGB, upright; and remarks in plain language. Of several pages the first.

    Raises:
        ValueError, OSError, SyntaxError: see `naming`; a HEIC picture is refused with the remedy.
    """
    photo = _opened(path)
    if photo is None:
        return None
    with photo:
        if max(photo.size) > LONGEST:
            raise ValueError(f"a side is longer than {LONGEST} px; shrink it")
        count = getattr(photo, "n_frames", 1)
        pages = count > 1 and photo.format != "MPO"  # MPO: JPEG with previews
        image, notes = _to_rgb(ImageOps.exif_transpose(photo))
        return image, [f"the first of {count} pictures in the file"] * pages + notes


def is_picture(path: Path) -> bool:
    """Whether the content of a file is a still picture; raises as `read_picture`."""
    photo = _opened(path)
    if photo is not None:
        photo.close()
    return photo is not None


def _opened(path: Path) -> Image.Image | None:
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp":
        end = min(len(head), int.from_bytes(head[:4], "big"))
        brands = {head[place : place + 4] for place in (8, *range(16, end, 4))}
        if brands & HEIC and b"avif" not in brands:
            raise ValueError(HEIC_REFUSED)  # FFmpeg would take one of its tiles for a clip
    try:
        photo = Image.open(path)
    except UnidentifiedImageError:
        return None
    moving = getattr(photo, "n_frames", 1) > 1 and photo.format in ("GIF", "PNG")
    if moving or photo.format == "MPEG":  # FFmpeg's
        photo.close()
        return None
    return photo


def _to_rgb(photo: Image.Image) -> tuple[np.ndarray, list[str]]:
    notes, profile = [], photo.info.get("icc_profile")
    if photo.mode[0] in "IF":  # deeper than 8 bits: Pillow would clip it
        values = np.nan_to_num(np.asarray(photo, np.float64))
        limit = max(1 if photo.mode == "F" else 65535, values.max())
        photo = Image.fromarray((values.clip(0) / limit * 255).round().astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        if photo.getextrema()[3][0] < 255:
            notes.append("transparent parts laid on white")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    photo = photo.convert("RGB")
    if profile:
        photo, remark = _to_srgb(photo, profile)
        notes += remark
    return np.array(photo), notes


def _to_srgb(photo: Image.Image, profile: bytes) -> tuple[Image.Image, list[str]]:
    """RGB colors converted from an ICC profile; unchanged if it is sRGB in all but name."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != "RGB":  # of gray or CMYK, which Pillow converts
            return photo, []
        convert = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return photo, ["its color profile is damaged: taken for sRGB"]
    cube = np.indices((6, 6, 6), np.uint8).reshape(3, 36, 6).transpose(1, 2, 0) * np.uint8(51)
    moved = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(cube)), convert)
    if np.abs(np.asarray(moved, int) - cube).max() <= SAME_COLOR:
        return photo, []
    name = ImageCms.getProfileDescription(source).strip() or "another color profile"
    return ImageCms.applyTransform(photo, convert), [f"colors converted from {name} to sRGB"]

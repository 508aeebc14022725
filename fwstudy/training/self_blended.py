"""Forgeries made of an original alone: a face blended with itself, slightly changed.

The idea is that of Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images" (CVPR 2022): any
forgery has a seam, so that seams without a forger teach what all have in common. The code and the ranges
are this project's. One thing differs on purpose: the paper changes either of the two copies before they
are blended, here only the inner one is, to either side (sharper or softer, darker or brighter). So the
picture outside the seam stays the original's, bit for bit, and the mask is exact.
"""

import cv2
import numpy as np

from fwstudy.labels import PARTS

# Lengths are shares of the image's side; ranges are drawn from uniformly.
INNER = [PARTS.index(part) for part in PARTS if part.endswith(("brow", "eye", "nose", "mouth"))]
TAKEN = 0.8  # chance of each inner part to be under the hull
GROWTH = (1.0, 1.5)  # of the hull about its middle
JITTER = 0.02  # standard deviation of the hull's corners
DEFORMATION, WAVES = 0.02, 4  # of the mask: standard deviation of its shift, knots a side
SOFTNESS = (0.006, 0.04)  # standard deviation of the blur of the mask
OPACITY = (0.7, 1.0)  # lower shows a face twice
SHIFT, SCALE, TURN = (0.006, 0.02), (0.97, 1.03), (-2.0, 2.0)  # of the inner copy; degrees
GAIN, TINT, OFFSET = 0.08, 0.04, 8  # of the inner copy: contrast, of one channel; gray levels
DETAIL = (-0.8, 0.8)  # unsharp masking of the inner copy, negative: softer
JPEG, JPEG_SHARE = (40, 90), 0.5  # quality of the inner copy, and how often
FAINTEST = 1 / 16  # weight of the inner copy below which the original stays


def self_blended(
    image: np.ndarray, parts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A forgery of a face by itself.

    Args:
        image: (S, S, 3) uint8, RGB.
        parts: (S, S) uint8, indices into `PARTS`.
        rng: decides on the mask and on all changes.

    Returns:
        image (S, S, 3) uint8, and the pixels in which it differs from the original, (S, S) bool.

    Raises:
        ValueError: the part map shows no face.
    """
    weight = blending_mask(parts, rng)[..., None]
    inner = altered(image, rng).astype(np.float32)
    forged = np.round(image + weight * (inner - image)).astype(np.uint8)
    return forged, (forged != image).any(axis=-1)


def blending_mask(parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hull of some parts of a face, deformed and blurred: (S, S) float32 in 0..1.

    Raises:
        ValueError: the part map shows no face.
    """
    size = len(parts)
    corners = [part for part in map(outline, (parts == number for number in INNER)) if len(part)]
    corners = corners or [outline(parts == PARTS.index("skin"))]
    if not len(corners[0]):
        raise ValueError("a self-blended forgery needs a part map that shows a face")
    taken = rng.random(len(corners)) < TAKEN
    taken[rng.integers(len(corners))] = True
    hull = np.concatenate([part for part, chosen in zip(corners, taken, strict=True) if chosen])
    middle = (hull.min(axis=0) + hull.max(axis=0)) / 2
    hull = middle + (hull - middle) * rng.uniform(*GROWTH)
    hull = cv2.convexHull((hull + rng.normal(0, JITTER * size, hull.shape)).astype(np.float32))
    mask = np.zeros(parts.shape, np.float32)
    cv2.fillConvexPoly(mask, np.round(hull * 16).astype(np.int32), 1.0, cv2.LINE_8, 4)
    knots = rng.normal(0, DEFORMATION * size, (WAVES, WAVES, 2)).astype(np.float32)
    shifts = cv2.resize(knots, (size, size), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.indices(parts.shape, np.float32)
    moved = [columns + shifts[..., 0], rows + shifts[..., 1]]
    mask = cv2.remap(mask, *moved, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(*SOFTNESS) * size)
    mask[mask < FAINTEST] = 0
    return np.clip(mask, 0, 1) * np.float32(rng.uniform(*OPACITY))


def outline(where: np.ndarray) -> np.ndarray:
    """Corners (N, 2), x and y, of the hull of the largest patch of a (S, S) bool mask; none if empty."""
    count, patches, sizes, _ = cv2.connectedComponentsWithStats(where.astype(np.uint8))
    if count < 2:
        return np.empty((0, 2), np.float32)
    largest = 1 + np.argmax(sizes[1:, cv2.CC_STAT_AREA])
    points = np.argwhere(patches == largest)[:, ::-1].astype(np.int32)
    return cv2.convexHull(points)[:, 0].astype(np.float32)


def altered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image moved, recolored, sharpened or softened, and sometimes compressed.

    Args:
        image: (S, S, 3) uint8, RGB.

    Returns:
        the same; moved by `SHIFT` at least, so that no image with any detail stays as it was.
    """
    size = len(image)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*SHIFT) * size
    matrix = cv2.getRotationMatrix2D((size / 2,) * 2, rng.uniform(*TURN), rng.uniform(*SCALE))
    matrix[:, 2] += length * np.cos(angle), length * np.sin(angle)
    moved = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    ).astype(np.float32)
    gain = 1 + rng.uniform(-GAIN, GAIN) + rng.uniform(-TINT, TINT, 3)
    detail = moved - cv2.GaussianBlur(moved, (0, 0), 1.0)
    moved = moved + np.float32(rng.uniform(*DETAIL)) * detail
    colored = (moved - 128) * gain + 128 + rng.uniform(-OFFSET, OFFSET)
    changed = np.clip(np.round(colored), 0, 255).astype(np.uint8)
    quality, compressed = int(rng.integers(*JPEG)), rng.random() < JPEG_SHARE
    if not compressed:
        return changed
    _, code = cv2.imencode(".jpg", changed[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]

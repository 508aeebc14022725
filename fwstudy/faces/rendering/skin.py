"""Paints a person's skin: a scanned base, brought to the person's tone, with blotches, freckles,
moles and stubble. Colors are linear RGB; pigments act as optical depths per channel."""

import cv2
import numpy as np

from fwstudy.faces.rendering.head import Head
from fwstudy.faces.rendering.identity import Identity
from fwstudy.labels import PARTS

TEXTURE = (1024, 389)
"""Rows and columns of the painted strip of the body's texture."""
MELANIN = np.array([0.55, 1.0, 1.35], np.float32)
BLOOD = np.array([0.1, 1.3, 1.0], np.float32)
LIPSTICK = np.array([0.12, 1.0, 0.75], np.float32)
LUMINANCE = np.array([0.25, 0.6, 0.15], np.float32)
_TONES = np.array(
    [
        [0.040, 0.065, 0.036, 0.024],
        [0.085, 0.135, 0.076, 0.047],
        [0.170, 0.262, 0.150, 0.092],
        [0.280, 0.405, 0.250, 0.170],
        [0.380, 0.525, 0.347, 0.252],
        [0.500, 0.635, 0.475, 0.375],
    ]
)
"""Luminance, then the linear RGB of human skin of that luminance."""


def to_linear(encoded: np.ndarray) -> np.ndarray:
    """sRGB values in 0..1 to linear ones, float32."""
    encoded = np.asarray(encoded, np.float32)
    curve = ((np.maximum(encoded, 0.04) + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curve).astype(np.float32)


def to_encoded(linear: np.ndarray) -> np.ndarray:
    """Linear values to sRGB ones, float32; negative ones become zero."""
    linear = np.maximum(linear, 0).astype(np.float32)
    curve = 1.055 * np.power(np.maximum(linear, 0.003), 1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def clouds(
    rng: np.random.Generator, octaves: list[tuple[int, float]], shape: tuple[int, int]
) -> np.ndarray:
    """Smooth random field, float32: per octave the number of cells a column and the amplitude."""
    field = np.zeros(shape, np.float32)
    for cells, amplitude in octaves:
        across = max(2, round(cells * shape[1] / shape[0]))
        grid = rng.normal(0, 1, (cells, across)).astype(np.float32)
        field += amplitude * cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return field


def _base(head: Head, identity: Identity, mask: np.ndarray) -> np.ndarray:
    """The scanned textures, mixed and brought to the person's tone."""
    mixed = np.zeros((*TEXTURE, 3), np.float32)
    for name, weight in identity.skins:
        pixels = head.textures[name].astype(np.float32) / 255
        mixed += weight * cv2.resize(pixels, TEXTURE[::-1], interpolation=cv2.INTER_CUBIC)
    skin = to_linear(mixed.clip(0.01, 1))
    luminance, *channels = _TONES.T
    wanted = [np.interp(identity.skin_luminance, luminance, channel) for channel in channels]
    mean = skin[mask > 0.5].mean(0)
    return mean * (skin / mean) ** 0.9 * (np.array(wanted, np.float32) / mean)


def _freckles(rng: np.random.Generator) -> np.ndarray:
    seeds = rng.random(TEXTURE, np.float32)
    spots = cv2.GaussianBlur(np.where(seeds > 0.99, seeds, 0), (0, 0), 1.3) * 9
    return spots * (clouds(rng, [(12, 1.0)], TEXTURE) > -0.2)


def _moles(rng: np.random.Generator, count: int) -> np.ndarray:
    depth = np.zeros(TEXTURE, np.float32)
    for _ in range(count):
        row, column = rng.uniform(0.38, 0.62) * TEXTURE[0], rng.uniform(0.47, 0.92) * TEXTURE[1]
        radius, dark = rng.uniform(0.7, 1.5), rng.uniform(0.4, 1.2)
        y, x = np.ogrid[: TEXTURE[0], : TEXTURE[1]]
        distance = ((x - column) ** 2 + (y - row) ** 2) / (2 * radius**2)
        depth += dark * np.exp(-(np.minimum(distance, 30.0) ** 1.5)).astype(np.float32)
    return depth


def _stubble(rng: np.random.Generator) -> np.ndarray:
    row, column = np.mgrid[0 : TEXTURE[0], 0 : TEXTURE[1]].astype(np.float32)
    row, column = row / TEXTURE[0], column / TEXTURE[1]
    chin = 1 / (1 + np.exp(-(column - 0.75) * 45)) * (np.abs(row - 0.507) < 0.17)
    hairs = cv2.GaussianBlur(
        (rng.random(TEXTURE, np.float32) > 0.8).astype(np.float32), (0, 0), 0.7
    )
    return cv2.GaussianBlur(chin.astype(np.float32), (0, 0), 12) * (0.3 + 1.3 * hairs)


def paint_skin(head: Head, identity: Identity) -> tuple[np.ndarray, np.ndarray]:
    """Paint the skin of one person.

    Returns:
        albedo (1024, 389, 3) float32, linear RGB; gloss (1024, 389, 2) float32: strength of the
        reflection (1 is usual) and roughness in 0..1.
    """
    rng = np.random.default_rng([*identity.seed, 1])

    def mask(name: str) -> np.ndarray:
        return head.textures["mask_" + name].astype(np.float32) / 255

    def soft(part: str, sigma: float) -> np.ndarray:
        return cv2.GaussianBlur((head.part == PARTS.index(part)).astype(np.float32), (0, 0), sigma)

    face, lips, ears, nose = mask("face"), mask("lips"), mask("ears"), soft("nose", 8)
    eyes = soft("left_eye", 9) + soft("right_eye", 9)
    skin = _base(head, identity, face)
    melanin = clouds(rng, [(20, 0.02), (60, 0.03), (200, 0.04)], TEXTURE)
    blood = clouds(rng, [(24, 0.03), (70, 0.03), (200, 0.03)], TEXTURE)
    blood += (nose * 0.07 + ears * 0.08) * (1 + identity.redness) + 0.05 * identity.redness * face
    melanin += identity.freckles * _freckles(rng) * face + 0.16 * eyes
    melanin += _moles(rng, identity.moles) * (1 - lips)
    blood += 0.18 * lips
    depth = melanin[..., None] * MELANIN + blood[..., None] * BLOOD
    depth += (lips * (identity.lipstick * 0.8 + 0.05))[..., None] * LIPSTICK
    if identity.stubble > 0.03:
        hairs = _stubble(rng) * identity.stubble * (1 - lips)
        depth += hairs[..., None] * np.array([1.0, 0.85, 0.75], np.float32)
    gloss = np.empty((*TEXTURE, 2), np.float32)
    gloss[..., 0] = 0.7 + 0.25 * clouds(rng, [(40, 0.4), (160, 0.5)], TEXTURE).clip(-1.5, 1.5)
    gloss[..., 0] *= identity.gloss * (1 + 0.5 * nose) * (1 + 0.4 * lips)
    gloss[..., 1] = 0.50 + 0.04 * clouds(rng, [(40, 0.5)], TEXTURE) - 0.12 * lips
    return (skin * np.exp(-depth)).astype(np.float32), gloss

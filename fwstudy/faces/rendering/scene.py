"""Where a clip is filmed: surrounding light, lamps, background and camera, constant in a clip."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from fwstudy.faces.rendering.raster import spherical_harmonics
from fwstudy.faces.rendering.skin import clouds, to_linear

BACKDROPS = ("wall", "room", "window", "garden", "street", "studio")


@dataclass(frozen=True, eq=False)
class Scene:
    """Surroundings and camera of one clip. Colors are linear RGB.

    Args:
        seed: integers that key the background.
        backdrop: one of `BACKDROPS`.
        lamp_directions: (L, 3), unit vectors towards the lamps; the first is the key.
        lamp_colors: (L, 3).
        surroundings: (9, 3), spherical harmonics of the surrounding radiance.
        distance: from camera to head in decimetres.
        zoom: size of the face, 1 for eyes a quarter of the picture apart.
        framing: (x, y), shift of the picture as a share of its side.
        white_balance: (r, g, b) gains of the camera.
        exposure, gamma, noise, blur: of the camera; noise as a share of full scale, blur in pixels.
    """

    seed: tuple[int, ...]
    backdrop: str
    lamp_directions: np.ndarray
    lamp_colors: np.ndarray
    surroundings: np.ndarray
    distance: float
    zoom: float
    framing: tuple[float, float]
    white_balance: tuple[float, ...]
    exposure: float
    gamma: float
    noise: float
    blur: float


def even_directions(count: int) -> np.ndarray:
    """Directions spread evenly over the sphere by the golden angle: (count, 3), unit length."""
    index = np.arange(count) + 0.5
    height, turn = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    return np.stack([np.cos(turn) * radius, height, np.sin(turn) * radius], axis=1)


def warm(amount: float) -> np.ndarray:
    """Color of a light, from bluish (-1) over white (0) to yellowish (1)."""
    return np.array([1 + 0.18 * amount, 1.0, 1 - 0.27 * amount])


def harmonics(directions: np.ndarray) -> np.ndarray:
    """The 9 spherical harmonics in directions (D, 3): (D, 9)."""
    return np.stack(np.broadcast_arrays(*spherical_harmonics.py_func(*directions.T)), axis=1)


def harmonics_of(directions: np.ndarray, radiance: np.ndarray) -> np.ndarray:
    """Project radiance (D, 3), given in evenly spread directions (D, 3), on 9 harmonics: (9, 3)."""
    return np.einsum("dk,dc->kc", harmonics(directions), radiance) * (4 * np.pi / len(directions))


def _surroundings(rng: np.random.Generator) -> np.ndarray:
    """Sky or ceiling, floor, walls and a broad bright patch or two, as harmonics (9, 3)."""
    directions = even_directions(256)
    up = 0.5 + 0.5 * directions[:, 1:2]
    above = warm(rng.normal(0.1, 0.3)) * rng.uniform(0.35, 0.9)
    below = warm(rng.normal(0.3, 0.3)) * rng.uniform(0.08, 0.3)
    walls = warm(rng.normal(0.2, 0.3)) * rng.uniform(0.12, 0.45)
    radiance = above * up**2 + below * (1 - up) ** 2 + walls * 2 * up * (1 - up)
    for _ in range(rng.integers(1, 3)):
        turn, rise = rng.uniform(-1.6, 1.6), rng.uniform(-0.1, 0.9)
        towards = [np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)]
        nearness = (directions @ np.array(towards)).clip(0, 1)[:, None] ** 4
        radiance = radiance + nearness * warm(rng.normal(0.15, 0.3)) * rng.uniform(0.3, 1.3)
    return harmonics_of(directions, radiance)


def sample_scene(seed: tuple[int, ...]) -> Scene:
    """Draw surroundings and camera; the same seed gives the same scene."""
    rng = np.random.default_rng(seed)
    directions, colors = [], []
    for lamp in range(int(rng.choice([1, 2, 2, 3]))):
        turn = rng.uniform(-1.15, 1.15) if lamp == 0 else rng.uniform(-2.6, 2.6)
        rise = rng.uniform(0.1, 0.95)
        directions.append((np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)))
        strength = rng.uniform(0.8, 2.2) if lamp == 0 else rng.uniform(0.2, 0.9)
        colors.append(warm(rng.normal(0.15, 0.45)) * strength)
    return Scene(
        seed=seed,
        backdrop=str(rng.choice(BACKDROPS)),
        lamp_directions=np.array(directions),
        lamp_colors=np.array(colors),
        surroundings=_surroundings(rng),
        distance=float(rng.uniform(8, 18)),
        zoom=float(np.exp(rng.normal(0, 0.05))),
        framing=tuple(map(float, rng.normal(0, 0.02, 2))),
        white_balance=tuple(map(float, np.exp(rng.normal(0, 0.03, 3)))),
        exposure=float(np.exp(rng.normal(0, 0.13))),
        gamma=float(rng.uniform(0.94, 1.08)),
        noise=float(rng.uniform(0.003, 0.012)),
        blur=float(rng.uniform(0.3, 0.75)),
    )


def _color(rng: np.random.Generator, low: float, high: float, tint: float = 0.12) -> np.ndarray:
    """A random, mostly greyish color, linear RGB."""
    return to_linear((rng.uniform(low, high) * (1 + rng.normal(0, tint, 3))).clip(0.01, 1))


def _box(picture: np.ndarray, x: float, y: float, width: float, height: float, color) -> None:
    """Fill an upright rectangle; coordinates and sizes as shares of the side."""
    side = len(picture)
    first = (round(x * side), round(y * side))
    last = (round((x + width) * side), round((y + height) * side))
    cv2.rectangle(picture, first, last, tuple(float(value) for value in color), -1)


def _shelf(picture: np.ndarray, rng: np.random.Generator) -> None:
    """A bookshelf."""
    left, width = rng.uniform(-0.3, 0.6), rng.uniform(0.4, 0.9)
    board = _color(rng, 0.15, 0.6)
    pitch = rng.uniform(0.16, 0.26)
    for row in range(-1, 6):
        top = row * pitch + rng.uniform(0, 0.02)
        _box(picture, left, top, width, pitch, board * 0.35)
        x = left + 0.01
        while x < left + width - 0.05:
            book, tall = rng.uniform(0.015, 0.05), pitch * rng.uniform(0.55, 0.9)
            _box(picture, x, top + pitch - tall, book, tall, _color(rng, 0.1, 0.75, 0.22))
            x += book + rng.exponential(0.004)
        _box(picture, left, top + pitch - 0.012, width, 0.02, board)


def _window(picture: np.ndarray, rng: np.random.Generator) -> None:
    """A window with a bright outside."""
    left, top = rng.uniform(-0.2, 0.7), rng.uniform(-0.2, 0.15)
    width, height = rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.8)
    sky = warm(rng.normal(-0.3, 0.3)) * rng.uniform(0.9, 2.2)
    frame = _color(rng, 0.6, 0.95, 0.04)
    _box(picture, left, top, width, height, frame)
    panes = int(rng.integers(1, 4))
    for pane in range(panes):
        x, pane_width = left + 0.02 + pane * width / panes, width / panes - 0.03
        _box(picture, x, top + 0.02, pane_width, height - 0.04, sky)
        _box(picture, x, top + height * 0.62, pane_width, height * 0.36 - 0.02, sky * 0.35)


def _spots(picture: np.ndarray, rng: np.random.Generator, count: int, bright: float) -> None:
    """Round spots: leaves in the light, street lamps."""
    side = len(picture)
    for _ in range(count):
        center = tuple(int(value) for value in rng.uniform(0, side, 2))
        color = warm(rng.normal(0.3, 0.6)).clip(0.2) * bright * rng.uniform(0.3, 1.0)
        radius = int(side * rng.uniform(0.008, 0.03))
        cv2.circle(picture, center, radius, tuple(float(value) for value in color), -1)


def _paint(backdrop: str, picture: np.ndarray, rng: np.random.Generator) -> float:
    """Paint one kind of background; returns the radius of its unsharpness as a share."""
    ramp = np.linspace(-1, 1, len(picture), dtype=np.float32)
    if backdrop in ("wall", "room", "window"):
        picture *= _color(rng, 0.35, 0.85, 0.08)
        shade = rng.normal(0, 0.22, 2)
        picture *= (1 + shade[0] * ramp[None, :, None] + shade[1] * ramp[:, None, None]).clip(0.3)
    if backdrop == "wall":
        for _ in range(rng.integers(0, 3)):
            x, y, width = rng.uniform(-0.1, 0.8), rng.uniform(0, 0.4), rng.uniform(0.15, 0.4)
            _box(picture, x, y, width, width * 1.2, _color(rng, 0.1, 0.9))
            _box(picture, x + 0.02, y + 0.02, width - 0.04, width * 1.2 - 0.04, _color(rng, 0.3, 1))
        return rng.uniform(0.006, 0.03)
    if backdrop == "room":
        _shelf(picture, rng)
        return rng.uniform(0.006, 0.025)
    if backdrop == "window":
        _window(picture, rng)
        return rng.uniform(0.008, 0.03)
    if backdrop == "garden":
        picture *= np.array([0.10, 0.17, 0.05]) * rng.uniform(0.4, 1.6)
        leaves = clouds(rng, [(8, 0.5), (24, 0.5), (60, 0.4)], picture.shape[:2])
        picture *= np.exp(leaves)[..., None]
        sky = ramp[:, None, None] < rng.uniform(-1.4, 0.0) + 0.25 * leaves[..., None]
        picture[:] = np.where(sky, warm(-0.4) * rng.uniform(0.6, 1.5), picture)
        _spots(picture, rng, 30, 1.0)
        return rng.uniform(0.012, 0.035)
    if backdrop == "street":
        picture *= _color(rng, 0.08, 0.35)
        for _ in range(14):
            width = rng.uniform(0.08, 0.35)
            x, y = rng.uniform(-0.2, 1), rng.uniform(-0.2, 0.8)
            _box(picture, x, y, width, rng.uniform(0.2, 1), _color(rng, 0.1, 0.6))
        _spots(picture, rng, int(rng.integers(5, 30)), rng.uniform(0.5, 3.0))
        return rng.uniform(0.015, 0.04)
    picture *= _color(rng, 0.2, 0.95, 0.06)
    x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.2)
    glow = np.exp(-((ramp[None, :] - x) ** 2 + (ramp[:, None] - y) ** 2) / rng.uniform(0.4, 1.5))
    picture *= (0.45 + 0.75 * glow)[..., None]
    return 0.02


@functools.lru_cache(maxsize=4)
def background(scene: Scene, size: int) -> np.ndarray:
    """The background, out of focus: (size, size, 3) float32, linear RGB; do not write to it."""
    rng = np.random.default_rng([*scene.seed, 1])
    side = 256
    picture = np.ones((side, side, 3), np.float32)
    radius = _paint(scene.backdrop, picture, rng) * side
    picture *= np.exp(0.03 * clouds(rng, [(8, 1.0), (64, 1.0)], (side, side)))[..., None]
    reach = int(np.ceil(radius))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    aperture = (radius + 0.5 - np.hypot(x, y)).clip(0, 1).astype(np.float32)
    picture = cv2.filter2D(picture, -1, aperture / aperture.sum(), borderType=cv2.BORDER_REFLECT)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC).clip(0.0, 4.0)
    picture.flags.writeable = False
    return picture

"""Pictures of a person in a scene: `Person` once, `render` per frame, `apply_camera` per picture."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fwstudy.faces.rendering import raster
from fwstudy.faces.rendering.head import load_head
from fwstudy.faces.rendering.identity import Identity
from fwstudy.faces.rendering.motion import State
from fwstudy.faces.rendering.scene import (
    Scene,
    background,
    even_directions,
    harmonics,
    harmonics_of,
)
from fwstudy.faces.rendering.skin import LUMINANCE, paint_skin, to_encoded, to_linear
from fwstudy.labels import PARTS

SUPERSAMPLING = 2
EYE_SPAN = 0.245
"""Distance of the eyes as a share of the picture's side, at zoom 1."""
NECK, CHIN = 5.5, 6.5
"""Heights (decimetres) between which the turn of the head fades into that of the torso."""
CONTRAST = 0.22
"""Strength of the camera's S-shaped tone curve."""
STRANDED = ("hair_long01", "hair_ponytail01", "hair_short01")
"""Hair whose texture runs along the strands, so that finer ones can be painted in."""
HAIR_GLOSS = {"hair_afro01": 0.0, "hair_braid01": 0.2}
"""Strength of the strands' reflection where it is not one half."""
LASH_TINT = np.array([0.010, 0.008, 0.007])
COSINE_LOBE = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)
"""Per harmonic, the factor from radiance to irradiance / pi (Ramamoorthi and Hanrahan 2001)."""


@dataclass(frozen=True)
class Rendering:
    """One noiseless picture and the truth about it.

    Args:
        linear: (S, S, 3) float32, linear RGB.
        landmarks: (68, 2) float32, pixel coordinates (x, y) in the iBUG-68 order.
        parsing: (S, S) uint8, indices into `labels.PARTS`.
    """

    linear: np.ndarray
    landmarks: np.ndarray
    parsing: np.ndarray


@dataclass(frozen=True)
class Layer:
    """A mesh with holes over the skin: triangles and uv, texture (brightness, alpha), tint."""

    triangles: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    tint: np.ndarray
    part: int | None
    gloss: float
    lift: float


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix (3, 3); radians."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return around_y @ around_x @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])


class Person:
    """Everything about one identity that does not change from frame to frame."""

    def __init__(self, identity: Identity):
        self.identity = identity
        self.head = head = load_head()
        self.controls = head.morph(head.controls, identity.shape)
        self.skin, self.gloss = paint_skin(head, identity)
        self._paint_eyes_and_mouth()
        self._assemble()
        points = self.points(self.controls)
        eyes = points[self.slices["eyes"]]
        self.eyes = np.array([eyes[head.left].mean(0), eyes[~head.left].mean(0)])
        self._precompute_light(points)

    def _paint_eyes_and_mouth(self) -> None:
        textures = self.head.textures
        iris = to_linear(textures[self.identity.iris].astype(np.float32) / 255)
        iris = 0.55 * iris + 0.45 * (iris @ LUMINANCE)[..., None]
        self.iris = np.ascontiguousarray(iris * np.array([0.58, 0.55, 0.53], np.float32))
        teeth = to_linear(textures["teeth"].astype(np.float32) / 255)
        self.teeth = np.ascontiguousarray(teeth * np.array([0.80, 0.74, 0.64], np.float32) + 0.03)
        tongue = to_linear(textures["tongue"].astype(np.float32) / 255)
        self.tongue = np.ascontiguousarray(tongue * np.array([0.55, 0.36, 0.35], np.float32))

    def _layer_texture(self, name: str) -> np.ndarray:
        """Brightness relative to the mean of the opaque texels, and alpha: (h, w, 2) float32."""
        pixels = self.head.textures[name].astype(np.float32) / 255
        alpha = pixels[..., 3]
        brightness = to_linear(pixels[..., :3]) @ LUMINANCE
        if name in STRANDED:
            rng = np.random.default_rng([*self.identity.seed, 2])
            strands = rng.normal(0, 0.28, (10, 220)).astype(np.float32)
            strands = cv2.resize(strands, alpha.shape[::-1], interpolation=cv2.INTER_LINEAR)
            brightness *= np.exp(strands)
        mean = brightness[alpha > 0.5 * alpha.max()].mean() + 1e-4
        contrast = 0.4 if "braid" in name else 0.7  # that texture has highlights painted in
        brightness = (brightness / mean).clip(0.05, 4) ** contrast
        return np.stack([brightness, alpha], axis=2).astype(np.float32)

    def _assemble(self) -> None:
        """Line up all meshes in one list of vertices."""
        head, who = self.head, self.identity
        names = ["eyes", "teeth", "tongue", who.brow, who.lash]
        hair = None if who.hair == "bald" else f"hair_{who.hair}"
        names += [hair] if hair else []
        self.proxies = {name: head.proxies[name] for name in names}
        at = head.subdivision.shape[0]
        self.slices = {"body": slice(0, at)}
        for name, proxy in self.proxies.items():
            self.slices[name] = slice(at, at + len(proxy.anchors))
            at += len(proxy.anchors)
        self.count = at
        eyes = self.proxies["eyes"]
        of_left = head.left[eyes.triangles[:, 0]]
        pieces = [(head.triangles, head.uv, np.full(len(head.triangles), raster.SKIN))]
        sides = np.where(of_left, raster.LEFT_EYE, raster.RIGHT_EYE)
        for name, material in (("eyes", sides), ("teeth", raster.TEETH), ("tongue", raster.TONGUE)):
            proxy = self.proxies[name]
            material = np.broadcast_to(material, len(proxy.triangles))
            pieces.append((proxy.triangles + self.slices[name].start, proxy.uv, material))
        triangles, uv, material = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
        self.triangles = np.ascontiguousarray(triangles, np.int32)
        self.uv = np.ascontiguousarray(uv, np.float32)
        self.material = material.astype(np.int32)
        self.rest = np.zeros((self.count, 3))
        self.rest[self.slices["body"]] = head.subdivision @ head.controls
        hair_tint = np.array(who.hair_tint)
        brow_tint = np.minimum(hair_tint, 0.10) * 0.8
        brow = self._layer(who.brow, brow_tint, 0.0, 0.06)
        left = head.controls[self.proxies[who.brow].anchors[:, 0], 0] > 0
        left = left[brow.triangles[:, 0] - self.slices[who.brow].start]
        self.layers = {
            "left_brow": _part_of(brow, left, "left_brow"),
            "right_brow": _part_of(brow, ~left, "right_brow"),
            "lash": self._layer(who.lash, LASH_TINT, 0.0, 0.05),
        }
        self.cards = np.zeros((0, 3), np.int32)
        self.cards_uv = np.zeros((0, 3, 2), np.float32)
        self.cards_alpha = np.ones((1, 1), np.float32)
        if hair:
            layer = self._layer(hair, hair_tint, HAIR_GLOSS.get(hair, 0.5), 0.0)
            self.layers["hair"] = _part_of(layer, np.ones(len(layer.triangles), bool), "hair")
            self.cards, self.cards_uv = layer.triangles, layer.uv
            self.cards_alpha = np.ascontiguousarray(layer.texture[..., 1])
        self.hair = self.slices.get(hair)

    def _layer(self, name: str, tint: np.ndarray, gloss: float, lift: float) -> Layer:
        proxy, start = self.proxies[name], self.slices[name].start
        texture = self._layer_texture(name)
        return Layer(proxy.triangles + np.int32(start), proxy.uv, texture, tint, None, gloss, lift)

    def _precompute_light(self, points: np.ndarray) -> None:
        normals = self.normals(points)
        self.wrap = np.zeros(self.count)
        if self.hair:
            self.wrap[self.hair] = 0.4
        self.shadowed, self.open_sky = raster.light_transfer(
            points, normals, self.wrap, self.head.coarse, self.cards, self.cards_uv, self.cards_alpha,
            even_directions(96), 128,
        )  # fmt: skip

    def points(self, controls: np.ndarray) -> np.ndarray:
        """All vertices (V, 3) on the given control vertices."""
        placed = [self.head.subdivision @ controls]
        placed += [proxy.fit(controls) for proxy in self.proxies.values()]
        return np.concatenate(placed)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Normals (V, 3) of all meshes; hair points away from the head."""
        normals = raster.vertex_normals(points, self.triangles)
        layers = [layer.triangles for layer in self.layers.values()]
        over = raster.vertex_normals(points, np.concatenate(layers))
        first = self.slices["tongue"].stop
        normals[first:] = over[first:]
        if self.hair:
            place = points[self.hair] - points[self.hair].mean(0)
            inwards = (place * normals[self.hair]).sum(1) < 0
            normals[self.hair][inwards] *= -1
        return normals

    def posed(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Control vertices in a state, and the rotation (3, 3) of the head."""
        units = {f"expression/{name}": amount for name, amount in state.expression.items()}
        controls = self.head.morph(self.controls, units)
        height = self.head.controls[:, 1]
        follows = ((height - NECK) / (CHIN - NECK)).clip(0, 1)[:, None]
        follows = follows * follows * (3 - 2 * follows)
        pivot = self.controls[height > 6.4].mean(0) - [0, 1.1, 0.35]
        rotation = turned(state.yaw, state.pitch, state.roll)
        torso = turned(0.3 * state.yaw, 0, 0)
        moved = (controls - pivot) @ rotation.T + [*state.shift, 0]
        below = (controls - pivot) @ torso.T + np.array([*state.shift, 0]) * 0.6
        return pivot + below + (moved - below) * follows, rotation


def _part_of(layer: Layer, chosen: np.ndarray, part: str) -> Layer:
    """Those triangles of a layer, as one part of the part map."""
    triangles, uv = (np.ascontiguousarray(of[chosen]) for of in (layer.triangles, layer.uv))
    return replace(layer, triangles=triangles, uv=uv, part=PARTS.index(part))


def _project(
    points: np.ndarray, person: Person, scene: Scene, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points (V, 3) to screen (V, 3), x, y in pixels and depth; and the camera's place (3,).

    It looks at the neutral face and does not follow the head: the background stands still.
    """
    middle = person.eyes.mean(0)
    place = np.array([middle[0], middle[1] - 0.16, middle[2] + scene.distance])
    span = np.linalg.norm(person.eyes[0] - person.eyes[1])
    focal = side * EYE_SPAN / span * scene.distance * scene.zoom
    center = side * (np.array([0.5, 0.52]) + scene.framing)
    depth = place[2] - points[:, 2]
    x = (points[:, 0] - place[0]) / depth * focal + center[0]
    y = (place[1] - points[:, 1]) / depth * focal + center[1]
    return np.stack([x, y, depth], axis=1), place


def _illuminate(
    person: Person, scene: Scene, points: np.ndarray, normals: np.ndarray, rotation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Irradiance / pi (V, 3) and the share of each lamp that arrives (V, L)."""
    directions = even_directions(64)
    seen_by_head = harmonics_of(directions, harmonics(directions @ rotation.T) @ scene.surroundings)
    shadowed, unshadowed = person.shadowed @ seen_by_head, person.open_sky @ seen_by_head
    openness = (shadowed / np.maximum(unshadowed, 1e-3)).clip(0.1, 1.0)
    openness[person.slices["eyes"]] = openness[person.slices["eyes"]].clip(0.5)
    openness[person.slices["teeth"]] = 0.45
    openness[person.slices["tongue"]] = 0.3
    around = (harmonics(normals) * COSINE_LOBE) @ scene.surroundings
    irradiance = np.maximum(around, 0.02) * openness
    body, smooth = person.slices["body"], person.head.neighbors
    lit = np.empty((person.count, len(scene.lamp_directions)))
    # red light wanders farthest under the skin: softer edges of light, then a blur over the mesh
    softness = np.array([0.14, 0.06, 0.03])
    for lamp, (direction, color) in enumerate(
        zip(scene.lamp_directions, scene.lamp_colors, strict=True)
    ):
        seen = raster.visibility(
            points, normals, person.head.coarse, person.cards, person.cards_uv, person.cards_alpha,
            direction, 256, 0.025, 2,
        )  # fmt: skip
        seen[body] = 0.5 * seen[body] + 0.5 * (smooth @ seen[body])
        lit[:, lamp] = seen
        facing = (normals @ direction)[:, None]
        soft = ((facing + softness) / (1 + softness)).clip(0, 1)
        soft += person.wrap[:, None] * (1 - soft) * 0.4
        irradiance += soft * seen[:, None] * color
    for channel, rounds in enumerate((3, 1, 0)):
        light = irradiance[body, channel]
        for _ in range(rounds):
            light = 0.5 * light + 0.5 * (smooth @ light)
        irradiance[body, channel] = light
    return irradiance, lit


def _edge_shade(mask: np.ndarray, sigma: float, down: int, darkest: float) -> np.ndarray:
    """Darkening (S, S) of a region towards its rim, more so towards its upper one."""
    inside = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)
    inside = np.roll(inside, down, axis=0)
    share = ((inside - 0.35) / 0.6).clip(0, 1)
    return darkest + (1 - darkest) * share


def render(person: Person, scene: Scene, state: State, size: int) -> Rendering:
    """Draw one frame.

    Args:
        person: who.
        scene: where; fixes light, background and camera.
        state: pose and expression.
        size: side of the picture in pixels.
    """
    side = size * SUPERSAMPLING
    controls, rotation = person.posed(state)
    points = person.points(controls)
    normals = person.normals(points)
    irradiance, lit = _illuminate(person, scene, points, normals, rotation)
    screen, camera = _project(points, person, scene, side)
    surface = raster.Surface(
        person.triangles, person.uv, person.material, points, normals, person.rest, irradiance, lit
    )
    lamps = raster.Lamps(scene.lamp_directions, 1.6 * scene.lamp_colors, camera)
    eyes = points[person.slices["eyes"]]
    left = person.head.left
    centers = np.array([eyes[left].mean(0), eyes[~left].mean(0)])
    gaze = eyes[person.head.irises].mean(1) - centers
    gaze /= np.linalg.norm(gaze, axis=1, keepdims=True)
    looks = raster.Looks(
        person.skin, person.gloss, person.head.part, person.iris, person.teeth, person.tongue,
        np.array(person.identity.cloth), centers, gaze, 0.002,
    )  # fmt: skip
    depth, nearest, weights = raster.draw_triangles(screen, person.triangles, side)
    color = np.zeros((side, side, 4), np.float32)
    parts = np.zeros((side, side), np.uint8)
    raster.shade(nearest, weights, surface, looks, lamps, color, parts)
    material = np.where(nearest >= 0, person.material[nearest], -1)
    for inside, sigma, darkest in (
        ((material == raster.LEFT_EYE) | (material == raster.RIGHT_EYE), 0.008, 0.3),
        ((material == raster.TEETH) | (material == raster.TONGUE), 0.009, 0.25),
    ):
        if inside.any():
            shade = _edge_shade(inside, sigma * side, round(0.004 * side), darkest)
            color[inside, :3] *= shade[inside][:, None]
    color[..., :3] += background(scene, side) * (1 - color[..., 3:])
    _draw_layers(person, screen, surface, lamps, depth, color, parts)
    landmarks = screen[person.head.landmarks]
    return Rendering(
        linear=cv2.resize(color[..., :3], (size, size), interpolation=cv2.INTER_AREA),
        landmarks=(landmarks[:, :2] / SUPERSAMPLING - 0.5).astype(np.float32),
        parsing=pool_labels(parts, SUPERSAMPLING),
    )


def pool_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """One label of each square of `factor` x `factor` pixels, without a shift to any side.

    Args:
        labels: (H, W) of whole numbers; H and W are multiples of `factor`.
        factor: side of a square, in pixels.

    Returns:
        (H / factor, W / factor), of the same dtype: the lower median of each square. Where two labels
        meet that is the label of most of it, and the lower one if both have half.
    """
    height, width = labels.shape
    squares = labels.reshape(height // factor, factor, width // factor, factor).swapaxes(1, 2)
    middle = (factor**2 - 1) // 2
    return np.partition(squares.reshape(*squares.shape[:2], -1), middle, axis=2)[..., middle]


def _draw_layers(
    person: Person,
    screen: np.ndarray,
    surface: raster.Surface,
    lamps: raster.Lamps,
    depth: np.ndarray,
    color: np.ndarray,
    parts: np.ndarray,
) -> None:
    """Brows, lashes, hair, in place."""
    for name, layer in person.layers.items():
        cover = np.zeros(depth.shape, np.float32)
        order = np.argsort(screen[layer.triangles, 2].mean(1), kind="stable")
        raster.draw_cards(
            screen, order, layer.triangles, layer.uv, surface, layer.texture, layer.tint,
            layer.gloss, layer.lift, lamps, depth, color, cover,
        )  # fmt: skip
        if layer.part is not None:
            parts[cover > (0.5 if name == "hair" else 0.2)] = layer.part


def measure_exposure(rendering: Rendering) -> float:
    """Mean luminance a camera would expose for: mostly the face, a little of the rest."""
    luminance = rendering.linear @ LUMINANCE
    face = (rendering.parsing > 0) & (rendering.parsing < PARTS.index("hair"))
    mean = float(luminance.mean())
    return 0.8 * float(luminance[face].mean()) + 0.2 * mean if face.any() else mean


def apply_camera(
    rendering: Rendering, scene: Scene, seed: int | tuple[int, ...], exposure: float | None = None
) -> np.ndarray:
    """What the scene's camera makes of a picture: exposure, lens blur, tone curve, sensor noise.

    Args:
        rendering: the picture.
        scene: whose camera.
        seed: integers that key the noise.
        exposure: luminance to expose for (see `measure_exposure`); None to measure it. Frames of
            one clip, and what is to be blended into them, share one.

    Returns:
        (S, S, 3) uint8, RGB.
    """
    rng = np.random.default_rng(seed)
    exposure = measure_exposure(rendering) if exposure is None else exposure
    gain = scene.exposure * (0.22 / exposure) ** 0.65
    light = rendering.linear * (gain * np.array(scene.white_balance, np.float32))
    light = cv2.GaussianBlur(light.astype(np.float32), (0, 0), scene.blur)
    glare = cv2.GaussianBlur((light - 0.8).clip(0, 2), (0, 0), 0.025 * len(light))
    encoded = to_encoded(light + 0.08 * glare)
    encoded = np.where(encoded > 0.75, 0.75 + 0.25 * np.tanh((encoded - 0.75) / 0.25), encoded)
    encoded = encoded.clip(0, 1) ** scene.gamma
    encoded += CONTRAST * (encoded * encoded * (3 - 2 * encoded) - encoded)
    white = rng.standard_normal(encoded.shape, np.float32)
    grain = 0.6 * white + 0.8 * cv2.GaussianBlur(white, (0, 0), 0.8)
    encoded = encoded + grain * (0.6 + 0.4 * np.sqrt(encoded)) * scene.noise
    return (encoded.clip(0, 1) * 255 + 0.5).astype(np.uint8)

"""Triangle rasterisation, shadows and shading, compiled with numba.

Everything runs on one thread, so results do not depend on the number of cores. Screen space has
x to the right, y downwards, both in pixels with centers at .5, and depth growing away from the eye.
All kernels stay in this one file: numba's cache notices changes of a function's own file only.
"""

from typing import NamedTuple

import numba
import numpy as np

from fwstudy.labels import PARTS

_compiled = numba.njit(cache=True, fastmath=True)
_inlined = numba.njit(cache=True, fastmath=True, boundscheck=False)

SKIN, LEFT_EYE, RIGHT_EYE, TEETH, TONGUE = range(5)
"""Materials of opaque triangles."""
_SKIN_PART, _MOUTH_PART, _CLOTHES_PART = map(PARTS.index, ("skin", "mouth", "clothes"))
_LEFT_EYE_PART, _RIGHT_EYE_PART = map(PARTS.index, ("left_eye", "right_eye"))


class Surface(NamedTuple):
    """Per-vertex and per-triangle arrays of all meshes of one posed person.

    Args:
        triangles: (T, 3) int32, vertex indices.
        uv: (T, 3, 2) float32, texture coordinates of the corners, v upwards.
        material: (T,) int32, `SKIN` and so on.
        position, normal, rest: (V, 3) float64; rest is the place on the unposed neutral head.
        irradiance: (V, 3) float64, diffuse light.
        lit: (V, L) float64, share of each light that arrives.
    """

    triangles: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    position: np.ndarray
    normal: np.ndarray
    rest: np.ndarray
    irradiance: np.ndarray
    lit: np.ndarray


class Looks(NamedTuple):
    """Textures and constants of one person, colors linear RGB.

    Args:
        skin: (H, W, 3) float32, albedo.
        gloss: (H, W, 2) float32, strength and roughness of the reflection.
        part: (H, W) uint8, indices into `labels.PARTS`.
        iris, teeth, tongue: (h, w, 3) float32, albedo.
        cloth: (4,) float64, color and the height of the collar in decimetres.
        eye_center, gaze: (2, 3) float64, left eye first; gaze has length one.
        bump: depth of the pores.
    """

    skin: np.ndarray
    gloss: np.ndarray
    part: np.ndarray
    iris: np.ndarray
    teeth: np.ndarray
    tongue: np.ndarray
    cloth: np.ndarray
    eye_center: np.ndarray
    gaze: np.ndarray
    bump: float


class Lamps(NamedTuple):
    """Distant lamps: unit directions towards them (L, 3) and linear RGB (L, 3); camera (3,)."""

    direction: np.ndarray
    color: np.ndarray
    camera: np.ndarray


# ------------------------------------------------------------------------------ small helpers
@_inlined
def pixel_range(a, b, c, limit):
    """First and last pixel whose center lies within the span of three coordinates."""
    first = int(np.ceil(min(a, b, c) - 0.5))
    last = int(np.floor(max(a, b, c) - 0.5))
    return max(0, first), min(limit - 1, last)


@_inlined
def twice_area(ax, ay, bx, by, cx, cy):
    """Signed double area of a triangle."""
    return (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)


@_inlined
def barycentric(x, y, ax, ay, bx, by, cx, cy, inverse_area):
    """Weights of the three corners at a point; one is negative outside the triangle."""
    second = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) * inverse_area
    third = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) * inverse_area
    return 1.0 - second - third, second, third


@_inlined
def blend3(values, i, j, k, a, b, c):
    """Three channels of a per-vertex array, interpolated."""
    return (
        a * values[i, 0] + b * values[j, 0] + c * values[k, 0],
        a * values[i, 1] + b * values[j, 1] + c * values[k, 1],
        a * values[i, 2] + b * values[j, 2] + c * values[k, 2],
    )


@_inlined
def blend_uv(uv, t, a, b, c):
    """Texture coordinates inside triangle t."""
    return (
        a * uv[t, 0, 0] + b * uv[t, 1, 0] + c * uv[t, 2, 0],
        a * uv[t, 0, 1] + b * uv[t, 1, 1] + c * uv[t, 2, 1],
    )


@_inlined
def dot3(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_inlined
def unit(a):
    scale = 1.0 / (np.sqrt(dot3(a, a)) + 1e-12)
    return a[0] * scale, a[1] * scale, a[2] * scale


@_inlined
def texel(texture, u, v):
    """Row and column of the nearest texel."""
    row = int((1.0 - v) * texture.shape[0])
    column = int(u * texture.shape[1])
    return min(texture.shape[0] - 1, max(0, row)), min(texture.shape[1] - 1, max(0, column))


@_inlined
def sample(texture, u, v, channel):
    """One channel of a texture, bilinear."""
    height, width = texture.shape[:2]
    x, y = u * width - 0.5, (1.0 - v) * height - 0.5
    column, row = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - column, y - row
    left, right = min(width - 1, max(0, column)), min(width - 1, max(0, column + 1))
    top, bottom = min(height - 1, max(0, row)), min(height - 1, max(0, row + 1))
    above = texture[top, left, channel] * (1 - fx) + texture[top, right, channel] * fx
    below = texture[bottom, left, channel] * (1 - fx) + texture[bottom, right, channel] * fx
    return above * (1 - fy) + below * fy


@_inlined
def sample3(texture, u, v):
    return sample(texture, u, v, 0), sample(texture, u, v, 1), sample(texture, u, v, 2)


@_inlined
def lattice(x, y, z):
    """A fixed pseudo-random number in 0..1 for each integer point."""
    mixed = (x * 374761393 + y * 668265263 + z * 2147483647) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFF) / 65535.0


@_inlined
def noise(x, y, z):
    """Smooth value noise in 0..1 with one feature a unit."""
    ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    fx, fy, fz = x - ix, y - iy, z - iz
    fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for dz in range(2):
        for dy in range(2):
            weight = (fz if dz else 1 - fz) * (fy if dy else 1 - fy)
            left, right = lattice(ix, iy + dy, iz + dz), lattice(ix + 1, iy + dy, iz + dz)
            total += weight * (left * (1 - fx) + right * fx)
    return total


@_inlined
def pores(x, y, z):
    """Height of the skin's fine relief; its grain is about two pixels wide."""
    return noise(x * 42, y * 42, z * 42)


# ------------------------------------------------------------------------------------ geometry
@_compiled
def vertex_normals(points, triangles):
    """Area-weighted unit normals (V, 3) of a mesh (V, 3), (T, 3)."""
    normals = np.zeros_like(points)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t]
        ax, ay, az = points[j] - points[i]
        bx, by, bz = points[k] - points[i]
        for vertex in (i, j, k):
            normals[vertex, 0] += ay * bz - az * by
            normals[vertex, 1] += az * bx - ax * bz
            normals[vertex, 2] += ax * by - ay * bx
    for vertex in range(points.shape[0]):
        x, y, z = unit((normals[vertex, 0], normals[vertex, 1], normals[vertex, 2]))
        normals[vertex, 0], normals[vertex, 1], normals[vertex, 2] = x, y, z
    return normals


@_compiled
def draw_triangles(screen, triangles, size):
    """Draw opaque triangles into an empty square picture.

    Args:
        screen: (V, 3) float64, x, y, depth.
        triangles: (T, 3) int32.
        size: side of the picture in pixels.

    Returns:
        depth (size, size) float64, 1e9 where empty; triangle (size, size) int32, -1 where empty;
        corner weights (size, size, 3) float32.
    """
    depth = np.full((size, size), 1e9)
    nearest = np.full((size, size), -1, np.int32)
    weights = np.zeros((size, size, 3), np.float32)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t]
        ax, ay, bx, by = screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1]
        cx, cy = screen[k, 0], screen[k, 1]
        area = twice_area(ax, ay, bx, by, cx, cy)
        if area == 0:
            continue
        left, right = pixel_range(ax, bx, cx, size)
        top, bottom = pixel_range(ay, by, cy, size)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                a, b, c = barycentric(x + 0.5, y + 0.5, ax, ay, bx, by, cx, cy, 1.0 / area)
                if a < 0 or b < 0 or c < 0:
                    continue
                z = a * screen[i, 2] + b * screen[j, 2] + c * screen[k, 2]
                if z < depth[y, x]:
                    depth[y, x] = z
                    nearest[y, x] = t
                    weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = a, b, c
    return depth, nearest, weights


# ------------------------------------------------------------------------------------- shadows
@_compiled
def draw_depth(screen, triangles, uv, alpha, depth):
    """Draw triangles into a depth map, leaving out texels of which alpha is below one half."""
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t]
        ax, ay, bx, by = screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1]
        cx, cy = screen[k, 0], screen[k, 1]
        area = twice_area(ax, ay, bx, by, cx, cy)
        if area == 0:
            continue
        left, right = pixel_range(ax, bx, cx, width)
        top, bottom = pixel_range(ay, by, cy, height)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                a, b, c = barycentric(x + 0.5, y + 0.5, ax, ay, bx, by, cx, cy, 1.0 / area)
                if a < 0 or b < 0 or c < 0:
                    continue
                z = a * screen[i, 2] + b * screen[j, 2] + c * screen[k, 2]
                if z < depth[y, x]:
                    if alpha.shape[0] > 1:
                        u, v = blend_uv(uv, t, a, b, c)
                        if alpha[texel(alpha, u, v)] < 0.5:
                            continue
                    depth[y, x] = z


@_compiled
def visibility(points, normals, solid, cards, cards_uv, cards_alpha, direction, size, bias, reach):
    """Share of a distant lamp that each vertex sees, by a shadow map.

    Args:
        points, normals: (V, 3) float64.
        solid: (T, 3) int32, opaque triangles that cast shadows.
        cards, cards_uv, cards_alpha: (C, 3) int32, (C, 3, 2), (h, w): hair with holes.
        direction: (3,) float64, unit vector towards the lamp.
        size: side of the shadow map in pixels.
        bias: distance (decimetres) by which a point is lifted off its surface.
        reach: the map is averaged over (2 reach + 1) squared pixels.

    Returns:
        (V,) float64 in 0..1.
    """
    d = (direction[0], direction[1], direction[2])
    across = unit((d[2], 0.0, -d[0])) if abs(d[1]) < 0.95 else unit((0.0, d[2], -d[1]))
    upward = (
        d[1] * across[2] - d[2] * across[1],
        d[2] * across[0] - d[0] * across[2],
        d[0] * across[1] - d[1] * across[0],
    )
    screen = np.empty((points.shape[0], 3))
    for i in range(points.shape[0]):
        p = (points[i, 0], points[i, 1], points[i, 2])
        screen[i, 0], screen[i, 1], screen[i, 2] = dot3(p, across), dot3(p, upward), -dot3(p, d)
    left, top = screen[:, 0].min(), screen[:, 1].min()
    scale = (size - 4) / max(screen[:, 0].max() - left, screen[:, 1].max() - top)
    for i in range(points.shape[0]):
        screen[i, 0] = (screen[i, 0] - left) * scale + 2
        screen[i, 1] = (screen[i, 1] - top) * scale + 2
    depth = np.full((size, size), 1e9)
    none = np.ones((1, 1), np.float32)
    draw_depth(screen, solid, cards_uv, none, depth)
    draw_depth(screen, cards, cards_uv, cards_alpha, depth)
    seen = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        n = (normals[i, 0], normals[i, 1], normals[i, 2])
        x = screen[i, 0] + dot3(n, across) * bias * scale
        y = screen[i, 1] + dot3(n, upward) * bias * scale
        z = screen[i, 2] - dot3(n, d) * bias - bias * 0.8
        count = 0
        for dy in range(-reach, reach + 1):
            row = min(size - 1, max(0, int(y + dy)))
            for dx in range(-reach, reach + 1):
                count += z < depth[row, min(size - 1, max(0, int(x + dx)))]
        seen[i] = count / (2 * reach + 1) ** 2
    return seen


@_compiled
def spherical_harmonics(x, y, z):
    """The nine real spherical harmonics up to degree two."""
    return (
        0.282095,
        0.488603 * y,
        0.488603 * z,
        0.488603 * x,
        1.092548 * x * y,
        1.092548 * y * z,
        0.315392 * (3 * z * z - 1),
        1.092548 * x * z,
        0.546274 * (x * x - y * y),
    )


@_compiled
def light_transfer(points, normals, wrap, solid, cards, cards_uv, cards_alpha, directions, size):
    """Diffuse transfer of light from the surroundings to each vertex, with shadows and without.

    Source: Sloan, Kautz and Snyder, Precomputed Radiance Transfer, SIGGRAPH 2002.

    Args:
        points, normals, solid, cards, cards_uv, cards_alpha: as in `visibility`.
        wrap: (V,) float64, share of light that reaches a vertex whatever its normal (hair).
        directions: (D, 3) float64, evenly spread over the sphere.
        size: side of the shadow maps.

    Returns:
        (V, 9) and (V, 9): their products with the harmonics of the radiance are the irradiance
        divided by pi.
    """
    shadowed = np.zeros((points.shape[0], 9))
    open_sky = np.zeros((points.shape[0], 9))
    for d in range(directions.shape[0]):
        direction = directions[d]
        seen = visibility(
            points, normals, solid, cards, cards_uv, cards_alpha, direction, size, 0.03, 0
        )
        harmonics = spherical_harmonics(direction[0], direction[1], direction[2])
        for i in range(points.shape[0]):
            cosine = 0.0
            for axis in range(3):
                cosine += normals[i, axis] * direction[axis]
            cosine = 0.25 * wrap[i] + (1 - wrap[i]) * max(0.0, cosine)
            weight = cosine * 4 / directions.shape[0]
            for index in range(9):
                open_sky[i, index] += weight * harmonics[index]
                shadowed[i, index] += weight * seen[i] * harmonics[index]
    return shadowed, open_sky


# ------------------------------------------------------------------------------------- shading
@_inlined
def schlick(cosine, reflectance):
    """Fresnel reflection at an angle, from that at normal incidence."""
    rest = 1 - cosine
    square = rest * rest
    return reflectance + (1 - reflectance) * square * square * rest


@_inlined
def microfacet(normal, view, light, roughness, reflectance):
    """Reflection (GGX, Smith, Schlick) of a lamp of unit irradiance, times the cosine."""
    facing, seen = dot3(normal, light), max(1e-3, dot3(normal, view))
    if facing <= 0:
        return 0.0
    half = unit((light[0] + view[0], light[1] + view[1], light[2] + view[2]))
    along, towards = max(0.0, dot3(normal, half)), max(0.0, dot3(view, half))
    square = roughness * roughness * roughness * roughness
    spread = square / (np.pi * (along * along * (square - 1) + 1) ** 2)
    k = (roughness + 1) ** 2 / 8
    masking = 1.0 / ((facing * (1 - k) + k) * (seen * (1 - k) + k))
    fresnel = schlick(towards, reflectance)
    return spread * masking * fresnel / 4 * facing


@_inlined
def reflect(normal, view, lamps, lit, roughness, reflectance):
    """Reflected color of all lamps; lit (L,) is the share of each that arrives."""
    red = green = blue = 0.0
    for lamp in range(lamps.direction.shape[0]):
        if lit[lamp] <= 0:
            continue
        light = (lamps.direction[lamp, 0], lamps.direction[lamp, 1], lamps.direction[lamp, 2])
        softened = min(1.0, np.sqrt(roughness * roughness + (0.02 if lamp == 0 else 0.12)))
        amount = lit[lamp] * microfacet(normal, view, light, softened, reflectance)
        red += amount * lamps.color[lamp, 0]
        green += amount * lamps.color[lamp, 1]
        blue += amount * lamps.color[lamp, 2]
    return red, green, blue


@_inlined
def bumped(normal, at, depth):
    """The normal tilted by the slope of the pores."""
    step = 0.004
    height = pores(at[0], at[1], at[2])
    slope = (
        (pores(at[0] + step, at[1], at[2]) - height) / step,
        (pores(at[0], at[1] + step, at[2]) - height) / step,
        (pores(at[0], at[1], at[2] + step) - height) / step,
    )
    along = dot3(slope, normal)
    return unit(
        (
            normal[0] - depth * (slope[0] - along * normal[0]),
            normal[1] - depth * (slope[1] - along * normal[1]),
            normal[2] - depth * (slope[2] - along * normal[2]),
        )
    )


@_inlined
def eye_normal(at, center, gaze):
    """Normal of the eyeball, steeper where the cornea bulges."""
    normal = unit((at[0] - center[0], at[1] - center[1], at[2] - center[2]))
    towards = dot3(normal, (gaze[0], gaze[1], gaze[2]))
    if towards < 0.88:
        return normal
    bulge = 0.7
    return unit(
        (
            normal[0] * (1 + bulge) - gaze[0] * bulge * towards,
            normal[1] * (1 + bulge) - gaze[1] * bulge * towards,
            normal[2] * (1 + bulge) - gaze[2] * bulge * towards,
        )
    )


@_inlined
def is_cloth(rest, collar):
    """Whether a place of the neutral body lies below a round neckline."""
    dip = 0.30 * max(0.0, 1 - abs(rest[0]) * 1.3) * (1.0 if rest[2] > 0 else 0.2)
    return rest[1] < collar + 0.12 - dip


@_compiled
def shade(nearest, weights, surface, looks, lamps, color, part):
    """Color the opaque pixels.

    Args:
        nearest, weights: as given by `draw_triangles`.
        surface, looks, lamps: what to draw.
        color: (S, S, 4) float32, written: linear RGB and coverage.
        part: (S, S) uint8, written: indices into `labels.PARTS`.
    """
    lit = np.zeros(lamps.direction.shape[0])
    for y in range(nearest.shape[0]):
        for x in range(nearest.shape[1]):
            t = nearest[y, x]
            if t < 0:
                continue
            i, j, k = surface.triangles[t]
            a, b, c = weights[y, x, 0], weights[y, x, 1], weights[y, x, 2]
            u, v = blend_uv(surface.uv, t, a, b, c)
            at = blend3(surface.position, i, j, k, a, b, c)
            rest = blend3(surface.rest, i, j, k, a, b, c)
            normal = unit(blend3(surface.normal, i, j, k, a, b, c))
            irradiance = blend3(surface.irradiance, i, j, k, a, b, c)
            for lamp in range(lit.shape[0]):
                lit[lamp] = (
                    a * surface.lit[i, lamp] + b * surface.lit[j, lamp] + c * surface.lit[k, lamp]
                )
            camera = lamps.camera
            view = unit((camera[0] - at[0], camera[1] - at[1], camera[2] - at[2]))
            material = surface.material[t]
            strength, roughness, reflectance, label = 1.0, 0.3, 0.03, _SKIN_PART
            if material == SKIN and is_cloth(rest, looks.cloth[3]):
                weave = 0.85 + 0.3 * noise(rest[0] * 22, rest[1] * 22, rest[2] * 22)
                albedo = (
                    looks.cloth[0] * weave,
                    looks.cloth[1] * weave,
                    looks.cloth[2] * weave,
                )
                strength, roughness, label = 0.12, 0.8, _CLOTHES_PART
            elif material == SKIN:
                albedo = sample3(looks.skin, u, v)
                strength, roughness = sample(looks.gloss, u, v, 0), sample(looks.gloss, u, v, 1)
                normal = bumped(normal, rest, looks.bump)
                label = looks.part[texel(looks.part, u, v)]
            elif material == LEFT_EYE or material == RIGHT_EYE:
                side = 0 if material == LEFT_EYE else 1
                albedo = sample3(looks.iris, u, v)
                normal = eye_normal(at, looks.eye_center[side], looks.gaze[side])
                strength, roughness = 1.6, 0.08
                label = _LEFT_EYE_PART if side == 0 else _RIGHT_EYE_PART
            elif material == TEETH:
                albedo = sample3(looks.teeth, u, v)
                strength, roughness, reflectance, label = 0.5, 0.28, 0.04, _MOUTH_PART
            else:
                albedo = sample3(looks.tongue, u, v)
                strength, roughness, label = 0.5, 0.35, _MOUTH_PART
            gleam = reflect(normal, view, lamps, lit, roughness, reflectance)
            grazing = schlick(max(0.0, dot3(normal, view)), reflectance)
            mirrored = min(grazing, 0.3) * strength * (1 - 0.7 * roughness) * 0.5
            for channel in range(3):
                diffuse = irradiance[channel]
                color[y, x, channel] = (
                    albedo[channel] * diffuse + strength * gleam[channel] + mirrored * diffuse
                )
            color[y, x, 3] = 1.0
            part[y, x] = label


@_inlined
def strand_gleam(normal, view, lamps, lit, shift, tint):
    """Reflection of hair strands that hang along the surface (Kajiya and Kay 1989, two lobes)."""
    down = -normal[1]
    strand = unit((-down * normal[0], -1.0 - down * normal[1], -down * normal[2]))
    red = green = blue = 0.0
    for lamp in range(lamps.direction.shape[0]):
        light = (lamps.direction[lamp, 0], lamps.direction[lamp, 1], lamps.direction[lamp, 2])
        half = unit((light[0] + view[0], light[1] + view[1], light[2] + view[2]))
        along = dot3(strand, half)
        first = max(0.0, 1 - (along + shift) ** 2) ** 60 * 0.05
        second = max(0.0, 1 - (along - 0.15 + shift) ** 2) ** 14
        amount = lit[lamp] * max(0.0, 0.25 + 0.75 * dot3(normal, light))
        red += amount * lamps.color[lamp, 0] * (first + second * tint[0] * 0.5)
        green += amount * lamps.color[lamp, 1] * (first + second * tint[1] * 0.5)
        blue += amount * lamps.color[lamp, 2] * (first + second * tint[2] * 0.5)
    return red, green, blue


@_compiled
def draw_cards(
    screen, order, triangles, uv, surface, texture, tint, gloss, lift, lamps, depth, color, cover
):
    """Blend a layer with holes (hair, brows, lashes) over the picture.

    Drawn nearest first, so that what lies under opaque strands need not be shaded.

    Args:
        screen: (V, 3) float64.
        order: (C,) int64, the triangles from near to far.
        triangles, uv: (C, 3) int32 into the vertices of the surface, (C, 3, 2) float32.
        surface: positions, normals and light per vertex.
        texture: (h, w, 2) float32, relative brightness and alpha.
        tint: (3,) float64, linear RGB.
        gloss: strength of the strands' reflection, 0 for none.
        lift: distance by which the layer may lie behind the skin and still be seen.
        lamps: lights and camera.
        depth: (S, S) float64, of the opaque triangles.
        color: (S, S, 4) float32, blended in place.
        cover: (S, S) float32, zeros; the layer's coverage is written there.
    """
    size = depth.shape[0]
    own = np.zeros((size, size, 3), np.float32)
    lit = np.zeros(lamps.direction.shape[0])
    for index in range(order.shape[0]):
        t = order[index]
        i, j, k = triangles[t]
        ax, ay, bx, by = screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1]
        cx, cy = screen[k, 0], screen[k, 1]
        area = twice_area(ax, ay, bx, by, cx, cy)
        if area == 0:
            continue
        left, right = pixel_range(ax, bx, cx, size)
        top, bottom = pixel_range(ay, by, cy, size)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                a, b, c = barycentric(x + 0.5, y + 0.5, ax, ay, bx, by, cx, cy, 1.0 / area)
                if a < 0 or b < 0 or c < 0:
                    continue
                z = a * screen[i, 2] + b * screen[j, 2] + c * screen[k, 2]
                if z - lift > depth[y, x] or cover[y, x] > 0.98:
                    continue
                u, v = blend_uv(uv, t, a, b, c)
                alpha = sample(texture, u, v, 1)
                if alpha < 0.02:
                    continue
                brightness = sample(texture, u, v, 0)
                red = green = blue = 0.0
                if gloss > 0:
                    at = blend3(surface.position, i, j, k, a, b, c)
                    normal = unit(blend3(surface.normal, i, j, k, a, b, c))
                    camera = lamps.camera
                    view = unit((camera[0] - at[0], camera[1] - at[1], camera[2] - at[2]))
                    if dot3(normal, view) < 0:
                        normal = (-normal[0], -normal[1], -normal[2])
                    for lamp in range(lit.shape[0]):
                        lit[lamp] = a * surface.lit[i, lamp] + b * surface.lit[j, lamp]
                        lit[lamp] += c * surface.lit[k, lamp]
                    shift = (brightness - 1.0) * 0.25
                    red, green, blue = strand_gleam(normal, view, lamps, lit, shift, tint)
                shine = gloss * brightness
                gleam = (red * shine, green * shine, blue * shine)
                light = blend3(surface.irradiance, i, j, k, a, b, c)
                share = (1 - cover[y, x]) * alpha
                for channel in range(3):
                    diffuse = tint[channel] * brightness * light[channel]
                    own[y, x, channel] += share * (diffuse + gleam[channel])
                cover[y, x] += share
    for y in range(size):
        for x in range(size):
            for channel in range(3):
                color[y, x, channel] *= 1 - cover[y, x]
                color[y, x, channel] += own[y, x, channel]
            color[y, x, 3] += (1 - color[y, x, 3]) * cover[y, x]

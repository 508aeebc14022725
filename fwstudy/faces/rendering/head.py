"""The head model: neutral mesh, morph targets, fitted parts and textures, read once per process."""

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy import sparse

from fwstudy.labels import PARTS

ASSETS = Path(__file__).resolve().parents[3] / "data" / "assets" / "faces.npz"


@dataclass(frozen=True)
class Proxy:
    """A mesh that hangs on the control vertices (eyes, teeth, hair and so on).

    Args:
        anchors: (N, 3) int64, the control vertices each vertex hangs on.
        weights: (N, 3) float64, their weights.
        offsets: (N, 3) float64, decimetres, added.
        triangles: (T, 3) int32.
        uv: (T, 3, 2) float32, texture coordinates of the corners, v upwards.
    """

    anchors: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray

    def fit(self, controls: np.ndarray) -> np.ndarray:
        """Place the mesh on control vertices (C, 3); returns (N, 3) float64."""
        return (controls[self.anchors] * self.weights[..., None]).sum(1) + self.offsets


@dataclass(frozen=True)
class Head:
    """The head model. Lengths are decimetres, y is up, z towards the camera, x to *its* right,
    i.e. to the subject's left.

    Args:
        controls: (C, 3) float64, vertices of the neutral mesh before subdivision.
        subdivision: (V, C) sparse, controls -> vertices.
        triangles, uv: (T, 3) int32 and (T, 3, 2) float32 of the subdivided mesh.
        coarse: (T / 4, 3) int32, a coarser mesh over the same vertices, enough for shadows.
        neighbors: (V, V) sparse, mean over the neighbors on the mesh.
        landmarks: (68,) int64, vertices in the iBUG-68 order.
        targets: name -> (indices (N,), displacements (N, 3)) of the controls.
        proxies: name -> fitted mesh.
        textures: name -> (h, w, 3 or 4) uint8, RGB(A); masks (h, w).
        part: (h, w) uint8, indices into `labels.PARTS` on the skin texture.
        irises: (2, 8) int64, vertices of "eyes" around the pupils, left eye first.
        left: (N,) bool, which vertices of "eyes" belong to the left eye.
    """

    controls: np.ndarray
    subdivision: sparse.csr_matrix
    triangles: np.ndarray
    uv: np.ndarray
    coarse: np.ndarray
    neighbors: sparse.csr_matrix
    landmarks: np.ndarray
    targets: dict[str, tuple[np.ndarray, np.ndarray]]
    proxies: dict[str, Proxy]
    textures: dict[str, np.ndarray]
    part: np.ndarray
    irises: np.ndarray
    left: np.ndarray

    def morph(self, controls: np.ndarray, weights: dict[str, float]) -> np.ndarray:
        """Add morph targets to control vertices.

        Args:
            controls: (C, 3) float64; left untouched.
            weights: target name -> amount, 1 for the full target.

        Returns:
            (C, 3) float64.

        Raises:
            KeyError: a target that the packed file lacks.
        """
        moved = controls.copy()
        for name, amount in weights.items():
            indices, displacements = self.targets[name]
            moved[indices] += amount * displacements
        return moved


def split_quads(quads: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quads (F, 4) with uv (F, 4, 2) -> triangles (T, 3) int32, (T, 3, 2) float32."""
    real = quads[:, 2] != quads[:, 3]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[real][:, [0, 2, 3]]])
    corners = np.concatenate([uv[:, [0, 1, 2]], uv[real][:, [0, 2, 3]]])
    return triangles.astype(np.int32), corners.astype(np.float32)


def _decode(coded: np.ndarray) -> np.ndarray:
    pixels = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(pixels, order)


def _neighbor_mean(triangles: np.ndarray, count: int) -> sparse.csr_matrix:
    ends = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    ends = np.concatenate([ends, ends[:, ::-1]])
    linked = sparse.csr_matrix((np.ones(len(ends)), ends.T), (count, count))
    linked.data[:] = 1.0
    degree = np.maximum(1.0, np.asarray(linked.sum(1)).ravel())
    return (sparse.diags(1 / degree) @ linked).tocsr()


def _part_texture(
    rest: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray,
    subdivision: sparse.csr_matrix,
    textures: dict,
    targets: dict,
) -> np.ndarray:
    """Label the skin texture: nose where nose targets move the mesh, lips and lids by masks."""
    part = np.full(textures["mask_lips"].shape, PARTS.index("skin"), np.uint8)
    size = np.array(part.shape[::-1])
    corners = uv * [1, -1] + [0, 1]
    moved = np.zeros(subdivision.shape[1])
    for name in ("nose-scale-depth-incr", "nose-scale-horiz-incr", "nose-volume-incr"):
        indices, displacements = targets[f"shape/{name}"]
        length = np.linalg.norm(displacements, axis=1)
        moved[indices] = np.maximum(moved[indices], length / length.max())
    nose = (subdivision @ moved)[triangles].mean(1) > 0.34
    texel = (corners.mean(1) * (size - 1)).astype(int)
    lids = cv2.dilate(textures["mask_eyelids"], np.ones((5, 5)))[texel[:, 1], texel[:, 0]] > 60
    height, across = rest[triangles].mean(1)[:, 1], rest[triangles].mean(1)[:, 0]
    lids &= (height > 7.0) & (height < 7.6) & (rest[triangles].mean(1)[:, 2] > 0.8)
    for chosen, name in (
        (nose, "nose"),
        (lids & (across > 0), "left_eye"),
        (lids & (across < 0), "right_eye"),
    ):
        for triangle in np.flatnonzero(chosen):
            polygon = np.round(corners[triangle] * size).astype(np.int32)
            cv2.fillConvexPoly(part, polygon, PARTS.index(name))
    part[textures["mask_lips"] > 100] = PARTS.index("mouth")
    part[textures["mask_inside-mouth"] > 60] = PARTS.index("mouth")
    return part


@functools.cache
def load_head(path: Path = ASSETS) -> Head:
    """Read the packed head model; the second call returns the same object.

    Args:
        path: what ``data/assets/pack.py`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing; it is tracked, or made by data/assets/pack.py")
    with np.load(path) as file:
        arrays = dict(file)
    controls = arrays["vertices"].astype(np.float64)
    starts = arrays["subdivision/starts"]
    subdivision = sparse.csr_matrix(
        (
            arrays["subdivision/data"].astype(np.float64),
            arrays["subdivision/indices"].astype(np.int32),
            starts,
        ),
        shape=(len(starts) - 1, len(controls)),
    )
    quads = arrays["quads"].astype(np.int32)
    triangles, uv = split_quads(quads, arrays["uv"] / np.float32(65535))
    coarse = quads.reshape(-1, 4, 4)[:, :, 0]  # the old corner of each of a face's four quads
    coarse = np.concatenate([coarse[:, [0, 1, 2]], coarse[:, [0, 2, 3]]])
    rest = subdivision @ controls
    targets, at = {}, arrays["targets/starts"]
    for index, name in enumerate(arrays["targets/names"]):
        chosen = slice(at[index], at[index + 1])
        displacements = arrays["targets/displacements"][chosen] / 1000.0
        targets[str(name)] = (arrays["targets/indices"][chosen].astype(np.int64), displacements)
    proxies = {}
    for key, anchors in arrays.items():
        if key.startswith("proxy/") and key.endswith("/anchors"):
            prefix = key.removesuffix("anchors")
            faces, corners = split_quads(
                arrays[prefix + "quads"].astype(np.int32), arrays[prefix + "uv"] / 65535.0
            )
            proxies[prefix[6:-1]] = Proxy(
                anchors.astype(np.int64),
                arrays[prefix + "weights"].astype(np.float64),
                arrays[prefix + "offsets"].astype(np.float64),
                faces,
                corners,
            )
    proxies["eyes"] = _without_cornea(proxies["eyes"])
    textures = {k[8:]: _decode(v) for k, v in arrays.items() if k.startswith("texture/")}
    for name in textures:
        if name.startswith("mask_"):
            textures[name] = np.ascontiguousarray(textures[name][..., 0])
    eyes = proxies["eyes"]
    left = controls[eyes.anchors[:, 0], 0] > 0
    forward, drawn = eyes.fit(controls)[:, 2], np.zeros(len(left), bool)
    drawn[np.unique(eyes.triangles)] = True
    irises = []
    for side in (left, ~left):
        members = np.flatnonzero(side & drawn)
        irises.append(members[np.argsort(-forward[members], kind="stable")[:8]])
    return Head(
        controls=controls,
        subdivision=subdivision,
        triangles=triangles,
        uv=uv,
        coarse=np.ascontiguousarray(coarse),
        neighbors=_neighbor_mean(triangles, len(rest)),
        landmarks=arrays["landmarks"].astype(np.int64),
        targets=targets,
        proxies=proxies,
        textures=textures,
        part=_part_texture(rest, triangles, uv, subdivision, textures, targets),
        irises=np.array(irises),
        left=left,
    )


def _without_cornea(eyes: Proxy) -> Proxy:
    """Drop the clear shell in front of the iris; its texture is the black dot in the corner."""
    shell = ((eyes.uv[..., 0] > 0.86) & (eyes.uv[..., 1] < 0.14)).all(1)
    return Proxy(eyes.anchors, eyes.weights, eyes.offsets, eyes.triangles[~shell], eyes.uv[~shell])

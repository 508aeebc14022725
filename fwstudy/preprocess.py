"""From clips to face crops: codec, one box for image and mask, splits disjoint by identity."""

from pathlib import Path

import cv2
import joblib
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from fwstudy.codec import compress
from fwstudy.crops import CropSet
from fwstudy.faces.clips import ORIGINAL, PART_PREFIX, load_clip, load_header


def face_box(landmarks: np.ndarray, scale: float) -> np.ndarray:
    """The square around a face: the landmarks' bounding box, enlarged, about its centre.

    FaceForensics++ (Roessler et al. 2019) enlarges the detected box by 1.3.

    Args:
        landmarks: (K, 2), pixel coordinates (x, y).
        scale: side of the square ÷ longer side of the bounding box.

    Returns:
        (4,) int: left, top, right, bottom; may reach outside the image.
    """
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    center, side = (low + high) / 2, (high - low).max() * scale
    corner = np.round(center - side / 2).astype(int)
    return np.concatenate([corner, corner + max(2, round(side))])


def crop(image: np.ndarray, box: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """Cut a square box and resize it; what lies outside the image is mirrored.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        box: (4,) int as from `face_box`.
        size: side of the result, pixels.
        interpolation: an OpenCV flag, e.g. ``cv2.INTER_AREA``; ``cv2.INTER_NEAREST`` for labels.

    Returns:
        (size, size) or (size, size, 3) uint8.
    """
    left, top, right, bottom = box
    height, width = image.shape[:2]
    margin = max(0, -left, -top, right - width, bottom - height)
    if margin:
        image = cv2.copyMakeBorder(image, *[margin] * 4, cv2.BORDER_REFLECT_101)
    cut = image[top + margin : bottom + margin, left + margin : right + margin]
    return cv2.resize(cut, (size, size), interpolation=interpolation)


def lending_groups(pairs: pd.DataFrame) -> dict[str, str]:
    """Identities that lend each other faces, directly or through others, form one group.

    Args:
        pairs: columns ``identity`` and ``source``.

    Returns:
        identity to the first identity of its group (of the connected component).
    """
    names = sorted(set(pairs["identity"]) | set(pairs["source"]))
    index = pd.Series(range(len(names)), index=names)
    links = (index[pairs["identity"]].to_numpy(), index[pairs["source"]].to_numpy())
    graph = coo_array((np.ones(len(pairs)), links), shape=(len(names), len(names)))
    _, number = connected_components(graph, directed=False)
    first = pd.Series(names).groupby(number).first()
    return dict(zip(names, first[number], strict=True))


def split_identities(groups: dict[str, str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Assign every identity to a split so that no forgery joins two splits.

    Whole groups are drawn at random, each going to the split that is furthest below its share.

    Args:
        groups: as from `lending_groups`.
        shares: split name to share of the identities; the shares sum to 1.
        seed: of the drawing order.

    Returns:
        identity to split name.

    Raises:
        ValueError: fewer groups than splits.
    """
    members = pd.Series(groups).sort_index().groupby(pd.Series(groups)).groups
    if len(members) < len(shares):
        raise ValueError(
            f"{len(groups)} identities form {len(members)} group(s) that lend each other faces: "
            f"too few for the splits {', '.join(shares)}"
        )
    filled, assigned = dict.fromkeys(shares, 0), {}
    for name in np.random.default_rng(seed).permutation(sorted(members)):
        split = min(filled, key=lambda name: filled[name] / shares[name])
        filled[split] += len(members[name])
        assigned.update(dict.fromkeys(members[name], split))
    return assigned


def crop_clip(path: Path, qualities: list[str], settings: dict) -> list[tuple]:
    """All crops of one clip.

    Args:
        path: a clip file.
        qualities: codec qualities to encode every variant at; forged parts at the first only.
        settings: ``crop_scale``, ``crop_size``.

    Returns:
        a tuple for each crop: row of the manifest (dict), image (size, size, 3) uint8,
        changed pixels (size, size) bool, part map (size, size) uint8.
    """
    clip, size, crops = load_clip(path), settings["crop_size"], []
    boxes = [face_box(points, settings["crop_scale"]) for points in clip.landmarks]
    parts = [
        crop(part, box, size, cv2.INTER_NEAREST)
        for part, box in zip(clip.parts, boxes, strict=True)
    ]
    for name, variant in clip.variants.items():
        kind = "part" if name.startswith(PART_PREFIX) else "whole"
        for quality in qualities[:1] if kind == "part" else qualities:
            # A variant of the first frames is encoded with the clip's rest behind it, so that the
            # codec treats it like its original.
            rest = clip.variants[ORIGINAL].frames[len(variant.frames) :]
            frames, num_bytes = compress(np.concatenate([variant.frames, rest]), quality)
            frames = frames[: len(variant.frames)]
            for number, (frame, box) in enumerate(zip(frames, boxes, strict=False)):
                row = {
                    "clip": clip.name,
                    "frame": number,
                    "quality": quality,
                    "kind": kind,
                    "variant": name.removeprefix(PART_PREFIX),
                    "label": int(name != ORIGINAL),
                    "identity": clip.identity,
                    "source": variant.source,
                    "bytes": num_bytes,
                    **clip.attributes,
                }
                changed = variant.changed[number].astype(np.uint8) * 255
                image = crop(frame, box, size, cv2.INTER_AREA)
                changed = crop(changed, box, size, cv2.INTER_AREA) > 127
                crops.append((row, image, changed, parts[number]))
    return crops


def build_crops(
    paths: list[Path],
    folder: Path,
    qualities: list[str],
    shares: dict[str, float],
    seed: int,
    settings: dict,
    num_workers: int,
) -> CropSet:
    """Crop every clip and write one crop set.

    Args:
        paths: the clip files.
        folder: where the crop set goes.
        qualities: H.264 quality of all crops, then those at which the test split is cropped again.
        shares: share of the identities in each split, see `split_identities`.
        seed: of the split.
        settings: see `crop_clip`.
        num_workers: processes; -1 for one per core. Never changes a pixel.

    Raises:
        ValueError: no clips, or a clip that cannot be read (named).
    """
    if not paths:
        raise ValueError("there are no clips to crop: the stage `faces` wrote none")
    headers = [load_header(path) for path in paths]
    pairs = [(head["identity"], source) for head in headers for source in head["sources"].values()]
    groups = lending_groups(pd.DataFrame(pairs, columns=["identity", "source"]))
    splits = split_identities(groups, shares, seed)
    jobs = (
        joblib.delayed(crop_clip)(
            path, qualities if splits[head["identity"]] == "test" else qualities[:1], settings
        )
        for path, head in zip(paths, headers, strict=True)
    )
    found = joblib.Parallel(n_jobs=num_workers, return_as="generator")(jobs)
    crops = [row for rows in tqdm(found, total=len(paths), desc="clips") for row in rows]
    manifest = pd.DataFrame([row for row, *_ in crops])
    manifest["group"] = manifest["identity"].map(groups)
    manifest["split"] = manifest["identity"].map(splits)
    arrays = [np.stack(arrays) for arrays in list(zip(*crops, strict=True))[1:]]
    return CropSet.write(folder, manifest, *arrays)

"""From clips to face crops: codec, one box for image and mask, splits disjoint by identity."""

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from fwstudy.clips import Clip, load_clip, load_header
from fwstudy.crops.boxes import crop, face_box
from fwstudy.crops.composites import forged_parts, transplant
from fwstudy.crops.cropset import CropSet
from fwstudy.crops.writers import WRITERS
from fwstudy.labels import FORGED_PARTS, ORIGINAL, PART_PREFIX, family_of
from fwstudy.preprocess.codec import compress
from fwstudy.preprocess.splits import assign_splits, clusters
from fwstudy.runtime import run

PART_INTERVAL = 4  # one in so many frames of a video is shown with its parts forged one by one


def row_of(clip: Clip, name: str, frame: int, quality: str, **own) -> dict:
    """What the manifest says of one crop; ``own`` comes before the attributes of the person."""
    return {
        "clip": clip.name,
        "frame": frame,
        "quality": quality,
        "kind": "part" if name.startswith(PART_PREFIX) else "whole",
        "variant": family_of(name),
        "label": int(name != ORIGINAL),
        "identity": clip.identity,
        "source": clip.variants[name].source,
        **own,
        **clip.attributes,
    }


def crop_mask(mask: np.ndarray, box: np.ndarray, size: int, how: int) -> np.ndarray:
    """Changed pixels, (H, W) bool, cut like their image: (size, size) bool."""
    return crop(mask.astype(np.uint8) * 255, box, size, how) > 127


def crop_video(clip: Clip, size: int) -> list[tuple]:
    """The crops of a clip that was cut out of a video: as they are, or scaled. See `crop_clip`."""
    crops, video = [], clip.video
    for name, variant in clip.variants.items():
        own = {
            "video": variant.video,
            "mask_source": variant.mask_source,
            "family": family_of(name),
        }
        for number, image in enumerate(variant.frames):
            row = row_of(clip, name, video.numbers[number], video.quality, **own)
            box = np.array([0, 0, *image.shape[1::-1]])
            how = cv2.INTER_AREA if size <= len(image) else cv2.INTER_LINEAR
            changed = crop_mask(variant.mask[number], box, size, how)
            parts = crop(clip.parsing[number], box, size, cv2.INTER_NEAREST_EXACT)
            crops.append((row, crop(image, box, size, how), changed, parts))
    return crops


def parts_one_by_one(crops: list[tuple]) -> list[tuple]:
    """Single parts forged, of videos that have none: taken from forgeries of the whole face.

    Every `PART_INTERVAL`-th frame is shown once with each part, from its forgeries in turn.

    Args:
        crops: of one clip, as from `crop_video`.

    Returns:
        crops of kind ``part``; none of a clip without its original.
    """
    forged: dict[int, list[tuple]] = defaultdict(list)
    for one in crops:
        if one[0]["label"]:
            forged[one[0]["frame"]].append(one)
    originals = [one for one in crops if not one[0]["label"]]
    found = []
    for turn, (known, original, _, parts) in enumerate(originals[::PART_INTERVAL]):
        for number, name in enumerate(FORGED_PARTS):
            possible = [
                one for one in forged[known["frame"]] if forged_parts(one[2], parts)[number]
            ]
            if possible:
                row, image, changed, _ = possible[(turn + number) % len(possible)]
                image, where = transplant(original, image, parts, [number])
                row = row | {"kind": "part", "variant": name}
                found.append((row, image, changed & where, parts))
    return found


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
    if clip.video is not None:
        crops = crop_video(clip, size) if clip.video.quality in qualities else []
        return crops + (parts_one_by_one(crops) if clip.video.quality == qualities[0] else [])
    boxes = [face_box(points, settings["crop_scale"]) for points in clip.landmarks]
    parts = [
        crop(part, box, size, cv2.INTER_NEAREST_EXACT)
        for part, box in zip(clip.parsing, boxes, strict=True)
    ]
    for name, variant in clip.variants.items():
        for quality in qualities[:1] if name.startswith(PART_PREFIX) else qualities:
            # A variant of the first frames is encoded with the clip's rest behind it, so that the
            # codec treats it like its original.
            rest = clip.variants[ORIGINAL].frames[len(variant.frames) :]
            frames, num_bytes = compress(np.concatenate([variant.frames, rest]), quality)
            for number, changed in enumerate(variant.mask):
                box = boxes[number]
                image = crop(frames[number], box, size, cv2.INTER_AREA)
                changed = crop_mask(changed, box, size, cv2.INTER_AREA)
                row = row_of(clip, name, number, quality, bytes=num_bytes)
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
    storage: str = "npy",
) -> tuple[CropSet, int]:
    """Crop every clip and write one crop set.

    Args:
        paths: the clip files.
        folder: where the crop set goes.
        qualities: H.264 quality of all crops, then those at which the test split is cropped again.
        shares: share of the identities in each split, see `split_identities`.
        seed: of the split.
        settings: see `crop_clip`.
        num_workers: processes; -1 for one per core. Never changes a pixel.
        storage: a key of `fwstudy.crops.writers.WRITERS`.

    Returns:
        the crop set, and how many crops were left out because they join two splits.

    Raises:
        ValueError: no clips, or a clip that cannot be read (named).
    """
    if not paths:
        raise ValueError("there are no clips to crop: the stage `faces` wrote none")
    headers = [load_header(path) for path in paths]
    groups, splits = assign_splits(headers, shares, seed)
    groups = clusters(groups, splits)
    jobs = [
        (path, qualities if splits[head["identity"]] == "test" else qualities[:1], settings)
        for path, head in zip(paths, headers, strict=True)
    ]
    writer = WRITERS[storage](folder)
    left_out = 0
    for crops in run(crop_clip, jobs, num_workers, "clips", "clip", ahead=4):
        for row, *arrays in crops:
            if splits[row["identity"]] != splits[row["source"]]:  # with a face of another split
                left_out += 1
                continue
            person = row["identity"]
            writer.add(row | {"group": groups[person], "split": splits[person]}, *arrays)
    return writer.close(), left_out

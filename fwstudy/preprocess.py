"""From clips to face crops: codec, one box for image and mask, splits disjoint by identity."""

from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fwstudy.codec import compress
from fwstudy.crops import WRITERS, CropSet
from fwstudy.faces.boxes import crop, face_box
from fwstudy.faces.clips import (
    FORGED_PARTS,
    ORIGINAL,
    PART_PREFIX,
    Clip,
    family_of,
    load_clip,
    load_header,
)
from fwstudy.parallel import run
from fwstudy.transplants import forged_parts, transplant

PART_INTERVAL = 4  # one in so many frames of a film is shown with its parts forged one by one


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
            f"{len(groups)} identities form {len(members)} group(s) that lend each other faces or come "
            f"together: too few for the splits {', '.join(shares)}"
        )
    filled, assigned = dict.fromkeys(shares, 0), {}
    for name in np.random.default_rng(seed).permutation(sorted(members)):
        split = min(filled, key=lambda name: filled[name] / shares[name])
        filled[split] += len(members[name])
        assigned.update(dict.fromkeys(members[name], split))
    return assigned


def assign_splits(
    headers: list[dict], shares: dict[str, float], seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Group and split of every identity: official splits as they are, the others drawn.

    Where so many people lend each other faces that their groups cannot be split, people are drawn one
    by one (those of a named group together); forgeries that join two splits must then be left out
    (`joins_splits`).

    Args:
        headers: of the clips, see `fwstudy.faces.clips.load_header`.
        shares, seed: see `split_identities`.

    Returns:
        identity to group, and identity to split.

    Raises:
        ValueError: official splits that share a person (named), or too few people.
    """
    films = [head.get("film") or {} for head in headers]
    rows = [(head["identity"], source) for head in headers for source in head["sources"].values()]
    known = [
        (head["identity"], film["group"])
        for head, film in zip(headers, films, strict=True)
        if film.get("group")
    ]
    # A named group is one more lender, whom nobody else has.
    rows += [(identity, f"group of {group}") for identity, group in known]
    groups = lending_groups(pd.DataFrame(rows, columns=["identity", "source"]))
    groups = {name: group for name, group in groups.items() if not name.startswith("group of ")}
    official: dict[str, str] = {}
    for head, film in zip(headers, films, strict=True):
        split = film.get("split")
        for person in {head["identity"], *head["sources"].values()} if split else ():
            if official.setdefault(person, split) != split:
                raise ValueError(
                    f"{person} is in two official splits: {official[person]} and {split}"
                )
    drawn = {name: group for name, group in groups.items() if name not in official}
    if not drawn:
        return groups, official
    left = {name: share for name, share in shares.items() if name not in official.values()}
    named = dict(known)
    try:
        splits = split_identities(drawn, left or shares, seed)
    except ValueError:
        if not any(films):
            raise
        alone = {name: named.get(name, name) for name in drawn}
        splits = split_identities(alone, left or shares, seed)
    return groups, official | splits


def clusters(groups: dict[str, str], splits: dict[str, str]) -> dict[str, str]:
    """What intervals resample: groups of people who lend each other faces, or single people.

    The latter in a split of which one group holds more than half, as where everybody lends to everybody:
    too few groups to resample. Intervals are too narrow there by as much as lending makes people alike.

    Args:
        groups, splits: of every identity, see `assign_splits`.

    Returns:
        identity to the name of its cluster.
    """
    found = dict(groups)
    for split in set(splits.values()):
        people = [name for name in splits if splits[name] == split]
        largest = max(Counter(groups[name] for name in people).values())
        if largest > len(people) / 2:
            found |= {name: name for name in people}
    return found


def joins_splits(row: dict, splits: dict[str, str]) -> bool:
    """Whether a crop shows a person of one split with the face of a person of another."""
    return splits[row["identity"]] != splits[row["source"]]


def crop_film(clip: Clip, size: int) -> list[tuple]:
    """The crops of a clip that was cut out of a film: as they are, or scaled. See `crop_clip`."""
    crops = []
    for name, variant in clip.variants.items():
        for number, image in enumerate(variant.frames):
            row = {
                "clip": clip.name,
                "frame": clip.film.numbers[number],
                "quality": clip.film.quality,
                "kind": "whole",
                "variant": family_of(name),
                "label": int(name != ORIGINAL),
                "identity": clip.identity,
                "source": variant.source,
                "film": variant.film,
                "truth": variant.truth,
                **clip.attributes,
            }
            box = np.array([0, 0, *image.shape[1::-1]])
            changed = variant.changed[number].astype(np.uint8) * 255
            how = cv2.INTER_AREA if size <= len(image) else cv2.INTER_LINEAR
            crops.append(
                (
                    row,
                    crop(image, box, size, how),
                    crop(changed, box, size, how) > 127,
                    crop(clip.parts[number], box, size, cv2.INTER_NEAREST),
                )
            )
    return crops


def parts_one_by_one(crops: list[tuple]) -> list[tuple]:
    """Single parts forged, of films that have none: taken from forgeries of the whole face.

    Every `PART_INTERVAL`-th frame is shown once with each part, from its forgeries in turn.

    Args:
        crops: of one clip, as from `crop_film`.

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
    if clip.film is not None:
        crops = crop_film(clip, size) if clip.film.quality in qualities else []
        return crops + (parts_one_by_one(crops) if clip.film.quality == qualities[0] else [])
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
        storage: a key of `fwstudy.crops.WRITERS`.

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
            if joins_splits(row, splits):
                left_out += 1
                continue
            person = row["identity"]
            writer.add(row | {"group": groups[person], "split": splits[person]}, *arrays)
    return writer.close(), left_out

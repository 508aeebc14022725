"""The preprocessed data of DeepfakeBench: face crops in folders, and a JSON file for each data set.

Yan et al. 2023, scripts ``preprocess.py`` and ``rearrange.py``: a video is a folder of numbered PNG files
under ``frames/``, with ``landmarks/`` (81 points) and ``masks/`` of the same names beside it. Frames are
sampled video by video, so that a forgery may lack its original's frames (`fwstudy.faces.videos.assemble`).
DF40 (Yan et al. 2024) writes the same files, with labels ``<method>_Real`` and ``<method>_Fake``; the JSON of
Celeb-DF++ nests forgeries one level deeper, by method.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from fwstudy.faces.videos.celebdf import celeb_people
from fwstudy.faces.videos.layouts import (
    ACTORS,
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    Forgery,
    Read,
    VideoGroup,
    accounted,
    actor_people,
    alone,
    keep_test_apart,
    read_json,
    rows_for,
)

JSON_PLACES = ("dataset_json", "preprocessing/dataset_json", "")
QUALITY_OF = {"raw": "raw", "c0": "raw", "c23": "c23", "c40": "c40"}
FAMILY_OF = {
    "FF-DF": "Deepfakes",
    "FF-F2F": "Face2Face",
    "FF-FS": "FaceSwap",
    "FF-NT": "NeuralTextures",
    "FF-FH": "FaceShifter",
    "DFD_fake": ACTORS,
    "CelebDFv1_fake": "CelebDF",
    "CelebDFv2_fake": "CelebDF",
}


def _youtube_people(stem: str) -> tuple[str, str, str]:
    target, _, source = stem.partition("_")
    return f"youtube-{target}", f"youtube-{source or target}", target


def _uadfv_people(stem: str) -> tuple[str, str, str]:
    original = stem.removesuffix("_fake")
    return f"uadfv-{original}", f"uadfv-{original}", original


def _preview_people(stem: str) -> tuple[str, str, str]:
    first, second = re.match(r"([^_]+)(?:_(\d+)_)?", stem).groups()
    return f"dfdcp-{first}", f"dfdcp-{second or first}", stem


PEOPLE_OF: dict[str, Callable[[str], tuple[str, str, str]]] = {
    r"\d{3}(_(\d{3}|M\d+))?": _youtube_people,  # DeeperForensics too: 000_M101
    r"id\d+_(id\d+_)?\d+(_test_.*)?": celeb_people,
    r"\d{5}": celeb_people,  # YouTube-real
    r"\d{4}(_fake)?": _uadfv_people,
    r"\d\d(_\d\d)?__.+": actor_people,
    r"\d+_(\d+_)?[A-Z]_\d+": _preview_people,
}
"""Form of a video's name to: the name to its person, the lender, and the name of the original."""


def people_of(stem: str) -> tuple[str, str, str]:
    """Person, lender and name of the original of a video; a person of its own where its name tells nothing.

    The form of the name decides, since labels differ from file to file while names are kept.
    """
    known = (function for form, function in PEOPLE_OF.items() if re.fullmatch(form, stem))
    return next(known, lambda stem: (stem, stem, stem))(stem)


@dataclass(frozen=True)
class Entry:
    """One video of a JSON file; ``method`` is empty where the file does not nest by method."""

    label: str
    split: str
    quality: str | None
    method: str
    name: str
    frames: list[str]

    @property
    def is_real(self) -> bool:
        """Labels of originals end in ``real``."""
        return self.label.lower().endswith("real")

    @property
    def family(self) -> str:
        """What the video was forged with."""
        plain = re.sub("_fake$", "", self.label, flags=re.IGNORECASE)
        return self.method or FAMILY_OF.get(self.label, plain)


def leaves(
    node: object, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list | None]]:
    """Keys and frames of all videos of a JSON file, however deep; None for what ends without frames."""
    frames = node.get("frames") if isinstance(node, dict) else None
    if isinstance(frames, list) and all(isinstance(path, str) for path in frames):
        yield keys, frames
    elif isinstance(node, dict) and node:
        for key, inner in node.items():
            yield from leaves(inner, (*keys, key))
    else:
        yield keys, None


def entries_of(content: dict) -> tuple[list[Entry], list[str]]:
    """All videos of a JSON file: data set, label, split, quality (FaceForensics++ alone) or method, name.

    Returns:
        the videos, and the keys of what could not be understood.
    """
    entries, left = [], []
    for keys, frames in leaves(content):
        _, label, split, *between, name = keys if len(keys) > 3 else ("", "", "", "")
        if frames is None or SPLITS.get(split) is None:
            left.append("/".join(keys))
            continue
        quality = next((QUALITY_OF[key] for key in between if key in QUALITY_OF), None)
        method = "-".join(key for key in between if key not in QUALITY_OF)
        entries.append(Entry(label, SPLITS[split], quality, method, name, frames))
    return entries, left


def video_of(root: Path, frames: Sequence[str], count: int) -> Path | None:
    """The folder of a video's frames below the root, by the longest end of its path that is there.

    Paths in the JSON files are those of the machine that wrote them, with either kind of slash.

    Args:
        count: videos whose frames lie in this folder; of several, each is the one picture it names.
    """
    parts = PureWindowsPath(frames[0]).parts if frames else ()
    tails = (root.joinpath(*parts[start:]) for start in range(len(parts)))
    found = next((t for t in tails if t.is_relative_to(root) and t.parent.is_dir()), None)
    if found is None or found.parent == root:
        return None
    if count == 1:
        return found.parent
    return found if len(frames) == 1 and found.is_file() else None


def beside(folder: Path, kind: str) -> Path | None:
    """The folder of masks or landmarks of a video; masks may lie at c23 for all qualities."""
    if folder.is_file():
        return None
    place = folder.parent.parent
    places = [place / kind / folder.name, place.parent / "c23" / kind / folder.name]
    return next((path for path in places if path.is_dir()), None)


def find_json(root: Path, name: str) -> Path:
    """The JSON file of a data set.

    Raises:
        FileNotFoundError: there is none; the message lists the places.
    """
    places = [root / place / f"{name}.json" for place in JSON_PLACES]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{places[0]}: no such file, nor {places[1]}, nor {places[2]}")
    return found


@accounted
def deepfakebench(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
    """DeepfakeBench: ``methods`` are names of its JSON files, e.g. ``FaceForensics++``, ``Celeb-DF-v2``.

    Splits of FaceForensics++ are official. Elsewhere the files name one video in several splits: test
    comes first, the rest is drawn anew by identity, and who is in the test split is kept out of it.
    """
    video_groups, report = [], []
    for method in methods:
        path = find_json(root, method)
        entries, left = entries_of(read_json(path))
        if not entries:
            raise ValueError(
                f"{path}: no video in it; expected data set, label, split, video, frames"
            )
        report += rows_for(left, f"in {path.name}, but neither a split nor frames are named")
        more, rows = _groups_of(root, method, entries, qualities)
        video_groups, report = video_groups + more, report + rows
    kept, rows = keep_test_apart(sorted(video_groups, key=lambda video_group: video_group.name))
    return kept, report + rows


def _groups_of(root: Path, method: str, entries: Sequence[Entry], qualities: Sequence[str]) -> Read:
    chosen: dict[tuple, Entry] = {}
    order = (TEST, TRAIN, VALIDATION)  # of a video in several of them, the first counts
    for entry in entries:
        further = entry.quality in qualities[1:] and entry.split != TEST
        if entry.quality not in (None, *qualities) or further:
            continue
        key = (entry.label, entry.quality, entry.method, entry.name)
        if key not in chosen or order.index(entry.split) < order.index(chosen[key].split):
            chosen[key] = entry
    places = {
        key: str(PureWindowsPath(entry.frames[0]).parent)
        for key, entry in chosen.items()
        if entry.frames
    }
    shared = Counter(place for place, _ in {(place, key[-1]) for key, place in places.items()})
    videos = {
        key: video_of(root, chosen[key].frames, shared[place]) for key, place in places.items()
    }
    report, originals, made, video_groups = [], {}, defaultdict(list), []
    for key, entry in chosen.items():
        what = "/".join(filter(None, (entry.label, entry.method, entry.name)))
        if videos.get(key) is None:
            reason = "but its frames are missing or lie among those of others"
            report += rows_for([what], f"named in {method}.json, {reason}")
        elif videos[key].is_dir() and len(list(videos[key].glob("[!.]*.*"))) != len(entry.frames):
            reason = f"its folder holds another number of pictures than {method}.json names"
            report += rows_for([videos[key]], reason, False)
    present = {key: entry for key, entry in chosen.items() if videos.get(key) is not None}
    for key, entry in present.items():
        if entry.is_real:
            originals[entry.quality, entry.name, entry.split] = key
    for key, entry in present.items():
        if entry.is_real:
            continue
        person, lender, stem = people_of(entry.name)
        video = videos[key]
        forgery = Forgery(entry.family, video, lender, beside(video, "masks"))
        original = originals.get((entry.quality, stem, entry.split))
        if original is not None:
            made[original].append(forgery)
        else:
            single = alone(forgery, person, entry.quality, _split(entry))
            name = "-".join(filter(None, (method, entry.label, entry.method, entry.name)))
            place = beside(video, "landmarks")
            video_groups.append(replace(single, name=name, landmarks=place))
    for key, entry in present.items():
        if entry.is_real:
            name, person = f"{method}-{entry.name}", people_of(entry.name)[0]
            forged, split = tuple(made[key]), _split(entry)
            group = VideoGroup(name, person, videos[key], forged, entry.quality, split)
            video_groups.append(replace(group, landmarks=beside(videos[key], "landmarks")))
    return video_groups, report


def _split(entry: Entry) -> str | None:
    official = entry.label.startswith("FF-") or entry.split == TEST
    return entry.split if official else None

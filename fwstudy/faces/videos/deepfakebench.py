"""The preprocessed data of DeepfakeBench: face crops in folders, and a JSON file for each data set.

Yan et al. 2023, scripts ``preprocess.py`` and ``rearrange.py``: a video is a folder of numbered PNG files
under ``frames/``, with ``landmarks/`` (81 points) and ``masks/`` of the same names beside it. Frames are
sampled video by video, so that a forgery may lack its original's frames (`fwstudy.faces.videos.assemble`).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from fwstudy.faces.videos.layouts import (
    ACTORS,
    TEST,
    TRAIN,
    VALIDATION,
    Forgery,
    Report,
    VideoGroup,
    celeb_people,
    keep_test_apart,
    read_json,
    rows_for,
)

JSON_PLACES = ("dataset_json", "preprocessing/dataset_json", "")
QUALITY_OF = {"raw": "raw", "c0": "raw", "c23": "c23", "c40": "c40"}
SPLITS = {"test": TEST, "train": TRAIN, "val": VALIDATION}
"""In the order in which a video that stands in several is given to one."""
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


def _actor_people(stem: str) -> tuple[str, str, str]:
    people, scene, *_ = [*stem.split("__"), ""]
    target, _, source = people.partition("_")
    return f"actor-{target}", f"actor-{source or target}", f"{target}__{scene}"


def _preview_people(stem: str) -> tuple[str, str, str]:
    first, second = re.match(r"([^_]+)(?:_(\d+)_)?", stem).groups()
    return f"dfdcp-{first}", f"dfdcp-{second or first}", stem


PEOPLE_OF: dict[str, Callable[[str], tuple[str, str, str]]] = {
    "FF-": _youtube_people,
    "DF_": _youtube_people,  # DeeperForensics: its targets are those of FaceForensics++
    "DFD_": _actor_people,
    "DFDCP": _preview_people,
    "CelebDF": celeb_people,
}
"""Beginning of a label to: name of a video to its person, the lender, and the name of the original."""


def people_of(label: str, stem: str) -> tuple[str, str, str]:
    """Person, lender and name of the original of a video; a person of its own where names tell nothing."""
    known = (function for start, function in PEOPLE_OF.items() if label.startswith(start))
    return next(known, lambda stem: (stem, stem, stem))(stem)


@dataclass(frozen=True)
class Entry:
    """One video of a JSON file."""

    label: str
    split: str
    quality: str | None
    name: str
    frames: list[str]

    @property
    def is_real(self) -> bool:
        """Labels of originals end in ``real``."""
        return self.label.lower().endswith("real")


def entries_of(content: dict) -> Iterator[Entry]:
    """All videos of a JSON file: data set, label, split, quality (FaceForensics++ alone), name."""
    for labels in content.values():
        for label, splits in labels.items():
            for split, videos in splits.items():
                by_quality = videos if set(videos) & set(QUALITY_OF) else {None: videos}
                for quality, named in by_quality.items():
                    for name, video in named.items():
                        if isinstance(video, dict) and "frames" in video:
                            level = QUALITY_OF.get(quality)
                            yield Entry(
                                label, SPLITS.get(split, split), level, name, video["frames"]
                            )


def frame_folder(root: Path, frames: Sequence[str]) -> Path | None:
    """The folder of a video's frames below the root, by the longest end of its path that is there.

    Paths in the JSON files are those of the machine that wrote them, with either kind of slash.
    """
    if not frames:
        return None
    parts = PureWindowsPath(frames[0]).parts[:-1]
    tails = (root.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((tail for tail in tails if tail.is_relative_to(root) and tail.is_dir()), None)


def beside(folder: Path, kind: str) -> Path | None:
    """The folder of masks or landmarks of a video; masks may lie at c23 for all qualities."""
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


def deepfakebench(
    root: Path, methods: Sequence[str], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    """DeepfakeBench: ``methods`` are names of its JSON files, e.g. ``FaceForensics++``, ``Celeb-DF-v2``.

    Splits of FaceForensics++ are official. Elsewhere the files name one video in several splits: test
    comes first, the rest is drawn anew by identity, and who is in the test split is kept out of it.
    """
    video_groups, report = [], []
    for method in methods:
        path = find_json(root, method)
        entries = list(entries_of(read_json(path)))
        if not entries:
            raise ValueError(
                f"{path}: no video in it; expected data set, label, split, video, frames"
            )
        more, rows = _groups_of(root, method, entries, qualities)
        video_groups, report = video_groups + more, report + rows
    return video_groups, report


def _groups_of(
    root: Path, method: str, entries: Sequence[Entry], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    chosen: dict[tuple, Entry] = {}
    order = list(SPLITS.values())
    for entry in entries:
        if entry.quality is not None and entry.quality not in qualities:
            continue
        if entry.quality in qualities[1:] and entry.split != TEST:
            continue
        key = (entry.label, entry.quality, entry.name)
        if key not in chosen or order.index(entry.split) < order.index(chosen[key].split):
            chosen[key] = entry
    folders = {key: frame_folder(root, entry.frames) for key, entry in chosen.items()}
    missing = {f"{label}/{name}" for (label, _, name), place in folders.items() if place is None}
    report = rows_for(missing, f"named in {method}.json, but its frames are missing")
    present = {key: entry for key, entry in chosen.items() if folders[key] is not None}
    originals = {
        (entry.quality, entry.name, entry.split): key
        for key, entry in present.items()
        if entry.is_real
    }
    made, video_groups = defaultdict(list), []
    for key, entry in present.items():
        if entry.is_real:
            continue
        person, lender, stem = people_of(entry.label, entry.name)
        video = folders[key]
        family = FAMILY_OF.get(entry.label, entry.label)
        forgery = Forgery(family, video, lender, beside(video, "masks"))
        original = originals.get((entry.quality, stem, entry.split))
        if original is not None:
            made[original].append(forgery)
        else:
            video_groups.append(
                VideoGroup(
                    f"{method}-{entry.label}-{entry.name}",
                    person,
                    None,
                    (forgery,),
                    entry.quality,
                    _split(entry),
                    landmarks=beside(video, "landmarks"),
                )
            )
    for key, entry in present.items():
        if entry.is_real:
            video_groups.append(
                VideoGroup(
                    f"{method}-{entry.name}",
                    people_of(entry.label, entry.name)[0],
                    folders[key],
                    tuple(made[key]),
                    entry.quality,
                    _split(entry),
                    landmarks=beside(folders[key], "landmarks"),
                )
            )
    kept, rows = keep_test_apart(sorted(video_groups, key=lambda video_group: video_group.name))
    return kept, report + rows


def _split(entry: Entry) -> str | None:
    official = entry.label.startswith("FF-") or entry.split == TEST
    return entry.split if official else None

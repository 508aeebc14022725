"""Directory trees of public benchmarks, read into one list: which video is original, which its forgeries.

Names, lists and JSON only; no video is opened here. A reader returns takes and a report, and neither
skips nor guesses in silence: what is named but missing, or there but not named, is a row of the report.

Facts about the trees: FaceForensics++ (Rössler et al. 2019; its download script and split files),
Celeb-DF-v2 (Li et al. 2020), DFDC and its preview (Dolhansky et al. 2019, 2020), DeepfakeBench (Yan et
al. 2023; its scripts `preprocess` and `rearrange`).
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fwstudy.faces.people import IDENTITY_PATTERN
from fwstudy.faces.photos import SUFFIXES as PICTURES

TRAIN, VALIDATION, TEST = "train", "validation", "test"
MAX_ROWS = 20  # of one kind of remark that are listed one by one
NO_VIDEOS = {".json", ".csv", ".txt", ".npy", ".md", ".pdf", ".zip", ".wav", ".mp3"}


@dataclass(frozen=True)
class Forgery:
    """One forged video.

    Args:
        family: what it was forged with, e.g. ``Deepfakes``.
        path: video, picture, or folder of numbered pictures.
        source: identity that lent the face; that of the take where nobody did or it is not known.
        mask: video of the changed pixels, or None.
    """

    family: str
    path: Path
    source: str
    mask: Path | None = None


@dataclass(frozen=True)
class VideoGroup:
    """One original video and the forgeries made of it, frame by frame.

    Args:
        name: unique in the data set; a legal stem of a file.
        identity: the person seen.
        original: None if it is not in the data set; there is one forgery then.
        forgeries: of this original.
        quality: where the data set has several, else None.
        split: the official one; None where it is drawn later, by identity.
        group: people known to be mixed with each other; None: those who lend each other faces.
        landmarks: folder of ``.npy`` files beside videos that are face crops already.
    """

    name: str
    identity: str
    original: Path | None
    forgeries: tuple[Forgery, ...] = ()
    quality: str | None = None
    split: str | None = None
    group: str | None = None
    landmarks: Path | None = None


Report = list[dict]
Reader = Callable[[Path, Sequence[str], Sequence[str]], tuple[list[VideoGroup], Report]]
"""root, methods and qualities (the study's first, then others for the test split) to takes and report."""


def rows_for(files: Iterable[str], reason: str, left_out: bool = True) -> Report:
    """Rows of the report for files with one reason; of many, the first and a count of the rest."""
    files = sorted(files)
    rows = [{"file": file, "reason": reason, "left_out": left_out} for file in files[:MAX_ROWS]]
    if len(files) > MAX_ROWS:
        more = f"and {len(files) - MAX_ROWS} more"
        rows.append({"file": more, "reason": reason, "left_out": left_out})
    return rows


def videos_in(folder: Path) -> dict[str, Path]:
    """The videos directly in a folder, by stem: files that may be one, and folders of pictures."""
    if not folder.is_dir():
        return {}
    found = sorted(folder.iterdir())
    videos = [file for file in found if file.is_dir() or file.suffix.lower() not in NO_VIDEOS]
    return {
        file.name if file.is_dir() else file.stem: file
        for file in videos
        if not file.name.startswith(".")
    }


def read_json(path: Path):
    """The content of a JSON file.

    Raises:
        FileNotFoundError, ValueError: missing or damaged; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error


def folder_of(parent: Path, *names: str) -> Path:
    """The first of some folders that is there.

    Raises:
        FileNotFoundError: none is; the message names the first.
    """
    for name in names:
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(f"{parent / names[0]}: no such folder; expected in this layout")


def keep_test_apart(video_groups: list[VideoGroup]) -> tuple[list[VideoGroup], Report]:
    """Leave out of training whoever is seen, or lends a face, in the official test split.

    Takes without a split whose person is in the test split go; of the others, the forgeries with a
    face from there.
    """
    tested = {video_group.identity for video_group in video_groups if video_group.split == TEST}
    tested |= {
        f.source
        for video_group in video_groups
        if video_group.split == TEST
        for f in video_group.forgeries
    }
    kept, gone = [], []
    for video_group in video_groups:
        if video_group.split is not None:
            kept.append(video_group)
            continue
        clean = tuple(f for f in video_group.forgeries if f.source not in tested)
        if video_group.identity in tested or (video_group.original is None and not clean):
            gone += [video_group.original.name] if video_group.original else []
            gone += [forgery.path.name for forgery in video_group.forgeries]
            continue
        gone += [forgery.path.name for forgery in video_group.forgeries if forgery not in clean]
        kept.append(replace(video_group, forgeries=clean))
    return kept, rows_for(gone, "not in the test list, but a person of it is seen or lends a face")


# FaceForensics++

QUALITY_FOLDERS = {"raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}
ACTORS = "DeepFakeDetection"
SPLIT_FILES = {TRAIN: "train.json", VALIDATION: "val.json", TEST: "test.json"}
SPLIT_PLACES = ("", "splits", "dataset/splits")


def official_splits(root: Path) -> dict[str, str]:
    """Video id to split, from the three lists of pairs that FaceForensics++ publishes.

    Raises:
        FileNotFoundError: a list is missing; the message says where to get it and where to put it.
    """
    found = {}
    for split, name in SPLIT_FILES.items():
        places = [root / place / name for place in SPLIT_PLACES]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"{root / name}: no such file. The official lists train.json, val.json and test.json "
                "are in the folder dataset/splits of the repository ondyari/FaceForensics; put them "
                "into the data set's folder"
            )
        found |= {str(video): split for pair in read_json(path) for video in pair}
    return found


def sequences(folder: Path, quality: str) -> dict[str, Path]:
    """The videos of ``folder/<quality>/videos`` (or, where there are none, of ``images``)."""
    place = folder_of(folder, *QUALITY_FOLDERS[quality])
    return videos_in(folder_of(place, "videos", "images"))


def mask_videos(folder: Path) -> dict[str, Path]:
    """The mask videos of a method; one set for all qualities."""
    places = [folder / "masks" / "videos", folder / "masks" / "images", folder / "masks"]
    return videos_in(next((place for place in places if place.is_dir()), places[0]))


def faceforensics(
    root: Path, methods: Sequence[str], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    """FaceForensics++: target and source are the two numbers of a forgery's name, e.g. ``000_003``.

    DeepFakeDetection (videos of actors) has no official split: all of it is test.
    """
    video_groups, report = [], []
    for number, quality in enumerate(qualities):
        wanted = {TRAIN, VALIDATION, TEST} if number == 0 else {TEST}
        if set(methods) - {ACTORS}:
            more, rows = _youtube(root, [m for m in methods if m != ACTORS], quality, wanted)
            video_groups, report = video_groups + more, report + rows
        if ACTORS in methods:
            more, rows = _actors(root, quality)
            video_groups, report = video_groups + more, report + rows
    return video_groups, report


def _youtube(
    root: Path, methods: Sequence[str], quality: str, wanted: set[str]
) -> tuple[list[VideoGroup], Report]:
    split_of = official_splits(root)
    originals = sequences(folder_of(root, "original_sequences") / "youtube", quality)
    forged = defaultdict(list)
    report = []
    for method in methods:
        folder = folder_of(root / "manipulated_sequences", method)
        masks, known = mask_videos(folder), set()
        for stem, path in sequences(folder, quality).items():
            target, _, source = stem.partition("_")
            if target in split_of and source in split_of:
                known.add(target)
                forged[target].append(Forgery(method, path, f"youtube-{source}", masks.get(stem)))
            else:
                report += rows_for([f"{method}/{path.name}"], "named in no split file")
        missing = [f"{method}/{name}" for name in split_of if name not in known]
        report += rows_for(
            [name for name in missing if split_of[name.split("/")[1]] in wanted],
            f"a forgery of this video is missing at {quality}",
        )
    report += rows_for(
        [path.name for stem, path in originals.items() if stem not in split_of],
        "named in no split file",
    )
    lost = [name for name in split_of if name not in originals and split_of[name] in wanted]
    report += rows_for(lost, f"original missing at {quality}; its forgeries are left out too")
    video_groups = [
        VideoGroup(
            f"youtube-{name}",
            f"youtube-{name}",
            originals[name],
            tuple(forged[name]),
            quality,
            split_of[name],
        )
        for name in sorted(split_of)
        if name in originals and split_of[name] in wanted
    ]
    return video_groups, report


def _actors(root: Path, quality: str) -> tuple[list[VideoGroup], Report]:
    originals = sequences(folder_of(root, "original_sequences") / "actors", quality)
    folder = folder_of(root / "manipulated_sequences", ACTORS)
    masks, forged, lonely = mask_videos(folder), defaultdict(list), []
    for stem, path in sequences(folder, quality).items():
        people, scene, *_ = [*stem.split("__"), ""]
        target, _, source = people.partition("_")
        forgery = Forgery(ACTORS, path, f"actor-{source or target}", masks.get(stem))
        original = f"{target}__{scene}"
        (forged[original] if original in originals else lonely).append(forgery)
    video_groups = [
        VideoGroup(f"actor-{stem}", f"actor-{stem[:2]}", path, tuple(forged[stem]), quality, TEST)
        for stem, path in originals.items()
    ]
    video_groups += [
        _alone(forgery, f"actor-{forgery.path.stem[:2]}", quality, TEST) for forgery in lonely
    ]
    return video_groups, rows_for([f.path.name for f in lonely], "its original is missing", False)


def _alone(forgery: Forgery, identity: str, quality: str | None, split: str | None) -> VideoGroup:
    """A take of a forgery whose original is not in the data set."""
    return VideoGroup(
        f"{forgery.family}-{forgery.path.stem}", identity, None, (forgery,), quality, split
    )


# Celeb-DF-v2

CELEB_REAL, CELEB_YOUTUBE, CELEB_FAKE = "Celeb-real", "YouTube-real", "Celeb-synthesis"
CELEB_LIST = "List_of_testing_videos.txt"
CELEB_NAME = re.compile(r"(id\d+)_(?:(id\d+)_)?(\d+)$")


def celeb_people(stem: str) -> tuple[str, str, str]:
    """Target, source and stem of the original of a video: ``id0_id1_0000`` is ``id0_0000`` with id1's face.

    A video without such a name (YouTube-real) is a person of its own.
    """
    found = CELEB_NAME.match(stem)
    if not found:
        return f"youtube-{stem}", f"youtube-{stem}", stem
    target, source, number = found.groups()
    return target, source or target, f"{target}_{number}"


def celeb_df(
    root: Path, methods: Sequence[str], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    """Celeb-DF-v2: its list of test videos is the test split, and exactly it.

    A listed forgery whose original is not listed stands alone, since that original must not count as
    a test video. Videos outside the list are for training if nobody in them is in the list.
    """
    folder_of(root, CELEB_REAL)
    path = root / CELEB_LIST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it comes with Celeb-DF-v2")
    lines = path.read_text(encoding="utf-8").split("\n")
    listed = {line.split(maxsplit=1)[1].strip() for line in lines if line.strip()}
    reals = {
        f"{name}/{video.name}": video
        for name in (CELEB_REAL, CELEB_YOUTUBE)
        for video in videos_in(root / name).values()
    }
    fakes = {f"{CELEB_FAKE}/{video.name}": video for video in videos_in(root / CELEB_FAKE).values()}
    originals = {video.stem: key for key, video in reals.items()}
    made, video_groups = defaultdict(list), []
    for key, video in fakes.items():
        target, source, stem = celeb_people(video.stem)
        forgery = Forgery("CelebDF", video, source)
        original = originals.get(stem)
        if original is not None and (original in listed) == (key in listed):
            made[original].append(forgery)
        else:
            video_groups.append(_alone(forgery, target, None, TEST if key in listed else None))
    for key, video in reals.items():
        split = TEST if key in listed else None
        video_groups.append(
            VideoGroup(
                video.stem, celeb_people(video.stem)[0], video, tuple(made[key]), None, split
            )
        )
    kept, report = keep_test_apart(sorted(video_groups, key=lambda video_group: video_group.name))
    missing = listed - set(reals) - set(fakes)
    return kept, report + rows_for(missing, f"named in {CELEB_LIST}, but missing")


# DFDC


def dfdc(
    root: Path, methods: Sequence[str], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    """DFDC: folders with ``metadata.json``; people recur within a folder, so that a folder is a group.

    ``test`` with ``labels.csv`` (filename, label) or ``metadata.json`` (is_fake), if there, is the test
    split; its forgeries name no originals.
    """
    video_groups, report = [], []
    for path in sorted([*root.glob("*/metadata.json"), *root.glob("train/*/metadata.json")]):
        if path.parent.name == TEST:
            continue
        videos = videos_in(path.parent)
        entries = {Path(name).stem: entry for name, entry in read_json(path).items()}
        report += rows_for(
            [f"{path.parent.name}/{stem}" for stem in set(entries) - set(videos)],
            "named in metadata.json, but missing",
        )
        report += rows_for(
            [f"{path.parent.name}/{videos[stem].name}" for stem in set(videos) - set(entries)],
            "not named in metadata.json",
        )
        made = defaultdict(list)
        group = path.parent.name
        for stem in sorted(set(entries) & set(videos)):
            entry = entries[stem]
            if entry["label"] == "FAKE":
                original = Path(entry.get("original") or stem).stem
                made[original].append(Forgery("DFDC", videos[stem], original))
        for stem in sorted(set(entries) & set(videos)):
            if entries[stem]["label"] == "REAL":
                videos_made = tuple(made.pop(stem, ()))
                video_groups.append(
                    VideoGroup(f"{group}-{stem}", stem, videos[stem], videos_made, group=group)
                )
        for original, forgeries in made.items():
            report += rows_for([f.path.name for f in forgeries], "its original is missing", False)
            video_groups += [
                replace(_alone(forgery, original, None, None), group=group) for forgery in forgeries
            ]
    for stem, video, fake in _dfdc_test(root, report):
        forgery = (Forgery("DFDC", video, f"test-{stem}"),) if fake else ()
        video_groups.append(
            VideoGroup(f"test-{stem}", f"test-{stem}", None if fake else video, forgery, split=TEST)
        )
    if not video_groups:
        raise ValueError(
            f"{root}: no metadata.json in a folder below it, and no test/labels.csv: not DFDC's layout"
        )
    return video_groups, report


def _dfdc_test(root: Path, report: Report) -> list[tuple[str, Path, bool]]:
    folder = root / TEST
    videos = videos_in(folder) | videos_in(folder / "videos")
    labels = {}
    if (folder / "labels.csv").is_file():
        with open(folder / "labels.csv", encoding="utf-8", newline="") as file:
            labels = {Path(row["filename"]).stem: row["label"] for row in csv.DictReader(file)}
    elif (folder / "metadata.json").is_file():
        entries = read_json(folder / "metadata.json")
        labels = {Path(name).stem: entry["is_fake"] for name, entry in entries.items()}
    report += rows_for(set(labels) - set(videos), "named in the test split, but missing")
    return [
        (stem, videos[stem], bool(int(labels[stem]))) for stem in sorted(set(labels) & set(videos))
    ]


PREVIEW_FAMILIES = {"method_A": "DFDCP-A", "method_B": "DFDCP-B"}


def dfdc_preview(
    root: Path, methods: Sequence[str], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    """DFDC preview: ``dataset.json`` names label, target, lender and set of every video.

    A forgery's ``source_video`` names its original, up to the number at the end of both names; where
    that fits none or several, the forgery stands alone.
    """
    entries = read_json(root / "dataset.json")
    present = {key: entry for key, entry in sorted(entries.items()) if (root / key).exists()}
    report = rows_for(set(entries) - set(present), "named in dataset.json, but missing")
    reals = {key for key, entry in present.items() if entry["label"] == "real"}
    by_stem = {PurePosixPath(key).stem: key for key in reals}
    made, video_groups = defaultdict(list), []
    for key, entry in present.items():
        if key in reals:
            continue
        person, lender = str(entry["target_id"]), str(entry["swapped_id"])
        family = PREVIEW_FAMILIES.get(key.split("/")[0], "DFDCP")
        forgery = Forgery(family, root / key, lender)
        source = PurePosixPath(str(entry.get("source_video", ""))).stem
        ending = PurePosixPath(key).stem.rpartition("_")[2]
        original = by_stem.get(f"{source}_{ending}") or by_stem.get(source)
        if original and present[original]["set"] == entry["set"]:
            made[original].append(forgery)
        else:
            video_groups.append(
                _alone(forgery, person, None, TEST if entry["set"] == TEST else None)
            )
    for key in sorted(reals):
        entry, stem = present[key], PurePosixPath(key).stem
        split = TEST if entry["set"] == TEST else None
        person = str(entry.get("target_id") or stem.split("_")[0])
        video_groups.append(VideoGroup(stem, person, root / key, tuple(made[key]), None, split))
    kept, rows = keep_test_apart(video_groups)
    return kept, report + rows


# A folder of anybody's videos

REAL, FAKE, MASKS = "real", "fake", "masks"


def folder(
    root: Path, methods: Sequence[str], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    """``real/`` and ``fake/``, with ``masks/`` if there are any: pictures, videos, or folders of pictures.

    A forgery belongs to the real video whose name it has, or begins with (then a blank, ``_`` or
    ``-``); without one it stands alone. Folders directly below ``fake/`` name the families. The part
    of a name before the first ``_`` is the person. Masks have the forgeries' names, whatever their
    suffix.

    Raises:
        FileNotFoundError: ``real`` or ``fake`` is missing or empty.
    """
    found = {}
    for name in (REAL, FAKE):
        found[name] = _videos_below(root / name)
        if not found[name]:
            raise FileNotFoundError(
                f"{root / name}: no such folder, or nothing in it; expected {REAL}/ and {FAKE}/ with "
                f"pictures or videos, and {MASKS}/ if there are masks"
            )
    masks = _videos_below(root / MASKS)
    reals = defaultdict(list)
    for key in found[REAL]:
        reals[PurePosixPath(key).name].append(key)
    made, video_groups, lonely = defaultdict(list), [], []
    for key, video in found[FAKE].items():
        family, _, inside = key.partition("/") if "/" in key else (FAKE, "", key)
        forgery = Forgery(family, video, "", masks.get(key) or masks.get(inside))
        original = _best_original(PurePosixPath(inside), found[REAL], reals)
        if original is None:
            person = _person(video)
            lonely.append(video.name)
            alone = _alone(replace(forgery, source=person), person, None, None)
            video_groups.append(replace(alone, name=_legal(f"{FAKE}-{key}")))
        else:
            made[original].append(replace(forgery, source=_person(found[REAL][original])))
    for key, video in found[REAL].items():
        video_groups.append(VideoGroup(_legal(key), _person(video), video, tuple(made[key])))
    return video_groups, rows_for(
        lonely, "no real video of this name: used without an original", False
    )


def _best_original(
    name: PurePosixPath, reals: dict[str, Path], by_name: dict[str, list[str]]
) -> str | None:
    """The real video of a forgery: of the same place and name, of the same name, or of the longest beginning."""
    if str(name) in reals:
        return str(name)
    stem = name.name
    starts = [stem, *(stem[: match.start()] for match in re.finditer(r"[_\- ]", stem))]
    for start in sorted(starts, key=len, reverse=True):
        same = by_name.get(start, [])
        if len(same) == 1:
            return same[0]
    return None


def _videos_below(root: Path) -> dict[str, Path]:
    """Path without suffix, relative to the root, to video; a folder of numbered pictures is one video."""
    found = {}
    files = [
        path
        for path in sorted(root.rglob("*"))
        if not path.name.startswith(".")
        and path.suffix.lower() not in NO_VIDEOS
        and not path.is_dir()
    ]
    sequences = {folder for folder in {path.parent for path in files} if _is_sequence(folder)}
    for path in files:
        video = path.parent if path.parent in sequences - {root} else path
        key = video.relative_to(root)
        found[(key if video.is_dir() else key.with_suffix("")).as_posix()] = video
    return found


def _is_sequence(folder: Path) -> bool:
    """Whether a folder holds the frames of one video: pictures named by a number alone, and nothing else."""
    names = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return len(names) > 1 and all(
        file.stem.isdigit() and file.suffix.lower() in PICTURES for file in names
    )


def _person(video: Path) -> str:
    found = re.match(IDENTITY_PATTERN, video.stem)
    return found.group() if found else video.stem


def _legal(key: str) -> str:
    return re.sub(r'[\\/:*?"<>|~@]', "-", key)

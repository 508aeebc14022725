"""Directory trees of public benchmarks, read into one list: which video is original, which its forgeries.

Names, lists and JSON only; no video is opened here. A reader returns groups of videos and a report.
Every file on disk that may be a video or a picture (`NO_VIDEOS` are none) is read or reported
(`accounted`), and what is named but missing is reported too.

Facts about the trees: FaceForensics++ (Rössler et al. 2019; its download script and split files), DFDC
and its preview (Dolhansky et al. 2019, 2020), FFIW10K (Zhou et al. 2021; its README).
"""

import csv
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, wraps
from pathlib import Path, PurePosixPath

from fwstudy.faces.people import IDENTITY_PATTERN, printable
from fwstudy.faces.pictures import SUFFIXES as PICTURES

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = {"train": TRAIN, "val": VALIDATION, "test": TEST}
MAX_ROWS = 20  # of one kind of remark that are listed one by one
NO_VIDEOS = {".json", ".csv", ".txt", ".npy", ".md", ".pdf", ".zip", ".wav", ".mp3"}


@dataclass(frozen=True)
class Outline:
    """A face outlined in a picture.

    Args:
        path: of the picture.
        shape: its height and width in pixels.
        polygons: x and y by turns, in pixels.
    """

    path: Path
    shape: tuple[int, int]
    polygons: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Forgery:
    """One forged video.

    Args:
        family: what it was forged with, e.g. ``Deepfakes``.
        path: video, picture, or folder of numbered pictures.
        source: identity that lent the face; that of the group where nobody did or it is not known.
        mask: video of the changed pixels, an outline of them, or None.
    """

    family: str
    path: Path
    source: str
    mask: Path | Outline | None = None


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
        face: of several faces in a picture the one that is meant.
    """

    name: str
    identity: str
    original: Path | None
    forgeries: tuple[Forgery, ...] = ()
    quality: str | None = None
    split: str | None = None
    group: str | None = None
    landmarks: Path | None = None
    face: Outline | None = None

    def paths(self) -> list[Path]:
        """The files and folders that the group was read from."""
        found = [path for forgery in self.forgeries for path in (forgery.path, forgery.mask)]
        return [path for path in (self.original, *found) if isinstance(path, Path)]


Report = list[dict]
Read = tuple[list[VideoGroup], Report]
Reader = Callable[[Path, Sequence[str], Sequence[str]], Read]
"""root, methods and qualities (the study's first, then others for the test split) to groups and report."""


def rows_for(files: Iterable[str | Path], reason: str, left_out: bool = True) -> Report:
    """A row of the report for each file with one reason; files that are there are given by their path."""
    return [{"file": file, "reason": reason, "left_out": left_out} for file in sorted(files)]


def shortened(report: Report) -> Report:
    """Of many rows with one reason the first `MAX_ROWS` and a count of the rest."""
    seen, found = Counter(), []
    for row in report:
        kind = (row["reason"], row["left_out"])
        seen[kind] += 1
        if seen[kind] <= MAX_ROWS:
            found.append(row)
    more = [(kind, count - MAX_ROWS) for kind, count in seen.items() if count > MAX_ROWS]
    return found + [
        {"file": f"and {count} more", "reason": reason, "left_out": left_out}
        for (reason, left_out), count in more
    ]


def files_below(root: Path) -> Iterator[Path]:
    """All files that may be a video or a picture."""
    for place, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() not in NO_VIDEOS:
                yield printable(Path(place, name))


def accounted(reader: Reader) -> Reader:
    """A reader after which every file of `files_below` the root is read or reported.

    What the reader neither took nor reported becomes one row a folder. A second group of one name
    and quality would overwrite the first one's clip; it is left out and reported.
    """

    @wraps(reader)
    def read(root: Path, methods: Sequence[str], qualities: Sequence[str]):
        groups, report = reader(root, methods, qualities)
        unique: dict[tuple, VideoGroup] = {}
        for group in groups:
            if unique.setdefault((group.name, group.quality), group) is not group:
                reason = f"a second video of the name {group.name}"
                report = report + rows_for(group.paths(), reason)
        groups = list(unique.values())
        taken = {path for group in groups for path in group.paths()}
        told = {row["file"] for row in report if isinstance(row["file"], Path)}
        rest = defaultdict(list)

        @cache
        def known(path: Path) -> bool:
            if path in taken or path in told:
                return True
            if path.parent in taken:
                return path.suffix.lower() in PICTURES
            return path != root and known(path.parent)

        for file in files_below(root):
            if not known(file):
                rest[file.parent].append(file)
        for folder, files in rest.items():
            report = report + rows_for([files[0] if len(files) == 1 else folder], _rest(files))
        for row in report:
            file = row["file"]
            inside = isinstance(file, Path) and file.is_relative_to(root)
            row["file"] = file.relative_to(root).as_posix() if inside else str(file)
        return groups, shortened(report)

    return read


def _rest(files: Sequence[Path]) -> str:
    what = "not read" if len(files) == 1 else f"{len(files)} files not read, e.g. {files[0].name}"
    return (
        f"{what}: not part of this layout, of a method or quality that was not asked for, "
        "or a second file of one name"
    )


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


def read_text(path: Path) -> str:
    """The text of a list.

    Raises:
        FileNotFoundError, ValueError: missing, or not in UTF-8; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text in UTF-8: {error}") from error


def read_json(path: Path, kind: type = dict):
    """The content of a JSON file.

    Raises:
        FileNotFoundError, ValueError: missing, damaged or of another kind; the message names it.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    if type(content) is not kind:
        raise ValueError(f"{path}: expected a {kind.__name__}, not a {type(content).__name__}")
    return content


def read_entries(path: Path) -> dict[str, dict]:
    """A JSON file of one mapping a video; raises as `read_json`, and names an entry that is none."""
    content = read_json(path)
    for key, entry in content.items():
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {key}: expected a dict, not a {type(entry).__name__}")  # noqa: TRY004
    return content


def folder_of(parent: Path, *names: str) -> Path:
    """The first of the named folders that is there.

    Raises:
        FileNotFoundError: none is; the message names the first.
    """
    for name in names:
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(f"{parent / names[0]}: no such folder; expected in this layout")


def keep_test_apart(video_groups: list[VideoGroup]) -> Read:
    """Leave out of training whoever is seen, or lends a face, in the official test split.

    Groups without a split whose person is in the test split go; of the others, the forgeries with a
    face from there.
    """
    listed = [video_group for video_group in video_groups if video_group.split == TEST]
    tested = {video_group.identity for video_group in listed}
    tested |= {forgery.source for video_group in listed for forgery in video_group.forgeries}
    kept, gone = [], []
    for video_group in video_groups:
        if video_group.split is not None:
            kept.append(video_group)
            continue
        clean = tuple(f for f in video_group.forgeries if f.source not in tested)
        if video_group.identity in tested or (video_group.original is None and not clean):
            gone += [video_group.original] if video_group.original else []
            gone += [forgery.path for forgery in video_group.forgeries]
            continue
        gone += [forgery.path for forgery in video_group.forgeries if forgery not in clean]
        kept.append(replace(video_group, forgeries=clean))
    return kept, rows_for(gone, "not in the test list, but a person of it is seen or lends a face")


# FaceForensics++

QUALITY_FOLDERS = {"raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}
ACTORS = "DeepFakeDetection"
SPLIT_PLACES = ("", "splits", "dataset/splits")


def official_splits(root: Path) -> dict[str, str]:
    """Video id to split, from the three lists of pairs that FaceForensics++ publishes.

    Raises:
        FileNotFoundError: a list is missing; the message says where to get it and where to put it.
    """
    found = {}
    for name, split in SPLITS.items():
        places = [root / place / f"{name}.json" for place in SPLIT_PLACES]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"{places[0]}: no such file. The official lists train.json, val.json and test.json "
                "are in the folder dataset/splits of the repository ondyari/FaceForensics; put them "
                "into the data set's folder"
            )
        pairs = read_json(path, list)
        if not all(isinstance(pair, list) for pair in pairs):
            raise ValueError(f'{path}: not a list of pairs of videos, e.g. [["953", "974"]]')
        found |= {str(video).zfill(3): split for pair in pairs for video in pair}
    return found


def sequences(folder: Path, quality: str) -> dict[str, Path]:
    """The videos of ``folder/<quality>/videos`` (or, where there are none, of ``images``)."""
    place = folder_of(folder, *QUALITY_FOLDERS[quality])
    return videos_in(folder_of(place, "videos", "images"))


def mask_videos(folder: Path) -> dict[str, Path]:
    """The mask videos of a method; one set for all qualities."""
    places = [folder / "masks" / "videos", folder / "masks" / "images", folder / "masks"]
    return videos_in(next((place for place in places if place.is_dir()), places[0]))


@accounted
def faceforensics(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
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


def _youtube(root: Path, methods: Sequence[str], quality: str, wanted: set[str]) -> Read:
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
                report += rows_for([path], "named in no split file")
        missing = [f"{method}/{name}" for name in split_of if name not in known]
        report += rows_for(
            [name for name in missing if split_of[name.split("/")[1]] in wanted],
            f"a forgery of this video is missing at {quality}",
        )
    report += rows_for(
        [path for stem, path in originals.items() if stem not in split_of],
        "named in no split file",
    )
    lost = [name for name in split_of if name not in originals and split_of[name] in wanted]
    report += rows_for(lost, f"original missing at {quality}; its forgeries are left out too")
    report += rows_for(
        [forgery.path for name in lost for forgery in forged[name]], "its original is missing"
    )
    video_groups = []
    for name in sorted(set(split_of) & set(originals)):
        person, made, split = f"youtube-{name}", tuple(forged[name]), split_of[name]
        if split in wanted:
            video_groups.append(VideoGroup(person, person, originals[name], made, quality, split))
    return video_groups, report


def actor_people(stem: str) -> tuple[str, str, str]:
    """Person, lender and name of the original of a video of actors: ``01_02__scene__code``."""
    people, scene, *_ = [*stem.split("__"), ""]
    target, _, source = people.partition("_")
    return f"actor-{target}", f"actor-{source or target}", f"{target}__{scene}"


def _actors(root: Path, quality: str) -> Read:
    originals = sequences(folder_of(root, "original_sequences") / "actors", quality)
    folder = folder_of(root / "manipulated_sequences", ACTORS)
    masks, forged, lonely = mask_videos(folder), defaultdict(list), []
    for stem, path in sequences(folder, quality).items():
        _, lender, original = actor_people(stem)
        forgery = Forgery(ACTORS, path, lender, masks.get(stem))
        (forged[original] if original in originals else lonely).append(forgery)
    video_groups = [
        VideoGroup(f"actor-{stem}", f"actor-{stem[:2]}", path, tuple(forged[stem]), quality, TEST)
        for stem, path in originals.items()
    ]
    video_groups += [
        alone(forgery, f"actor-{forgery.path.stem[:2]}", quality, TEST) for forgery in lonely
    ]
    return video_groups, rows_for([f.path for f in lonely], "its original is missing", False)


def alone(forgery: Forgery, identity: str, quality: str | None, split: str | None) -> VideoGroup:
    """A forgery whose original is not in the data set."""
    return VideoGroup(
        f"{forgery.family}-{forgery.path.stem}", identity, None, (forgery,), quality, split
    )


# DFDC


@accounted
def dfdc(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
    """DFDC: folders with ``metadata.json``; people recur within a folder, so that a folder is a group.

    ``test`` with ``labels.csv`` (filename, label) or ``metadata.json`` (is_fake), if there, is the test
    split; its forgeries name no originals.

    Raises:
        ValueError: another layout, or a list that cannot be understood; the message names file and line.
    """
    video_groups, report = [], []
    for path in sorted([*root.glob("*/metadata.json"), *root.glob("train/*/metadata.json")]):
        if path.parent.name != TEST:
            more, rows = _dfdc_part(path)
            video_groups, report = video_groups + more, report + rows
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


def _dfdc_part(path: Path) -> Read:
    group, videos, video_groups = path.parent.name, videos_in(path.parent), []
    entries = {Path(name).stem: entry for name, entry in read_entries(path).items()}
    report = rows_for(
        [f"{group}/{stem}" for stem in set(entries) - set(videos)],
        "named in metadata.json, but missing",
    )
    report += rows_for(
        [videos[stem] for stem in set(videos) - set(entries)], "not named in metadata.json"
    )
    made, reals = defaultdict(list), []
    for stem in sorted(set(entries) & set(videos)):
        entry = entries[stem]
        if is_fake(entry.get("label"), f"{path}: {stem}: label"):
            original = Path(str(entry.get("original") or stem)).stem
            made[original].append(Forgery("DFDC", videos[stem], original))
        else:
            reals.append(stem)
    for stem in reals:
        forgeries = tuple(made.pop(stem, ()))
        video_groups.append(
            VideoGroup(f"{group}-{stem}", stem, videos[stem], forgeries, group=group)
        )
    for original, forgeries in made.items():
        report += rows_for([f.path for f in forgeries], "its original is missing", False)
        video_groups += [
            replace(alone(forgery, original, None, None), group=group) for forgery in forgeries
        ]
    return video_groups, report


LABELS = {"0": False, "1": True, "real": False, "fake": True, "false": False, "true": True}


def is_fake(label: object, place: str) -> bool:
    """What a label of a list says.

    Raises:
        ValueError: it is none of `LABELS`; the message begins with `place`.
    """
    try:
        return LABELS[str(label).strip().lower()]
    except KeyError:
        raise ValueError(
            f"{place} is {label!r}; expected one of {', '.join(LABELS)}, in any case"
        ) from None


def _dfdc_test(root: Path, report: Report) -> list[tuple[str, Path, bool]]:
    folder = root / TEST
    videos, labels = videos_in(folder) | videos_in(folder / "videos"), {}
    listed, named = folder / "labels.csv", folder / "metadata.json"
    if listed.is_file():
        table = csv.DictReader(read_text(listed).splitlines())
        if not {"filename", "label"} <= set(table.fieldnames or ()):
            raise ValueError(f"{listed}: line 1: expected the columns filename and label")
        for row in table:
            place = f"{listed}: line {table.line_num}: label"
            labels[Path(row["filename"] or "").stem] = is_fake(row["label"], place)
    elif named.is_file():
        for name, entry in read_entries(named).items():
            labels[Path(name).stem] = is_fake(entry.get("is_fake"), f"{named}: {name}: is_fake")
    report += rows_for(set(labels) - set(videos), "named in the test split, but missing")
    return [(stem, videos[stem], labels[stem]) for stem in sorted(set(labels) & set(videos))]


PREVIEW_FAMILIES = {"method_A": "DFDCP-A", "method_B": "DFDCP-B"}


@accounted
def dfdc_preview(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
    """DFDC preview: ``dataset.json`` names label, target, lender and set of every video.

    A forgery's ``source_video`` names its original, up to the number at the end of both names; where
    that fits none of its set, the forgery stands alone.
    """
    path = root / "dataset.json"
    entries = read_entries(path)
    for key, entry in entries.items():
        for name in {"label", "set"} - set(entry):
            raise ValueError(f"{path}: {key}: no {name}")
    present = {key: entry for key, entry in sorted(entries.items()) if (root / key).exists()}
    report = rows_for(set(entries) - set(present), "named in dataset.json, but missing")
    reals = {
        key
        for key, entry in present.items()
        if not is_fake(entry["label"], f"{path}: {key}: label")
    }
    by_stem = {PurePosixPath(key).stem: key for key in reals}
    made, video_groups = defaultdict(list), []
    for key, entry in present.items():
        if key in reals:
            continue
        person = str(entry.get("target_id") or PurePosixPath(key).stem.split("_")[0])
        lender = str(entry.get("swapped_id") or person)
        family = PREVIEW_FAMILIES.get(key.split("/")[0], "DFDCP")
        forgery = Forgery(family, root / key, lender)
        source = PurePosixPath(str(entry.get("source_video", ""))).stem
        ending = PurePosixPath(key).stem.rpartition("_")[2]
        original = by_stem.get(f"{source}_{ending}") or by_stem.get(source)
        if original and present[original]["set"] == entry["set"]:
            made[original].append(forgery)
        else:
            video_groups.append(
                alone(forgery, person, None, TEST if entry["set"] == TEST else None)
            )
    for key in sorted(reals):
        entry, stem = present[key], PurePosixPath(key).stem
        split = TEST if entry["set"] == TEST else None
        person = str(entry.get("target_id") or stem.split("_")[0])
        video_groups.append(VideoGroup(stem, person, root / key, tuple(made[key]), None, split))
    kept, rows = keep_test_apart(video_groups)
    return kept, report + rows


# FFIW10K


@accounted
def ffiw(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
    """FFIW10K: ``source`` holds originals, ``target`` their forgeries, ``target_mask`` masks, by split.

    Several people are seen and one of them is forged; the mask tells which. Nothing is known of who
    they are, so that each video is a person. The test part is handed out apart: ``test`` with the
    same three folders in it is read too.
    """
    folder_of(root, "source")
    video_groups, report = [], []
    for name, split in SPLITS.items():
        originals, forged, masks = (
            videos_in(root / kind / name) | videos_in(root / name / kind)
            for kind in ("source", "target", "target_mask")
        )
        for stem in sorted(originals | forged):
            person, video = f"ffiw-{stem}", forged.get(stem)
            made = (Forgery("FFIW", video, person, masks.get(stem)),) if video else ()
            video_groups.append(VideoGroup(stem, person, originals.get(stem), made, None, split))
        lonely = set(forged) - set(originals)
        report += rows_for([forged[stem] for stem in lonely], "its original is missing", False)
    return video_groups, report


# A folder of anybody's videos

REAL, FAKE, MASKS = "real", "fake", "masks"


@accounted
def folder(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
    """``real/`` and ``fake/``, with ``masks/`` if there are any: pictures, videos, or folders of pictures.

    A forgery belongs to the real video whose name it has, or begins with (then a blank, ``_`` or
    ``-``); without one it stands alone. Folders directly below ``fake/`` name the families. Masks have
    the forgeries' names, whatever their suffix. A folder whose pictures differ in one number alone is
    one video. The part of a name before the first ``_`` is the person; where one name stands in several
    folders it names nobody, and the folder is the person.

    Raises:
        FileNotFoundError: ``real`` or ``fake`` is missing or empty.
    """
    beside_real = {file.stem for file in (root / REAL).glob("*") if file.is_file()}
    found = {REAL: _videos_below(root / REAL), FAKE: _videos_below(root / FAKE, beside_real)}
    for name, videos in found.items():
        if not videos:
            raise FileNotFoundError(
                f"{root / name}: no such folder, or nothing in it; expected {REAL}/ and {FAKE}/ with "
                f"pictures or videos, and {MASKS}/ if there are masks"
            )
    masks = _videos_below(root / MASKS, beside_real)
    reals = defaultdict(list)
    for key in found[REAL]:
        reals[PurePosixPath(key).name].append(key)
    by_folder = any(len(keys) > 1 for keys in reals.values())
    places = {key.partition("/")[0] for key in found[REAL] if "/" in key}
    made, video_groups, lonely = defaultdict(list), [], []
    for key, video in found[FAKE].items():
        family, _, inside = key.partition("/") if "/" in key else (FAKE, "", key)
        if inside not in found[REAL] and family in places:  # fake/ is arranged as real/ is
            family, inside = FAKE, key
        forgery = Forgery(family, video, "", masks.get(key) or masks.get(inside))
        original = _best_original(PurePosixPath(inside), found[REAL], reals)
        if original is None:
            person = _person(PurePosixPath(inside), by_folder)
            lonely.append(video)
            single = alone(replace(forgery, source=person), person, None, None)
            video_groups.append(replace(single, name=_legal(f"{FAKE}-{key}")))
        else:
            lender = _person(PurePosixPath(original), by_folder)
            made[original].append(replace(forgery, source=lender))
    for key, video in found[REAL].items():
        person = _person(PurePosixPath(key), by_folder)
        video_groups.append(VideoGroup(_legal(key), person, video, tuple(made[key])))
    return video_groups, rows_for(
        lonely, "no real video of this name: used without an original", False
    )


def _best_original(
    name: PurePosixPath, reals: dict[str, Path], by_name: dict[str, list[str]]
) -> str | None:
    """The real video of a forgery: of its name, else of the longest beginning; first in its own place."""
    stem = name.name
    starts = [stem, *(stem[: match.start()] for match in re.finditer(r"(?<=.)[_\- ]", stem))]
    for start in sorted(starts, key=len, reverse=True):
        own = name.with_name(start).as_posix()
        if own in reals:
            return own
        same = by_name.get(start, [])
        if len(same) == 1:
            return same[0]
    return None


def _videos_below(root: Path, beside: set[str] = frozenset()) -> dict[str, Path]:
    """Path without suffix, relative to the root, to video; a folder of numbered pictures is one video.

    Args:
        beside: names of single pictures; a folder directly below the root that holds some of them holds
            pictures of a family, and is no video.
    """
    found, files = {}, list(files_below(root))
    inside = defaultdict(list)
    for path in files:
        inside[path.parent].append(path)
    sequences = {
        place
        for place, members in inside.items()
        if place != root
        and _is_sequence(members)
        and not (place.parent == root and beside & {member.stem for member in members})
    }
    for path in files:
        video = path.parent if path.parent in sequences else path
        key = video.relative_to(root)
        found.setdefault((key if video.is_dir() else key.with_suffix("")).as_posix(), video)
    return found


def _is_sequence(files: Sequence[Path]) -> bool:
    """Whether the files of a folder are the frames of one video: pictures that differ in a number alone."""
    shapes = {re.sub(r"\d+(?=\D*$)", "#", file.stem) for file in files}
    pictures = all(file.suffix.lower() in PICTURES for file in files)
    return len(files) > 1 and pictures and len(shapes) == 1 and "#" in shapes.pop()


def _person(key: PurePosixPath, by_folder: bool) -> str:
    """The folder's name, or what the video's own name begins with."""
    if by_folder and len(key.parts) > 1:
        return key.parent.as_posix()
    found = re.match(IDENTITY_PATTERN, key.name)
    return found.group() if found else key.name


def _legal(key: str) -> str:
    return re.sub(r'[\\/:*?"<>|~@]', "-", key)

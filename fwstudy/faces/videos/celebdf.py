"""Celeb-DF-v2 (Li et al. 2020) and Celeb-DF++ (Li et al. 2025): trees, names and the list of test videos."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fwstudy.faces.pictures import SUFFIXES as PICTURES
from fwstudy.faces.videos.layouts import (
    NO_VIDEOS,
    TEST,
    Forgery,
    Read,
    VideoGroup,
    accounted,
    alone,
    folder_of,
    keep_test_apart,
    read_text,
    rows_for,
)

REAL, YOUTUBE, FAKE = "Celeb-real", "YouTube-real", "Celeb-synthesis"
TEST_LIST = "List_of_testing_videos.txt"
NAME = re.compile(r"(id\d+)_(?:(id\d+)_)?(\d+)(?:_test_.*)?$")
INNER = ("frames", "images", "videos")  # folders that only say how videos are stored; the last wins
NO_FRAMES = {"landmarks", "masks"}
CROPPED = ("FaceReenact", "TalkingFace")  # kinds of Celeb-DF++ that are crops of 256 px …
WHOLE = {"LivePortrait"}  # … but for these methods


def celeb_people(stem: str) -> tuple[str, str, str]:
    """Target, source and stem of the original of a video: ``id0_id1_0000`` is ``id0_0000`` with id1's face.

    A talking face, ``id0_0000_test_3``, has no source. A video without such a name (YouTube-real) is a
    person of its own.
    """
    found = NAME.match(stem)
    if not found:
        return f"youtube-{stem}", f"youtube-{stem}", stem
    target, source, number = found.groups()
    return target, source or target, f"{target}_{number}"


def tree_videos(folder: Path, inside: PurePosixPath | None = None) -> Iterator[tuple[str, Path]]:
    """All videos below a folder: files, and folders that hold pictures.

    Yields:
        path below the dataset without suffix and without folders of `INNER`, and the video.
    """
    inside = inside or PurePosixPath(folder.name)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for entry in (entry for entry in entries if not entry.name.startswith(".")):
        if not entry.is_dir():
            if entry.suffix.lower() not in NO_VIDEOS:
                yield (inside / entry.stem).as_posix(), entry
        elif any(file.suffix.lower() in PICTURES for file in entry.iterdir()):
            yield (inside / entry.name).as_posix(), entry
        elif entry.name not in NO_FRAMES:
            yield from tree_videos(entry, inside if entry.name in INNER else inside / entry.name)


def read_list(path: Path) -> dict[str, bool]:
    """Videos of the list, without suffix, to whether their label is that of a real one.

    Which label is the real one is decided by the folders of most lines (1 in Celeb-DF-v2).

    Raises:
        FileNotFoundError, ValueError: missing, or a line is no label and path; file and line are named.
    """
    labels = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        if len(words) < 2 or words[0] not in ("0", "1"):
            raise ValueError(f"{path}: line {number}: {line!r} is no label (0 or 1) and a path")
        video = PurePosixPath(words[1].strip().replace("\\", "/")).with_suffix("")
        key = PurePosixPath(*(part for part in video.parts if part not in (*INNER, ".")))
        labels[key.as_posix()] = words[0]
    votes = Counter(label for key, label in labels.items() if not key.startswith(FAKE))
    votes += Counter("10"[int(label)] for key, label in labels.items() if key.startswith(FAKE))
    real = "0" if votes["0"] > votes["1"] else "1"
    return {key: label == real for key, label in labels.items()}


@accounted
def celeb_df(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
    """Celeb-DF-v2 or ++: its list of test videos is the test split, and exactly it.

    Files may lie in ``videos`` or as pictures in folders, whatever the suffix in the list. A listed
    forgery whose original is not listed stands alone, since that original must not count as a test
    video. Videos outside the list are for training if nobody in them is in the list. Of ``methods``,
    if there are any, the forgeries of Celeb-DF++ are read; else all.

    Raises:
        FileNotFoundError, ValueError: a folder or the list is missing, or the list names no video here.
    """
    folder_of(root, REAL)
    labels = read_list(root / TEST_LIST)
    reals = dict(video for name in (REAL, YOUTUBE) for video in tree_videos(root / name))
    fakes = dict(tree_videos(root / FAKE))
    method_of = {key: PurePosixPath(key).parent.name for key in fakes}
    found = set(method_of.values()) - {FAKE}
    if found and methods and not found & set(methods):
        raise ValueError(f"{root / FAKE}: none of {', '.join(methods)}; there are {sorted(found)}")
    if found and methods:
        fakes = {key: video for key, video in fakes.items() if method_of[key] in methods}
    listed = set(labels) & (set(reals) | set(fakes))
    if not listed:
        raise ValueError(
            f"{root / TEST_LIST}: none of its {len(labels)} videos is in this folder, e.g. "
            f"{min(labels, default=None)}: there would be no test split"
        )
    originals = {PurePosixPath(key).name: key for key in reals}
    made, video_groups = defaultdict(list), []
    for key, video in fakes.items():
        _, *kinds, stem = key.split("/")
        target, source, first = celeb_people(stem)
        forgery = Forgery(kinds[-1] if kinds else "CelebDF", video, source)
        original = originals.get(first)
        crop = kinds and kinds[0] in CROPPED and kinds[-1] not in WHOLE
        if original is not None and not crop and (original in listed) == (key in listed):
            made[original].append(forgery)
        else:
            single = alone(forgery, target, None, TEST if key in listed else None)
            named = "-".join([*kinds, stem])
            video_groups.append(replace(single, name=named) if kinds else single)
    for key, video in reals.items():
        stem, split = PurePosixPath(key).name, TEST if key in listed else None
        person = celeb_people(stem)[0]
        video_groups.append(VideoGroup(stem, person, video, tuple(made[key]), None, split))
    kept, report = keep_test_apart(sorted(video_groups, key=lambda video_group: video_group.name))
    wrong = [key for key in listed if labels[key] == key.startswith(FAKE)]
    report += rows_for(
        (reals.get(key) or fakes[key] for key in wrong),
        f"its label in {TEST_LIST} contradicts its folder; the folder is believed",
        False,
    )
    missing = set(labels) - listed
    return kept, report + rows_for(missing, f"named in {TEST_LIST}, but missing")

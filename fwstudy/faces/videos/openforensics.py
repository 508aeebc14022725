"""OpenForensics (Le et al. 2021): pictures of several people, of whom some are forged, outlined in COCO's form."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fwstudy.faces.videos.layouts import (
    TEST,
    TRAIN,
    VALIDATION,
    Forgery,
    Outline,
    Report,
    VideoGroup,
    accounted,
    files_below,
    read_json,
    rows_for,
)

ENDING = "_poly.json"
SPLITS = {"train": TRAIN, "val": VALIDATION, "test": TEST}
"""Beginning of a part's name, in lower case, to its split; Test-Dev and Test-Challenge are both for tests."""
FAKE_CATEGORY = 1


@accounted
def openforensics(
    root: Path, methods: Sequence[str], qualities: Sequence[str]
) -> tuple[list[VideoGroup], Report]:
    """OpenForensics: ``<part>_poly.json`` outlines real (category 0) and forged (1) faces of pictures.

    Each outlined face is a video of one frame and, since nobody is named, a person. A forged face has no
    original; its outline is the mask. Pictures are found by their file names below the root.

    Raises:
        FileNotFoundError, ValueError: no such list, or one that cannot be understood; it is named.
    """
    lists = sorted(root.rglob(f"*{ENDING}"))
    if not lists:
        raise FileNotFoundError(
            f"{root / ('Train' + ENDING)}: no such file; it comes with OpenForensics"
        )
    files = {file.name: file for file in files_below(root)}
    video_groups, report = [], []
    for path in lists:
        part = path.name.removesuffix(ENDING)
        split = next((s for start, s in SPLITS.items() if part.lower().startswith(start)), None)
        if split is None:
            raise ValueError(f"{path}: the name begins with none of {', '.join(SPLITS)}")
        more, rows = _part(path, part, split, files)
        video_groups, report = video_groups + more, report + rows
    return video_groups, report


def _part(path: Path, part: str, split: str, files: dict[str, Path]) -> tuple[list, Report]:
    content, faces = read_json(path), defaultdict(list)
    try:
        for face in content["annotations"]:
            faces[face["image_id"]].append((face["id"], face["category_id"], face["segmentation"]))
        images = {
            image["id"]: (PurePosixPath(image["file_name"]).name, image["height"], image["width"])
            for image in content["images"]
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not in COCO's form: {error} is missing") from error
    video_groups, without = [], []
    for key, (name, height, width) in images.items():
        file = files.get(name)
        for number, category, polygons in faces[key] if file else ():
            if not isinstance(polygons, list) or not polygons:
                without.append(f"{part}/{name}: face {number}")
                continue
            outline = Outline(file, (height, width), tuple(map(tuple, polygons)))
            person = f"{part}-{file.stem}-{number}"
            made = (Forgery("OpenForensics", file, person, outline),)
            is_fake = category == FAKE_CATEGORY
            video_groups.append(
                VideoGroup(
                    person,
                    person,
                    None if is_fake else file,
                    made if is_fake else (),
                    None,
                    split,
                    face=outline,
                )
            )
    missing = [f"{part}/{name}" for name, *_ in images.values() if name not in files]
    report = rows_for(missing, f"named in {path.name}, but missing")
    return video_groups, report + rows_for(without, "a face without a polygon")

"""OpenForensics (Le et al. 2021): pictures of several people, of whom some are forged, outlined in COCO's form."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fwstudy.faces.videos.layouts import (
    SPLITS,
    Forgery,
    Outline,
    Read,
    Report,
    VideoGroup,
    accounted,
    files_below,
    read_json,
    rows_for,
)

ENDING = "_poly.json"


@accounted
def openforensics(root: Path, methods: Sequence[str], qualities: Sequence[str]) -> Read:
    """OpenForensics: ``<part>_poly.json`` outlines real (category 0) and forged (1) faces of pictures.

    Each outlined face is a video of one frame and, since nobody is named, a person. A forged face has no
    original; its outline is the mask. Pictures are found by their file names below the root.

    Raises:
        FileNotFoundError, ValueError: no such list, or one that cannot be understood; it is named.
    """
    lists = sorted(root.rglob(f"[!.]*{ENDING}"))
    if not lists:
        raise FileNotFoundError(
            f"{root / ('Train' + ENDING)}: no such file; it comes with OpenForensics"
        )
    files = {file.name: file for file in files_below(root)}
    video_groups, report = [], []
    for path in lists:
        part = path.name.removesuffix(ENDING)
        # Test-Dev and Test-Challenge are both for tests.
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
        raise ValueError(f"{path}: not in COCO's form: {error} (missing?)") from error
    video_groups = []
    report = rows_for(
        [f"{part}: face {face[0]}" for key in set(faces) - set(images) for face in faces[key]],
        f"its picture is not named in {path.name}",
    )
    for key, (name, height, width) in images.items():
        file = files.get(name)
        for number, category, polygons in faces[key] if file else ():
            reason = _unusable(category, polygons, width, height)
            if reason:
                report += rows_for([f"{part}/{name}: face {number}"], reason)
                continue
            outline = Outline(file, (height, width), tuple(map(tuple, polygons)))
            person = f"{part}-{file.stem}-{number}"
            made = (Forgery("OpenForensics", file, person, outline),) if category else ()
            group = VideoGroup(person, person, None if made else file, made, None, split)
            video_groups.append(replace(group, face=outline))
    missing = [f"{part}/{name}" for name, *_ in images.values() if name not in files]
    return video_groups, report + rows_for(missing, f"named in {path.name}, but missing")


def _unusable(category: object, polygons: object, width: int, height: int) -> str:
    """Why an outlined face is left out; empty if it is not."""
    if category not in (0, 1):
        return f"its category is {category}, neither 0 (real) nor 1 (forged)"
    drawn = polygons if isinstance(polygons, list) else []
    numbers = [isinstance(p, list) and all(isinstance(x, (int, float)) for x in p) for p in drawn]
    if not drawn or not all(numbers) or not all(len(p) >= 6 and len(p) % 2 == 0 for p in drawn):
        return "a face without a polygon"
    points = [point for polygon in drawn for point in zip(polygon[::2], polygon[1::2], strict=True)]
    inside = any(0 <= x < width and 0 <= y < height for x, y in points)
    return "" if inside else "its polygon lies beyond the picture"

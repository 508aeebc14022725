"""From videos to clips: the face is found in the original, followed, and cut out of all its forgeries.

The face is looked for in the original alone, and what is cut out of a forgery and its mask is the same
square of the same frame: the two halves of a pair differ by the forgery and by nothing else.
"""

import glob
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from fwstudy.clips import Clip, Variant, VideoOrigin, clip_file, load_header, pristine, save_clip
from fwstudy.faces.parts import draw_parts
from fwstudy.faces.videos.cutting import (
    Boxed,
    Shot,
    cut_beside,
    cut_masks,
    cut_matched,
    find_boxes,
    load_points,
    look_for_faces,
    read_landmarks,
)
from fwstudy.faces.videos.footage import InputError, Video
from fwstudy.faces.videos.layouts import Forgery, Outline, VideoGroup
from fwstudy.faces.videos.pairing import Match, Original, first_shift
from fwstudy.faces.videos.regions import changed_region
from fwstudy.faces.videos.remarks import Remarks
from fwstudy.faces.videos.tracking import Candidate, by_face, follow, is_cut, is_forged
from fwstudy.labels import ORIGINAL, VIDEO_MARK, family_of
from fwstudy.runtime import run

MIN_SHARED = 0.9  # of its original's frame numbers that a forgery must have to go with it
ALIGNED = 1.0  # px, mean distance of landmarks up to which a crop lies on its original's
COMPARED = 4  # frames, whose landmarks are compared


def fingerprint(video_group: VideoGroup) -> list:
    """What a clip depends on, to see that it is up to date: what is told of the group, and its files."""
    videos = [video_group.original, video_group.landmarks]
    videos += [path for forgery in video_group.forgeries for path in (forgery.path, forgery.mask)]
    told = [video_group.identity, video_group.split, video_group.group]
    told += [[forgery.family, forgery.source] for forgery in video_group.forgeries]
    told += [video_group.face.polygons] if video_group.face is not None else []
    files = (path if isinstance(path, Path) and path.exists() else None for path in videos)
    return [told, *(path and stamp(path) for path in files)]


def stamp(path: Path) -> list:
    """Name, size and time of change of a file; of a folder how many files it holds, and the newest's time."""
    files = list(path.iterdir()) if path.is_dir() else [path]
    size = len(files) if path.is_dir() else path.stat().st_size
    return [path.name, size, max((file.stat().st_mtime_ns for file in files), default=0)]


def variant_names(video_group: VideoGroup) -> list[str]:
    """A name for each forgery: its family, and the video where a family has several."""
    families = [forgery.family for forgery in video_group.forgeries]
    return [
        family if families.count(family) == 1 else f"{family}{VIDEO_MARK}{forgery.path.stem}"
        for family, forgery in zip(families, video_group.forgeries, strict=True)
    ]


def apart(video: Video, original: Video, landmarks: Path, own: Path) -> str:
    """Why a crop cannot be laid on its original's frame by frame; empty if it can.

    Args:
        landmarks, own: folders with those of the original and of the forgery; each was cut out by its own.
    """
    numbers = np.intersect1d(video.numbers, original.numbers)
    shared = len(numbers) / len(original.numbers)
    if shared < MIN_SHARED:
        return f"{shared:.0%} of the original's frames"
    if not own.is_dir():
        return "no landmarks to compare with the original's"
    places = np.linspace(0, len(numbers) - 1, min(COMPARED, len(numbers))).astype(int)
    names = [f"{number:03d}.npy" for number in numbers[places]]
    try:
        points = [[load_points(folder / name) for name in names] for folder in (landmarks, own)]
        distance = np.linalg.norm(np.subtract(*points), axis=-1).mean()
    except InputError:
        distance = np.nan
    if np.isnan(distance):
        return "landmarks of a compared frame are missing or not readable"
    return "" if distance <= ALIGNED else f"landmarks {distance:.1f} px from the original's"


def open_forgeries(video_group: VideoGroup, remarks: Remarks) -> dict[str, tuple[Forgery, Video]]:
    """Variant to its forgery and video, of those that can be read."""
    found = {}
    for name, forgery in zip(variant_names(video_group), video_group.forgeries, strict=True):
        video = remarks.opened(forgery.path, left_out=True)
        if video is not None:
            found[name] = forgery, video
    return found


def report_match(found: Match, video: Video, reference: Video, remarks: Remarks) -> None:
    """Say where a forgery has another length, number or shape than its original."""
    counts = len(video.numbers), len(reference.numbers)
    if counts[0] != counts[1]:
        remarks.add(video.path, f"{counts[0]} frames, its original {counts[1]}")
    if found.shift:
        told = f"frames shifted by {found.shift:+d} from its original's: laid on them"
        remarks.add(video.path, told)
    if found.shape:
        told = "its pixels are not square as its original's say: stretched to its shape"
        remarks.add(video.path, told)


def add_masks(
    shots: Sequence[Shot],
    name: str,
    path: Path | Outline,
    video: Video,
    found: Match,
    size: int,
    remarks: Remarks,
) -> None:
    """Cut the faces out of the masks of a variant, of which the shots are those that its video reaches."""
    mask = remarks.opened(path, left_out=False)
    if mask is None:
        return
    count, wanted = len(mask.numbers), len(video.numbers)
    if count != wanted:
        remarks.add(path, f"{count} frames, its video {wanted}")
    shift = first_shift(mask, video)
    begins = mask.numbers[0], video.numbers[0]
    if shift:
        remarks.add(path, f"numbered {shift:+d} from its video: laid on it in order")
    elif begins[0] != begins[1]:
        what = f"numbered from {begins[0]}, its video from {begins[1]}"
        remarks.add(path, f"{what}: laid on it by number")
    cuts = cut_masks(shots, mask, size, remarks, found.shift + shift, found.shape)
    cuts.added_to(shots, name, are_masks=True)


def on_its_own(video_group: VideoGroup, name: str, forgery: Forgery) -> VideoGroup:
    """The group of a forgery that does not go with its original."""
    landmarks = own_landmarks(forgery)
    return replace(
        video_group,
        name=f"{video_group.name}{VIDEO_MARK}{name}",
        original=None,
        forgeries=(forgery,),
        landmarks=landmarks if video_group.landmarks and landmarks.is_dir() else None,
    )


def own_landmarks(forgery: Forgery) -> Path:
    """Where the landmarks of frames lie that were cut out by others."""
    return forgery.path.parent.parent / "landmarks" / forgery.path.name


def cut_all(
    video_group: VideoGroup,
    reference: Video,
    num_frames: int,
    scale: float,
    size: int,
    remarks: Remarks,
) -> tuple[list[Shot], list[str], list[VideoGroup]]:
    """Cut the faces of a group out of all its videos, one after another.

    Args:
        reference: the video in which faces are looked for.
        num_frames, scale, size: see `cut_group`.

    Returns:
        one shot a frame; the forgeries that were cut; groups of their own for those that do not go with
        their original. A frame that cannot be decoded in one video is passed over in all. A variant is
        missing from the end of its video on, or from its first frame of another shape.
    """
    landmarks, numbers = video_group.landmarks, reference.evenly(num_frames)
    forgeries = open_forgeries(video_group, remarks) if video_group.original else {}
    original = Original(reference, numbers)
    compared = forgeries if landmarks is None else {}
    comparisons = {name: original.compared_with(video) for name, (_, video) in compared.items()}

    def find(number: int, image: np.ndarray, before: list[Boxed]) -> tuple[list[Boxed], int]:
        if landmarks is None:
            return find_boxes(image, scale, before)
        return read_landmarks(landmarks / f"{number:03d}.npy", image)

    first = ORIGINAL if video_group.original else variant_names(video_group)[0]
    shots, damaged = look_for_faces(
        reference, numbers, first, find, original, size, remarks, video_group.face
    )
    broken, cut_names, others = {reference: damaged}, [], []
    for name, (forgery, video) in forgeries.items():
        if landmarks is None:  # popped: what is compared is large
            found, cuts = cut_matched(shots, video, comparisons.pop(name), size, remarks)
        else:
            found = Match(reason=apart(video, reference, landmarks, own_landmarks(forgery)))
            cuts = None if found.reason else cut_beside(shots, video, size, remarks)
        if found.reason:
            remarks.add(forgery.path, f"{found.reason}: used without its original")
            others.append(on_its_own(video_group, name, forgery))
            continue
        report_match(found, video, reference, remarks)
        cuts.added_to(shots, name)
        broken[video] = cuts.damaged
        if cuts.faces:
            cut_names.append(name)
        if forgery.mask:
            add_masks(cuts.reached(shots), name, forgery.mask, video, found, size, remarks)
    if not video_group.original:
        cut_names = [first]
        if mask := video_group.forgeries[0].mask:
            add_masks(shots, first, mask, reference, Match(), size, remarks)
    if len(numbers) < num_frames:
        remarks.add(reference.path, f"short: {len(numbers)} of {num_frames} frames")
    for video, lost in broken.items():
        if lost:
            told = f"{len(lost)} of {len(numbers)} frames missing or not decodable"
            remarks.add(video.path, told)
    passed_over = set().union(*broken.values())
    return [shot for shot in shots if shot.number not in passed_over], cut_names, others


def cut_group(
    video_group: VideoGroup, root: Path, size: int, num_frames: int, scale: float, quality: str
) -> tuple[list[Clip], list[dict]]:
    """Find, follow and cut out the face of one group of videos.

    Args:
        video_group: its videos.
        root: of the data set, to name files relative to it.
        size: side of the crops in pixels.
        num_frames: of each video, evenly spaced in time (fewer if it is shorter; reported).
        scale: see `face_box`.
        quality: of videos whose data set has no qualities of its own.

    Returns:
        the clip; one for each forgery that does not go with its original, and one for each further
        person that a forgery changed; what there is to report.
    """
    remarks = Remarks(root)
    path = video_group.original or video_group.forgeries[0].path
    reference = remarks.opened(path, left_out=True)
    if reference is None:
        for forgery in video_group.forgeries if video_group.original else ():
            remarks.add(forgery.path, f"its original {path.name} cannot be read", True)
        return [], remarks.rows
    shots, cut_names, others = cut_all(video_group, reference, num_frames, scale, size, remarks)
    frames = [shot.faces for shot in shots]
    made = dict(zip(variant_names(video_group), video_group.forgeries, strict=True))
    people = by_face(frames, cut_names)
    clips, own = [], None
    if len(people) > 1:
        for further in people[1:]:
            forgeries = tuple(made[name] for name in further)
            for forgery in forgeries:
                remarks.add(forgery.path, "another face than in the first forgery: in its own clip")
            title = f"{video_group.name}{VIDEO_MARK}{further[0]}"
            others.append(replace(video_group, name=title, forgeries=forgeries))
        rest = tuple(made[name] for name in people[0])
        others.insert(0, replace(video_group, forgeries=rest))
    else:
        # Crops that were made by others have their landmarks, and are of one face already.
        whole = video_group.landmarks is None
        cuts = [whole and is_cut(one.thumbnail, other.thumbnail) for one, other in pairwise(shots)]
        chosen = follow(frames, [False, *cuts][: len(frames)])
        report_faces(frames, chosen, path, remarks)
        own = {shot.number: face for shot, face in zip(shots, chosen, strict=True) if face}
    for other in others:
        more, rows = cut_group(other, root, size, num_frames, scale, quality)
        clips += more
        remarks.rows += [row for row in rows if row not in remarks.rows]
    if own:
        several = any(len(frame) > 1 for frame in frames)
        clips.insert(0, assemble(video_group, own, quality, remarks, several))
    return clips, remarks.rows


def report_faces(
    frames: Sequence[Sequence[Candidate]],
    chosen: Sequence[Candidate | None],
    path: Path,
    remarks: Remarks,
) -> None:
    """Say in how many frames there was no face, another face, or a choice."""
    count = len(frames)
    empty = sum(not frame for frame in frames)
    other = sum(face is None for face in chosen) - empty
    several = sum(len(frame) > 1 for frame in frames)
    if empty == count:
        remarks.add(path, f"no face found in {count} frames", left_out=True)
        return
    if empty:
        remarks.add(path, f"no face in {empty} of {count} frames")
    if other:
        remarks.add(
            path, f"another face, or none that was forged, in {other} of {count} frames: left out"
        )
    if several:
        told = any(is_forged(face) for frame in frames for face in frame)
        which = "the one forged or outlined" if told else "the one shown most"
        remarks.add(path, f"several faces in {several} of {count} frames: {which} was taken")


def assemble(
    video_group: VideoGroup,
    faces: dict[int, Candidate],
    quality: str,
    remarks: Remarks,
    several: bool = False,
) -> Clip:
    """The clip of the chosen faces, by number of the frame.

    Args:
        several: whether there were several faces, so that a forgery of which no pixel differs from its
            original may be of another face; it is left out then.
    """
    found = list(faces.values())
    images = {
        name: np.stack([face.images[name] for face in found if name in face.images])
        for name in found[0].images
    }
    like = next(iter(images.values()))
    parts = np.stack(
        [
            draw_parts(candidate.face, image.shape[:2], image)
            for candidate, image in zip(found, like, strict=True)
        ]
    )
    variants, originals = {}, images.get(ORIGINAL)
    if originals is not None:
        variants[ORIGINAL] = pristine(originals, video_group.identity, video_group.original.stem)
    for name, forgery in zip(variant_names(video_group), video_group.forgeries, strict=True):
        if name not in images:
            continue
        count = len(images[name])
        region, known, why = changed_region(
            images[name],
            originals[:count] if originals is not None else None,
            [face.masks.get(name) for face in found[:count]],
            parts[:count],
        )
        if why:
            remarks.add(forgery.mask, why)
        if not (region > 127).any():
            remarks.add(forgery.path, "no pixel of the face differs from its original", several)
            if several:
                continue
        variants[name] = Variant(
            images[name], region > 127, region, forgery.source, forgery.path.stem, known
        )
    origin = VideoOrigin(
        video_group.quality or quality,
        [int(number) for number in faces],
        video_group.split,
        video_group.group,
        remarks.rows,
        fingerprint(video_group),
    )
    landmarks = np.stack([candidate.face.landmarks for candidate in found])
    return Clip(video_group.name, video_group.identity, landmarks, parts, variants, video=origin)


def finished(video_group: VideoGroup, path: Path) -> list[dict] | None:
    """What there was to report of a group whose clip is there and up to date; None if it is not."""
    try:
        video = load_header(path)["video"] if path.exists() else None
    except ValueError:
        return None
    now = json.loads(json.dumps(fingerprint(video_group)))
    return video["remarks"] if video and video["fingerprint"] == now else None


def unused(
    video_group: VideoGroup, root: Path, clips: Sequence[Clip], rows: Sequence[dict]
) -> list[dict]:
    """A row for each video of a group that is in no clip and that nothing was said of."""
    remarks, found = Remarks(root), [pair for clip in clips for pair in clip.variants.items()]
    used = {(family_of(name), variant.video) for name, variant in found}  # names recur in families
    videos = [(forgery.family, forgery.path) for forgery in video_group.forgeries]
    for family, path in ((ORIGINAL, video_group.original), *videos):
        if path is not None and (family, path.stem) not in used:
            remarks.add(path, "not used: no face where it lies on its original", True)
    told = {row["file"] for row in rows if row["left_out"]}
    return [row for row in remarks.rows if row["file"] not in told]


def work(
    video_group: VideoGroup, root: Path, folder: Path, options: dict
) -> tuple[list[Path], list[dict]]:
    """Cut one group and write its clips; one that is there already is kept.

    Raises:
        OSError: see `save_clip`.
    """
    quality = video_group.quality or options["quality"]
    own = clip_file(folder, video_group.name, quality)
    alone = clip_file(folder, f"{glob.escape(video_group.name)}{VIDEO_MARK}*", quality).name
    done = finished(video_group, own)
    if done is not None:
        return [own, *sorted(folder.glob(alone))], done
    for stale in folder.glob(alone):  # of videos that were exchanged
        stale.unlink()
    clips, rows = cut_group(video_group, root, **options)
    rows += unused(video_group, root, clips, rows)
    if clips and clips[0].name == video_group.name:
        # What is told of the whole group, of which the clip may hold a part.
        origin = replace(clips[0].video, remarks=rows, fingerprint=fingerprint(video_group))
        clips[0] = replace(clips[0], video=origin)
    # The group's own clip last: it says that all are there.
    return [save_clip(folder, clip) for clip in reversed(clips)], rows


def video_dataset(
    video_groups: Sequence[VideoGroup],
    root: Path,
    folder: Path,
    size: int,
    num_frames: int,
    scale: float,
    quality: str,
    num_workers: int = 1,
) -> tuple[list[Path], list[dict]]:
    """Turn the groups of videos of a data set into clips; clips already there are kept.

    Args:
        video_groups: see `fwstudy.faces.videos.layouts`.
        root: of the data set.
        folder: for the clips; created if need be.
        size, num_frames, scale, quality: see `cut_group`.
        num_workers: see `fwstudy.runtime.run`, and its `workers` for a cluster.

    Returns:
        The clips' files in sorted order, and a report: dicts with ``file``, ``reason``, ``left_out``.

    Raises:
        ValueError: not one face in all the videos.
        OSError: a clip cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {"size": size, "num_frames": num_frames, "scale": scale, "quality": quality}
    tasks = [(video_group, root, folder, options) for video_group in video_groups]
    found = list(run(work, tasks, num_workers, "videos", "group"))
    paths = sorted({path for paths, _ in found for path in paths})
    report = [row for _, rows in found for row in rows]
    if not paths:
        raise ValueError(
            f"no usable face in the {len(video_groups)} groups of videos of {root}: {report[:5]}"
        )
    return paths, report

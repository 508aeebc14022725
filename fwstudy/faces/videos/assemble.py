"""From videos to clips: the face is found in the original, followed, and cut out of all its forgeries.

Original, forgeries and mask videos of one `VideoGroup` run side by side, frame by frame, so that memory
does not grow with their length. The face is looked for in the original alone, and what is cut out of a
forgery and its mask is the same square of the same frame: the two halves of a pair differ by the
forgery and by nothing else. Crops keep the compression of the video; they are encoded once, by whoever
made the data set.
"""

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from fwstudy.clips import Clip, Variant, VideoOrigin, clip_file, load_header, pristine, save_clip
from fwstudy.crops.boxes import crop, face_box
from fwstudy.faces.detection import detect_faces
from fwstudy.faces.mesh import fit_shape
from fwstudy.faces.parts import FaceShape, draw_parts, shape_from_landmarks
from fwstudy.faces.videos.footage import InputError, Video, open_video
from fwstudy.faces.videos.layouts import Outline, VideoGroup
from fwstudy.faces.videos.pairing import (
    Match,
    Original,
    first_shift,
    highest,
    match,
    same_shape,
)
from fwstudy.faces.videos.tracking import (
    Candidate,
    by_face,
    follow,
    is_cut,
    is_forged,
    share_inside,
    thumbnail,
    where_forged,
)
from fwstudy.labels import ORIGINAL, VIDEO_MARK, family_of
from fwstudy.runtime import run

MAX_FACES = 4  # of a frame, the largest, that are followed
DIFFERENCE = 12.0  # gray levels, smoothed, by which a forged pixel differs from its original
ALL = 0.5  # share of a crop that differs at least where a mask that marks all of it is right
MUCH = 0.05  # share of a crop outside its mask that compression alone does not change
SMOOTHING = 2.0  # px of the crop: the difference is blurred before it is compared
MASK_LEVEL = 32  # gray level of a mask video above which a pixel is forged: codecs blur black
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


class Remarks:
    """What there is to report of the videos of one group."""

    def __init__(self, root: Path):
        self.root, self.rows = root, []

    def add(self, path: Path | Outline, reason: str, left_out: bool = False) -> None:
        """One row; a path below the root is given relative to it."""
        path = path.path if isinstance(path, Outline) else path
        inside = path.is_relative_to(self.root)
        file = path.relative_to(self.root).as_posix() if inside else path.name
        self.rows.append({"file": file, "reason": reason, "left_out": left_out})

    def opened(self, path: Path | Outline, left_out: bool) -> Video | None:
        """The video, or None and a row that says why not."""
        if isinstance(path, Outline):
            only = np.zeros(1, int)
            mask = np.repeat(filled(path)[..., None], 3, axis=-1)
            return Video(path.path, only, lambda count: only, lambda numbers: iter([mask]), [])
        try:
            video = open_video(path)
        except InputError as error:
            self.add(path, str(error).removeprefix(f"{path}: "), left_out)
            return None
        for note in video.notes:
            self.add(path, note)
        return video


def filled(outline: Outline) -> np.ndarray:
    """An outlined face as a mask: (H, W) uint8 of 0 and 255."""
    points = [np.reshape(polygon, (-1, 2)).round().astype(np.int32) for polygon in outline.polygons]
    return cv2.fillPoly(np.zeros(outline.shape, np.uint8), points, 255)


def cut(image: np.ndarray, box: np.ndarray, like: np.ndarray, size: int) -> np.ndarray:
    """The square of another video's frame, cut out of a frame that may be larger or smaller."""
    if image.shape[:2] != like.shape[:2]:
        scale = image.shape[1] / like.shape[1]
        left, top = np.round(box[:2] * scale).astype(int)
        side = max(2, round((box[2] - box[0]) * scale))
        box = np.array([left, top, left + side, top + side])
    how = cv2.INTER_AREA if box[2] - box[0] >= size else cv2.INTER_LINEAR
    return crop(image, box, size, how)


def into_crop(box: np.ndarray, size: int) -> np.ndarray:
    """From pixels of a frame to those of its `cut`, (2, 3): whole numbers are the centers of pixels."""
    scale = size / (box[2] - box[0])
    return np.column_stack([scale * np.eye(2), scale * (0.5 - box[:2]) - 0.5])


Boxed = tuple[np.ndarray, FaceShape]
"""The square around a face and its shape, in pixels of a frame."""


def find_boxes(reference: np.ndarray, scale: float) -> tuple[list[Boxed], int]:
    """The largest faces of a frame, and how many there are besides that no mesh fits."""
    shapes = [fit_shape(reference, face)[0] for face in detect_faces(reference)[:MAX_FACES]]
    found = [shape for shape in shapes if shape is not None]
    return [(face_box(shape.landmarks, scale), shape) for shape in found], len(shapes) - len(found)


def read_landmarks(path: Path, frame: np.ndarray) -> tuple[list[Boxed], int]:
    """The same of a frame that is a crop already, with its landmarks in a ``.npy`` file beside it."""
    face = shape_from_landmarks(load_points(path))
    return [(np.array([0, 0, *[max(frame.shape[:2])] * 2]), face)], 0


def load_points(path: Path) -> np.ndarray:
    """Landmarks in a ``.npy`` file: (68, 2) float32.

    Raises:
        InputError: the file holds no 68 points (more are cut off: DeepfakeBench has 81).
    """
    try:
        points = np.load(path, allow_pickle=False).astype(np.float32).reshape(-1, 2)[:68]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no landmarks can be read: {error}") from error
    if len(points) < 68:
        raise InputError(f"{path}: {len(points)} landmarks, not 68")
    return points


def cut_candidates(
    boxes: Sequence[Boxed],
    reference: np.ndarray,
    images: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    size: int,
    meant: Outline | None = None,
) -> list[Candidate]:
    """Each face of one frame, cut out of all videos.

    Args:
        boxes: see `find_boxes`.
        reference: (H, W, 3) uint8, the frame that the boxes are of.
        images: variant, the original included, to its frame.
        masks: variant to (H, W) uint8.
        size: side of the crops in pixels.
        meant: the face that is meant, if that is known of the original.
    """
    forged = {name: image for name, image in images.items() if name != ORIGINAL}
    guides = {
        name: where_forged(images.get(ORIGINAL), image, masks.get(name))
        for name, image in forged.items()
    }
    if meant is not None:
        guides[ORIGINAL] = where_forged(None, reference, filled(meant))
    return [
        Candidate(
            box,
            face.moved(into_crop(box, size)),
            {name: cut(image, box, reference, size) for name, image in images.items()},
            {name: cut(mask, box, reference, size) for name, mask in masks.items()},
            {
                name: share_inside(guide, box, reference.shape[1])
                for name, guide in guides.items()
                if guide is not None
            },
        )
        for box, face in boxes
    ]


def differing(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Where forged crops differ from their originals by more than compression explains: (F, S, S) bool."""
    away = [
        highest(cv2.absdiff(*pair)).astype(np.float32)
        for pair in zip(images, originals, strict=True)
    ]
    return np.stack([cv2.GaussianBlur(one, (0, 0), SMOOTHING) > DIFFERENCE for one in away])


def changed_region(
    images: np.ndarray,
    originals: np.ndarray | None,
    masks: Sequence[np.ndarray | None],
    parts: np.ndarray,
) -> tuple[np.ndarray, str, str]:
    """Where forged crops were changed: their masks, else the difference to the original, else the face.

    Args:
        images: (F, S, S, 3) uint8.
        originals: of the same shape, or None.
        masks: (S, S) uint8 of each frame, or None. Masks are used if all frames have one, they mark
            something, and the difference does not contradict them. Where there is no difference, they
            must not mark more of what is around the face than twice what they mark of the face; that
            a mask of the mouth alone is inverted cannot be seen then.
        parts: (F, S, S) uint8, see `PARTS`.

    Returns:
        (F, S, S) uint8, 0 or more, above 127 is changed; how it is known (`MASK_SOURCES`); what is to
        be said of the masks, and why they were not used, or empty.
    """
    away = differing(images, originals) if originals is not None else None
    there, why = [mask for mask in masks if mask is not None], ""
    if there:
        given = np.stack(there)
        inside = given > 127
        if len(there) < len(images):
            why = f"only {len(there)} of {len(images)} frames have a mask: not used"
        elif not inside.any():
            why = "nothing is marked in it where the face is: not used"
        elif inside.all() and away is None:
            return given, "given", "all is marked in it where the face is"
        elif inside.all() and away.mean() < ALL:
            why = "all is marked in it where the face is, less differs: not used"
        elif away is not None and _contradicts(inside, away):
            why = "it marks what is as in the original (inverted?): not used"
        elif away is None and _surrounds(inside, parts > 0):
            why = "it marks what is around the face (inverted?): not used"
        else:
            return given, "given", ""
    if away is not None:
        return np.uint8(255) * away, "difference", why
    return np.uint8(255) * (parts > 0), "face", why


def _contradicts(inside: np.ndarray, away: np.ndarray) -> bool:
    """Whether much differs outside a mask, and hardly anything inside."""
    outside = 0.0 if inside.all() else away[~inside].mean()
    return bool(outside > MUCH and away[inside].mean() < outside / 2)


def _surrounds(inside: np.ndarray, face: np.ndarray) -> bool:
    """Whether most of what is around the face is marked, and less than half as much of the face."""
    if face.all() or not face.any():
        return False
    around = inside[~face].mean()
    return bool(around > 0.5 and inside[face].mean() < around / 2)


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


class FrameReader:
    """The frames of one video at given numbers, until it ends or cannot be read on.

    Args:
        shift: added to the numbers.
        shape: (H, W) to which frames are stretched, or None.
    """

    def __init__(
        self,
        video: Video,
        numbers: np.ndarray,
        remarks: Remarks,
        shift: int = 0,
        shape: tuple[int, int] | None = None,
    ):
        self.video, self.remarks, self.shift, self.shape = video, remarks, shift, shape
        self.first, self.last = video.numbers.min(), video.numbers.max()
        own = numbers + shift
        self.frames = video.frames(own[(own >= self.first) & (own <= self.last)])

    def next(self, number: int) -> np.ndarray | None | bool:
        """The frame; None if this one cannot be decoded, False from the video's end on."""
        number += self.shift
        if number > self.last:
            return False
        if number < self.first:
            return None
        try:
            image = next(self.frames)
        except InputError as error:
            self.remarks.add(self.video.path, f"frame {number}: {error}")
            self.last = -1
            return False
        if image is None or self.shape is None:
            return image
        return cv2.resize(image, self.shape[::-1], interpolation=cv2.INTER_LINEAR)


Readers = dict[str, FrameReader]
"""Variant to its video, the original first, or to its mask."""


def align_videos(
    video_group: VideoGroup, reference: Video, numbers: np.ndarray, scale: float, remarks: Remarks
) -> tuple[Readers, Readers, list[VideoGroup]]:
    """Open the forgeries and masks of a group, and see how they lie on the original.

    Args:
        numbers: of the reference's frames that are wanted.
        scale: see `face_box`.

    Returns:
        the videos, their masks, and groups of their own for forgeries that do not go with their original.
    """
    names = variant_names(video_group)
    first = ORIGINAL if video_group.original is not None else names[0]
    videos, masks, alone = {first: FrameReader(reference, numbers, remarks)}, {}, []
    original = Original(reference, lambda frame: [box for box, _ in find_boxes(frame, scale)[0]])
    for name, forgery in zip(names, video_group.forgeries, strict=True):
        if name != first:
            video = remarks.opened(forgery.path, left_out=True)
            if video is None:
                continue
            place = forgery.path.parent.parent / "landmarks" / forgery.path.name
            if video_group.landmarks is not None:
                found = Match(reason=apart(video, reference, video_group.landmarks, place))
            else:
                found = match(original, video)
            if found.reason:
                remarks.add(forgery.path, f"{found.reason}: used without its original")
                own = place if video_group.landmarks and place.is_dir() else None
                title = f"{video_group.name}{VIDEO_MARK}{name}"
                alone.append(
                    replace(
                        video_group, name=title, original=None, forgeries=(forgery,), landmarks=own
                    )
                )
                continue
            report_match(found, forgery.path, video, reference, remarks)
            videos[name] = FrameReader(video, numbers, remarks, found.shift, found.shape)
        mask = forgery.mask and remarks.opened(forgery.mask, left_out=False)
        if mask:
            its = videos[name]
            count, wanted = len(mask.numbers), len(its.video.numbers)
            if count != wanted:
                remarks.add(forgery.mask, f"{count} frames, its video {wanted}")
            own = first_shift(mask, its.video)
            begins = mask.numbers[0], its.video.numbers[0]
            if own:
                remarks.add(forgery.mask, f"numbered {own:+d} from its video: laid on it in order")
            elif begins[0] != begins[1]:
                what = f"numbered from {begins[0]}, its video from {begins[1]}"
                remarks.add(forgery.mask, f"{what}: laid on it by number")
            masks[name] = FrameReader(mask, numbers, remarks, its.shift + own, its.shape)
    return videos, masks, alone


def report_match(
    found: Match, path: Path, video: Video, reference: Video, remarks: Remarks
) -> None:
    """Say where a forgery has another length, number or shape than its original."""
    counts = len(video.numbers), len(reference.numbers)
    if counts[0] != counts[1]:
        remarks.add(path, f"{counts[0]} frames, its original {counts[1]}")
    if found.shift:
        remarks.add(path, f"frames shifted by {found.shift:+d} from its original's: laid on them")
    if found.shape:
        remarks.add(path, "its pixels are not square as its original's say: stretched to its shape")


def side_by_side(
    videos: Readers, masks: Readers, numbers: np.ndarray, remarks: Remarks
) -> Iterator[tuple[int, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Number, images and masks of each frame; a variant is missing from the end of its video on.

    A frame that cannot be decoded in one video is passed over in all; masks are missing where they are.
    """
    videos, masks = dict(videos), dict(masks)
    damaged = {reader.video: 0 for reader in videos.values()}
    for number in numbers.tolist():
        images = {name: reader.next(number) for name, reader in videos.items()}
        covers = {name: reader.next(number) for name, reader in masks.items()}
        if images[next(iter(images))] is False:
            break
        for name in [name for name, image in images.items() if image is False]:
            del images[name], videos[name]
            covers.pop(name, None), masks.pop(name, None)
        broken = [videos[name].video for name, image in images.items() if image is None]
        for video in broken:
            damaged[video] += 1
        if not broken:
            found = {name: mask for name, mask in covers.items() if isinstance(mask, np.ndarray)}
            marked = {name: highest(mask) > MASK_LEVEL for name, mask in found.items()}
            yield number, images, {name: np.uint8(255) * mask for name, mask in marked.items()}
    for video, count in damaged.items():
        if count:
            remarks.add(video.path, f"{count} of {len(numbers)} frames missing or not decodable")


def fitting(
    images: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    readers: tuple[Readers, Readers],
    remarks: Remarks,
) -> None:
    """Drop variants and masks from the first frame of another shape than their original's; report them."""
    first = next(iter(images.values()))
    for kind, found, own in zip(("video", "mask"), (images, masks), readers, strict=True):
        odd = [x for x in found if x not in own or not same_shape(found[x].shape, first.shape)]
        for name in odd:
            height, width = found.pop(name).shape[:2]
            masks.pop(name, None)
            reader = own.pop(name, None)
            if reader is not None:  # the first time
                remarks.add(
                    reader.video.path,
                    f"{kind} of {width}x{height}, the original has {first.shape[1]}x{first.shape[0]}",
                    left_out=True,
                )


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
    numbers = reference.evenly(num_frames)
    *readers, others = align_videos(video_group, reference, numbers, scale, remarks)
    if len(numbers) < num_frames:
        remarks.add(path, f"short: {len(numbers)} of {num_frames} frames")
    kept, frames, shots, unfit = [], [], [], 0
    for number, images, masks in side_by_side(*readers, numbers, remarks):
        fitting(images, masks, readers, remarks)
        shown = next(iter(images.values()))
        try:
            boxes, odd = (
                find_boxes(shown, scale)
                if video_group.landmarks is None
                else read_landmarks(video_group.landmarks / f"{number:03d}.npy", shown)
            )
        except InputError as error:
            remarks.add(path, str(error))
            boxes, odd = [], 0
        unfit += odd
        frames.append(cut_candidates(boxes, shown, images, masks, size, video_group.face))
        kept.append(number)
        shots.append(thumbnail(shown))
    if unfit:
        remarks.add(path, f"{unfit} faces in {len(frames)} frames that no mesh fits: left out")
    made = dict(zip(variant_names(video_group), video_group.forgeries, strict=True))
    people = by_face(frames, [name for name in made if name in readers[0]])
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
        cuts = [video_group.landmarks is None and is_cut(*two) for two in pairwise(shots)]
        chosen = follow(frames, [False, *cuts][: len(frames)])
        report_faces(frames, chosen, path, remarks)
        own = {number: face for number, face in zip(kept, chosen, strict=True) if face is not None}
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

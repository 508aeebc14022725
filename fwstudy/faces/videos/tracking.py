"""Which of the faces in a video is followed: the forged one, else the one that is shown most."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torchvision.ops import generalized_box_iou

from fwstudy.faces.parts import FaceShape
from fwstudy.faces.videos.pairing import highest, shrink

DIFFERENCE = 6.0  # gray levels of a small picture by which a forged one differs from its original
GUIDE_SIDE = 160  # px, longer side of the map that says where a frame was forged
MIN_SHARE = 0.05  # of a frame's forgery that lies in the box of a forged face
SAME_FACE = 0.5  # of a forgery's largest share, what the face of another forgery must hold of it
THUMB = (32, 18)  # px, width and height of the pictures by which cuts are found
CUT = 30.0  # gray levels, mean difference of two small pictures with a cut between them


@dataclass(frozen=True)
class Candidate:
    """A face that may be the one to follow, cut out of all videos of a group.

    Args:
        box: (4,) int, the square in the original's frame.
        face: its shape in pixels of the crop.
        images: variant to (S, S, 3) uint8.
        masks: variant to (S, S) uint8, where its mask was read.
        shares: of each forgery of which the frame tells where it is, the share that lies in the box; of
            the original, where the face that is meant is outlined, the share of the outline.
    """

    box: np.ndarray
    face: FaceShape
    images: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    shares: dict[str, float]

    @property
    def forged(self) -> float | None:
        """Mean share of the forgeries; None where nothing tells."""
        return sum(self.shares.values()) / len(self.shares) if self.shares else None


def guide_picture(image: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A small picture of a frame, by which `where_different` compares; of a given shape, or of its own."""
    height, width = image.shape[:2]
    scale = GUIDE_SIDE / max(height, width)
    height, width = (
        shape[:2] if shape else (max(1, round(side * scale)) for side in (height, width))
    )
    return shrink(image, (width, height))


def where_different(original: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """A small map of where a frame was forged, from the difference to the original.

    Args:
        original: (h, w, 3) uint8, the original's `guide_picture`.
        image: (H, W, 3) uint8, the forged frame.

    Returns:
        (h, w) float32, of sum 1; None where they do not differ.
    """
    difference = highest(cv2.absdiff(guide_picture(image, original.shape), original))
    found = np.float32(difference * (difference > DIFFERENCE))
    total = float(found.sum())
    return found / total if total else None


def where_marked(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A small map of where a mask, (H, W) uint8, says that a frame was forged.

    Returns:
        (h, w) float32 of the given shape and of sum 1, or 0 where nothing was forged.
    """
    found = guide_picture(mask, shape).astype(np.float32)
    return found / max(1.0, float(found.sum()))


def share_inside(guide: np.ndarray, box: np.ndarray, width: int) -> float:
    """How much of the forgery lies in a box given in pixels of a frame of that width."""
    left, top, right, bottom = np.round(box * guide.shape[1] / width).astype(int).clip(min=0)
    return float(guide[top:bottom, left:right].sum())


def by_face(frames: Sequence[Sequence[Candidate]], names: Iterable[str]) -> list[list[str]]:
    """Forgeries in groups of those that changed the same face.

    A forgery belongs to the first group whose first member's face holds much of it (`SAME_FACE`) in
    at least half of the frames that show both; one of which nothing tells belongs to the first group.
    """

    def largest(name: str, frame: Sequence[Candidate]) -> Candidate | None:
        best = max(frame, key=lambda face: face.shares.get(name, 0.0), default=None)
        return best if best is not None and best.shares.get(name, 0.0) > MIN_SHARE else None

    faces = {name: [largest(name, frame) for frame in frames] for name in names}
    groups: list[list[str]] = []
    for name, own in faces.items():
        for group in groups:
            held = [
                other.shares.get(name, 0.0) >= SAME_FACE * one.shares[name]
                for one, other in zip(own, faces[group[0]], strict=True)
                if one and other
            ]
            if sum(held) >= len(held) / 2:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """A small picture by which `is_cut` compares frames."""
    return shrink(frame, THUMB).astype(np.float32)


def is_cut(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames are of different shots, going by their `thumbnail`."""
    return float(np.abs(one - other).mean()) > CUT


def follow(frames: Sequence[Sequence[Candidate]], cuts: Sequence[bool]) -> list[Candidate | None]:
    """One face through a video.

    Where masks or differences tell which face was forged, that one is taken, frame by frame. Else
    faces that overlap from frame to frame are one track, which ends where nothing overlaps (a face that
    leaves) and at a cut; the track that covers most (sum of the boxes' sides) is taken.

    Args:
        frames: the candidates of each frame, the largest first.
        cuts: of each frame, whether a cut lies before it.

    Returns:
        one candidate a frame; None where the face is not seen.
    """
    if any(is_forged(face) for frame in frames for face in frame):
        return [forged_face(frame) for frame in frames]
    tracks: list[list[tuple[int, Candidate]]] = []
    open_tracks: list[list[tuple[int, Candidate]]] = []
    for number, (frame, cut) in enumerate(zip(frames, cuts, strict=True)):
        free = [] if cut else list(open_tracks)
        open_tracks = list(free)
        for face in frame:
            overlaps = [_overlap(track[-1][1].box, face.box) for track in free]
            if overlaps and max(overlaps) > 0:
                free.pop(int(np.argmax(overlaps))).append((number, face))
            else:
                tracks.append([(number, face)])
                open_tracks.append(tracks[-1])
    if not tracks:
        return [None] * len(frames)
    longest = max(tracks, key=lambda track: sum(face.box[2] - face.box[0] for _, face in track))
    seen = dict(longest)
    return [seen.get(number) for number in range(len(frames))]


def is_forged(face: Candidate) -> bool:
    """Whether it is known that this face was forged."""
    return (face.forged or 0.0) > MIN_SHARE


def forged_face(frame: Sequence[Candidate]) -> Candidate | None:
    """Of the faces in one frame the forged one; one that is alone also where nothing tells."""
    best = max(frame, key=lambda face: face.forged or 0.0, default=None)
    alone = len(frame) == 1 and frame[0].forged is None
    return best if alone or best is not None and is_forged(best) else None


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Generalised intersection over union (Rezatofighi et al. 2019): above 0 where boxes overlap well."""
    boxes = (torch.from_numpy(box[None]).float() for box in (one, other))
    return float(generalized_box_iou(*boxes))

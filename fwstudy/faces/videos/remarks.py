"""What there is to report of videos: what is left out and why, and what is done to what is read."""

from pathlib import Path

import cv2
import numpy as np

from fwstudy.faces.videos.footage import InputError, Video, open_video
from fwstudy.faces.videos.layouts import Outline


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

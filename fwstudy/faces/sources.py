"""Where faces come from: every source writes the same clip files."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from fwstudy.faces.photos import photo_dataset
from fwstudy.faces.rendering.dataset import render_dataset
from fwstudy.faces.rendering.head import ASSETS
from fwstudy.faces.videos import layouts
from fwstudy.faces.videos.assemble import video_dataset
from fwstudy.faces.videos.celebdf import celeb_df
from fwstudy.faces.videos.deepfakebench import deepfakebench
from fwstudy.faces.videos.layouts import Reader, Report
from fwstudy.faces.videos.openforensics import openforensics
from fwstudy.params import VIDEO_SOURCES, Faces
from fwstudy.runtime import partial_folder, project_root, workers


def rendered_faces(settings: Faces, folder: Path) -> tuple[list[Path], Report]:
    """The embedded data set; nothing can be left out."""
    paths = render_dataset(
        folder,
        **settings.rendered.model_dump(),
        size=settings.size,
        seed=settings.seed,
        num_workers=settings.num_workers,
    )
    return paths, []


def photos_root(settings: Faces) -> Path:
    """The folder of photographs; relative to the project's, and `~` is one's home."""
    return project_root() / Path(settings.photos.root).expanduser()


def photo_faces(settings: Faces, folder: Path) -> tuple[list[Path], Report]:
    """A folder of face photographs; the report lists each file that was left out, and why."""
    return photo_dataset(
        photos_root(settings),
        folder,
        size=settings.size,
        seed=settings.seed,
        num_workers=settings.num_workers,
        identity_pattern=settings.photos.identity_pattern,
    )


def video_faces(reader: Reader, settings: Faces, folder: Path) -> tuple[list[Path], Report]:
    """A benchmark's videos; the report lists what is missing, unreadable, short or without a face."""
    videos = settings.videos
    root = (project_root() / Path(videos.root).expanduser()).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"faces.videos.root: {root}: no such folder")
    video_groups, report = reader(root, videos.methods, videos.qualities)
    with workers(settings.scheduler):
        paths, rows = video_dataset(
            video_groups,
            root,
            folder,
            settings.size,
            videos.frames_per_video,
            videos.crop_scale,
            videos.qualities[0],
            settings.num_workers,
        )
    return paths, report + rows


_READERS = vars(layouts) | {f.__name__: f for f in (celeb_df, deepfakebench, openforensics)}
SOURCES: dict[str, Callable[[Faces, Path], tuple[list[Path], Report]]] = {
    "rendered": rendered_faces,
    "photos": photo_faces,
    **{name: partial(video_faces, _READERS[name]) for name in get_args(VIDEO_SOURCES)},
}
ROOMS = ("clips.py", "crops/boxes.py", "faces", "labels.py", "runtime.py")  # as in dvc.yaml


def build_faces(settings: Faces, place: str = "faces") -> tuple[list[Path], Report]:
    """Write the clips of the chosen source to a folder in ``data``.

    Work in progress lies elsewhere, so that an interrupted run resumes and the folder never holds clips
    of two settings. It stays there (as links, which need no space) until the settings change: when videos
    are added or replaced, a forced run cuts those alone.

    Args:
        settings: of the source.
        place: the folder, e.g. ``cross_dataset/photos/faces``.

    Returns:
        the clip files, and a report of what was left out (dicts with ``file`` and ``reason``).
    """
    # Clips of videos remember their own files, so that one more video does not undo the others.
    inputs = [ASSETS] if settings.source == "rendered" else []
    what = settings.model_dump(exclude={"num_workers", "scheduler"})
    if settings.source == "photos":
        root = photos_root(settings)
        inputs = [path for path in root.rglob("*") if path.is_file()]
        # A name says who is on a photograph: the same bytes under another are another data set.
        what["files"] = sorted(path.relative_to(root).as_posix() for path in inputs)
    work = partial_folder(place, what, inputs, rooms=ROOMS)
    paths, report = SOURCES[settings.source](settings, work)
    folder = project_root() / "data" / place
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.npz"):
        stale.unlink()
    for other in set(work.parent.glob(f"{folder.name}-*")) - {work}:
        shutil.rmtree(other)
    for path in paths:
        try:
            (folder / path.name).hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, folder / path.name)
    return sorted(folder / path.name for path in paths), report

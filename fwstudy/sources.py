"""Where faces come from: every source writes the same clip files."""

from collections.abc import Callable
from pathlib import Path

from fwstudy.faces.head import ASSETS
from fwstudy.faces.photos import photo_dataset
from fwstudy.faces.rendered import render_dataset
from fwstudy.params import Faces
from fwstudy.runtime import partial_folder, project_root

Report = list[dict]


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


def photo_faces(settings: Faces, folder: Path) -> tuple[list[Path], Report]:
    """A folder of face photographs; the report lists each file that was left out, and why."""
    return photo_dataset(
        project_root() / settings.photos.root,
        folder,
        size=settings.size,
        seed=settings.seed,
        num_workers=settings.num_workers,
        identity_pattern=settings.photos.identity_pattern,
    )


SOURCES: dict[str, Callable[[Faces, Path], tuple[list[Path], Report]]] = {
    "rendered": rendered_faces,
    "photos": photo_faces,
}


INPUTS: dict[str, Callable[[Faces], list[Path]]] = {
    "rendered": lambda settings: [ASSETS],
    "photos": lambda settings: [
        path for path in (project_root() / settings.photos.root).rglob("*") if path.is_file()
    ],
}
"""Files that the clips depend on, to resume unfinished work on these alone."""


def build_faces(settings: Faces) -> tuple[list[Path], Report]:
    """Write the clips of the chosen source to ``data/faces``.

    Work in progress lies elsewhere and moves there when it is complete, so that an interrupted run
    resumes and ``data/faces`` never holds clips of two settings.

    Returns:
        the clip files, and a report of what was left out (dicts with ``file`` and ``reason``).
    """
    inputs = INPUTS[settings.source](settings)
    unfinished = partial_folder("faces", settings.model_dump(exclude={"num_workers"}), inputs)
    paths, report = SOURCES[settings.source](settings, unfinished)
    folder = project_root() / "data" / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.npz"):
        stale.unlink()
    moved = [path.replace(folder / path.name) for path in paths]
    return sorted(moved), report

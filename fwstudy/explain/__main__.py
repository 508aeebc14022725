"""Explain your own: ``python -m fwstudy.explain PHOTO|CLIP|FOLDER`` leaves an HTML page.

What can be checked cheaply is checked before anything slow is imported.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fwstudy.execute import ENVIRONMENT

SPINS = "GOMP_SPINCOUNT"
FRAMES = 16  # of a clip
SHOWN = 12  # files of a folder whose details the page has


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import timm and torchvision without torch's compiler, which takes as long to start as torch itself.

    torchvision imports all of torch._dynamo to ask whether `roi_align` may be compiled, and timm to
    keep some functions of transformers from it. Within this context the answers are no and nothing.
    """
    compiler, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    compiler.disable = lambda fn=None, *_, **options: fn or (lambda inner: inner)
    utils.is_compile_supported = lambda device: False
    stand_ins = {module.__name__: module for module in (compiler, utils)}
    if stand_ins.keys() & sys.modules.keys():
        yield
        return
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def check_output(folder: Path) -> None:
    """Make sure that files can be written to a folder, which need not exist yet.

    Raises:
        ValueError: they cannot.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"{folder}: cannot be written, {nearest} is no folder that takes files")


def output_folder(root: Path, path: Path) -> Path:
    """Where the page on a file or folder goes; files of one name in different places do not meet."""
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:6]
    return root / "data" / "explained" / f"{path.resolve().name}-{place}"


def explain(path: Path, output: Path | None, frames: int, notebook: bool) -> Path:
    """Explain a file or a folder, and write the page; warnings go to the terminal.

    Args:
        output: folder for page.html, evidence.csv and, if asked for, the executed notebook; below
            ``data/explained`` by default.

    Returns:
        the page.

    Raises:
        ValueError, OSError: nothing could be explained, no detector, no place to write to, or a notebook
            whose kernel died.
    """
    if frames < 1:
        raise ValueError(f"the number of frames must be at least 1, not {frames}")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if output:
        check_output(output.resolve())
    from fwstudy.params import load_params
    from fwstudy.runtime import project_root

    root = project_root()
    load_params(root / "params.yaml")
    folder = output.resolve() if output else output_folder(root, path)
    check_output(folder)
    with without_compiler():
        import fwstudy.training.backbone  # noqa: F401  imports timm
        from fwstudy.explain import bundle, files, page
        from fwstudy.faces.inputs import list_inputs

    paths = list_inputs(path)
    trained = bundle.find(root)
    table, reports = files.explain_all(trained, paths, frames, SHOWN)
    for row in table.to_dict("records"):
        if len(paths) > 1 and row["problem"]:
            print(f"warning: {row['file']}: {row['problem']}", file=sys.stderr)
        elif row.get("is_ood") is True:
            print(f"warning: {row['file']}: unlike the training data", file=sys.stderr)
    if not reports and len(paths) == 1:
        raise ValueError(f"{paths[0]}: {table['problem'][0]}")
    written, name = folder / "page.html", path.resolve().name
    title = f"{os.fsencode(name).decode(errors='replace')}, explained"
    try:
        page.write(written, title, trained, table, reports)
        table.to_csv(folder / "evidence.csv", index=False)
    except OSError as error:  # a full disk names no file
        raise OSError(f"{folder}: {error.strerror or error}") from error
    if not reports:
        raise ValueError(f"{path}: none of {len(paths)} files could be explained; see {written}")
    if notebook:
        from fwstudy.execute import execute

        parameters = {"input": str(path.resolve()), "frames": frames, "shown": SHOWN}
        try:
            execute(root / "notebooks" / "08_explain.ipynb", folder / "explain.ipynb", parameters)
        except RuntimeError as error:  # the kernel died, or the disk is full
            raise ValueError(f"{error}; the page is there: {written}") from error
    return written


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, explain or export, and say where the result is."""
    parser = argparse.ArgumentParser(prog="fwstudy.explain", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("input", type=Path, nargs="?", help="photograph, clip, or folder of them")
    what.add_argument("--export", type=Path, metavar="FOLDER", help="write your trained detector")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder, below data/explained by default; a page that lies there is replaced",
    )
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each clip")
    parser.add_argument("--notebook", action="store_true", help="execute notebook 8 as well")
    arguments = parser.parse_args(words)
    os.environ.setdefault(SPINS, ENVIRONMENT[SPINS])  # before torch is imported
    try:
        if arguments.export:
            check_output(arguments.export.resolve())
            from fwstudy.explain import bundle
            from fwstudy.runtime import project_root

            bundle.write(bundle.find(project_root(), own=True), arguments.export)
            print(f"detector: {arguments.export}")
        else:
            values = arguments.output, arguments.frames, arguments.notebook
            print(f"page: {explain(arguments.input, *values)}")
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    main()

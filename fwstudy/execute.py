"""Execute one notebook with papermill: ``python -m fwstudy.execute SOURCE OUTPUT [-p KEY VALUE]``.

Papermill alone warns of an unknown parameter and goes on, does not make the output's folder, leaves
time stamps and progress bars in what it writes, and says nothing of why a kernel died. Here an unknown
parameter is an error, two runs with equal results give equal bytes, and no kernel outlives its run.
"""

import argparse
import errno
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

START_TIMEOUT = 600  # s, for a kernel to answer; papermill's 60 are too few on a busy machine
ENVIRONMENT = {
    "GOMP_SPINCOUNT": "1000",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "2147483647",
}
"""How PyTorch waits and how it keeps memory, unless the user says otherwise. Its OpenMP threads spin at a
barrier for ever by default: beside one other busy process a step of training then takes 3 to 29 times as
long; with 1,000 spins, 2.5 times (10,000: four), and an idle machine is as fast. glibc gives the
memory of freed tensors back to the system, which fills it with zeros when the next step asks for it: a
sixth of the time of training was seen to go there."""
VOLATILE_METADATA = ("papermill", "execution")
DEAD = (
    "the kernel died in cell {cell}. Most likely the memory ran out: close other programs, or lower in "
    "params.yaml what this notebook uses of faces.num_workers, preprocess.num_workers, train.batch_size "
    "and interpretability.num_images; then run it again, finished work is kept"
)

UNWRITABLE = [os.strerror(number) for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)]
UNWRITABLE.append("requested and")  # what NumPy says of a full disk
"""What errors of all libraries say that cannot write."""
FULL = (
    "{problem}; {free:.0f} MB are free at {folder}. Make room there, or make it writable, and run it "
    "again: finished work is kept"
)


def clean(notebook) -> None:
    """Drop what differs from run to run: time stamps, and the progress written to stderr."""
    for part in (notebook, *notebook.cells):
        for key in VOLATILE_METADATA:
            part.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def mark_death(notebook) -> str:
    """Write into the cell that ran last that its kernel died; returns what was written."""
    from nbformat.v4 import new_output

    ran = [
        n for n, c in enumerate(notebook.cells) if c.metadata.get("papermill", {}).get("start_time")
    ]
    message = DEAD.format(cell=ran[-1])
    notebook.cells[ran[-1]].outputs.append(
        new_output("error", ename="DeadKernelError", evalue=message, traceback=[message])
    )
    return message


def execute(source: Path, output: Path, parameters: dict) -> None:
    """Run ``source`` from top to bottom and write the executed notebook to ``output``.

    Progress goes to the terminal. If a cell fails, ``output`` holds the notebook up to there.

    Raises:
        ValueError: a parameter that the notebook's ``parameters`` cell does not have.
        papermill.PapermillExecutionError: a cell failed; the message carries its traceback.
        RuntimeError: the kernel died, or nothing can be written; the message names the notebook and the
            likely cause, or the folder.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema's slow grammar of addresses
    import nbformat  # these take a second to import, which `explain` need not spend on one photograph
    import papermill
    from nbclient.exceptions import DeadKernelError

    known = papermill.inspect_notebook(source)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(
            f"{source} has no parameter {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    died = None
    try:
        papermill.execute_notebook(
            str(source),
            str(output),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            start_timeout=START_TIMEOUT,
            stderr_file=sys.stderr,
            stdout_file=sys.stdout,
        )
    except DeadKernelError as error:
        died = error
    except (OSError, papermill.PapermillExecutionError) as error:
        problem = getattr(error, "evalue", str(error))
        if not any(cause in problem for cause in UNWRITABLE):
            raise
        if isinstance(error, OSError):
            output.unlink(missing_ok=True)  # written in part
        free, folder = shutil.disk_usage(output.parent).free / 1e6, output.parent.resolve()
        message = FULL.format(problem=problem, free=free, folder=folder)
        raise RuntimeError(f"{source}: {message}") from None
    finally:
        if output.exists():
            notebook = nbformat.read(output, as_version=4)
            message = mark_death(notebook) if died else ""
            clean(notebook)
            nbformat.write(notebook, output)
    if died:
        raise RuntimeError(f"{source}: {message}") from None


def end(*_) -> None:
    """Leave by an exception, so that papermill ends the kernel on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


def follow(parent: int) -> None:
    """End this process when its parent is gone: a DVC that is killed does not end what it started."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Read the command line and execute."""
    import yaml

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"))
    arguments = parser.parse_args()
    parameters = {key: yaml.safe_load(value) for key, value in arguments.p}
    signal.signal(signal.SIGTERM, end)
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    try:
        execute(arguments.source, arguments.output, parameters)
    except (OSError, ValueError, RuntimeError) as error:  # not papermill's: it tells what failed
        stage = os.environ.get("DVC_STAGE")
        raise SystemExit(f"error: {f'stage {stage}: ' if stage else ''}{error}") from None


if __name__ == "__main__":
    main()

"""Where the project lies, seeds, device, cost, unfinished work, and tasks on many cores."""

import hashlib
import json
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # seconds to import, which commands that need no model are spared

PROVENANCE_PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "captum", "av")
CODE = Path(__file__).parent


@contextmanager
def workers(scheduler: str | None) -> Iterator[None]:
    """Where `run` sends its tasks.

    Args:
        scheduler: address of a Dask scheduler, e.g. ``tcp://10.0.0.1:8786``, whose workers see the
            same files under the same names; None for processes of this machine.

    Raises:
        OSError: no scheduler answers there; the message names the address.
    """
    if scheduler is None:
        yield
        return
    from dask.distributed import Client  # slow to import, and seldom needed

    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, ValueError) as error:
        raise OSError(
            f"faces.scheduler: no Dask scheduler answers at {scheduler}: {error}"
        ) from error
    import joblib

    with client, joblib.parallel_config(backend="dask"):
        yield


def run(
    function: Callable,
    tasks: Sequence[tuple],
    num_workers: int,
    label: str,
    unit: str = "it",
    ahead: int | None = None,
) -> Iterator:
    """Call a function with each tuple of arguments; yields the results in the order of the tasks.

    Where several processes share the cores, OpenCV has one thread in each: joblib tells BLAS and OpenMP so,
    and OpenCV has threads of its own.

    Args:
        function: importable by its name.
        tasks: arguments.
        num_workers: processes, as in joblib (-1: all cores, or all workers of a cluster).
        label, unit: of the progress bar.
        ahead: so many results a worker may wait until they are taken, where they are large; None: all.

    Raises:
        Whatever the function raises; tasks that were done stay done.
    """
    import joblib
    from tqdm import tqdm

    processes = joblib.effective_n_jobs(num_workers)
    called = joblib.delayed(function if processes == 1 else partial(_with_one_thread, function))
    count = len(tasks) if ahead is None else ahead * processes
    blocks = [tasks[start : start + count] for start in range(0, len(tasks), max(1, count))]
    with (
        joblib.Parallel(n_jobs=num_workers, return_as="generator") as pool,
        tqdm(total=len(tasks), desc=label, unit=unit) as bar,
    ):
        for block in blocks:
            for result in pool(called(*task) for task in block):
                yield result
                bar.update()


def _with_one_thread(function: Callable, *task):
    import cv2

    cv2.setNumThreads(1)
    return function(*task)


def project_root() -> Path:
    """The folder that holds params.yaml and dvc.yaml: the working folder or the nearest above it.

    Raises:
        FileNotFoundError: neither here nor above.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise FileNotFoundError(
        "params.yaml and dvc.yaml were found neither in the working folder nor above it; "
        "start from the project's folder"
    )


def result_path(name: str) -> Path:
    """A file below ``data/results``; its folder is made if missing."""
    path = project_root() / "data" / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def seed_everything(seed: int) -> None:
    """Make PyTorch, NumPy and Python repeat themselves; deterministic kernels only."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a fifth of a step


def default_device() -> "torch.device":
    """A CUDA device where there is one (this process's, of several), else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    # PyTorch looks once, at the first product; without it `seed_everything` makes all others fail
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", torch.cuda.current_device())


def provenance(seed: int) -> str:
    """One line for the top of a notebook: versions, device and seed."""
    import torch

    versions = ", ".join(f"{name} {version(name)}" for name in PROVENANCE_PACKAGES)
    device = default_device()
    return (
        f"Python {platform.python_version()}, {versions}; {platform.machine()}, "
        f"device {device.type}, {torch.get_num_threads()} threads of {os.cpu_count()}; seed {seed}"
    )


def partial_folder(
    stage: str, settings: dict, inputs: Sequence[Path] = (), *, rooms: Sequence[str]
) -> Path:
    """Where a stage keeps unfinished work, so that an interrupted run resumes.

    The name depends on the settings, the input files and the code that does the work: work done under
    other settings, on other data or by other code is never picked up.

    Args:
        stage: name of the stage.
        settings: all that its result depends on, as JSON values.
        inputs: files whose content it depends on.
        rooms: folders and modules of the package whose code it depends on, as in the stage's
            dependencies, e.g. ``["crops", "labels.py"]``.

    Raises:
        FileNotFoundError: a room that the package does not have.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    sources = []
    for room in rooms:
        found = [CODE / room] if room.endswith(".py") else sorted((CODE / room).rglob("*.py"))
        if not found:
            raise FileNotFoundError(f"partial_folder: the package has no room {room}")
        sources += found
    for path in [*sorted(inputs), *sources]:
        digest.update(path.read_bytes())
    folder = project_root() / "data" / "partial" / f"{stage}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def measured_cost() -> Iterator[dict[str, float]]:
    """What the work inside costs: a dict that is filled when the work is done.

    Yields:
        minutes of wall time, core_seconds of processor time (all threads of this process), and
        peak_memory_gb, the largest resident memory of the process so far. Work taken over from an
        interrupted run is not in them.
    """
    found: dict[str, float] = {}
    wall, cores = time.perf_counter(), time.process_time()
    yield found
    unit = 1 if sys.platform == "darwin" else 1024
    found["minutes"] = (time.perf_counter() - wall) / 60
    found["core_seconds"] = time.process_time() - cores
    found["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

"""Where the project lies, seeds, threads, and the provenance of every result."""

import hashlib
import json
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

PROVENANCE_PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "captum", "av")


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
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else CUDA refuses
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a fifth of a step


def default_device() -> torch.device:
    """A CUDA device where there is one (this process's, of several), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def provenance(seed: int) -> str:
    """One line for the top of a notebook: versions, device and seed."""
    versions = ", ".join(f"{name} {version(name)}" for name in PROVENANCE_PACKAGES)
    device = default_device()
    return (
        f"Python {platform.python_version()}, {versions}; {platform.machine()}, "
        f"device {device.type}, {torch.get_num_threads()} threads of {os.cpu_count()}; seed {seed}"
    )


def partial_folder(stage: str, settings: dict, inputs: Sequence[Path] = ()) -> Path:
    """Where a stage keeps unfinished work, so that an interrupted run resumes.

    The name depends on the settings, the input files and the package's source: work done under other
    settings, on other data or by other code is never picked up.

    Args:
        stage: name of the stage.
        settings: all that its result depends on, as JSON values.
        inputs: files whose content it depends on.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted(inputs):
        digest.update(path.read_bytes())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
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

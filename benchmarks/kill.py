"""Kill the pipeline at random moments, finish it, and compare all tables with those of a run left alone.

No test: it takes as long as three runs and more. The project is copied, with the smallest settings of the
tests and few photographs. A run is killed again and again, so that it goes on from what it had: by turns one of DVC, and
one of stages side by side; with SIGKILL to all its processes, and with SIGTERM to the first. Tables are compared byte
for byte, but for what time and memory a model or an explanation took.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from benchmarks.whitening import describe_machine
from tests.project import ENVIRONMENT, SMOKE, copy_of_the_project

COST = ["minutes", "core_seconds", "peak_memory_gb"]
PATIENCE = 120  # s
START = 5  # s, before which DVC has not begun
PHOTOGRAPHS = 24
REPRO = ["dvc", "repro"]
SIDE_BY_SIDE = [sys.executable, "-m", "fwstudy.pipeline", "--jobs", "2"]


def copied(project: Path) -> Path:
    """The project, copied; the working folder is above it, so that `alive` does not see this process."""
    copy_of_the_project(project, SMOKE)
    for photograph in sorted((project / "data" / "photos").glob("*.jpg"))[PHOTOGRAPHS:]:
        photograph.unlink()
    os.chdir(project.parent)
    return project


def start(project: Path, command: Sequence[str]) -> subprocess.Popen:
    """A run in a process group of its own; what it prints is kept."""
    options = {"env": os.environ | ENVIRONMENT, "start_new_session": True, "cwd": project}
    with open(project.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)


def alive(project: Path) -> list[str]:
    """The processes that work in the project's folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # gone, or another's
            found += [place.parent.name] * place.resolve().is_relative_to(project)
    return found


def kill(process: subprocess.Popen, project: Path) -> None:
    """SIGKILL to every process of a run, as when the power fails."""
    for number in alive(project):
        with suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def terminate(process: subprocess.Popen, project: Path) -> None:
    """SIGTERM to the first process of a run."""
    process.terminate()


WAYS: dict[str, tuple[list[str], Callable[[subprocess.Popen, Path], None]]] = {
    "DVC, SIGKILL": (REPRO, kill),
    "DVC, SIGTERM": (REPRO, terminate),
    "side by side, SIGKILL": (SIDE_BY_SIDE, kill),
    "side by side, SIGTERM": (SIDE_BY_SIDE, terminate),
}
"""How a run is begun and ended."""


def disturb(project: Path, seconds: float, way: str) -> tuple[str, str]:
    """Begin a run and end it; the stage it was in, and the seconds until its last process was gone."""
    command, end = WAYS[way]
    log = project.with_suffix(".log")
    known = log.stat().st_size if log.exists() else 0  # what earlier runs have said
    process = start(project, command)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        running = alive(project)
        end(process, project)
    else:
        return f"none: it had {'failed' if code else 'ended'}", "0"
    process.wait()
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        # DVC takes a killed process for alive until the system has forgotten its number
        if not (alive(project) or any(Path("/proc", number).exists() for number in running)):
            break
        time.sleep(0.5)
    told = log.read_bytes()[known:].decode(errors="replace")
    stages = re.findall(r"^(?:Running stage '|)(\S+?)(?:':| started)$", told, re.MULTILINE)
    left = len(alive(project))
    gone = f"{left} alive" if left else f"{time.monotonic() - begun:.0f}"
    return stages[-1] if stages else "before the first", gone


def tables(project: Path) -> dict[str, bytes]:
    """All tables and metrics, by name, without what they cost."""
    found, results = {}, project / "data" / "results"
    for path in sorted([*results.rglob("*.csv"), *results.rglob("*.json")]):
        content = path.read_bytes()
        if path.suffix == ".csv" and any(word.encode() in content for word in COST):
            kept = pd.read_csv(path, dtype=str).drop(columns=COST, errors="ignore")
            kept = kept[~kept["measure"].isin(COST)] if "measure" in kept else kept
            content = kept.to_csv(index=False).encode()
        found[path.relative_to(results).as_posix()] = content
    return found


def report(
    options: argparse.Namespace, machine: str, length: float, kills: list, ends: list
) -> str:
    """What was seen so far."""
    heads = ["run", "begun and ended", "after, s", "in stage", "all gone, s later"]
    return (
        f"# Runs killed up to {options.kills} times each, and finished\n\n{machine}\n\nLeft "
        f"alone, the pipeline takes {length:.0f} s. Each run is begun, killed and begun again, the last time "
        "to its end. A run that had ended before its signal was not killed. What is compared is said in "
        f"`kill.py`; seed {options.seed}.\n\n"
        f"{pd.DataFrame(ends, columns=['run', 'tables', 'that differ']).to_markdown(index=False)}\n\n"
        f"{pd.DataFrame(kills, columns=heads).to_markdown(index=False)}\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run once undisturbed and several times disturbed; write kill.md after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    output, rng = Path(__file__).resolve().parent / "kill.md", random.Random(options.seed)
    kills, ends, machine = [], [], describe_machine()
    folder = Path(tempfile.mkdtemp()).resolve()
    os.environ |= {"DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
    project, begun = copied(folder / "alone"), time.monotonic()
    if start(project, REPRO).wait():
        sys.exit(f"the run that was left alone failed: {folder / 'alone.log'}")
    length, expected = time.monotonic() - begun, tables(project)
    for run in range(options.runs):
        project = copied(folder / f"run{run}")
        for number in range(options.kills):
            way = list(WAYS)[number % len(WAYS)]
            moment = START + rng.uniform(0, 2 * length / options.kills)
            kills.append([run, way, f"{moment:.0f}", *disturb(project, moment, way)])
            print(*kills[-1], sep="\t", flush=True)
        failed = start(project, [REPRO, SIDE_BY_SIDE][run % 2]).wait()
        found = tables(project)
        differing = [name for name, content in expected.items() if found.get(name) != content]
        ends.append([run, len(expected), "failed" if failed else ", ".join(differing) or "none"])
        text = report(options, machine, length, kills, ends)
        output.write_text(text, encoding="utf-8")
    os.chdir(output.parent)
    if all(found == "none" for *_, found in ends):
        shutil.rmtree(folder)
    else:
        print(f"kept, to look into: {folder}")
    print(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

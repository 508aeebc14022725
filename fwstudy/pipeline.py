"""The stages of dvc.yaml, several at a time: ``python -m fwstudy.pipeline``, for ``make repro``.

DVC runs one stage after another, and a small network cannot use many cores. Here a stage starts as soon
as those are done that it depends on. DVC itself reproduces every one, so that ``dvc repro`` finds nothing
left to do; it remains the way to run the study one stage after another.
"""

import argparse
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from graphlib import TopologicalSorter
from subprocess import PIPE, STDOUT, Popen

from fwstudy.runtime import default_device, project_root

MEMORY_OF_A_STAGE = 4e9  # bytes; what the largest takes
LAST_LINES = 40  # of the output of a stage that failed


class StageError(RuntimeError):
    """A stage failed; the message holds its name and what it said last."""


def stages_to_run() -> dict[str, set[str]]:
    """The stages that changed, and all that come after them.

    Returns:
        for each stage those among them that it waits for.
    """
    from dvc.repo import Repo  # a second to import

    with Repo() as repo:
        stages = repo.index.graph
        graph = {stage.addressing: {s.addressing for s in stages[stage]} for stage in stages}
        changed = set(repo.status())
    found: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        waits_for = graph[name] & found.keys()
        if waits_for or name in changed:
            found[name] = waits_for
    return found


def run_all(graph: dict[str, set[str]], run: Callable[[str], None], jobs: int) -> None:
    """Call a function with each name, after those that it waits for, several at a time.

    Args:
        graph: for each name those that come before it.
        run: is called in a thread.
        jobs: how many run at a time.

    Raises:
        Whatever the function raises first; what runs then comes to its end, nothing more is started.
    """
    order = TopologicalSorter(graph)
    order.prepare()
    ready, running = deque(order.get_ready()), {}
    with ThreadPoolExecutor(jobs) as pool:
        while order.is_active():
            while ready and len(running) < jobs:
                name = ready.popleft()
                running[pool.submit(run, name)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                order.done(running.pop(future))
            ready += order.get_ready()


def reproduce(
    name: str, environment: dict[str, str], processes: set[Popen], tell: Callable[[str], None]
) -> None:
    """Let DVC reproduce one stage.

    Args:
        name: of the stage.
        environment: of its process, which leads a group of its own.
        processes: holds its process while it runs.
        tell: called with each line of output and each state of a progress bar.

    Raises:
        StageError: it failed.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    last: deque[str] = deque(maxlen=LAST_LINES)
    streams = {"stdout": PIPE, "stderr": STDOUT, "text": True, "errors": "replace"}
    with Popen(command, env=environment, process_group=0, **streams) as process:
        processes.add(process)
        for line in process.stdout:  # also at the \r of a progress bar
            if line.strip():
                last.append(line.rstrip())
                tell(last[-1])
    processes.discard(process)
    if process.returncode:
        raise StageError(
            "\n".join([*last, f"error: stage {name} failed; its last lines are above"])
        )


def end_with_this(processes: set[Popen]) -> None:
    """When this process is told to stop, end the groups of the others, and leave by an exception."""

    def end(number: int, frame) -> None:
        for process in list(processes):
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGTERM)
        sys.exit(128 + number)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)


def default_jobs() -> int:
    """One a core, as far as the memory lasts; one alone where there is a GPU, which a stage fills."""
    import joblib
    import psutil

    if default_device().type == "cuda":
        return 1
    return max(1, min(joblib.cpu_count(), int(psutil.virtual_memory().total / MEMORY_OF_A_STAGE)))


def main() -> None:
    """Read the command line and run what has changed."""
    import joblib
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", type=int, help="stages at a time (default: one a core, as far as memory lasts)"
    )
    arguments = parser.parse_args()
    jobs = default_jobs() if arguments.jobs is None else arguments.jobs
    if jobs < 1:
        parser.error(f"--jobs: at least 1, not {jobs}")
    os.chdir(project_root())
    threads = str(max(1, joblib.cpu_count() // jobs))
    environment = {"OMP_NUM_THREADS": threads} | os.environ
    graph, processes, finished = stages_to_run(), set(), []
    one_line = Column(no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", markup=False, table_column=one_line)
    console = Console(highlight=False, soft_wrap=True)
    progress = Progress(SpinnerColumn(), TimeElapsedColumn(), text, console=console, transient=True)

    def run(name: str) -> None:
        start, task = time.monotonic(), progress.add_task(name)
        if not console.is_terminal:
            console.print(f"{name} started", markup=False)

        def tell(line: str) -> None:
            progress.update(task, description=f"{name}: {line}")

        try:
            reproduce(name, environment, processes, tell)
        finally:
            progress.remove_task(task)
        finished.append(name)
        minutes = (time.monotonic() - start) / 60
        console.print(f"{len(finished)} of {len(graph)}: {name}, {minutes:.1f} min", markup=False)

    end_with_this(processes)
    with progress:
        try:
            run_all(graph, run, jobs)
        except StageError as error:
            raise SystemExit(str(error)) from None
        console.print("Every stage is up to date.")


if __name__ == "__main__":
    main()

"""The stages of dvc.yaml, several at a time: ``python -m fwstudy.pipeline``, for ``make repro``.

DVC runs one stage after another, and a small network cannot use many cores. Here a stage starts as soon
as those are done that it depends on, first the one that the most work waits for: ``meta: {minutes: …}``
of dvc.yaml says how long each is known to take. Stages of which it says nothing, and which wait for no
other, are quick and run first. What is left to do is then asked again, as they may leave what others
read as it was.
DVC itself reproduces every stage, so that ``dvc repro`` finds nothing left to do; it remains the way to
run the study one stage after another.
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from graphlib import TopologicalSorter
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from types import MappingProxyType

from fwstudy.runtime import default_device, project_root

MEMORY_OF_A_STAGE = 4e9  # bytes; what the largest takes
CGROUP = Path("/sys/fs/cgroup")
LIMITS = CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes"  # version 2; 1
LAST_LINES = 20  # of the output of a stage that failed
MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of the cursor, by nested progress bars
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def stages_to_run() -> tuple[dict[str, set[str]], dict[str, float]]:
    """The stages that changed, and all that come after them.

    Returns:
        for each stage those among them that it waits for; and the minutes that each is known to take.

    Raises:
        DvcException: dvc.yaml cannot be read, or another run writes what a stage reads.
    """
    from dvc.repo import Repo, lock_repo  # a second to import

    # under DVC's lock, as another run may be writing dvc.lock
    with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
        stages = repo.index.graph
        graph = {stage.addressing: {s.addressing for s in stages[stage]} for stage in stages}
        minutes = {stage.addressing: (stage.meta or {}).get("minutes", 0.0) for stage in stages}
        changed = set(repo.status())
    found: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        waits_for = graph[name] & found.keys()
        if waits_for or name in changed:
            found[name] = waits_for
    return found, {name: minutes[name] for name in found}


def stages_whatever_the_lock(kept: Path) -> tuple[dict[str, set[str]], dict[str, float]]:
    """`stages_to_run`, without a dvc.lock that cannot be read.

    DVC 3.67.1 writes dvc.lock in place. Whoever is killed meanwhile leaves it empty or in part, and DVC
    does not start any more. Without it, DVC finds what was done in its run-cache.

    Args:
        kept: where a dvc.lock that cannot be read is put.
    """
    from dvc.exceptions import DvcException

    try:
        return stages_to_run()
    except DvcException as error:
        if "dvc.lock'" not in str(error):
            raise
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace("dvc.lock", kept)
        told = " ".join(str(error).split())
        print(f"{told} (perhaps a run was killed); it is now {kept}, and finished work is kept")
    return stages_to_run()


def minutes_left(graph: dict[str, set[str]], minutes: Mapping[str, float]) -> dict[str, float]:
    """For each name the minutes of the longest chain that begins with it: the critical path's rule."""
    left = dict.fromkeys(graph, 0.0)
    for name in reversed(list(TopologicalSorter(graph).static_order())):
        left[name] += minutes.get(name, 0.0)
        for before in graph[name]:
            left[before] = max(left[before], left[name])
    return left


def run_all(
    graph: dict[str, set[str]],
    run: Callable[[str], bool],
    jobs: int,
    minutes: Mapping[str, float] = MappingProxyType({}),
) -> list[str]:
    """Call a function with each name, after those that it waits for, several at a time.

    Args:
        graph: for each name those that come before it.
        run: is called in a thread; tells whether it went well. If not, what runs then comes to its end,
            and nothing more is started.
        jobs: how many run at a time.
        minutes: that each is known to take; of those that could start, the one with the most work from
            it to the end does.

    Returns:
        the names with which it did not go well.
    """
    order = TopologicalSorter(graph)
    order.prepare()
    ready, running, failed = list(order.get_ready()), {}, []
    left = minutes_left(graph, minutes)
    with ThreadPoolExecutor(jobs) as pool:
        while running or (ready and not failed):
            while ready and len(running) < jobs and not failed:
                name = max(ready, key=left.get)
                ready.remove(name)
                running[pool.submit(run, name)] = name
            # a signal may reach a thread that waits, and is heeded when this one wakes
            for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                if future.result():
                    order.done(name)
                else:
                    failed.append(name)
            ready += order.get_ready()
    return failed


class Stages:
    """Reproduces stages by DVC, each in a process of its own, and can end all that run.

    Args:
        environment: of the processes.
        folder: for what each stage says, in a file of its own.
    """

    def __init__(self, environment: dict[str, str], folder: Path):
        self.environment, self.folder = environment, folder
        self.running: set[Popen] = set()
        self.stopping = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)

    def log(self, name: str) -> Path:
        """The file for what a stage says."""
        return self.folder / f"{name}.txt"

    def reproduce(self, name: str, tell: Callable[[str], None]) -> bool:
        """Let DVC reproduce one stage.

        Args:
            name: of the stage.
            tell: called with each line of output and each state of a progress bar.

        Returns:
            whether it went well.
        """
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
        streams = {"stdout": PIPE, "stderr": STDOUT, "text": True, "errors": "replace"}
        with (
            self.log(name).open("wb", buffering=0) as log,
            Popen(command, env=self.environment, process_group=0, **streams) as process,
        ):
            self.running.add(process)
            if self.stopping.is_set():
                process.terminate()
            for line in process.stdout:  # also at the \r of a progress bar
                if text := MOVES.sub("", line).strip():
                    with suppress(OSError):  # a full disk, of which the stage itself tells
                        log.write(f"{text}\n".encode())
                    tell(text)
        self.running.discard(process)
        return process.returncode == 0

    def stop(self, number: int, frame) -> None:
        """End what DVC has started, so that it lets go of its locks, and leave by an exception."""
        import psutil

        self.stopping.set()
        for process in list(self.running):
            group, below = [], []
            with suppress(psutil.NoSuchProcess):  # here and below: it has just ended
                below = psutil.Process(process.pid).children(recursive=True)
            for one in below:  # a kernel leads a group of its own
                with suppress(ProcessLookupError):
                    if os.getpgid(one.pid) == process.pid:
                        group.append(one)
            for one in group or [process]:
                with suppress(psutil.NoSuchProcess):
                    one.terminate()
        sys.exit(128 + number)


def memory() -> float:
    """Bytes that there are for all processes: of this machine, or of the container."""
    import psutil

    texts = [path.read_text().strip() for path in LIMITS if path.is_file()]
    return min([psutil.virtual_memory().total, *(int(text) for text in texts if text.isdigit())])


def default_jobs() -> int:
    """One a core, as far as the memory lasts; one alone where there is a GPU, which a stage fills."""
    import joblib

    if default_device().type == "cuda":
        return 1
    return max(1, min(joblib.cpu_count(), int(memory() / MEMORY_OF_A_STAGE)))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the command where DVC cannot tell what is to be done, or this is no folder of the project."""
    from dvc.exceptions import DvcException

    try:
        yield
    except (DvcException, FileNotFoundError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None


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
    with errors_in_one_line():
        os.chdir(project_root())
        graph, minutes = stages_whatever_the_lock(Path("data", "partial", "dvc.lock"))
    if not graph:
        print("Every stage is up to date.")
        return
    threads = str(max(1, joblib.cpu_count() // jobs))
    stages = Stages({"OMP_NUM_THREADS": threads} | os.environ, Path("data", "partial", "log"))
    done, count = [], len(graph)
    one_line = Column(no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", markup=False, table_column=one_line)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    progress = Progress(SpinnerColumn(), TimeElapsedColumn(), text, console=console, transient=True)

    def run(name: str) -> bool:
        start, task = time.monotonic(), progress.add_task(name)
        if not console.is_terminal:
            console.print(f"{name} started")
        last: deque[str] = deque(maxlen=LAST_LINES)

        def tell(line: str) -> None:
            last.append(line)
            progress.update(task, description=f"{name}: {line}")

        went_well = stages.reproduce(name, tell)
        progress.remove_task(task)
        progress.refresh()
        if went_well:
            done.append(name)
            took = (time.monotonic() - start) / 60
            console.print(f"{len(done)} of {count}: {name}, {took:.1f} min")
        elif not stages.stopping.is_set():
            console.print(*last, f"{name} failed; what runs beside it comes to its end", sep="\n")
        return went_well

    for number in STOPS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
            signal.signal(number, stages.stop)
    quick = {name: set() for name in graph if not graph[name] and not minutes[name]}
    with progress:
        failed = run_all(quick, run, jobs)
    if quick and not failed:  # outside: the display would repeat the bars of DVC line by line
        with errors_in_one_line():
            graph, minutes = stages_to_run()
        count = len(done) + len(graph)
        if not graph:
            console.print("Every other stage is up to date.")
    with progress:
        failed = failed or run_all(graph, run, jobs, minutes)
    if failed:
        places = ", ".join(str(stages.log(name)) for name in failed)
        raise SystemExit(f"error: failed: {', '.join(failed)}; all they said is in {places}")


if __name__ == "__main__":
    main()

"""Many independent tasks on the cores of this machine, or on a cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import joblib
from tqdm import tqdm


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

    Args:
        function: importable by its name.
        tasks: arguments.
        num_workers: processes, as in joblib (-1: all cores, or all workers of a cluster).
        label, unit: of the progress bar.
        ahead: so many results a worker may wait until they are taken, where they are large; None: all.

    Raises:
        Whatever the function raises; tasks that were done stay done.
    """
    count = len(tasks) if ahead is None else ahead * joblib.effective_n_jobs(num_workers)
    blocks = [tasks[start : start + count] for start in range(0, len(tasks), max(1, count))]
    with (
        joblib.Parallel(n_jobs=num_workers, return_as="generator") as pool,
        tqdm(total=len(tasks), desc=label, unit=unit) as bar,
    ):
        for block in blocks:
            for result in pool(joblib.delayed(function)(*task) for task in block):
                yield result
                bar.update()

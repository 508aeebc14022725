"""The same training call in several processes, on one machine or many, that survives a killed worker.

From a notebook, ``train.launch.num_processes`` of params.yaml starts them (`launched`). On several
machines torchrun does, with this room as its program; all must see the same project folder:

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3
        --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m fwstudy.training whitened 0

The variable is needed to go on after a killed worker: else workers that are started anew (PyTorch 2.14)
find in the store they share the addresses of those that died, and wait for them.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed

from fwstudy.params import Launch
from fwstudy.whitening.sync import is_distributed

OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
ENDING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # signals whose handlers the launcher replaces
LAST_LINES = 4  # of a failed worker's traceback, in the message of the error
STARTS = ("forkserver", "spawn")  # of processes, the first that the system has


def backend_for(processes: int) -> str:
    """How that many processes of one machine talk to each other: nccl on CUDA, else gloo.

    Raises:
        RuntimeError: this build of PyTorch lacks it, or there are fewer GPUs than processes; the message
            says what to set.
    """
    on_gpu = torch.cuda.is_available()
    name = "nccl" if on_gpu else "gloo"
    known = torch.distributed.is_available() and torch.distributed.is_backend_available(name)
    if not known:
        raise RuntimeError(
            f"train.launch: this build of PyTorch has no {name}, by which processes train together; "
            "set train.launch.num_processes: 1"
        )
    if on_gpu and processes > torch.cuda.device_count():
        raise RuntimeError(
            f"train.launch.num_processes: {processes} processes, but {torch.cuda.device_count()} GPUs; "
            "one process a GPU at most"
        )
    return name


def in_process(function: Callable, arguments: tuple, num_threads: int | None = None) -> Any:
    """What one process does: join the others, as torchrun's variables say, call, leave.

    Args:
        function, arguments: to call, and with what.
        num_threads: of PyTorch in this process; None leaves them.

    Returns:
        what the function returns.
    """
    backend = backend_for(int(os.environ["LOCAL_WORLD_SIZE"]))
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if num_threads:
        torch.set_num_threads(num_threads)
    torch.distributed.init_process_group(backend)
    try:
        return function(*arguments)
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def restored() -> Iterator[None]:
    """Afterwards the environment and the handlers of `ENDING` are as before the block."""
    environment = dict(os.environ)
    ending = [number for number in signal.Signals if number.name in ENDING]
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in ending}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def start_method(module: str) -> str:
    """How processes are started: forked from one that has imported a module, where that can be."""
    method = next(name for name in STARTS if name in multiprocessing.get_all_start_methods())
    multiprocessing.get_context(method).set_forkserver_preload([module])
    return method


def launched(function: Callable, launch: Launch, *arguments) -> Any:
    """Call a function in as many processes as the settings say, or here: if that is one, or under torchrun.

    Workers that fail are started anew, all of them, ``max_restarts`` times; a function that keeps
    checkpoints resumes. A script that comes here keeps its own calls under ``__name__ == "__main__"``.

    Args:
        function: importable by its name; so must be its arguments and result, which are sent to the
            processes and back.
        launch: see `fwstudy.params.Launch`.

    Returns:
        what the first process returned.

    Raises:
        RuntimeError: PyTorch or the machine cannot (`backend_for`), or the workers failed once too
            often; the message ends with the last lines of their errors.
    """
    if launch.num_processes == 1 or is_distributed():
        return function(*arguments)
    backend_for(launch.num_processes)
    # here, because not all builds have them
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=launch.num_processes,
        max_restarts=launch.max_restarts,
        run_id="fwstudy",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        start_method=start_method(function.__module__),
    )
    num_threads = max(1, torch.get_num_threads() // launch.num_processes)
    with restored():
        os.environ[OWN_STORE] = "1"
        try:
            return elastic_launch(config, in_process)(function, arguments, num_threads)[0]
        except ChildFailedError as error:
            raise RuntimeError(
                f"training in {launch.num_processes} processes (train.launch) failed after "
                f"{launch.max_restarts} restarts:\n{last_lines(error.failures)}"
            ) from error


def last_lines(failures: dict) -> str:
    """The end of what each failed process left, the first to fail first.

    Args:
        failures: process number to torch.distributed.elastic's ``ProcessFailure``, whose message is a
            text, or holds a traceback.
    """
    texts = []
    for number, failure in sorted(failures.items(), key=lambda item: item[1].timestamp):
        message = failure.message
        text = message if isinstance(message, str) else message["extraInfo"]["py_callstack"]
        if failure.exitcode > 0 and isinstance(message, str):
            text = f"exit code {failure.exitcode} before the call; its own output says why"
        texts.append(f"process {number}: " + "\n".join(text.strip().splitlines()[-LAST_LINES:]))
    return "\n".join(texts)

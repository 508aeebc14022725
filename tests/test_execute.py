import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from fwstudy.execute import execute

ROOT = Path(__file__).parents[1]


@pytest.fixture
def notebook(tmp_path):
    parameters = new_code_cell("value = 1", metadata={"tags": ["parameters"]})
    work = """
import os, sys
print(value, os.environ["GOMP_SPINCOUNT"], os.environ["MALLOC_TRIM_THRESHOLD_"])
print("progress", file=sys.stderr)
1 / value"""
    path = tmp_path / "source.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = new_notebook(cells=[parameters, new_code_cell(work)], metadata={"kernelspec": kernel})
    nbformat.write(content, path)
    return path


def test_parameters_arrive_and_two_runs_give_equal_bytes(notebook, tmp_path, monkeypatch):
    """The kernel spins briefly unless the user says otherwise, as here, and keeps freed memory."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "77")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    outputs = [tmp_path / "new" / "folder" / f"{name}.ipynb" for name in "ab"]
    for output in outputs:
        execute(notebook, output, {"value": 4})
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    cells = nbformat.read(outputs[0], as_version=4).cells
    assert [output.get("text") for output in cells[-1].outputs] == ["4 77 2147483647\n", None]
    assert cells[-1].outputs[1].data["text/plain"] == "0.25"


def test_unknown_parameter_is_an_error(notebook, tmp_path):
    with pytest.raises(ValueError, match="has no parameter velue; it has: value"):
        execute(notebook, tmp_path / "out.ipynb", {"velue": 4})
    assert not (tmp_path / "out.ipynb").exists()


def test_failing_cell_is_shown(notebook, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
        execute(notebook, tmp_path / "out.ipynb", {"value": 0})
    text = (tmp_path / "out.ipynb").read_text()
    assert "ZeroDivisionError" in text and "start_time" not in text


DYING = "import os, signal; print(value); os.kill(os.getpid(), signal.SIGKILL)"
WAITING = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"


def rewritten(notebook, source):
    content = nbformat.read(notebook, as_version=4)
    content.cells[-1].source = source
    nbformat.write(content, notebook)
    return notebook


CAUSES = {
    "full": ("OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", "No space left on device"),
    "read-only": ("OSError(errno.EROFS, os.strerror(errno.EROFS), 'data')", "Read-only file system: 'data'"),
    "numpy": ("OSError('99 requested and 7 written')", "99 requested and 7 written"),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSES)
def test_a_disk_that_takes_nothing_is_one_line_that_names_the_folder(notebook, tmp_path, name):
    error, said = CAUSES[name]
    cell = f"import errno, os; print(value); raise {error}"
    with pytest.raises(RuntimeError) as raised:
        execute(rewritten(notebook, cell), tmp_path / "out" / "a.ipynb", {})
    message = str(raised.value)
    assert message.startswith(f"{notebook}: ") and said in message and "\n" not in message
    assert f"MB are free at {tmp_path / 'out'}. Make room" in message
    assert "start_time" not in (tmp_path / "out" / "a.ipynb").read_text()


def test_no_room_for_the_executed_notebook_itself(notebook, tmp_path, monkeypatch):
    def full(*_, **__):
        (tmp_path / "out.ipynb").touch()  # as `open` leaves it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(papermill, "execute_notebook", full)
    with pytest.raises(RuntimeError, match=rf"No space left.*MB are free at {tmp_path}"):
        execute(notebook, tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()


def test_a_kernel_has_ten_minutes_to_start(notebook, tmp_path, monkeypatch):
    """Papermill's own limit of one minute is too short where several stages start at once."""
    asked = {}
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **given: asked.update(given))
    execute(notebook, tmp_path / "out.ipynb", {})
    assert asked["start_timeout"] == 600


def command_line(notebook):
    return [sys.executable, "-m", "fwstudy.execute", str(notebook), "out.ipynb"]


def test_dead_kernel_is_one_line_and_marked(notebook, tmp_path):
    command = command_line(rewritten(notebook, DYING))
    options = {
        "cwd": tmp_path,
        "env": os.environ | {"DVC_STAGE": "train@0", "PYTHONPATH": str(ROOT)},
    }
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    message = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert message.startswith(f"error: stage train@0: {notebook}: the kernel died in cell 1")
    assert "memory" in message and "train.batch_size" in message
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert cells[-1].outputs[-1].ename == "DeadKernelError"
    assert "papermill" not in cells[-1].metadata


@pytest.mark.parametrize("ended", ["itself", "parent"])
def test_kernel_ends_with_its_process(notebook, tmp_path, ended):
    """At SIGTERM; and where DVC is ended, which started it."""
    command = command_line(rewritten(notebook, WAITING))
    start = f"import subprocess; subprocess.run({command})"
    environment = os.environ | {"DVC_STAGE": "x", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", start] if ended == "parent" else command
    process = subprocess.Popen(words, cwd=tmp_path, env=environment)
    kernel = wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    process.terminate()
    wait_for(lambda: not is_running(int(kernel)))
    assert process.wait() == (143 if ended == "itself" else -signal.SIGTERM)


def wait_for(condition):
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.1)
    raise TimeoutError(condition)


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True

"""`python -m fwstudy.pipeline`: stages side by side, on a small pipeline of DVC's own."""

import json
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from fwstudy.pipeline import Stages, minutes_left, run_all, stages_to_run, stages_whatever_the_lock

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
MEET = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
own.touch()
deadline = time.monotonic() + 120
while not other.exists():
    assert time.monotonic() < deadline, "nobody came"
    time.sleep(0.05)
"""


def stage(command: str, deps: list[str], *outs: str) -> dict:
    return {"cmd": command, "deps": deps, "outs": list(outs)}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two stages that wait for each other between a first and a last one."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()
    Path("meet.py").write_text(MEET)
    Path("source").write_text("1")
    stages = {
        "last": stage("cat left right > last", ["left", "right"], "last"),
        "left": stage("python meet.py left right", ["first"], "left") | {"meta": {"minutes": 3}},
        "right": stage("python meet.py right left", ["first"], "right"),
        "first": stage("cp source first", ["source"], "first"),
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    Repo.init(no_scm=True)
    return stages


def run(*arguments: str) -> subprocess.CompletedProcess:
    return run_module("fwstudy.pipeline", *arguments)


def run_module(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)


def test_independent_stages_run_at_the_same_time_and_leave_nothing_to_do(project):
    found = list(stages_to_run()[0])
    assert found[0] == "first" and found[-1] == "last" and len(found) == 4
    done = run("--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4: last" in done.stdout
    with Repo() as repo:
        assert repo.status() == {}
    assert stages_to_run() == ({}, {})
    Path("left").unlink()
    assert stages_to_run() == ({"left": set(), "last": {"left"}}, {"left": 3, "last": 0})


def test_what_a_quick_stage_leaves_as_it_was_starts_nothing(project):
    project["first"]["cmd"] = "head -c 1 source > first"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": project}))
    assert "4 of 4: last" in run("--jobs", "2").stdout
    Path("source").write_text("1, and more")
    assert len(stages_to_run()[0]) == 4
    done = run("--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "first started" and "left" not in done.stdout
    assert "Every other stage is up to date." in done.stdout
    assert stages_to_run() == ({}, {})


def test_what_cannot_be_asked_again_is_an_error_in_one_line(project):
    project["first"]["cmd"] = "cp source first; echo nonsense > dvc.yaml"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": project}))
    done = run("--jobs", "2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "dvc.yaml' validation failed" in last


def test_a_lock_file_that_was_cut_off_costs_no_work(tmp_path, monkeypatch, capsys):
    """DVC 3.67.1 writes dvc.lock in place, and starts no more where it was killed meanwhile."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()
    Path("source").write_text("1")
    only = {"only": stage("cp source first; echo once >> runs", ["source"], "first")}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": only}))
    with Repo.init(no_scm=True) as repo:
        repo.reproduce()
    Path("dvc.lock").write_text("")
    kept = Path("data", "partial", "dvc.lock")
    assert stages_whatever_the_lock(kept)[0] == {"only": set()} and kept.exists()
    assert f"it is now {kept}, and finished work is kept" in capsys.readouterr().out
    with Repo() as repo:
        repo.reproduce()
    assert Path("runs").read_text() == "once\n" and stages_to_run() == ({}, {})


def test_stages_that_fail_are_named_with_what_they_said(project):
    for name in ("left", "right"):
        other = {"left": "right", "right": "left"}[name]
        project[name]["cmd"] = (
            f"python meet.py {name}_here {other}_here && echo the {name} one && false"
        )
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": project}))
    done = run("--jobs", "2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for name in ("left", "right"):
        assert f"the {name} one" in done.stdout
        assert f"{name} failed; what runs beside it comes to its end" in done.stdout
    message = done.stderr.splitlines()[-1]
    assert message.startswith("error: failed: ") and "left" in message and "right" in message
    assert "the left one" in Path("data/partial/log/left.txt").read_text()
    assert not Path("last").exists()
    assert {"left", "right", "last"} <= stages_to_run()[0].keys()


def test_a_log_that_cannot_be_written_ends_no_stage(project, monkeypatch):
    monkeypatch.setattr(Stages, "log", lambda *_: Path("/dev/full"))
    told: list[str] = []
    assert Stages(ENVIRONMENT, Path("log")).reproduce("first", told.append)
    assert any("first" in line for line in told) and Path("first").exists()


def test_what_dvc_cannot_read_is_one_line(project):
    Path("dvc.yaml").write_text("stages: [")
    done = run("--jobs", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_it_ends_the_stages_that_run(project, number):
    project["left"]["cmd"] = "python meet.py left nobody"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": project}))
    command = [sys.executable, "-m", "fwstudy.pipeline", "--jobs", "1"]
    default = partial(signal.signal, number, signal.SIG_DFL)  # nohup may have started the tests
    with subprocess.Popen(command, env=ENVIRONMENT, preexec_fn=default) as process:  # noqa: PLW1509
        while not Path("left").exists():
            assert process.poll() is None
            threading.Event().wait(0.1)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert not Path("right").exists()
    assert json.loads(Path(".dvc/tmp/rwlock").read_text()) == {}  # DVC let go of what it held


def test_under_nohup_it_outlives_its_terminal(project):
    project["left"]["cmd"] = "python meet.py left hung_up"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": project}))
    command = ["nohup", sys.executable, "-m", "fwstudy.pipeline", "--jobs", "1"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        while not Path("left").exists():
            assert process.poll() is None
            threading.Event().wait(0.1)
        process.send_signal(signal.SIGHUP)
        Path("hung_up").touch()
        assert process.wait(120) == 0
    assert Path("last").exists()


def test_jobs_below_one_are_refused(project):
    done = run("--jobs", "0")
    assert done.returncode == 2 and "--jobs: at least 1, not 0" in done.stderr


def test_elsewhere_the_way_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for done in (run(), run_module("fwstudy.profiles", "paper")):
        assert done.returncode == 1 and done.stderr.startswith("error: params.yaml and dvc.yaml")
        assert len(done.stderr.splitlines()) == 1


GRAPH = {"a": set(), "b": set(), "c": {"a"}, "d": {"a", "b"}, "e": {"c", "d"}, "f": set()}


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_each_comes_after_what_it_waits_for_and_no_more_run_than_may(jobs):
    done, running, most, lock = [], set(), [], threading.Lock()

    def work(name: str) -> bool:
        with lock:
            assert GRAPH[name] <= set(done)
            running.add(name)
            most.append(len(running))
        threading.Event().wait(0.02)
        with lock:
            running.remove(name)
            done.append(name)
        return True

    assert run_all(GRAPH, work, jobs) == []
    assert sorted(done) == sorted(GRAPH) and max(most) <= jobs


def test_after_a_failure_nothing_is_started():
    done = []

    def work(name: str) -> bool:
        done.append(name)
        return name != "b"

    assert run_all(GRAPH, work, 1) == ["b"]
    assert done == ["a", "b"]


def test_what_the_most_work_waits_for_comes_first():
    minutes = {"a": 1, "b": 1, "c": 2, "d": 5, "e": 1, "f": 4}
    left = minutes_left(GRAPH, minutes)
    assert left == {"a": 7, "b": 7, "c": 3, "d": 6, "e": 1, "f": 4}
    done = []
    run_all(GRAPH, lambda name: done.append(name) or True, 1, minutes)
    assert done == ["a", "b", "d", "f", "c", "e"]


@pytest.mark.parametrize("said", ["max\n", "2000000000\n"])
def test_the_memory_of_a_container_counts(tmp_path, monkeypatch, said):
    import psutil

    from fwstudy.pipeline import memory

    (tmp_path / "limit").write_text(said)
    monkeypatch.setattr("fwstudy.pipeline.LIMITS", (tmp_path / "limit", tmp_path / "gone"))
    expected = 2_000_000_000 if said.strip().isdigit() else psutil.virtual_memory().total
    assert memory() == expected

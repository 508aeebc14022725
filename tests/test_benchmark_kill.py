"""How a run is ended, and what is compared afterwards; without any run of the study."""

import subprocess

import pytest

from benchmarks import kill


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with what a run would print, in which another command stands for a run."""
    folder = tmp_path / "project"
    (folder / "data" / "results").mkdir(parents=True)
    options = {"cwd": folder, "start_new_session": True}

    def start(project, command):
        with folder.with_suffix(".log").open("a") as log:
            log.write(SAID[command[0]])
        return subprocess.Popen(COMMAND, **options)

    monkeypatch.setattr(kill, "start", start)
    return folder


COMMAND = ["sleep", "60"]
SAID = {
    "dvc": "Running stage 'faces':\nRunning stage 'train@0':\n",
    kill.SIDE_BY_SIDE[0]: "faces started\n1 of 9: faces, 0.1 min\ntrain@0 started\n",
}


@pytest.mark.parametrize("way", kill.WAYS)
def test_a_run_is_ended_and_its_last_stage_told(project, way):
    stage, gone = kill.disturb(project, 0.2, way)
    assert stage == "train@0" and int(gone) < 10
    assert not kill.alive(project)


def test_a_run_that_ended_before_the_signal_is_told(project, monkeypatch):
    monkeypatch.setattr("tests.test_benchmark_kill.COMMAND", ["true"])
    assert kill.disturb(project, 60, "DVC, SIGTERM")[0] == "none: it had ended"


def test_a_stage_of_an_earlier_run_is_not_told(project, monkeypatch):
    assert kill.disturb(project, 0.2, "DVC, SIGKILL")[0] == "train@0"
    monkeypatch.setitem(SAID, "dvc", "Stage 'faces' didn't change, skipping\n")
    assert kill.disturb(project, 0.2, "DVC, SIGKILL")[0] == "before the first"


def test_a_process_that_outlives_the_run_is_counted(project, monkeypatch):
    monkeypatch.setattr(kill, "PATIENCE", 0.5)
    with subprocess.Popen(COMMAND, cwd=project) as left:
        found = kill.disturb(project, 0.2, "DVC, SIGTERM")
        left.kill()
    assert found == ("train@0", "1 alive")


def test_what_a_model_cost_is_not_compared(project):
    results = project / "data" / "results"
    (results / "cost.csv").write_text("model,minutes\na,1.5\n")
    (results / "auc.csv").write_text("model,auc\na,0.50\n")
    (results / "rows.csv").write_text("measure,value\ncore_seconds,3\nmass,0.5\n")
    first = kill.tables(project)
    (results / "cost.csv").write_text("model,minutes\na,2.5\n")
    (results / "rows.csv").write_text("measure,value\ncore_seconds,4\nmass,0.5\n")
    assert kill.tables(project) == first
    (results / "auc.csv").write_text("model,auc\na,0.51\n")
    assert [name for name, content in kill.tables(project).items() if content != first[name]] == [
        "auc.csv"
    ]

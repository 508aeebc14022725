"""Root, seeds, cost and unfinished work."""

import os
import time

import numpy as np
import pytest
import torch

from fwstudy import runtime


def test_cost_is_that_of_the_work_inside():
    with runtime.measured_cost() as cost:
        assert not cost
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    assert 0.05 <= cost["core_seconds"] < 5 and cost["minutes"] > 0.05 / 60 * 0.9
    assert 0.01 < cost["peak_memory_gb"] < 100


def test_project_root(tmp_path, monkeypatch):
    inner = tmp_path / "notebooks"
    inner.mkdir()
    monkeypatch.chdir(inner)
    with pytest.raises(FileNotFoundError, match="start from the project's folder"):
        runtime.project_root()
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    assert runtime.project_root() == tmp_path


def test_partial_folder_depends_on_settings_and_rooms(project, monkeypatch):
    for code in ("crops/cropset.py", "reporting/plots.py", "labels.py"):
        (project / code).parent.mkdir(exist_ok=True)
        (project / code).touch()
    monkeypatch.setattr(runtime, "CODE", project)

    def place(seed=0, rooms=("crops", "labels.py")):
        return runtime.partial_folder("x", {"seed": seed}, rooms=rooms)

    one = place()
    assert one == place() != place(seed=1) and one.is_dir()
    (project / "reporting" / "plots.py").write_text("color = 1")
    assert one == place()
    (project / "crops" / "cropset.py").write_text("size = 1")
    assert one != place()
    with pytest.raises(FileNotFoundError, match="no room nothing"):
        place(rooms=["nothing"])


def test_seed_repeats():
    values = []
    for _ in range(2):
        runtime.seed_everything(3)
        values.append((torch.rand(2), np.random.rand(2)))
    assert torch.equal(values[0][0], values[1][0]) and (values[0][1] == values[1][1]).all()
    torch.use_deterministic_algorithms(False)


def test_cuda_is_told_before_the_first_product(monkeypatch):
    """PyTorch looks once; a model that was loaded before the seed is set made training fail."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert runtime.default_device().type == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"

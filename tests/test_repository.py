"""The repository keeps its own rules: notebooks, pipeline, pins."""

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml

from fwstudy.reporting.headline import readme_blocks, written

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGED = [path for path in NOTEBOOKS if path.stem != "08_explain"]  # that one is run by hand
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "fwstudy").rglob("*.py"))
ROOMS = [
    ("labels.py", "params.py", "runtime.py"),
    ("clips.py", "whitening/"),
    ("crops/",),
    ("faces/", "preprocess/", "training/"),
    ("evaluation/",),
    ("interpretability/",),
    ("outside/", "reporting/"),
    ("execute.py", "pipeline.py"),
    ("explain/", "export.py", "profiles.py", "score.py"),
]
WITH_PARTIAL_WORK = [
    (["faces"], "fwstudy/faces/sources.py"),
    (["train", "variant", "leave_one_out", "cross_train"], "fwstudy/training/runs.py"),
]
# The figures of these are in the notebooks alone:
ONLY_LOOKS_AT_PLOTS = {"00_faces", "01_preprocess", "12_other_crops"}


def stage_of(notebook: Path) -> dict:
    """The pipeline stage that executes a notebook."""
    stages = [
        stage.get("do", stage)
        for stage in PIPELINE["stages"].values()
        if f"notebooks/{notebook.name}" in str(stage)
    ]
    assert len(stages) == 1, f"{notebook.name} is executed by {len(stages)} stages"
    return stages[0]


@cache
def imports(source: str) -> set[str]:
    """Files of the package that a source imports, relative to the root; not those a command needs."""
    names = set()
    body = [node for node in ast.parse(source).body if getattr(node, "name", None) != "main"]
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"a relative import: {ast.unparse(node)}"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = {name.replace(".", "/") for name in names if name.startswith("fwstudy.")}
    files = {f"{path}{end}" for path in paths for end in (".py", "/__init__.py")}
    return {file for file in files if (ROOT / file).is_file()}


def closure(files: set[str]) -> set[str]:
    """The files and all that they import."""
    found, waiting = set(), set(files)
    while waiting := waiting - found:
        found |= waiting
        waiting = set().union(*[imports((ROOT / file).read_text("utf-8")) for file in waiting])
    return found


def code_of(notebook: Path) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert len(notebook.cells) <= 25
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    for cell in code:
        assert not cell.outputs and cell.execution_count is None
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert max(map(len, cell.source.splitlines())) <= 100, cell.source
        assert not re.search(r"^\s*(def|class)\s", cell.source, re.MULTILINE), cell.source


def test_imports_run_one_way():
    """A room imports what stands in the rows above it; the rooms of a row do not know each other."""
    above = set()
    for row in ROOMS:
        for room in row:
            files = [path for path in MODULES if path.startswith(f"fwstudy/{room}")]
            assert files, f"there is no {room}: ROOMS above is out of date"
            for file in files:
                allowed = tuple(f"fwstudy/{name}" for name in (*above, room))
                used = imports((ROOT / file).read_text("utf-8"))
                wrong = [path for path in used if not path.startswith(allowed)]
                assert not wrong, f"{file} imports {wrong}, from a room beside or below its own"
        above |= set(row)
    homeless = {
        path for path in MODULES if not path.startswith(tuple(f"fwstudy/{r}" for r in above))
    }
    assert homeless == {"fwstudy/__init__.py"}


def test_every_notebook_has_its_minutes():
    """What takes longest starts first, where stages run side by side."""
    stages = PIPELINE["stages"]
    executed = {name for name, stage in stages.items() if stage["cmd"].startswith("${run}")}
    assert {name for name, stage in stages.items() if "meta" in stage} == executed
    assert all(stages[name]["meta"]["minutes"] > 0 for name in executed)


@pytest.mark.parametrize("path", STAGED, ids=lambda path: path.stem)
def test_stage_depends_on_the_rooms_its_notebook_uses(path):
    """But for those whose code changes no file that the stage writes, as dvc.yaml says."""
    exempt = ["fwstudy/params.py"] + ["fwstudy/reporting/"] * (path.stem in ONLY_LOOKS_AT_PLOTS)
    used = closure(set().union(*[imports(source) for source in code_of(path)]))
    used = {file for file in used if not file.startswith(tuple(exempt))} | {
        f"notebooks/{path.name}"
    }
    declared = stage_of(path)["deps"]
    missing = [file for file in used if not file.startswith(tuple(declared))]
    assert not missing, f"{path.name}: add to deps the rooms of {sorted(missing)}"
    rooms = [dep for dep in declared if dep.startswith("fwstudy")]
    unused = [room for room in rooms if not any(file.startswith(room) for file in used)]
    assert not unused, f"{path.name}: remove from deps: {unused}"


@pytest.mark.parametrize("stages, file", WITH_PARTIAL_WORK)
def test_unfinished_work_is_kept_by_the_code_that_its_stages_depend_on(stages, file):
    found = re.search(r"^ROOMS = (\(.*?\))", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    rooms = [f"fwstudy/{room}" for room in ast.literal_eval(found[1])]
    for stage in map(PIPELINE["stages"].get, stages):
        assert rooms == [dep for dep in stage["deps"] if dep.startswith("fwstudy/")]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone: nothing is in git")
def test_only_code_text_and_the_detector_of_the_box_are_in_git():
    """No model or clip of an experiment."""
    listed = subprocess.run(
        ["git", "ls-files", "*.safetensors", "*.npz", "*.npy", "*.pt", "*.pth", "*.onnx"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = listed.stdout.split()
    assert "data/assets/faces.npz" in names
    assert all(name.startswith("data/assets/") for name in names)


def test_stages_declare_params_that_exist():
    for name, stage in PIPELINE["stages"].items():
        for key in stage.get("do", stage).get("params", []):
            value = PARAMS
            for word in key.split("."):
                if "${" in word:
                    break
                assert word in value, f"stage {name}: no key {key} in params.yaml"
                value = value[word]


def test_pins_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lock = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", lock, re.MULTILINE))
    groups = project["project"]["dependencies"] + project["dependency-groups"]["test"]
    for requirement in groups:
        name, _, version = requirement.partition("==")
        assert version, f"{requirement} in pyproject.toml is not pinned"
        assert locked[name] == version, f"{name}: lock {locked[name]}, pyproject.toml {version}"
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.lock"]} in conda
    minimum = project["project"]["requires-python"].removeprefix(">=")
    assert f"python={minimum}" in conda


def test_lock_has_hashes_and_no_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    assert "--hash=sha256:" in lock
    assert not re.search(r"https?://|--(extra-)?index-url|file:", lock)


def test_no_addresses_of_machines_in_executed_notebooks():
    for path in (ROOT / "notebooks" / "executed").glob("*.ipynb"):
        text = path.read_text()
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text, path.name


def test_numbers_of_the_readme_are_those_of_the_results():
    readme, blocks = (ROOT / "README.md").read_text(encoding="utf-8"), readme_blocks(ROOT)
    assert all(f"<!-- {name} -->" in readme for name in blocks)
    assert written(readme, blocks) == readme


def test_the_documents_name_targets_that_make_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    texts = (path.read_text("utf-8") for path in ROOT.glob("*/README.md"))
    named = {name for text in texts for name in re.findall(r"`make ([a-z-]+)", text)}
    assert {"pretrained", "explain", "benchmark-gpu"} <= named <= targets

"""The repository keeps its own rules: notebooks, pipeline, pins."""

import ast
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from fwstudy.reporting.headline import BLOCK, headline_table

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGED = [path for path in NOTEBOOKS if path.stem != "08_explain"]  # that one is run by hand
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def stage_of(notebook: Path) -> dict:
    """The pipeline stage that executes a notebook."""
    stages = [
        stage.get("do", stage)
        for stage in PIPELINE["stages"].values()
        if f"notebooks/{notebook.name}" in str(stage)
    ]
    assert len(stages) == 1, f"{notebook.name} is executed by {len(stages)} stages"
    return stages[0]


def imported_modules(source: str, package: str = "") -> set[str]:
    """Names of the project's modules imported by a source, ``fwstudy.`` first."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module or ''}".strip(".") if node.level else node.module
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("fwstudy")}


def module_file(name: str) -> Path | None:
    """The file of a module, or None if the name is not a module."""
    path = ROOT / name.replace(".", "/")
    files = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in files if file.is_file()), None)


def closure(names: set[str]) -> set[str]:
    """Files of the modules and of all that they import, relative to the root."""
    files, waiting = set(), list(names)
    while waiting:
        file = module_file(waiting.pop())
        if file is None or file in files:
            continue
        files.add(file)
        package = ".".join(file.relative_to(ROOT).parent.parts)
        waiting += imported_modules(file.read_text(), package)
    return {str(file.relative_to(ROOT)) for file in files}


def code_of(notebook: Path) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{number:02d}" for number in range(11)]


def test_explaining_your_own_is_no_stage():
    assert "08_explain" not in (ROOT / "dvc.yaml").read_text()


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
        assert not re.search(r"^\s*(def|class)\s", cell.source, re.MULTILINE), cell.source


@pytest.mark.parametrize("path", STAGED, ids=lambda path: path.stem)
def test_stage_depends_on_everything_its_notebook_imports(path):
    needed = closure(set().union(*[imported_modules(source) for source in code_of(path)]))
    needed.add(f"notebooks/{path.name}")
    declared = set(stage_of(path)["deps"])
    assert needed <= declared, f"{path.name}: add to deps: {sorted(needed - declared)}"
    unused = {name for name in declared if name.startswith("fwstudy")} - needed
    assert not unused, f"{path.name}: remove from deps: {sorted(unused)}"


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


def test_headline_of_the_readme_is_that_of_the_results():
    block = BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert block[0].split("-->\n", 1)[1] == headline_table(ROOT / "data" / "results") + block[2]

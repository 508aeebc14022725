import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from fwstudy.execute import execute


@pytest.fixture
def notebook(tmp_path):
    parameters = new_code_cell("value = 1", metadata={"tags": ["parameters"]})
    work = "import sys; print(value); print('progress', file=sys.stderr); 1 / value"
    path = tmp_path / "source.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = new_notebook(cells=[parameters, new_code_cell(work)], metadata={"kernelspec": kernel})
    nbformat.write(content, path)
    return path


def test_parameters_arrive_and_two_runs_give_equal_bytes(notebook, tmp_path):
    outputs = [tmp_path / "new" / "folder" / f"{name}.ipynb" for name in "ab"]
    for output in outputs:
        execute(notebook, output, {"value": 4})
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    cells = nbformat.read(outputs[0], as_version=4).cells
    assert [output.get("text") for output in cells[-1].outputs] == ["4\n", None]
    assert cells[-1].outputs[1].data["text/plain"] == "0.25"


def test_unknown_parameter_is_an_error(notebook, tmp_path):
    with pytest.raises(ValueError, match="has no parameter velue; it has: value"):
        execute(notebook, tmp_path / "out.ipynb", {"velue": 4})
    assert not (tmp_path / "out.ipynb").exists()


def test_failing_cell_is_shown(notebook, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
        execute(notebook, tmp_path / "out.ipynb", {"value": 0})
    assert "ZeroDivisionError" in (tmp_path / "out.ipynb").read_text()

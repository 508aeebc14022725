"""Notebooks without a kernel, whose start and imports cost more than a smoke-size stage."""

import base64
import io
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_output


def run_here(source: Path, output: Path, parameters: dict) -> None:
    """What `fwstudy.execute.execute` does, in this process."""
    notebook, names = nbformat.read(source, as_version=4), {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        shown = []
        names["display"] = lambda *values, shown=shown: shown.extend(values)  # not IPython's
        with redirect_stdout(io.StringIO()) as text:
            exec(compile(cell.source, str(source), "exec"), names)  # noqa: S102
        if "parameters" in cell.metadata.get("tags", []):
            assert set(parameters) <= set(names)
            names |= parameters
        cell.outputs = [new_output("stream", name="stdout", text=text.getvalue())]
        for value in shown:
            bundle, _ = DisplayFormatter().format(value)
            bundle = {
                kind: base64.b64encode(data).decode() if isinstance(data, bytes) else data
                for kind, data in bundle.items()
            }
            cell.outputs.append(new_output("display_data", bundle))
    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, output)

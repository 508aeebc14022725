"""Execute one notebook with papermill: ``python -m fwstudy.execute SOURCE OUTPUT [-p KEY VALUE]``.

Papermill alone warns of an unknown parameter and goes on, does not make the output's folder, and
leaves time stamps and progress bars in what it writes. Here an unknown parameter is an error, and
two runs with equal results give equal bytes.
"""

import argparse
import sys
from pathlib import Path

import nbformat
import papermill
import yaml

VOLATILE_METADATA = ("papermill", "execution")


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from run to run: time stamps, and the progress written to stderr."""
    for part in (notebook, *notebook.cells):
        for key in VOLATILE_METADATA:
            part.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def execute(source: Path, output: Path, parameters: dict) -> None:
    """Run ``source`` from top to bottom and write the executed notebook to ``output``.

    Progress goes to the terminal. If a cell fails, ``output`` holds the notebook up to there.

    Raises:
        ValueError: a parameter that the notebook's ``parameters`` cell does not have.
        papermill.PapermillExecutionError: a cell failed; the message carries its traceback.
    """
    known = papermill.inspect_notebook(source)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(
            f"{source} has no parameter {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(source),
        str(output),
        parameters,
        kernel_name="python3",
        progress_bar=False,
        stderr_file=sys.stderr,
        stdout_file=sys.stdout,
    )
    notebook = nbformat.read(output, as_version=4)
    nbformat.write(clean(notebook), output)


def main() -> None:
    """Read the command line and execute."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"))
    arguments = parser.parse_args()
    parameters = {key: yaml.safe_load(value) for key, value in arguments.p}
    execute(arguments.source, arguments.output, parameters)


if __name__ == "__main__":
    main()

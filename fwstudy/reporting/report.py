"""All executed notebooks as one static site that opens offline: ``python -m fwstudy.reporting.report``."""

import shutil
from html import escape
from itertools import groupby
from pathlib import Path

import nbformat
from nbconvert.filters import markdown2html
from tqdm import tqdm

from fwstudy.reporting.headline import block_of
from fwstudy.reporting.pages import notebook_body, write_page
from fwstudy.runtime import project_root

FIGURES = {
    "curve.png": "What a bottleneck of the verdict to the concept axes costs and buys.",
    "plane.png": "Accuracy against interpretability: every variant with its intervals.",
}  # of data/results/figures, shown on the first page
PAGES = {"leaderboard.html": "Leaderboard of explainers"}  # of data/results, linked from it


def heading(notebook: Path) -> str:
    """The first heading of a notebook.

    Raises:
        ValueError: it has none, or is no notebook; the message names the file.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook}: not a notebook ({error})") from error
    for line in "\n".join(c.source for c in cells if c.cell_type == "markdown").splitlines():
        if line.startswith("# "):
            return line.removeprefix("# ")
    raise ValueError(f"{notebook}: no heading")


def navigation(groups: dict[str, list[Path]], current: str) -> str:
    """Links to every group of notebooks: to its page, or to its list where there are several.

    Args:
        groups: the two digits a notebook's name begins with, to the executed notebooks.
        current: the group of the page, or "" for the first page.
    """
    links = [("index.html", "Overview", "")]
    for number, notebooks in groups.items():
        first = notebooks[0].stem
        several = len(notebooks) > 1
        name = first.removeprefix(f"{number}_").split("_seed")[0].split("_")
        place = f"index.html#{number}" if several else f"{first}.html"
        words = name[0] if several else " ".join(name)
        links.append((place, f"{int(number)} {words}" if number.isdigit() else first, number))
    marks = [' aria-current="page"' if number == current else "" for *_, number in links]
    texts = [
        f'<a href="{place}"{mark}>{escape(text)}</a>'
        for (place, text, _), mark in zip(links, marks, strict=True)
    ]
    return f"<nav>{' '.join(texts)}</nav>"


def overview(
    groups: dict[str, list[Path]],
    titles: dict[Path, str],
    readme: str,
    figures: list[str],
    further: list[str],
) -> str:
    """The first page: the headline table, the main figures, and a list of all pages and notebooks.

    Args:
        titles: of the notebooks.
        readme: text of README.md.
        figures: file names out of `FIGURES`.
        further: file names out of `PAGES`.
    """
    found = block_of("headline").search(readme)
    parts = ["<h1>fwstudy</h1>", markdown2html(found[0]) if found else ""]
    parts += [
        f'<figure><img src="figures/{name}" alt="{FIGURES[name]}"><figcaption>{FIGURES[name]}'
        "</figcaption></figure>"
        for name in figures
    ]
    parts += [f'<p><a href="{name}">{PAGES[name]}</a></p>' for name in further]
    for number, notebooks in groups.items():
        parts.append(f'<h2 id="{number}">{escape(titles[notebooks[0]])}</h2><ul>')
        parts += [
            f'<li><a href="{path.stem}.html">{escape(path.stem.replace("_", " "))}</a></li>'
            for path in notebooks
        ]
        parts.append("</ul>")
    return "\n".join(parts)


def write_report(root: Path, output: Path) -> Path:
    """Write the site.

    Args:
        root: of the project.
        output: folder, emptied first.

    Returns:
        the first page.

    Raises:
        FileNotFoundError: no notebook has been executed.
    """
    executed = sorted((root / "notebooks" / "executed").glob("*.ipynb"))
    if not executed:
        raise FileNotFoundError("notebooks/executed holds no notebook: run `make repro` first")
    titles = {path: heading(path) for path in executed}
    groups = {number: list(found) for number, found in groupby(executed, lambda p: p.name[:2])}
    shutil.rmtree(output, ignore_errors=True)
    (output / "figures").mkdir(parents=True)
    results = root / "data" / "results"
    figures = [name for name in FIGURES if (results / "figures" / name).exists()]
    for name in figures:
        shutil.copy(results / "figures" / name, output / "figures")
    further = [name for name in PAGES if (results / name).exists()]
    for name in further:
        shutil.copy(results / name, output)
    for number, notebooks in tqdm(groups.items(), "report"):
        for path in notebooks:
            body = notebook_body(path)
            page = output / f"{path.stem}.html"
            write_page(page, titles[path], body, navigation(groups, number))
    readme = (root / "README.md").read_text(encoding="utf-8")
    body = overview(groups, titles, readme, figures, further)
    write_page(output / "index.html", "fwstudy", body, navigation(groups, ""))
    return output / "index.html"


if __name__ == "__main__":
    try:
        print(f"page: {write_report(project_root(), project_root() / 'data' / 'report')}")
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None

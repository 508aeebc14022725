"""Executed notebooks as pages and as one site."""

import base64
import re
import shutil

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fwstudy.reporting import pages, plots, report


def picture() -> str:
    return base64.b64encode(plots.contact_sheet([[np.eye(4)]], ["a"])._repr_png_()).decode()


def write_notebook(path, title):
    outputs = [
        new_output("stream", name="stdout", text="a <b> claim"),
        new_output("display_data", {"image/png": picture(), "text/plain": "figure"}),
    ]
    code = new_code_cell("secret = 1", outputs=outputs, execution_count=1)
    cells = [new_markdown_cell(f"# {title}\n\nA question."), code]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)


@pytest.fixture
def root(tmp_path):
    names = ("00_faces", "02_train_seed0", "02_train_seed1", "04_ablations")
    for name in names:
        write_notebook(tmp_path / "notebooks" / "executed" / f"{name}.ipynb", f"Story of {name}")
    (tmp_path / "README.md").write_text(
        "# x\n<!-- headline -->\n| a | b |\n|---|---|\n| 1 | 0.874 |\n<!-- /headline -->\nrest"
    )
    (tmp_path / "data" / "results" / "figures").mkdir(parents=True)
    sheet = plots.contact_sheet([[np.eye(4)]], ["a"])
    sheet.savefig(tmp_path / "data" / "results" / "figures" / "curve.png")
    pages.write_page(tmp_path / "data" / "results" / "leaderboard.html", "Ranks", "<p>1.5</p>")
    return tmp_path


def assert_offline(page: str, site=()) -> None:
    """Nothing is loaded, and links lead to the site's own pages."""
    assert "<script" not in page and "<link" not in page and "@import" not in page
    for target in re.findall(r"(?:src|href)=[\"']([^\"']*)", page):
        assert target.startswith(("data:", "#")) or target.split("#")[0] in site, target


def test_a_page_is_offline_its_code_can_be_unfolded_and_its_figure_is_named(tmp_path):
    write_notebook(tmp_path / "run.ipynb", "Faces & parts")
    body = pages.notebook_body(tmp_path / "run.ipynb")
    pages.write_page(tmp_path / "page.html", "me & <you>", body)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert_offline(page)
    assert picture() in page and "a &lt;b&gt; claim" in page
    assert "<title>me &amp; &lt;you&gt;</title>" in page and "<h1" in page
    folded = re.search(r"<details><summary>code</summary>(.*?)</details>", body, re.DOTALL)
    assert "secret" in folded[1] and "claim" not in folded[1]
    assert re.findall(r'<img [^>]*alt="([^"]*)"', body) == ["Figure: Faces &amp; parts"]


def test_every_link_of_the_site_leads_somewhere(root):
    first = report.write_report(root, root / "site")
    files = {path.relative_to(root / "site").as_posix() for path in first.parent.rglob("*.*")}
    assert files == {
        "index.html", "00_faces.html", "02_train_seed0.html", "02_train_seed1.html",
        "04_ablations.html", "figures/curve.png", "leaderboard.html",
    }  # fmt: skip
    for path in first.parent.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert_offline(page, files)
        for anchor in re.findall(r'href="index.html#(\d+)"', page):
            assert f'id="{anchor}"' in first.read_text(encoding="utf-8")
    text = first.read_text(encoding="utf-8")
    assert "<td>0.874</td>" in text and "Story of 04_ablations" in text and "rest" not in text
    page = (root / "site" / "02_train_seed1.html").read_text(encoding="utf-8")
    assert re.findall(r"<a [^>]*aria-current[^>]*>([^<]*)</a>", page) == ["2 train"]
    assert '<a href="04_ablations.html">4 ablations</a>' in page  # navigation marks the page
    (root / "notebooks" / "executed" / "00_faces.ipynb").unlink()
    report.write_report(root, root / "site")
    assert not (root / "site" / "00_faces.html").exists()  # old pages do not stay


def test_a_notebook_of_ones_own_is_a_page_too(root):
    folder = root / "notebooks" / "executed"
    shutil.copy(folder / "00_faces.ipynb", folder / "scratch.ipynb")
    page = report.write_report(root, root / "site").read_text(encoding="utf-8")
    assert '<a href="scratch.html">scratch</a>' in page


def test_bad_input_is_named(root):
    bad = root / "notebooks" / "executed" / "05_bad.ipynb"
    bad.write_text("{")
    with pytest.raises(ValueError, match=r"05_bad\.ipynb: not a notebook"):
        report.write_report(root, root / "site")
    nbformat.write(new_notebook(cells=[]), bad)
    with pytest.raises(ValueError, match=r"05_bad\.ipynb: no heading"):
        report.write_report(root, root / "site")
    shutil.rmtree(root / "notebooks")
    with pytest.raises(FileNotFoundError, match="make repro"):
        report.write_report(root, root / "site")

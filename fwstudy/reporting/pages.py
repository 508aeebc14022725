"""Executed notebooks as HTML pages that open offline: no scripts, nothing loaded from elsewhere."""

from html import escape
from pathlib import Path

from pygments.formatters import HtmlFormatter

STYLE = """
body {font: 16px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem}
img {max-width: 100%; height: auto} pre {font: inherit; white-space: pre-wrap; margin: .5rem 0}
table {border-collapse: collapse; font-size: 14px} .output_html {overflow-x: auto}
th, td {padding: .2rem .6rem; border-bottom: 1px solid #ccc; text-align: right}
nav {font-size: 14px; border-bottom: 1px solid #ccc; padding-bottom: .5rem} nav a {margin-right: 1rem}
nav a[aria-current] {font-weight: bold; text-decoration: none; color: inherit}
details {margin: .3rem 0} summary {cursor: pointer; color: #555; font-size: 13px}
.highlight pre {font: 13px/1.4 monospace; background: #f6f6f6; padding: .5rem; overflow-x: auto}
"""
FOLDED_CODE = """{% extends 'basic/index.html.j2' %}
{% block input_group %}<details><summary>code</summary>{{ super() }}</details>{% endblock %}
"""


def notebook_body(notebook: Path) -> str:
    """The cells of an executed notebook as HTML; the code can be unfolded.

    What a figure is of is told, to those who do not see it, by the first line of the text before it.
    """
    import nbformat
    from nbconvert import HTMLExporter  # slow to import, and not needed by every page

    exporter = HTMLExporter(
        template_name="basic",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    exporter.raw_template = FOLDED_CODE
    content, before = nbformat.read(notebook, as_version=4), ""
    for cell in content.cells:
        if cell.cell_type == "markdown":
            before = cell.source.strip().partition("\n")[0].strip("#* ")
        cell.metadata.setdefault("alt", f"Figure: {before}")
    return exporter.from_notebook_node(content)[0]


def write_page(page: Path, title: str, body: str, navigation: str = "") -> None:
    """One page of the site, or one that stands alone.

    Args:
        title: plain text.
        body, navigation: HTML.
    """
    colors = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    page.write_text(
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{STYLE}{colors}</style></head>\n"
        f"<body>{navigation}{body}</body></html>\n",
        encoding="utf-8",
    )

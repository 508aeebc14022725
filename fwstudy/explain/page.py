"""The page on a user's files: one HTML file that opens offline, its pictures within."""

import os
from html import escape
from pathlib import Path

import pandas as pd

from fwstudy.explain.detector import TrainedExplainer
from fwstudy.explain.files import FileReport, describe
from fwstudy.explain.panels import evidence_bars, evidence_over_time, face_sheet, ood_strip
from fwstudy.reporting.pages import write_page

COLUMNS = ["verdict", "probability", "log_odds", "ood_score", "ood_percentile", "is_ood"]
COLUMNS += ["frames_with_face", "faces", "eye_distance", "notes"]
LIMITS = (
    "A concept axis was turned towards forgeries of its part; that it answers to nothing else is not "
    "granted (notebook 6 measures it). A low probability is no certificate: the model knows the kinds "
    "of forgery it was trained on, and the codec that your file has gone through may hide what it looks "
    "for. Do not judge people by this page."
)


def found(table: pd.DataFrame, reports: list[FileReport]) -> str:
    """How many files could be explained, why others could not, and a row for each that could."""
    done = table[table["problem"] == ""]
    lines = [f"{len(done)} of {len(table)} files explained."]
    for row in table[table["problem"] != ""].itertuples():
        lines.append(f"{escape(row.file)}: NOT EXPLAINED, {escape(row.problem)}")
    if len(reports) < len(done):
        lines.append(f"Details follow for the first {len(reports)}; evidence.csv has all.")
    above = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in table["file"]])
    names = [os.path.relpath(file, above) for file in done["file"]]
    rows = done.reindex(columns=["file", *COLUMNS]).assign(file=names)
    shown = rows.round(2).to_html(index=False, border=0) if len(done) else ""
    return f"<p>{'<br>'.join(lines)}</p>{shown}" + _caption(
        "probability: calibrated on unseen faces of the study, as if forgeries were as frequent as "
        "originals. log_odds: what it is the logistic function of; above 0 is forged. ood_score: "
        "distance from the training data; above 1 a face lies farther out than 99 % of unseen faces of "
        "the training's own kind. ood_percentile: share of them that lie nearer. eye_distance: pixels."
    )


def verdicts(trained: TrainedExplainer, reports: list[FileReport]) -> str:
    """Each file in plain language."""
    return "".join(f"<pre>{escape(describe(trained, one))}</pre>" for one in reports)


def fitness(trained: TrainedExplainer, reports: list[FileReport]) -> str:
    """How far the files lie from the training data."""
    known = trained.reference.distances / trained.reference.limit
    distances = {one.name: one.summary["ood_score"] for one in reports}
    unlike = [name for name, distance in distances.items() if distance > 1]
    words = f"<p>Unlike the training data: {escape(', '.join(unlike)) or 'none'}.</p>"
    return (
        words
        + ood_strip(known, distances)
        + _caption(
            "Gray: faces of people the model has not seen, of the same kind as its training data. Orange: "
            "your files. Right of the dashed line the model has nothing to go by, however sure it sounds. "
            "The reverse does not hold: the test sees what the last layer sees. Mahalanobis distance of the "
            "layer's pooled features from the training faces (after Lee et al. 2018)."
        )
    )


def evidence(reports: list[FileReport]) -> str:
    """The sum that makes each verdict."""
    return "".join(f"<div>{evidence_bars(one)}</div>" for one in reports) + _caption(
        "The log-odds of a forgery are a sum, and nothing is left over: where a typical original stands "
        "(the boundary: evidence beyond it makes a forgery), what each concept axis adds to that, and "
        "what all residual axes add. The verdict is forged where the sum is above 0; the "
        "probability is its logistic function. Of a clip a bar is the mean over frames, and the black "
        "line reaches from the least to the largest. Because it is a sum, what the verdict would be without "
        "one concept axis is known exactly, without running the network again; see the words above."
    )


def heat_maps(reports: list[FileReport]) -> str:
    """Where in the face the evidence lies."""
    return "".join(f"<p>{escape(one.name)}</p>{face_sheet(one)}" for one in reports) + _caption(
        "The face found, and what each position adds to the evidence beyond a typical original (orange "
        "for a forgery, violet against; a clip at up to four moments). The two sums share one scale, the "
        "single axes another. Maps of the last layer are coarse (a few cells across the face), and a "
        "cell sees more than the pixels under it."
    )


def over_time(trained: TrainedExplainer, reports: list[FileReport]) -> str:
    """The evidence of each clip over time; empty where there is none."""
    clips = [one for one in reports if one.footage.is_clip]
    figures = [evidence_over_time(one.table, trained.names) for one in clips]
    named = zip(clips, figures, strict=True)
    body = "".join(f"<p>{escape(one.name)}</p>{figure}" for one, figure in named)
    return body and body + _caption("Evidence over time; crosses mark frames without a face.")


def about(trained: TrainedExplainer) -> str:
    """Which detector it is."""
    return (
        f"<p>Detector: {escape(trained.origin)}, trained on {escape(trained.data)} (seed {trained.seed})."
        f" Its concept axes: {escape(', '.join(trained.names))}.</p>"
    )


def limits() -> str:
    """What must not be concluded."""
    return f"<p>{LIMITS}</p>"


def write(
    page: Path,
    title: str,
    trained: TrainedExplainer,
    table: pd.DataFrame,
    reports: list[FileReport],
) -> None:
    """Write the page.

    Args:
        table, reports: see `fwstudy.explain.files.explain_all`.

    Raises:
        OSError: it cannot be written.
    """
    sections = {"What was found": about(trained) + found(table, reports)}
    if reports:
        sections |= {
            "The verdict": verdicts(trained, reports),
            "May the model judge it?": fitness(trained, reports),
            "Which part says so?": evidence(reports),
            "Where in the face?": heat_maps(reports),
            "When?": over_time(trained, reports),
        }
    sections["What this does not show"] = limits()
    body = "".join(f"<h2>{name}</h2>{text}" for name, text in sections.items() if text)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_page(page, title, f"<h1>{escape(title)}</h1>{body}")


def _caption(words: str) -> str:
    return f"<p><small>{words}</small></p>"

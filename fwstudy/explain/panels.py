"""Figures of a page as HTML and SVG: orange speaks for a forgery, violet against.

They are written as text, since matplotlib takes longer to start than a photograph to explain.
"""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
import pandas as pd

from fwstudy.explain.files import BOUNDARY, RESIDUAL, FileReport, few
from fwstudy.reporting.overlay import AGAINST, FOR, overlay

SIDE = 256  # px of the picture in which the face is marked
MOST = 8  # axes shown, those with most evidence
LABELS, PLOT, ROW = 215, 460, 24  # px of a figure: left margin, plot, height of a row
STYLES = ("o-", "s--", "D-.", "^:", "v-", "P--", "X-.", "*:")


def strongest(evidence: np.ndarray, count: int = MOST) -> np.ndarray:
    """Which axes to show: those of largest mean |evidence| (N, k), in their own order."""
    return np.sort(np.argsort(-np.abs(evidence).mean(axis=0), kind="stable")[:count])


def marked(image: np.ndarray, box: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A picture in a square of gray with a face's box drawn in: (side, side, 3) uint8."""
    scale = side / max(image.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    width, height = (max(1, round(length * scale)) for length in image.shape[1::-1])
    canvas = np.full((side, side, 3), 235, np.uint8)
    left, top = (side - width) // 2, (side - height) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=how
    )
    corners = np.round(np.reshape(box, (2, 2)) * scale + (left, top)).astype(int).tolist()
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):  # seen on dark and light
        cv2.rectangle(canvas, *corners, color, thickness)
    return canvas


def inline(png: bytes, alt: str) -> str:
    """A PNG within the page."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def face_sheet(explained: FileReport) -> str:
    """Face by face: the picture, the face, and the heat map of all axes, of the concept axes and of single axes.

    Shown are few frames of a clip (`few`). Sums have one scale, single axes another, over all of them.
    """
    found, times = explained.explanation, explained.footage.times
    seen = np.flatnonzero([face is not None for face in explained.faces])
    chosen = few(len(seen))
    maps, named = found.maps[chosen], found.maps[chosen].sum(axis=1)
    sums = {"all axes": named + found.rest_maps[chosen], "concept axes": named}
    singles = {found.names[axis]: maps[:, axis] for axis in strongest(found.evidence)}
    shown = [
        (title, values, np.quantile(np.abs(list(group.values())), 0.995))
        for group in (sums, singles)
        for title, values in group.items()
    ]
    titles = ["picture", "face", *(title for title, *_ in shown)]
    rows = []
    for number, frame in enumerate(seen[chosen]):
        face = explained.faces[frame]
        images = [marked(explained.footage.images[frame], face.box), face.crop]
        images += [overlay(face.crop, values[number], top) for _, values, top in shown]
        encoded = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in images]
        time = f"{times[frame]:.2f} s" if explained.footage.is_clip else ""
        alts = [f"{title} {time}".strip() for title in titles]
        row = [inline(png, alt) for png, alt in zip(encoded, alts, strict=True)]
        rows.append([time + row[0], *row[1:]])
    cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    cells.insert(0, "".join(f'<th scope="col">{escape(title)}</th>' for title in titles))
    return f'<table class="faces">{"".join(f"<tr>{row}</tr>" for row in cells)}</table>'


def evidence_bars(explained: FileReport) -> str:
    """The log-odds as a sum: a bar for the boundary, each concept axis, all residual axes, the sum.

    Of a clip a bar is the mean, and the line on it reaches from the least to the largest frame.
    """
    found = explained.explanation
    evidence = pd.DataFrame(found.evidence, columns=list(found.names))
    shown = evidence.iloc[:, strongest(found.evidence, 2 * MOST)]
    others = evidence.drop(columns=shown.columns)
    shown.insert(0, f"{BOUNDARY} (a typical original)", found.boundary)
    if others.shape[1]:
        shown = shown.assign(**{f"{others.shape[1]} other concept axes": others.sum(axis=1)})
    shown = shown.assign(**{RESIDUAL: found.rest, "sum (log-odds)": found.log_odds})
    low, high = min(0, shown.min().min()), max(0, shown.max().max())
    scale = PLOT / max(high - low, 1e-9)
    zero, parts = LABELS - low * scale, []
    for number, (name, values) in enumerate(shown.items()):
        value, y = values.mean(), number * ROW
        faint = name == RESIDUAL or number in (0, shown.shape[1] - 1)
        parts.append(
            f'<text x="{LABELS - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{zero + min(0, value) * scale:.1f}" y="{y + 3}" height="{ROW - 6}" '
            f'width="{abs(value) * scale:.1f}" fill="rgb{FOR if value > 0 else AGAINST}" '
            f'fill-opacity="{0.5 if faint else 1}"/>'
            f'<text x="{LABELS + PLOT + 8}" y="{y + 16}">{value:+.2f}</text>'
        )
        if len(values) > 1:
            ends = (zero + end * scale for end in (values.min(), values.max()))
            parts.append(_line(*ends, y + ROW / 2, y + ROW / 2, "black"))
    height = ROW * shown.shape[1]
    parts.append(_line(zero, zero, 0, height, "gray"))
    parts.append(_line(0, LABELS + PLOT, height - ROW, height - ROW, "gray"))
    title = f"{explained.name}: probability of a forgery {explained.summary['probability']:.0%}"
    return _figure("".join(parts), height, title, "← against a forgery · for a forgery →")


def ood_strip(known: np.ndarray, inputs: dict[str, float]) -> str:
    """How far inputs lie from the training data, beside faces the model has not seen of its kind.

    Args:
        known: (M,) distances of validation faces, 1 is the limit.
        inputs: name to distance.
    """
    distances = np.array([*inputs.values()])
    far = max(distances.max(), known.max(), 1) * 1.05
    near, along = (0, np.asarray) if far < 10 else (min(known.min(), distances.min()), np.log)
    start, end = along([near, far])

    def place(values: np.ndarray) -> np.ndarray:
        return LABELS + (along(values) - start) / (end - start) * PLOT

    counts, edges = np.histogram(place(known), bins=40)
    top, height = 60, 70 + ROW * len(inputs)
    parts = [
        f'<rect x="{left:.1f}" y="{top - count / counts.max() * top:.1f}" width="{right - left:.1f}" '
        f'height="{count / counts.max() * top:.1f}" fill="#888"/>'
        for count, left, right in zip(counts, edges, edges[1:], strict=False)
    ]
    limit = float(place(np.array(1.0)))
    parts.append(_line(limit, limit, 0, height, "black", 'stroke-dasharray="5 4"'))
    parts.append(f'<text x="{limit + 4:.1f}" y="12">limit</text>')
    parts.append(f'<text x="0" y="{top - 4}">unseen faces of its kind</text>')
    for number, ((name, value), x) in enumerate(zip(inputs.items(), place(distances), strict=True)):
        y = top + 22 + ROW * number
        words = name if len(name) < 26 else f"…{name[-24:]}"
        parts.append(
            f'<text x="{LABELS - 8}" y="{y + 4}" text-anchor="end">{escape(words)}</text>'
            f'<circle cx="{x:.1f}" cy="{y}" r="6" fill="rgb{FOR}"/>'
            f'<text x="{LABELS + PLOT + 8}" y="{y + 4}">{value:.2f}</text>'
        )
    scale = "" if far < 10 else ", on a logarithmic scale"
    return _figure("".join(parts), height, f"distance from the training data ÷ limit{scale}", "")


def evidence_over_time(table: pd.DataFrame, names: Sequence[str]) -> str:
    """Verdict and evidence of a clip over time: above the sums, below one line a concept axis.

    Args:
        table: see `fwstudy.explain.files.FileReport`; lines break where there is no face, and a cross
            on the lower edge marks the frame.
        names: columns of the concept axes; of many, those with most evidence are drawn.
    """
    from fwstudy.reporting.plots import COLORS, new_figure  # slow to import, and for clips alone

    figure, axes = new_figure(9, 6, 2, 1, sharex=True)
    above, below = axes[:, 0]
    time, named = table["time"], table[list(names)]
    sums = {"sum (log-odds)": table["log_odds"], RESIDUAL: table[RESIDUAL]}
    sums |= {"concept axes": named.sum(axis=1, skipna=False)}
    chosen = [names[number] for number in strongest(named.dropna().to_numpy())]
    for axis, lines in ((above, sums), (below, {name: table[name] for name in chosen})):
        for number, (name, values) in enumerate(lines.items()):
            axis.plot(time, values, STYLES[number], color=COLORS[number], label=name)
        axis.axhline(0, color="gray", linewidth=0.8)
        missing = time[~table["has_face"]]
        if len(missing):  # matplotlib cannot lay out an empty mark that is not clipped
            axis.plot(
                missing, np.full(len(missing), 0.03), "x", color="black", clip_on=False,
                transform=axis.get_xaxis_transform(), label="no face",
            )  # fmt: skip
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
        axis.set_ylabel("log-odds\n← against    for →")
        axis.spines[["top", "right"]].set_visible(False)
    below.set_xlabel("seconds")
    return inline(figure._repr_png_(), "evidence over time")


def _line(left: float, right: float, top: float, bottom: float, color: str, more: str = "") -> str:
    ends = f'x1="{left:.1f}" x2="{right:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"'
    return f'<line {ends} stroke="{color}" {more}/>'


def _figure(content: str, height: float, title: str, axis: str) -> str:
    """An SVG with a title above and words on its axis below."""
    width = LABELS + PLOT + 80
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 -28 {width} {height + 52}" '
        f'width="{width}" font-family="sans-serif" font-size="13"><title>{escape(title)}</title>'
        f'<text x="0" y="-12" font-weight="bold">{escape(title)}</text>{content}'
        f'<text x="{LABELS + PLOT / 2}" y="{height + 16}" text-anchor="middle">{axis}</text></svg>'
    )

"""Figures of `fwstudy.explain`: orange speaks for a forgery, violet against."""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
import seaborn as sns

from fwstudy.reporting.plots import COLORS, Figure, contact_sheet, new_figure, overlay

FOR, AGAINST, REST = "#e66101", "#5e3c99", "#888888"
SIDE = 256  # px of the picture in which the face is marked
MOST = 8  # axes shown, those with most evidence
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


def face_sheet(
    pictures: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    crops: Sequence[np.ndarray],
    maps: np.ndarray,
    rest_maps: np.ndarray,
    names: Sequence[str],
    labels: Sequence[str],
) -> Figure:
    """Face by face: the picture, the face, and the heat map of all, of named and of single axes.

    Sums have one scale, single axes another, each over all faces shown.

    Args:
        pictures, boxes, crops: see `fwstudy.faces.inputs.FaceCrop`; N of each.
        maps: (N, k, S, S), of the concept axes.
        rest_maps: (N, S, S), of all others.
        names: of the k axes.
        labels: one a face.
    """
    axes = strongest(maps.mean(axis=(2, 3)))
    named = maps.sum(axis=1)
    sums = {"all axes": named + rest_maps, "concept axes": named}
    singles = {names[axis]: maps[:, axis] for axis in axes}
    shown = [
        (title, values, np.quantile(np.abs(list(group.values())), 0.995))
        for group in (sums, singles)
        for title, values in group.items()
    ]
    rows = [
        [marked(picture, box), face, *(overlay(face, values[n], top) for _, values, top in shown)]
        for n, (picture, box, face) in enumerate(zip(pictures, boxes, crops, strict=True))
    ]
    return contact_sheet(rows, ["picture", "face", *(title for title, *_ in shown)], labels, 1.4)


def evidence_bars(evidence: pd.DataFrame, rest: np.ndarray, title: str) -> Figure:
    """The logit as a sum: one bar a concept axis, one for all the rest, one for the verdict.

    Args:
        evidence: a row for each frame, a column for each concept axis; the bar is the mean, the line
            on it reaches from the least to the largest frame.
        rest: of the residual axes and the bias, one a frame.
    """
    shown = evidence.iloc[:, strongest(evidence.to_numpy(), 2 * MOST)]
    others = evidence.drop(columns=shown.columns)
    if others.shape[1]:
        shown = shown.assign(**{f"{others.shape[1]} other concept axes": others.sum(axis=1)})
    shown = shown.assign(**{"residual axes, bias": rest})
    shown = shown.assign(**{"verdict (logit)": evidence.sum(axis=1) + rest})
    figure, axes = new_figure(7, 0.9 + 0.32 * shown.shape[1])
    axis, mean = axes[0, 0], shown.mean()
    colors = [FOR if value > 0 else AGAINST for value in mean]
    bars = axis.barh(shown.columns, mean, color=colors)
    for bar in bars[-2:]:
        bar.set(alpha=0.55, hatch="//")
    if len(shown) > 1:
        axis.hlines(range(shown.shape[1]), shown.min(), shown.max(), color="black", linewidth=1)
    reach = np.where(mean > 0, shown.max(), shown.min())
    for number, (value, end) in enumerate(zip(mean, reach, strict=True)):
        side = 1 if value > 0 else -1
        axis.annotate(
            f"{value:+.2f}", (end, number), (4 * side, 0), textcoords="offset points",
            ha="left" if side > 0 else "right", va="center", fontsize=9,
        )  # fmt: skip
    axis.axvline(0, color="gray", linewidth=0.8)
    axis.axhline(len(mean) - 1.5, color="gray", linewidth=0.8, linestyle=":")
    axis.margins(x=0.15)
    axis.invert_yaxis()
    axis.set(title=title, xlabel="← against a forgery     evidence (logit)     for a forgery →")
    sns.despine(ax=axis)
    return figure


def evidence_over_time(table: pd.DataFrame, names: Sequence[str], rest: str) -> Figure:
    """Verdict and evidence of a clip over time: above the sums, below one line a concept axis.

    Args:
        table: see `fwstudy.explain.Explained`; lines break where there is no face, and a cross on
            the lower edge marks the frame.
        names: columns of the concept axes; of many, those with most evidence are drawn.
        rest: column of the residual axes and the bias.
    """
    figure, axes = new_figure(9, 6, 2, 1, sharex=True)
    seen = table[list(names)].dropna().to_numpy()
    chosen = [names[number] for number in strongest(seen)]
    above, below = axes[:, 0]
    time = table["time"]
    above.plot(time, table["logit"], "o-", color="black", linewidth=2.5, label="verdict (logit)")
    above.plot(
        time, table[list(names)].sum(axis=1, skipna=False), "s--", color=FOR, label="concept axes"
    )
    above.plot(time, table[rest], "^:", color=REST, label="residual axes, bias")
    for number, name in enumerate(chosen):
        below.plot(time, table[name], STYLES[number], color=COLORS[number], label=name)
    missing = time[~table["has_face"]]
    for axis in (above, below):
        axis.axhline(0, color="gray", linewidth=0.8)
        if len(missing):  # matplotlib cannot lay out an empty mark that is not clipped
            axis.plot(
                missing, np.full(len(missing), 0.03), "x", color="black", clip_on=False,
                transform=axis.get_xaxis_transform(), label="no face",
            )  # fmt: skip
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
        axis.set_ylabel("evidence (logit)\n← against    for →")
        sns.despine(ax=axis)
    below.set_xlabel("seconds")
    return figure


def ood_strip(known: np.ndarray, inputs: dict[str, float]) -> Figure:
    """How far inputs lie from the training data, beside faces the model has not seen of its kind.

    Args:
        known: (M,) distances of validation faces, 1 is the limit.
        inputs: name to distance.
    """
    figure, axes = new_figure(8, 2.2 + 0.16 * len(inputs))
    axis = axes[0, 0]
    sns.histplot(x=known, stat="density", color=REST, ax=axis, label="unseen faces of its own kind")
    axis.axvline(1, color="black", linestyle="--", label="limit: 99 % of them are nearer")
    heights = np.linspace(0.85, 0.15, len(inputs)) if len(inputs) > 1 else [0.5]
    for height, (name, value) in zip(heights, inputs.items(), strict=True):
        axis.plot(value, height, "D", color=FOR, transform=axis.get_xaxis_transform())
        axis.annotate(
            name if len(name) < 40 else f"{name[:37]}...", (value, height), (6, 0), va="center",
            xycoords=axis.get_xaxis_transform(), textcoords="offset points", fontsize=9,
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
        )  # fmt: skip
    if max([*inputs.values(), 1]) > 10:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set(xlabel="distance from the training data ÷ limit", ylabel="", yticks=[])
    figure.legend(
        *axis.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False
    )
    sns.despine(ax=axis, left=True)
    return figure

"""Figures: a table or arrays in, a matplotlib Figure out. Color-blind safe, legible in print."""

import io
from collections.abc import Sequence

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns

from fwstudy.reporting.overlay import overlay

COLORS = sns.color_palette("colorblind")
SEQUENTIAL = "cividis"
DIVERGING = "PuOr"


class Figure(matplotlib.figure.Figure):
    """A figure that notebooks can show without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple:
    """A figure that belongs to no global state, and its (rows, columns) array of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def error_bars(table: pd.DataFrame, value: str) -> np.ndarray:
    """Distances from a value to the ends of its interval, (2, n), as matplotlib takes them."""
    sides = [table[value] - table[f"{value}_low"], table[f"{value}_high"] - table[value]]
    return np.clip(np.array(sides, np.float64), 0, None)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    labels: Sequence[str] = (),
    inches: float = 1.5,
) -> Figure:
    """A grid of images with a title over each column and, where given, a label beside each row.

    Args:
        rows: images (H, W, 3) uint8 or (H, W); None leaves a cell empty.
        columns: one title a column.
        labels: one a row.
        inches: size of a cell.
    """
    figure, axes = new_figure(
        inches * len(columns), inches * len(rows) + 0.3, len(rows), len(columns)
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            axis = axes[i, j]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if image is not None:
                axis.imshow(image, cmap="gray")
            if i == 0:
                axis.set_title(columns[j], fontsize=9)
        if len(labels):
            axes[i, 0].set_ylabel(labels[i], fontsize=9)
    return figure


def intervals(
    table: pd.DataFrame, value: str, group: str, hue: str, reference: float, label: str
) -> Figure:
    """Points with 95 % intervals, one row a group, one color a hue value.

    Args:
        table: columns ``group``, ``hue``, ``value``, ``<value>_low``, ``<value>_high``.
        reference: where to draw a dashed line, e.g. chance.
        label: of the horizontal axis.

    Returns:
        the figure, which says so where the table is empty.
    """
    groups, hues = list(dict.fromkeys(table[group])), list(dict.fromkeys(table[hue]))
    figure, axes = new_figure(7, 0.8 + 0.22 * len(groups) * (1 + len(hues)))
    axis = axes[0, 0]
    for number, name in enumerate(hues):
        part = table[table[hue] == name].set_index(group).reindex(groups)
        height = np.arange(len(groups)) + (number - (len(hues) - 1) / 2) * 0.8 / max(2, len(hues))
        axis.errorbar(
            part[value], height, xerr=error_bars(part, value), fmt="osD^v"[number % 5],
            color=COLORS[number], label=name, capsize=3,
        )  # fmt: skip
    axis.axvline(reference, color="gray", linestyle="--", linewidth=1)
    if not groups:
        axis.set_title("nothing to show: no row was measured", fontsize="medium")
    axis.set_yticks(range(len(groups)), groups)
    axis.invert_yaxis()
    axis.set_xlabel(label)
    if len(hues) > 1:
        figure.legend(
            *axis.get_legend_handles_labels(),
            loc="outside upper center",
            ncols=min(3, len(hues)),
            frameon=False,
        )
    sns.despine(ax=axis)
    return figure


def histories(history: pd.DataFrame) -> Figure:
    """Training loss and validation AUC over steps, one line a model.

    Args:
        history: columns model, step, loss, validation_auc.
    """
    figure, axes = new_figure(8, 3, 1, 2)
    for axis, value in zip(axes[0], ("loss", "validation_auc"), strict=True):
        sns.lineplot(
            history, x="step", y=value, hue="model", style="model", markers=True,
            palette=COLORS[: history["model"].nunique()], ax=axis, legend=value == "loss",
        )  # fmt: skip
        axis.set(xlabel="training steps", ylabel=value.replace("_auc", " AUC"))
        sns.despine(ax=axis)
    return figure


def whiteness_history(history: pd.DataFrame) -> Figure:
    """Mean |correlation| and variance of a whitening layer's output over steps, by its two modes.

    Args:
        history: columns step, and train_ and eval_ mean_correlation and mean_variance.
    """
    figure, axes = new_figure(8, 3, 1, 2)
    modes = {"train": "statistics of the batch", "eval": "running statistics"}
    for axis, value in zip(axes[0], ("mean_correlation", "mean_variance"), strict=True):
        columns = {f"{mode}_{value}": label for mode, label in modes.items()}
        table = history.rename(columns=columns).melt("step", list(columns.values()), "whitened by")
        sns.lineplot(
            table, x="step", y="value", hue="whitened by", style="whitened by", markers=True,
            palette=COLORS[:2], ax=axis, legend=value == "mean_variance",
        )  # fmt: skip
        label = value.replace("mean_correlation", "mean |correlation|").replace("_", " ")
        axis.set(xlabel="training steps", ylabel=label)
        axis.set_ylim(0, 1.1 * table["value"].max())
        sns.despine(ax=axis)
    return figure


def correlations(matrices: dict[str, np.ndarray]) -> Figure:
    """Channel correlation matrices side by side on one scale, in absolute value."""
    figure, axes = new_figure(3.4 * len(matrices) + 0.6, 3.6, 1, len(matrices))
    for axis, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        image = axis.imshow(np.abs(matrix), vmin=0, vmax=0.5, cmap=SEQUENTIAL)
        axis.set_title(name, fontsize=10)
        axis.set(xlabel="channel", ylabel="channel")
    figure.colorbar(image, ax=axes[0].tolist(), label="|correlation|", shrink=0.8)
    return figure


def heat_table(table: pd.DataFrame, label: str, center: float | None = 0) -> Figure:
    """A table of numbers as a heat map with the numbers written in."""
    figure, axes = new_figure(1.6 + 0.75 * table.shape[1], 1.2 + 0.45 * table.shape[0])
    sns.heatmap(
        table, center=center, cmap=DIVERGING if center is not None else SEQUENTIAL,
        annot=table.size <= 64, fmt=".2f", ax=axes[0, 0], cbar_kws={"label": label},
    )  # fmt: skip
    axes[0, 0].tick_params(axis="x", rotation=35)
    return figure


def evidence_panel(rows: Sequence[dict], names: Sequence[str], maps: Sequence[str]) -> Figure:
    """For each face: the image, the truth, one overlay a map, and bars of evidence by concept axis.

    Args:
        rows: dicts with ``label`` (str), ``image`` (H, W, 3) and ``truth`` (H, W), one signed map
            (H, W) under each name in ``maps``, and ``evidence`` (one number a concept axis).
        names: of the axes.
        maps: keys of the maps, also their titles. Each kind of map has a scale of its own.
    """
    titles = ["face", "changed pixels", *maps]
    limits = {name: np.quantile(np.abs([row[name] for row in rows]), 0.99) for name in maps}
    width, height = 1.7 * len(titles) + 2.6, 1.8 * len(rows) + 0.4
    ratios = [1] * len(titles) + [1.5]
    figure, axes = new_figure(width, height, len(rows), len(ratios), width_ratios=ratios)
    for row, cells in zip(rows, axes, strict=True):
        overlays = [overlay(row["image"], row[name], limits[name]) for name in maps]
        for cell, image in zip(cells, [row["image"], row["truth"], *overlays], strict=False):
            cell.imshow(image, cmap="gray")
            cell.set(xticks=[], yticks=[])
        cells[0].set_ylabel(row["label"], fontsize=9)
        bars, values = cells[-1], np.asarray(row["evidence"])
        bars.barh(range(len(names)), values, color=[COLORS[1 if v > 0 else 4] for v in values])
        bars.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
        bars.axvline(0, color="gray", linewidth=0.8)
        bars.tick_params(axis="x", labelsize=8)
        bars.invert_yaxis()
        sns.despine(ax=bars)
    for cell, name in zip(axes[0], [*titles, "evidence for a forgery (logit)"], strict=True):
        cell.set_title(name, fontsize=9)
    return figure


def reliability_diagram(curves: pd.DataFrame) -> Figure:
    """Share of forgeries against the probability of one, and below it where the images are.

    Args:
        curves: `fwstudy.interpretability.calibration.reliability_curve` of each calibration, named in ``calibration``.
    """
    figure, axes = new_figure(4.5, 5, 2, 1, sharex=True, height_ratios=[3, 1])
    curve, shares = axes[:, 0]
    curve.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    for number, (name, part) in enumerate(curves.groupby("calibration", sort=False)):
        color, marker = COLORS[number], "osD^v"[number % 5]
        curve.errorbar(
            part["probability"], part["forged"], yerr=error_bars(part, "forged"), fmt=f"{marker}-",
            color=color, label=name, capsize=3,
        )  # fmt: skip
        shares.plot(part["probability"], part["share"], f"{marker}:", color=color)
    curve.set(ylabel="share of forgeries", xlim=(0, 1), ylim=(0, 1))
    curve.legend(frameon=False, loc="upper left")
    shares.set(xlabel="probability of a forgery", ylabel="share of images")
    shares.set_ylim(bottom=0)
    for axis in (curve, shares):
        sns.despine(ax=axis)
    return figure

"""Figures of the ablations: accuracy against interpretability, the bottleneck, what a factor does."""

from collections.abc import Sequence

import pandas as pd
import seaborn as sns

from fwstudy.reporting.plots import COLORS, Figure, error_bars, new_figure

MARKERS = "osD^vP*Xp<>h"
WIDE = 10.0  # above it, values of about 1 could not be read on a linear scale


def pareto_front(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Positions of the points to which no other is better in one and as good in the other, by x.

    Example:
        >>> pareto_front([0.0, 1.0, 2.0, 1.0], [3.0, 2.0, 1.0, 1.0])
        [0, 1, 2]
    """
    points = list(zip(x, y, strict=True))
    front = [
        number
        for number, (a, b) in enumerate(points)
        if not any((c >= a and d > b) or (c > a and d >= b) for c, d in points)
    ]
    return sorted(front, key=lambda number: (points[number][0], -points[number][1]))


def plane(table: pd.DataFrame, x: str, y: str, x_label: str, y_label: str) -> Figure:
    """Accuracy against interpretability: every variant with both intervals, and the Pareto front.

    Args:
        table: columns variant, ``x``, ``y``, each with its _low and _high.
    """
    figure, axes = new_figure(9, 5)
    axis = axes[0, 0]
    front = pareto_front(table[x], table[y])
    axis.plot(
        table[x].iloc[front], table[y].iloc[front], color="gray", linewidth=1, linestyle="--",
        label="Pareto front", zorder=0,
    )  # fmt: skip
    errors = error_bars(table, x), error_bars(table, y)
    for number, row in enumerate(table.to_dict("records")):
        axis.errorbar(
            row[x], row[y],
            xerr=errors[0][:, [number]], yerr=errors[1][:, [number]],
            fmt=MARKERS[number % len(MARKERS)], color=COLORS[number % len(COLORS)], markersize=7,
            elinewidth=0.8, alpha=0.9, label=row["variant"].replace("_", " "),
        )  # fmt: skip
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    sns.despine(ax=axis)
    return figure


def curves(
    table: pd.DataFrame, x: str, cost: str, measures: dict[str, str], x_label: str, cost_label: str
) -> Figure:
    """What one factor with numbers does: left to accuracy, with intervals, right to other measures.

    Measures above `WIDE` are drawn on a logarithmic scale, and then all.

    Args:
        table: column ``x``, ``cost`` with its _low and _high, and the measures.
        measures: column to the name shown.
    """
    table = table.sort_values(x)
    figure, axes = new_figure(9, 3.4, 1, 2)
    left, right = axes[0]
    left.errorbar(
        table[x], table[cost], yerr=error_bars(table, cost), fmt="o-", color=COLORS[0], capsize=3
    )
    left.axhline(0, color="gray", linestyle="--", linewidth=1)
    left.set(xlabel=x_label, ylabel=cost_label)
    for number, (column, name) in enumerate(measures.items()):
        right.plot(
            table[x], table[column], marker=MARKERS[number], color=COLORS[number], label=name
        )
    top = table[list(measures)].max(axis=None)
    scale = {"yscale": "log"} if top > WIDE else {"ylim": (0, max(1.05, 1.05 * top))}
    right.set(xlabel=x_label, **scale)
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    for axis in (left, right):
        sns.despine(ax=axis)
    return figure

"""The leaderboard of explainers: its figure, and its page in the report."""

from html import escape

import numpy as np
import pandas as pd
import seaborn as sns

from fwstudy.evaluation.metrics import Measure
from fwstudy.interpretability.leaderboard import CONTROLS, MEASURED, RANKED
from fwstudy.interpretability.measures import GLOSSARY
from fwstudy.interpretability.model import CONCEPT_AXES
from fwstudy.reporting.plots import COLORS, DIVERGING, SEQUENTIAL, Figure, new_figure

HEADING = "Leaderboard: which explanation may you trust?"


def mean_cost(table: pd.DataFrame) -> pd.DataFrame:
    """Cost of explaining one image, mean over detectors: columns forward_passes and core_seconds, by method."""
    cost = table[table["topic"] == "cost"]
    return cost.pivot_table("value", "method", "measure", sort=False)


def rank_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean ranks by measure, the best explainer first: a row a method, a column a measure; first ``all``."""
    ranks = table[table["topic"] == "ranks"]
    return ranks.pivot_table("value", "method", "subset", sort=False).sort_values("all")


def board(table: pd.DataFrame) -> pd.DataFrame:
    """One row an explainer, the best first: method, mean_rank, low, high, forward_passes, core_seconds.

    Args:
        table: from `fwstudy.interpretability.leaderboard.leaderboard`.
    """
    ranks = table[(table["topic"] == "ranks") & (table["subset"] == "all")]
    kept = ranks[["method", "value", "low", "high"]].rename(columns={"value": "mean_rank"})
    joined = kept.join(mean_cost(table), on="method").sort_values("mean_rank")
    return joined.reset_index(drop=True)


def agreement_matrix(table: pd.DataFrame) -> pd.DataFrame:
    """Rank agreement of every two measures, symmetric, 1 on the diagonal."""
    pairs = table[table["topic"] == "agreement"]
    names = list(dict.fromkeys([*pairs["method"], *pairs["subset"]]))
    found = pd.DataFrame(np.eye(len(names)), names, names)
    for one, other, value in pairs[["method", "subset", "value"]].itertuples(index=False):
        found.loc[one, other] = found.loc[other, one] = value
    return found


def leaderboard_figure(table: pd.DataFrame) -> Figure:
    """Mean rank beside cost, mean rank by measure, and the agreement of the measures.

    Args:
        table: as for `board`.
    """
    rows, ranks, agreement = board(table), rank_table(table), agreement_matrix(table)
    figure, axes = new_figure(15, 5, 1, 3, width_ratios=[1.25, 1, 1])
    cost, by_measure, agreed = axes[0]
    places = np.arange(len(rows))
    error = [rows["mean_rank"] - rows["low"], rows["high"] - rows["mean_rank"]]
    error = [side.clip(lower=0) for side in error]
    cost.errorbar(rows["mean_rank"], places, xerr=error, fmt="o", color=COLORS[0], capsize=3)
    passes = rows["forward_passes"].map(
        lambda count: f"{count:.0f}" if count else "0, sees no image"
    )
    labels = [f"{name} ({text})" for name, text in zip(rows["method"], passes, strict=True)]
    cost.set_yticks(places, labels)
    cost.axvline((len(rows) + 1) / 2, color="gray", linestyle="--", linewidth=1)
    cost.invert_yaxis()
    cost.set(xlabel="mean rank, 1 the best (forward passes an image)")
    sns.despine(ax=cost)
    options = {"annot": True, "cbar": False}
    sns.heatmap(
        ranks.drop(columns="all"), cmap=f"{SEQUENTIAL}_r", fmt=".1f", ax=by_measure,
        vmin=1, vmax=len(ranks), **options,
    )  # fmt: skip
    by_measure.set(title="mean rank over detectors, by measure", xlabel="", ylabel="")
    sns.heatmap(
        agreement, cmap=DIVERGING, center=0, vmin=-1, vmax=1, fmt=".2f", ax=agreed, **options
    )
    agreed.set(title="rank correlation of two measures", xlabel="", ylabel="")
    for axis in (by_measure, agreed):
        names = [label.get_text().replace("_", " ") for label in axis.get_xticklabels()]
        axis.set_xticklabels(names, rotation=40, ha="right", fontsize=9)
    agreed.set_yticklabels([n.get_text().replace("_", " ") for n in agreed.get_yticklabels()])
    return figure


def with_interval(table: pd.DataFrame) -> pd.Series:
    """Value and interval of each row as text; the value alone where there is no interval, or nothing."""
    texts = [
        f"{value:.3g}" if np.isnan(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"
        for value, low, high in table[["value", "low", "high"]].to_numpy(float)
    ]
    return pd.Series(texts, table.index).where(table["value"].notna(), "")


def html_table(table: pd.DataFrame) -> str:
    """Methods as rows, measures as columns, each with its interval.

    Args:
        table: columns method, measure, value, low, high.
    """
    cells = table.assign(text=with_interval(table))
    columns = list(dict.fromkeys(cells["measure"]))
    wide = cells.pivot(index="method", columns="measure", values="text")
    wide = wide.reindex(list(dict.fromkeys(cells["method"])))[columns]
    return wide.fillna("").rename_axis(index=None, columns=None).to_html(border=0)


def leaderboard_body(table: pd.DataFrame, measures: dict[str, Measure]) -> str:
    """The page: explainers by mean rank, with cost; then every number of every detector.

    Args:
        table: as for `board`.
        measures: what each measure is.
    """
    best = list(board(table)["method"])
    place = {name: number for number, name in enumerate(best)}
    ranks = table[table["topic"] == "ranks"]
    ranks = ranks.assign(measure=ranks["subset"].replace("all", "mean rank"))
    costs = mean_cost(table).reset_index().melt("method", value_name="value")
    costs = costs[costs["method"].isin(best)].assign(low=np.nan, high=np.nan)
    first = pd.concat([ranks, costs]).sort_values(
        "method", key=lambda m: m.map(place), kind="stable"
    )
    numbers = table[~table["topic"].isin(["ranks", "agreement"])]
    lead = (
        "Explainers of all detectors, the best mean rank first: 1 is the best. Each column after the "
        "first is the mean rank by one measure. Intervals are 95 % over groups of test people."
    )
    parts = [f"<h1>{HEADING}</h1>", f"<p>{lead}</p>", html_table(first)]
    for name, part in numbers.groupby("model", sort=False):
        order = part.sort_values("method", key=lambda m: m.map(place).fillna(-1), kind="stable")
        parts += [f"<h2>{escape(name)}</h2>", html_table(order)]
    used = [name for name in dict.fromkeys(table["measure"]) if name in measures]
    told = [
        f"<li><b>{escape(name)}</b> ({measures[name].better} is better): "
        f"{escape(measures[name].definition)} ({escape(measures[name].source)})</li>"
        for name in used
    ]
    return "\n".join([*parts, "<h2>What the measures are</h2><ul>", *told, "</ul>"])


def beside_concept_axes(table: pd.DataFrame) -> pd.DataFrame:
    """Concept axes beside the explainer that ranks best there, in each detector that has such axes.

    Args:
        table: from `fwstudy.interpretability.leaderboard.leaderboard`.

    Returns:
        rows model and measure; the values of the axes and of the explainer (NaN where its map is
        constant and has no rank correlation), and which one it is.
    """
    values = table[table["measure"].isin(list(MEASURED))]
    values = values.pivot(index=["model", "measure"], columns="method", values="value")
    explainers = values[values.columns.intersection(list(RANKED))]
    lower = [GLOSSARY[name].better == "lower" for name in values.index.get_level_values("measure")]
    ranks = explainers.mul(np.where(lower, 1, -1), axis=0).rank(axis=1)
    best = ranks.groupby("model").mean().idxmin(axis=1)
    which = best[values.index.get_level_values("model")].to_numpy()
    found = [row[name] for name, (_, row) in zip(which, explainers.iterrows(), strict=True)]
    axes = values.get(CONCEPT_AXES, pd.Series(np.nan, values.index))
    both = {CONCEPT_AXES: axes, "best explainer": found, "which": which}
    return pd.DataFrame(both, values.index).dropna(subset=CONCEPT_AXES)


def answer(table: pd.DataFrame) -> str:
    """Three sentences: which explainer ranks best, how far measures agree, and what that costs.

    Args:
        table: from `fwstudy.interpretability.leaderboard.leaderboard`.
    """
    ranks = board(table).set_index("method")
    explainers, controls = (ranks[ranks.index.isin([*names])] for names in (RANKED, CONTROLS))
    best, blind = explainers.iloc[0], controls.iloc[0]
    beaten = int((explainers["high"] < blind["low"]).sum())
    detectors = table.loc[table["topic"] == "cost", "model"].nunique()
    pairs = table[table["topic"] == "agreement"].sort_values("value").dropna(subset="value")
    least, most = (
        f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f}; {row.method} and {row.subset})".replace(
            "_", " "
        )
        for row in (pairs.iloc[0], pairs.iloc[-1])
    )
    passes = table[table["measure"] == "forward_passes"].groupby("method")["value"].mean()
    near = explainers[~(explainers["low"] > best["high"])]  # all, without intervals
    cheap = passes[near.index].idxmin()
    first = (
        f"- {best.name} ranks best: its mean rank is {best['mean_rank']:.1f} ({best['low']:.1f} to "
        f"{best['high']:.1f}) of {len(ranks)} methods, over {detectors} detectors and "
        f"{len(MEASURED)} measures; {beaten} of {len(explainers)} explainers rank better than the "
        f"better control, {blind.name} ({blind['mean_rank']:.1f}, {blind['low']:.1f} to "
        f"{blind['high']:.1f}), with intervals that do not touch."
    )
    second = (
        f"- The rank correlation of two measures over explainers is {pairs['value'].mean():.2f} in the "
        f"mean of {len(pairs)} pairs, from {least} to {most}."
    )
    dearest = passes[explainers.index].idxmax()
    third = (
        f"- Of the {len(near)} explainers whose intervals reach that of the best, {cheap} is the "
        f"cheapest: {passes[cheap]:.0f} forward passes an image at a mean rank of "
        f"{explainers.loc[cheap, 'mean_rank']:.1f}, against {passes[best.name]:.0f} of {best.name} and "
        f"{passes[dearest]:.0f} of {dearest}."
    )
    alone = (
        f"- No other explainer's interval reaches that of {best.name}, which takes "
        f"{passes[best.name]:.0f} forward passes an image; {dearest} takes {passes[dearest]:.0f}."
    )
    return f"{first}\n{second}\n{third if len(near) > 1 else alone}"

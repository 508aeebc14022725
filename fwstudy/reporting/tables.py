"""Tables that people read: methods beside measures, what measures mean, and which targets were met."""

from collections.abc import Iterable

import pandas as pd

from fwstudy.evaluation.comparison import WORTH
from fwstudy.evaluation.metrics import Measure

SUMMARY = {
    ("localization", "relevance_mass"): "relevance mass",
    ("localization", "relevance_rank"): "relevance rank",
    ("localization", "pointing_game"): "pointing game",
    ("localization", "pixel_auc"): "pixel AUC",
    ("parts", "relevance_mass"): "relevance mass, one part",
    ("parts", "part_top1"): "forged part, top 1",
    ("faithfulness", "deletion"): "deletion",
    ("faithfulness", "insertion"): "insertion",
    ("faithfulness", "restoration_correlation"): "restoration correlation",
}  # topic and measure to the heading of a column


def markdown(rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first row is the heading."""
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([lines[0], "|" + "---|" * (lines[0].count(" | ") + 1), *lines[1:]]) + "\n"


def markdown_of(table: pd.DataFrame, digits: int = 3) -> str:
    """A table as Markdown, its numbers rounded, missing ones left empty."""
    text = table.round(digits).astype(object).where(table.notna(), "").astype(str)
    return markdown([list(table.columns), *text.to_numpy().tolist()])


def summary(found: pd.DataFrame, measures: dict[str, Measure]) -> str:
    """Methods × measures as Markdown, best in bold, intervals in brackets.

    Args:
        measures: what each measure is, and whether it should be high or low.
        found: columns topic, model, method, subset, measure, value, value_low, value_high.
    """
    everything = found[found["subset"] == "all"].set_index(["topic", "measure"])
    columns = {}
    for key, heading in SUMMARY.items():
        column = everything.loc[[key]].set_index(["model", "method"])
        lower = measures[key[1]].better == "lower"
        better = column["value"].min() if lower else column["value"].max()
        columns[heading] = {
            method: cell(row, bold=row["value"] == better)
            for method, row in zip(column.index, column.to_dict("records"), strict=True)
        }
    methods = list(dict.fromkeys(method for column in columns.values() for method in column))
    rows = [["model", "method", *columns]]
    rows += [
        [*method, *(column.get(method, "") for column in columns.values())] for method in methods
    ]
    return markdown(rows)


def cell(row: dict, bold: bool = False) -> str:
    """A value and its interval."""
    text = f"{row['value']:.2f}"
    text = f"**{text}**" if bold else text
    return f"{text} ({row['value_low']:.2f} to {row['value_high']:.2f})"


def glossary(measures: dict[str, Measure], used: Iterable[str]) -> str:
    """What the measures mean, as Markdown.

    Args:
        used: names of measures; one without an entry is left out.
    """
    names = [name for name in dict.fromkeys(used) if name in measures]
    rows = [["measure", "definition", "source", "better", "chance"]]
    rows += [
        [
            name,
            measures[name].definition.replace("|", "\\|"),
            measures[name].source,
            measures[name].better,
            "" if measures[name].chance is None else f"{measures[name].chance:.3g}",
        ]
        for name in names
    ]
    return markdown(rows)


def contract(found: pd.DataFrame) -> dict[str, float]:
    """The numbers of ``interpretability.json``, of the whitened model unless their name says else.

    Args:
        found: as for `summary`.
    """
    keys = ["topic", "model", "method", "subset", "measure"]
    value = found.set_index(keys)["value"]
    numbers = {name: value.get((t, "whitened", m, "all", k)) for name, (t, m, k) in WORTH.items()}

    def mass(topic: str, *key: str) -> float:
        return value[topic, *key, "all", "relevance_mass"]

    for topic, suffix in (("localization", ""), ("parts", "_part")):
        priors = [mass(topic, "no model", name) for name in ("center prior", "mean-mask prior")]
        numbers[f"relevance_mass{suffix}"] = mass(topic, "whitened", "concept axes")
        numbers[f"relevance_mass{suffix}_gradcam"] = mass(topic, "BatchNorm", "Grad-CAM")
        numbers[f"relevance_mass{suffix}_prior"] = max(priors)
    concept = "concepts", "whitened", "concept axes"
    plain = "concepts", "BatchNorm", "best axes"
    numbers["purity_paired"] = value.get((*concept, "all", "purity_paired"))
    numbers["purity_transplants"] = value.get((*concept, "transplants", "purity"))
    numbers["purity_batch_norm"] = value.get((*plain, "all", "purity"))
    correlation = "whitening", "BatchNorm", "eval", "all", "mean_correlation"
    numbers["mean_correlation_batch_norm"] = value.get(correlation)
    return {key: round(float(number), 6) for key, number in numbers.items() if number is not None}


def trust(calibration: pd.DataFrame, leakage: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The numbers of ``trust.json``.

    Args:
        calibration: columns model, calibration, ece, brier.
        leakage: columns features, identity_accuracy.
    """
    content = {
        f"{row['model']}_{row['calibration']}": {key: row[key] for key in ("ece", "brier")}
        for row in calibration.to_dict("records")
    }
    content["identity_accuracy"] = leakage.set_index("features")["identity_accuracy"].to_dict()
    return {
        key.replace(" ", "_"): {
            name.replace(" ", "_").replace(",", ""): round(value, 6)
            for name, value in values.items()
        }
        for key, values in content.items()
    }


def targets(numbers: dict[str, float], ablations: dict[str, dict[str, float]]) -> str:
    """Which hypotheses of the study held, as Markdown.

    Args:
        numbers: from `contract`.
        ablations: of ``ablations.json``.
    """
    cost = -ablations["whitened"]["difference"]
    share, mass = numbers["concept_share"], numbers["relevance_mass"]
    gradcam, prior = numbers["relevance_mass_gradcam"], numbers["relevance_mass_prior"]
    part, part_gradcam = numbers["relevance_mass_part"], numbers["relevance_mass_part_gradcam"]
    impossible = " (impossible: above ½)" if gradcam > 0.5 else ""
    least = {"purity": 0.95, "part_top1": 0.8, "restoration_correlation": 0.8}
    words = {"part_top1": "forged part, top 1"}
    rows = [
        (
            f"{words.get(name, name.replace('_', ' '))} ≥ {limit}",
            f"{numbers[name]:.3f}",
            numbers[name] >= limit,
        )
        for name, limit in least.items()
    ]
    rows += [
        (
            "relevance mass ≥ 2 × Grad-CAM on BatchNorm, whole faces",
            f"{mass:.3f} against {gradcam:.3f}{impossible}",
            mass >= 2 * gradcam,
        ),
        (
            "the same, one part forged",
            f"{part:.3f} against {part_gradcam:.3f}",
            part >= 2 * part_gradcam,
        ),
        (
            "relevance mass above both priors, whole faces",
            f"{mass:.3f} against {prior:.3f}",
            mass > prior,
        ),
        (
            "the same, one part forged",
            f"{part:.3f} against {numbers['relevance_mass_part_prior']:.3f}",
            part > numbers["relevance_mass_part_prior"],
        ),
        (
            "concept share ≥ 0.8 at ≤ 1 point of AUC",
            f"{share:.3f} at {abs(100 * cost):.1f} points {'less' if cost > 0 else 'more'}",
            share >= 0.8 and cost <= 0.01,
        ),
    ]
    words = {True: "yes", False: "**no**"}
    return markdown(
        [["hypothesis", "found", "held"], *[[a, b, words[bool(c)]] for a, b, c in rows]]
    )

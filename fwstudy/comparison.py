"""Models compared in pairs on the same test people."""

import pandas as pd

from fwstudy.metrics import group_interval, score_auc

KEYS = ["group", "identity", "clip", "frame", "variant", "quality", "label"]


def auc_difference(table: pd.DataFrame) -> float:
    """AUC of column ``score`` less that of ``reference``."""
    reference = table[["label", "reference"]].rename(columns={"reference": "score"})
    return score_auc(table) - score_auc(reference)


def compare(predictions: dict[str, pd.DataFrame], reference: str, quality: str) -> pd.DataFrame:
    """Frame-level test AUC of every model and its paired difference to a reference model.

    Args:
        predictions: model name to table as from `fwstudy.study.evaluate`, on the same images.
        reference: one of the names.
        quality: codec quality to compare at.

    Returns:
        columns variant, auc, auc_low, auc_high, difference, difference_low, difference_high
        (intervals by group), num_images, num_identities.

    Raises:
        ValueError: a model was scored on other images than the reference (named).
    """
    base = predictions[reference].rename(columns={"score": "reference"})
    rows = []
    for name, table in predictions.items():
        both = table.merge(base, on=KEYS, validate="one_to_one")
        if len(both) != len(base):
            raise ValueError(f"{name} and {reference} were not scored on the same images")
        both = both[both["quality"] == quality]
        low, high = group_interval(both, score_auc)
        row = {"variant": name, "auc": score_auc(both), "auc_low": low, "auc_high": high}
        low, high = group_interval(both, auc_difference)
        rows.append(
            row
            | {
                "difference": auc_difference(both),
                "difference_low": low,
                "difference_high": high,
                "num_images": len(both),
                "num_identities": both["identity"].nunique(),
            }
        )
    return (
        pd.DataFrame(rows).sort_values("auc", ascending=False, ignore_index=True).replace(-0.0, 0.0)
    )

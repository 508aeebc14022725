"""The README's headline table, made from the results: ``python -m fwstudy.reporting.headline``."""

import re
from pathlib import Path

import pandas as pd

from fwstudy.labels import FORGED_PARTS
from fwstudy.reporting.tables import markdown
from fwstudy.runtime import project_root

BLOCK = re.compile(r"(<!-- headline -->\n).*?(<!-- /headline -->)", re.DOTALL)
MODELS = {
    "baseline": "BatchNorm (baseline)",
    "batch_norm": "BatchNorm, fine-tuned as long",
    "whitened": "feature whitening, concept axes",
}


def headline_table(results: Path) -> str:
    """Detection and interpretability of the three main models, as Markdown.

    Args:
        results: folder with detection.csv and ablations.csv.
    """
    detection = pd.read_csv(results / "detection.csv")
    compared = pd.read_csv(results / "ablations.csv").set_index("variant")
    main = detection[detection["quality"] == detection["quality"].iloc[0]]
    frames = main[main["level"] == "frame"].set_index(["model", "family"])
    video = main[(main["level"] == "video") & (main["family"] == "all")].set_index("model")["auc"]
    families = [name for name in main["family"].unique() if name != "all"]
    rows = [["test people", "frame AUC (95 % interval)", "video AUC", *families]]
    for model, name in MODELS.items():
        row = frames.loc[(model, "all")]
        auc = f"{row['auc']:.3f} ({row['auc_low']:.3f}–{row['auc_high']:.3f})"
        by_family = [f"{frames.loc[(model, family), 'auc']:.3f}" for family in families]
        rows.append([name, auc, f"{video[model]:.3f}", *by_family])
    gap, first = compared.loc["whitened"], frames.loc[("whitened", "all")]
    note = (
        f"{first['num_images']:.0f} test images of {first['num_identities']:.0f} people that no model "
        f"has seen; means over {first['num_seeds']:.0f} training seeds; intervals resample pairs of "
        "people who lend each other faces. Against the BatchNorm model fine-tuned as long, the "
        f"whitened model's AUC differs by {gap['difference']:+.3f} ({gap['difference_low']:+.3f} to "
        f"{gap['difference_high']:+.3f}; seeds {gap['difference_least']:+.3f} to "
        f"{gap['difference_most']:+.3f})."
    )
    note += (
        f" Its concept axes: {gap['concept_share']:.0%} of the verdict's variance, purity "
        f"{gap['purity']:.2f}, forged part found {gap['part_top1']:.0%} (chance {1 / len(FORGED_PARTS):.0%}), relevance mass on "
        f"the changed pixels {gap['relevance_mass']:.2f}, correlation of a part's evidence with the fall "
        f"of the logit on its repair {gap['restoration_correlation']:.2f}."
    )
    return "\n".join([markdown(rows), note, ""])


def main() -> None:
    """Write the table between the README's markers."""
    readme = project_root() / "README.md"
    table = headline_table(project_root() / "data" / "results")
    text = BLOCK.sub(lambda match: match[1] + table + match[2], readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

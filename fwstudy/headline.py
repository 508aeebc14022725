"""The README's headline table, made from the results: ``python -m fwstudy.headline``."""

import json
import re
from pathlib import Path

import pandas as pd

from fwstudy.runtime import project_root

BLOCK = re.compile(r"(<!-- headline -->\n).*?(<!-- /headline -->)", re.DOTALL)
MODELS = {"baseline": "BatchNorm (baseline)", "whitened": "feature whitening"}


def headline_table(results: Path) -> str:
    """Detection and interpretability of the two main models, as Markdown.

    Args:
        results: folder with detection.csv, interpretability.json and ablations.csv.
    """
    detection = pd.read_csv(results / "detection.csv")
    explained = json.loads((results / "interpretability.json").read_text())["interpretability"]
    main = detection[detection["quality"] == detection["quality"].iloc[0]]
    overall = main[main["family"] == "all"]
    families = [name for name in main["family"].unique() if name != "all"]
    lines = [
        "| test people | frame AUC (95 % interval) | video AUC | "
        + " | ".join(families)
        + " | mean \\|correlation\\| | purity, best axis for each concept |",
        "|---|---|---|" + "---|" * len(families) + "---|---|",
    ]
    suffix = {"baseline": "_baseline", "whitened": ""}
    for model, name in MODELS.items():
        rows = overall[overall["model"] == model].set_index("level")
        frame = rows.loc["frame"]
        by_family = main[(main["model"] == model) & (main["level"] == "frame")].set_index("family")
        cells = [
            name,
            f"{frame['auc']:.3f} ({frame['auc_low']:.3f}–{frame['auc_high']:.3f})",
            f"{rows.loc['video', 'auc']:.3f}",
            *[f"{by_family.loc[family, 'auc']:.3f}" for family in families],
            f"{explained['mean_correlation' + suffix[model]]:.3f}",
            f"{explained['purity_best_axis' + suffix[model]]:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    count = overall[overall["level"] == "frame"].iloc[0]
    note = (
        f"{count['num_images']} test images of {count['num_identities']} people that neither model "
        "has seen, one training seed; intervals resample pairs of people who lend each other faces. The "
        f"whitened model's *named* axes: purity {explained['purity']:.3f}, "
        f"{explained['named_evidence_share']:.1%} of the verdict's variance; relevance mass on the "
        f"changed pixels {explained['relevance_mass']:.3f}, against "
        f"{explained['relevance_mass_gradcam']:.3f} for Grad-CAM on the baseline and "
        f"{explained['relevance_mass_prior']:.3f} for the better of two priors that see no image."
    )
    compared = pd.read_csv(results / "ablations.csv").set_index("variant")
    gap = compared.loc["whitened (default)"]
    note += (
        " Against the BatchNorm model fine-tuned for as many steps the whitened model's frame AUC "
        f"differs by {gap['difference']:+.3f} ({gap['difference_low']:+.3f} to "
        f"{gap['difference_high']:+.3f})."
    )
    lines += ["", note]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table between the README's markers."""
    readme = project_root() / "README.md"
    table = headline_table(project_root() / "data" / "results")
    text = BLOCK.sub(lambda match: match[1] + table + match[2], readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""The README's numbers, made from the results: ``python -m fwstudy.reporting.headline``."""

import re
from pathlib import Path

import pandas as pd

from fwstudy.labels import FORGED_PARTS
from fwstudy.params import load_params
from fwstudy.reporting.tables import markdown
from fwstudy.runtime import project_root

LAYERS = {
    "amortized": "amortized, cholesky",
    "exact": "exact, cholesky",
    "as published": "iternorm",
}
MODELS = {
    "baseline": "BatchNorm (baseline)",
    "batch_norm": "BatchNorm, fine-tuned as long",
    "whitened": "feature whitening, concept axes",
}


def headline_table(results: Path, quality: str) -> str:
    """Detection and interpretability of the three main models, as Markdown.

    Args:
        results: folder with detection.csv, ablations.csv and measures.csv.
        quality: the study's.
    """
    detection = pd.read_csv(results / "detection.csv")
    compared = pd.read_csv(results / "ablations.csv").set_index("variant")
    measures = pd.read_csv(results / "measures.csv").set_index(
        ["topic", "subset", "measure", "model"]
    )
    blind = measures.loc[("localization", "all", "relevance_mass", "no model"), "value"].max()
    main = detection[detection["quality"] == quality]
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
        f"{gap['difference_high']:+.3f}, clips and seeds resampled too; seeds "
        f"{gap['difference_least']:+.3f} to {gap['difference_most']:+.3f}). Its concept axes: "
        f"{gap['concept_share']:.0%} of the verdict's variance; one part forged: purity "
        f"{gap['purity']:.2f}, part found {gap['part_top1']:.0%} (chance "
        f"{1 / len(FORGED_PARTS):.0%}); whole faces: relevance mass on changed pixels "
        f"{gap['relevance_mass']:.2f} (without a model {blind:.2f})."
    )
    return "\n".join([markdown(rows), note, ""])


def layer_speed(benchmarks: Path) -> str:
    """What a whitening layer costs in training a whole model on a GPU, in one sentence.

    Args:
        benchmarks: folder with gpu.csv. Of its sizes of batch, the worst of each layer is told.
    """
    table = pd.read_csv(benchmarks / "gpu.csv")
    models = table[(table["section"] == "model") & (table["mode"] == "TF32")]
    slowest = models.groupby("method")["ratio"].max()
    told = ", ".join(f"{1 / slowest[method]:.2f} {name}" for name, method in LAYERS.items())
    return (
        f"With it Xception trains at least at {told} of BatchNorm's images a second (GPU, 299 px)"
    )


def block_of(name: str) -> re.Pattern:
    """What finds the block of that name, its marks included."""
    return re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)


def written(text: str, blocks: dict[str, str]) -> str:
    """A text with what stands between ``<!-- name -->`` and ``<!-- /name -->`` replaced.

    Args:
        blocks: name to its new content.
    """
    for name, content in blocks.items():
        block = f"<!-- {name} -->{content}<!-- /{name} -->"
        text = block_of(name).sub(lambda _, block=block: block, text)
    return text


def readme_blocks(root: Path) -> dict[str, str]:
    """All that the README takes from results, by the name of its place there."""
    quality = load_params(root / "params.yaml").preprocess.quality
    return {
        "headline": "\n" + headline_table(root / "data" / "results", quality),
        "layer": layer_speed(root / "benchmarks"),
    }


def main() -> None:
    """Write the numbers between the README's markers."""
    root = project_root()
    readme = root / "README.md"
    text = written(readme.read_text(encoding="utf-8"), readme_blocks(root))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

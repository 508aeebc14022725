"""What gives a forgery away? Linear probes on simple cues: ``python -m benchmarks.cues rendered=data/crops``

Each forged face stands beside its original, and the cues of both are taken where the forgery changed
skin, nose or mouth, or around its border. A detector needs no more than a cue whose AUC is near 1, so a
family of such forgeries measures little. Writes cues.md and cues.csv; two minutes a crop set.
"""

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from fwstudy.crops.cropset import CropSet
from fwstudy.evaluation.shortcuts import probe_auc
from fwstudy.labels import FAMILIES, PARTS
from fwstudy.reporting.tables import markdown_of

SIGMAS = (0.6, 1.2, 2.4, 4.8, 9.6)  # px; octaves from fine to coarse, the first two are fine detail
FACE = [PARTS.index(part) for part in ("skin", "nose", "mouth")]
MIN_PIXELS = 100  # of changed face, fewer give no statistics
SEAM = np.ones((7, 7))
MAX_PAIRS = 400


def octaves(image: np.ndarray) -> list[np.ndarray]:
    """Differences of Gaussians of a (H, W) picture, one a sigma."""
    levels = [image, *(cv2.GaussianBlur(image, (0, 0), sigma) for sigma in SIGMAS)]
    return [fine - coarse for fine, coarse in itertools.pairwise(levels)]


def energy(octave: np.ndarray, where: np.ndarray) -> float:
    """Logarithm of the mean square in a mask."""
    return float(np.log(np.mean(octave[where] ** 2) + 1e-2)) if where.any() else 0.0


def cues(image: np.ndarray, changed: np.ndarray, parts: np.ndarray) -> dict[str, list[float]]:
    """Features by the name of the cue.

    Args:
        image: (H, W, 3) uint8, RGB.
        changed: (H, W) bool, where the forgery differs from the original.
        parts: (H, W) uint8, the part map.
    """
    lightness, *hues = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32), 2, 0)
    face = np.isin(parts, FACE)
    inside, outside = face & changed, face & ~changed
    seam = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_GRADIENT, SEAM) > 0
    detail = [energy(octave, inside) for octave in octaves(lightness)]
    colors = [channel[inside] for channel in (lightness, *hues)]
    return {
        "fine detail": detail[:2],
        "coarse detail": detail[2:],
        "fine detail, face against the rest": [
            energy(octave, inside) - energy(octave, outside) for octave in octaves(lightness)[:2]
        ],
        "detail of color": [energy(octave, inside) for hue in hues for octave in octaves(hue)],
        "color": [statistic(c) for c in colors for statistic in (np.mean, np.std)],
        "seam": [
            energy(octave, seam) - own
            for octave, own in zip(octaves(lightness), detail, strict=True)
        ],
    }


def cue_table(crops: CropSet, name: str) -> pd.DataFrame:
    """AUC of each cue on each family, each person scored by a probe that never saw them.

    Args:
        crops: whole faces at one quality, all splits.
        name: of the crop set, for the table.
    """
    rows = []
    for family in FAMILIES:
        forged = crops.select(variant=family)
        people, features = [], []
        for row in forged.evenly(MAX_PAIRS).manifest.to_dict("records"):
            changed, parts = crops.mask[row["row"]], crops.parsing[row["row"]]
            if (changed & np.isin(parts, FACE)).sum() < MIN_PIXELS:
                continue
            for label, number in enumerate((row["original_row"], row["row"])):
                people.append({key: row[key] for key in ("identity", "group")} | {"label": label})
                features.append(cues(crops.images[int(number)], changed, parts))
        for cue in features[0]:
            found = probe_auc(np.array([each[cue] for each in features]), pd.DataFrame(people))
            rows.append({"crops": name, "family": family, "cue": cue} | found)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cues", description=__doc__)
    parser.add_argument("crops", nargs="+", metavar="NAME=FOLDER", help="a crop set")
    parser.add_argument("--quality", default="c23")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    tables = []
    for named in options.crops:
        name, _, folder = named.partition("=")
        crops = CropSet.open(Path(folder)).select(kind="whole", quality=options.quality)
        tables.append(cue_table(crops, name))
        print(tables[-1].to_string(index=False))
    table = pd.concat(tables)
    table.to_csv(options.output, index=False, float_format="%.4f")
    wide = table.pivot_table("auc", ["crops", "cue"], "family", sort=False)
    head = f"# Cues by which forgeries are told apart, AUC of a linear probe ({options.quality})"
    text = f"{head}\n\n{markdown_of(wide.reset_index(), digits=2)}"
    options.output.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()

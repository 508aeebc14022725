"""A detector in another environment: it knows the exported files and nothing of the study.

python elsewhere.py EXPORTED OUTPUT: a score and a map of each crop, by how rough its pixels are.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def rough(path):
    """Mean difference of neighbors in each cell of 16 x 16."""
    gray = np.asarray(Image.open(path).convert("L"), float)
    steps = np.abs(np.diff(gray, axis=0))[:, :-1] + np.abs(np.diff(gray, axis=1))[:-1]
    padded = np.pad(steps, ((0, 1), (0, 1)))
    side = len(padded) // 16
    return padded.reshape(16, side, 16, side).mean(axis=(1, 3))


source, output = map(Path, sys.argv[1:])
(output / "maps").mkdir(parents=True)
with open(source / "manifest.csv") as file:
    rows = list(csv.DictReader(file))
with open(output / "scores.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["id", "score"])
    for row in rows:
        found = rough(source / "images" / f"{row['id']}.png")
        writer.writerow([row["id"], found.max() / 10 - 5])
        if row["label"] == "1":
            np.save(output / "maps" / f"{row['id']}.npy", found)
            mask = np.asarray(Image.open(source / "masks" / f"{row['id']}.png"))
            assert set(np.unique(mask)) <= {0, 255} and mask.any()
assert "fwstudy" not in sys.modules

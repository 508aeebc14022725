#!/usr/bin/env bash
# OpenCV 4.14.0: INTER_NEAREST lays a label map up to half a pixel beside the image it belongs to.
#
# Guess: a mask is resized with INTER_NEAREST, so that no label is mixed, and its image with INTER_AREA; both then
# show the same thing in the same place, but for rounding that cancels out over an outline.
#
# Seen: the middle of a disk moves by 0.3 to 0.5 pixels of the result to the right and down where it is made smaller,
# because INTER_NEAREST takes the first source pixel of each cell and not the middle one. INTER_NEAREST_EXACT
# stays within 0.08 of a pixel. Masks of parts and of changed pixels that are a few pixels wide are then compared with
# heat maps half a pixel away, without a word.
#
# Twenty disks at three scales, each resized three ways; prints the mean shift against INTER_AREA, in pixels of the
# result. Fails if INTER_NEAREST lies where INTER_AREA does, or INTER_NEAREST_EXACT does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet opencv-python-headless==4.14.0.94 numpy==2.4.6
env/bin/python - <<'PYTHON'
import cv2
import numpy as np

print("opencv", cv2.__version__, "numpy", np.__version__)
SIDE = 128
rng = np.random.default_rng(0)


def middle(mask: np.ndarray) -> np.ndarray:
    weight = mask.astype(float)
    at = np.arange(SIDE)
    return np.array([weight.sum(axis) @ at for axis in (0, 1)]) / weight.sum()


for old in (192, 300, 1000):
    y, x = np.mgrid[:old, :old]
    shifts = {"INTER_NEAREST": [], "INTER_NEAREST_EXACT": []}
    for _ in range(20):
        cx, cy = rng.uniform(0.3, 0.7, 2) * old
        disk = (((x - cx) ** 2 + (y - cy) ** 2) < (0.12 * old) ** 2).astype(np.uint8) * 255
        truth = middle(cv2.resize(disk, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        for name, found in shifts.items():
            small = cv2.resize(disk, (SIDE, SIDE), interpolation=getattr(cv2, name))
            found.append(middle(small) - truth)
    mean = {name: np.mean(found, axis=0) for name, found in shifts.items()}
    print(f"{old} to {SIDE} pixels:", *(f"{name} {value.round(2)}" for name, value in mean.items()))
    assert (mean["INTER_NEAREST"] > 0.3).all() and (mean["INTER_NEAREST"] < 0.6).all()
    assert np.abs(mean["INTER_NEAREST_EXACT"]).max() < 0.08
PYTHON

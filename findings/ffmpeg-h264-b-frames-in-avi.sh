#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8) and OpenCV 4.14.0: of H.264 with B-frames in AVI, time stamps of frames do not rise.
#
# Guess: whatever the container, decoded frames come with time stamps that rise as the frames are shown, so that a frame
# can be asked for by the time stamp its packet has. A container that keeps no times of showing would have its frames
# stamped in order.
#
# Seen: AVI keeps the order of decoding alone. FFmpeg stamps the packets of H.264 in that order. Decoded frames come in
# the order of showing and keep their packet's stamp: 40, 120, 80, 160 ms ... A reader that asks for one stamp after
# the other, and decodes until each is reached, finds some of the frames only. The same frames in Matroska, and MPEG-4
# with B-frames in AVI, have rising stamps. OpenCV hands over every frame in order, and says 80 ms of the first.
#
# Twenty frames of different gray are written three ways and read back. Fails if the stamps of H.264 in AVI rise or all
# frames are found by them, if those of the two others do not, if frames do not come in the order of showing, or if
# OpenCV loses one or says another time of the first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet av==18.1.0 opencv-python-headless==4.14.0.94 numpy==2.4.6
env/bin/python - <<'PYTHON'
from fractions import Fraction

import av
import cv2
import numpy as np

print("av", av.__version__, "opencv", cv2.__version__)
LEVELS = list(range(20, 220, 10))


def write(path: str, codec: str) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "3", "g": "60"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, level in enumerate(LEVELS):
            image = np.full((48, 64, 3), level, np.uint8)
            image[:, 3 * number : 3 * number + 8] = 255 - level
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


for name, codec, rises in (("h264.avi", "libx264", False), ("h264.mkv", "libx264", True), ("mpeg4.avi", "mpeg4", True)):
    write(name, codec)
    with av.open(name) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [round(1000 * float(frame.pts * stream.time_base)) for frame in frames]
    shown = [int(np.median(frame.to_ndarray(format="gray"))) for frame in frames]
    print(name, "ms:", *times[:6], "...")
    assert len(frames) == len(LEVELS) and shown == sorted(shown)
    assert (times == sorted(times)) == rises
    left = iter(times)
    reached = [next((time for time in left if time >= wanted), None) for wanted in sorted(times)]
    found = sum(map(int.__eq__, sorted(times), [-1 if time is None else time for time in reached]))
    print("  found by their stamps:", found, "of", len(times))
    assert (found == len(times)) == rises
    capture = cv2.VideoCapture(name)
    count, first = 0, None
    while capture.read()[0]:
        first = capture.get(cv2.CAP_PROP_POS_MSEC) if first is None else first
        count += 1
    print("  OpenCV:", count, "frames, the first at", round(first), "ms")
    assert count == len(LEVELS) and round(first) == {"h264.avi": 80, "h264.mkv": 0, "mpeg4.avi": 40}[name]
PYTHON

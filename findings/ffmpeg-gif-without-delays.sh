#!/usr/bin/env bash
# FFmpeg 8.1 (in PyAV 18.1.0) reads an animated GIF as one frame if its pictures carry no graphic control extension.
#
# GIF89a makes the extension optional, and Pillow leaves it out where it is told no duration and the pictures have
# palettes of their own. Pillow then counts six frames and FFmpeg one, without an error. With a duration both
# count six. So clips made by `save_all=True` alone lose all frames but the first.
#
# Prints both counts; fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet av==18.1.0 pillow==13.0.0
env/bin/python - <<'PYTHON'
import av
import PIL
from PIL import Image

def noise() -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((64, 48), 90) for _ in range(3)])


pictures = [noise() for _ in range(6)]
found = {}
for name, options in (("no duration", {}), ("100 ms", {"duration": 100})):
    pictures[0].save("a.gif", save_all=True, append_images=pictures[1:], **options)
    with av.open("a.gif") as container:
        found[name] = Image.open("a.gif").n_frames, len(list(container.decode(video=0)))
print(f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}, Pillow {PIL.__version__}")
for name, (pillow, ffmpeg) in found.items():
    print(f"{name}: {pillow} frames by Pillow, {ffmpeg} by FFmpeg")
assert found == {"no duration": (6, 1), "100 ms": (6, 6)}
PYTHON

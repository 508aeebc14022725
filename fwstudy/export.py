"""Crops for detectors elsewhere: ``python -m fwstudy.export FOLDER`` writes PNG files and a manifest."""

import argparse
from pathlib import Path

SPLITS = {False: ("test",), True: ("train", "validation", "test")}


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(prog="fwstudy.export", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="new or empty")
    parser.add_argument("--all-splits", action="store_true", help="not of test people alone")
    arguments = parser.parse_args()
    from fwstudy.crops.cropset import CropSet
    from fwstudy.outside.files import export_crops
    from fwstudy.runtime import project_root

    try:
        crops = CropSet.open(project_root() / "data" / "crops")
        count = export_crops(crops, arguments.folder, SPLITS[arguments.all_splits])
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{count} crops: {arguments.folder / 'README.md'}")


if __name__ == "__main__":
    main()

"""Measure what was handed back for exported crops: ``python -m fwstudy.score scores.csv --maps DIR``."""

import argparse
from pathlib import Path


def main() -> None:
    """Read the command line, measure, print and write the rows."""
    parser = argparse.ArgumentParser(prog="fwstudy.score", description=__doc__.splitlines()[0])
    parser.add_argument(
        "scores", type=Path, help="CSV with the columns id and score or probability"
    )
    parser.add_argument("--maps", type=Path, help="folder with ID.npy")
    parser.add_argument("--name", default="handed_back", help="of the detector in the rows")
    parser.add_argument("--output", type=Path, help="CSV; beside the scores by default")
    arguments = parser.parse_args()
    from fwstudy.crops.cropset import CropSet
    from fwstudy.explain.__main__ import check_output
    from fwstudy.outside.rows import measure_detector, remarks
    from fwstudy.params import OutsideDetector, ValidationError, describe, load_params
    from fwstudy.runtime import project_root

    files = {"scores": str(arguments.scores)}
    files |= {"maps": str(arguments.maps)} if arguments.maps else {}
    try:
        output = arguments.output or arguments.scores.with_suffix(".rows.csv")
        check_output(output.resolve().parent)
        if output.is_dir() or output.resolve() == arguments.scores.resolve():
            raise ValueError(f"--output: {output}: wanted is a CSV file other than the scores")
        root, about = project_root(), OutsideDetector(name=arguments.name, **files)
        params, crops = load_params(root / "params.yaml"), CropSet.open(root / "data" / "crops")
        table, _ = measure_detector(about, params, crops, Path.cwd())
        output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(output, index=False)
    except ValidationError as error:
        raise SystemExit(f"error: {describe(error, OutsideDetector)}") from None
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    given = table[table["value"].notna()].drop(columns=["model", "remark"])
    print(given.round(3).to_string(index=False))
    for told in remarks(table).itertuples():
        print(f"{told.topics}: {told.remark}")
    print(f"rows: {output}")


if __name__ == "__main__":
    main()

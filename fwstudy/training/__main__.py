"""Train one model in processes that torchrun started: see `fwstudy.training.launch`."""

import argparse
import os

from torch.distributed.elastic.multiprocessing.errors import record

from fwstudy.crops.cropset import CropSet
from fwstudy.params import load_params
from fwstudy.runtime import project_root
from fwstudy.training.launch import in_process
from fwstudy.training.runs import find_run, train


def main() -> None:
    """Train one model under torchrun; the first process prints the history."""
    parser = argparse.ArgumentParser("fwstudy.training", description=__doc__)
    parser.add_argument("name", help="baseline, batch_norm, whitened, or a variant of params.yaml")
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    if "LOCAL_WORLD_SIZE" not in os.environ:
        parser.error("start it by torchrun; fwstudy/training/launch.py says how")
    root = project_root()
    try:
        params, crops = load_params(root / "params.yaml"), CropSet.open(root / "data" / "crops")
        run = find_run(params, arguments.name, arguments.seed)
    except (KeyError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    detector = record(in_process)(train, (run, params, crops))
    if os.environ["RANK"] == "0":
        print(detector.history.to_string(index=False))


if __name__ == "__main__":
    main()

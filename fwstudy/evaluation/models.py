"""The names of a study's models, as in their files: ``whitened`` or ``variants/iternorm``."""

from pathlib import PurePath

from fwstudy.params import Params

MAIN = ("baseline", "batch_norm", "whitened")


def trained_models(params: Params) -> dict[str, list[int]]:
    """The name of each model's file to the seeds that it was trained from."""
    variants = {f"variants/{name}": params.ablations.seeds for name in params.ablations.run}
    return dict.fromkeys(MAIN, params.train.seeds) | variants


def short(name: str) -> str:
    """The name that tables show: the last part of the file's."""
    return PurePath(name).name

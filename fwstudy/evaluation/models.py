"""The trained models of a study by the names of their files, e.g. ``whitened`` or ``variants/iternorm``.

PyTorch is imported when a model is loaded and not before: tables and figures need the names alone.
"""

from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from tqdm import tqdm

from fwstudy.params import Params, Whitening

if TYPE_CHECKING:
    from fwstudy.training.runs import Detector

BASELINE = "baseline"
MAIN = (BASELINE, "batch_norm", "whitened")


def trained_models(params: Params) -> dict[str, list[int]]:
    """The name of each model's file to the seeds that it was trained from."""
    variants = {f"variants/{name}": params.ablations.seeds for name in params.ablations.run}
    return dict.fromkeys(MAIN, params.train.seeds) | variants


def short(name: str) -> str:
    """The name that tables show: the last part of the file's."""
    return PurePath(name).name


def settings_of(params: Params, name: str) -> Whitening:
    """The settings of a model, by the name of its file."""
    from fwstudy.training.runs import find_run

    return find_run(params, short(name), params.train.seeds[0]).settings


def load_model(params: Params, name: str, seed: int) -> "Detector":
    """A trained model, by the name of its file and its training seed."""
    from fwstudy.training.runs import find_run, load

    return load(find_run(params, short(name), seed), params)


def each_model(params: Params, names: Iterable[str], label: str) -> Iterator[tuple]:
    """File name, training seed and `Detector` of the models, one after another; label: of the bar."""
    seeds = trained_models(params)
    pairs = [(name, seed) for name in names for seed in seeds[name]]
    for name, seed in tqdm(pairs, label):
        yield name, seed, load_model(params, name, seed)

"""Trained models by the names of their files; see `fwstudy.evaluation.models`."""

from collections.abc import Iterable, Iterator

from tqdm import tqdm

from fwstudy.evaluation.models import short, trained_models
from fwstudy.params import Params, Whitening
from fwstudy.training.runs import Detector, find_run, load


def settings_of(params: Params, name: str) -> Whitening:
    """The settings of a model, by the name of its file."""
    return find_run(params, short(name), params.train.seeds[0]).settings


def load_model(params: Params, name: str, seed: int) -> Detector:
    """A trained model, by the name of its file and its training seed."""
    return load(find_run(params, short(name), seed), params)


def each_model(params: Params, names: Iterable[str], label: str) -> Iterator[tuple]:
    """File name, training seed and `Detector` of the models, one after another; label: of the bar."""
    seeds = trained_models(params)
    pairs = [(name, seed) for name in names for seed in seeds[name]]
    for name, seed in tqdm(pairs, label):
        yield name, seed, load_model(params, name, seed)

"""Other architectures, trained on the study's crops as its baseline is, to compare explanations on."""

from fwstudy.crops.cropset import CropSet
from fwstudy.params import Backbone, Params
from fwstudy.training.models import empty_model
from fwstudy.training.runs import BASELINE, Detector, Run, control, train


def with_network(params: Params, name: str) -> Params:
    """The settings of a study whose baseline is one of ``explanations.networks``.

    Raises:
        KeyError: no such network; the message lists those there are.
    """
    chosen = params.explanations
    if name not in chosen.networks:
        known = ", ".join(chosen.networks) or "none"
        raise KeyError(f"params.yaml: no network explanations.networks.{name}; there are: {known}")
    backbone = Backbone(name=name, options=chosen.networks[name].options, weights=None)
    changes = {"backbone": backbone, "baseline": chosen.schedule}
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def network_run(params: Params, name: str, seed: int) -> Run:
    """The run of one of ``explanations.networks``, whose layer is the one that is explained."""
    layer = {"layer": params.explanations.networks[name].layer}
    settings = control(params.whitening).model_copy(update=layer)
    return Run(BASELINE, seed, settings, f"networks/{name}")


def train_network(params: Params, name: str, seed: int, crops: CropSet) -> Detector:
    """Train one of ``explanations.networks``, or take it as it is if it was trained before.

    Nothing of this is forgotten when the stage is complete: a change of measures trains no network anew.

    Raises:
        KeyError: see `with_network`.
        ValueError: timm cannot make the network, or it has no such layer; the message names the key.
    """
    changed, layer = with_network(params, name), params.explanations.networks[name].layer
    try:
        empty_model(changed.train).get_submodule(layer)
    except Exception as error:  # of timm and PyTorch, which read these strings
        found = " ".join(str(error).split())
        raise ValueError(
            f"params.yaml: explanations.networks.{name}: {found} (layer: {layer})"
        ) from error
    return train(network_run(params, name, seed), changed, crops)

"""Other architectures, trained on the study's crops as its baseline is, to compare explanations on."""

from fwstudy.crops.cropset import CropSet
from fwstudy.params import Backbone, Params
from fwstudy.training.models import empty_model
from fwstudy.training.runs import BASELINE, Detector, Run, control, train


def train_network(params: Params, name: str, seed: int, crops: CropSet) -> Detector:
    """Train one of ``explanations.networks``, or take it as it is if it was trained before.

    Nothing of this is forgotten when the stage is complete: a change of measures trains no network anew.

    Raises:
        ValueError: timm cannot make the network, or it has no such layer; the message names the key.
    """
    chosen, network = params.explanations, params.explanations.networks[name]
    backbone = Backbone(name=name, options=network.options, weights=None)
    changes = {"backbone": backbone, "baseline": chosen.schedule}
    changed = params.model_copy(update={"train": params.train.model_copy(update=changes)})
    try:
        empty_model(changed.train).get_submodule(network.layer)
    except Exception as error:  # of timm and PyTorch, which read these strings
        found = " ".join(str(error).split())
        raise ValueError(
            f"params.yaml: explanations.networks.{name}: {found} (layer: {network.layer})"
        ) from error
    settings = control(params.whitening).model_copy(update={"layer": network.layer})
    return train(Run(BASELINE, seed, settings, f"networks/{name}"), changed, crops)

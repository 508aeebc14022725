#!/usr/bin/env bash
# grad-cam 1.5.7: Grad-CAM++ weights channels by about the cube of a gradient that is small, as those of a large
# network with a pooled linear head are.
#
# Guess: the library's Grad-CAM++ is the published one (Chattopadhay et al., WACV 2018), whose coefficient of a
# place is g^2 / (2 g^2 + sum(A) g^3). With small g it is near 1/2, and the weight of a channel is near half the
# sum of its positive gradients.
#
# Seen: a constant of 1e-6 is added to that denominator. Xception at 299 px pools 10 x 10 places into a linear layer
# of 2048 inputs, so that a gradient is about 1e-4 and its square 1e-8: the constant outweighs the other terms, and
# the coefficient falls with g^2. A channel's weight then grows with the third power of its gradient, where the
# published one grows with the first. With the head times 1000 both agree.
#
# Xception as timm initialises it, one random image, gradients of its logit; prints the power that fits the weights,
# and how the two maps correlate (channels without training are much alike, so little is seen there; of a trained
# detector maps correlated by 0.81 to 0.91). Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 numpy==2.4.6 pillow==13.0.0 tqdm==4.70.1 \
    opencv-python-headless==4.14.0.94 scikit-learn==1.9.1 matplotlib==3.11.2
env/bin/pip install --quiet --no-deps grad-cam==1.5.7 ttach==0.0.3
env/bin/python - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import timm
import torch
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget

print("grad-cam", version("grad-cam"), "torch", version("torch"), "timm", version("timm"))


def published(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    a, g = activations.astype(np.float64), gradients.astype(np.float64)
    below = 2 * g**2 + a.sum((-2, -1), keepdims=True) * g**3
    coefficients = np.where(g != 0, g**2 / np.where(g != 0, below, 1), 0)
    return (coefficients * g.clip(min=0)).sum((-2, -1))


def powers_of(scale: float) -> dict[str, float]:
    torch.manual_seed(0)
    model = timm.create_model("legacy_xception", num_classes=1).eval()
    model.act4.inplace = False
    with torch.no_grad():
        model.get_classifier().weight.mul_(scale)
    image = torch.rand(1, 3, 299, 299) * 2 - 1
    kept = {}
    explainer = GradCAMPlusPlus(model, [model.act4])
    own = explainer.get_cam_weights

    def keep(images, layers, targets, activations, gradients):
        kept["a"], kept["g"] = activations, gradients
        kept["weights"] = own(images, layers, targets, activations, gradients)
        return kept["weights"]

    explainer.get_cam_weights = keep
    explainer(image, [RawScoresOutputTarget()])
    print(f"head x {scale:g}: median size of a gradient {np.median(np.abs(kept['g'])):.1e}")
    weights = {"library": kept["weights"][0], "published": published(kept["a"], kept["g"])[0]}
    gradient = kept["g"][0].mean((1, 2))
    known = gradient > np.quantile(gradient, 0.75)  # of a linear head: one value a channel
    powers = {
        name: float(np.polyfit(np.log(gradient[known]), np.log(found[known]), 1)[0])
        for name, found in weights.items()
    }
    maps = [np.einsum("c,chw->hw", w, kept["a"][0]).clip(min=0).ravel() for w in weights.values()]
    print(f"  power of the gradient: {powers}; correlation of the maps: {np.corrcoef(maps)[0, 1]:.3f}")
    return powers


plain, scaled = powers_of(1), powers_of(1000)
assert plain["library"] > 2.5 and abs(plain["published"] - 1) < 0.1
assert abs(scaled["library"] - scaled["published"]) < 0.01
PYTHON

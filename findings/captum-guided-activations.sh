#!/usr/bin/env bash
# Captum 0.9.0: guided backpropagation guides nn.ReLU alone; of SiLU, GELU or functional.relu it gives the plain gradient.
#
# Guess: guided backpropagation (Springenberg et al., ICLR workshop 2015) keeps no negative gradient at an activation
# function, or says that it knows no way through that function.
#
# Seen: hooks are set on modules of the class nn.ReLU. A network without one gets its plain gradient, value by
# value, under the name of the other method; the warning speaks of hooks on ReLU activations either way.
# Guided Grad-CAM is built on it. EfficientNets (SiLU), ConvNeXts (GELU) and networks that call functional.relu are
# such networks.
#
# The same two convolutions with each of the four between them; prints how far the map is from the plain gradient, and what
# was warned of. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.14.1 captum==0.9.0
env/bin/python - <<'PYTHON'
import warnings
from importlib.metadata import version

import torch
from captum.attr import GuidedBackprop
from torch import nn


class FunctionalReLU(nn.Module):
    def forward(self, x):
        return nn.functional.relu(x)


print("captum", version("captum"), "torch", version("torch"))
gaps = {}
for activation in (nn.ReLU(), FunctionalReLU(), nn.SiLU(), nn.GELU()):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), activation, nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
    ).eval()
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    (plain,) = torch.autograd.grad(model(image)[0, 0], image)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        guided = GuidedBackprop(model).attribute(image, target=0)
    name = type(activation).__name__
    gaps[name] = ((guided - plain).abs().max() / plain.abs().max()).item()
    print(f"{name}: largest difference to the gradient {gaps[name]:.3f}; warned: {sorted({str(w.message) for w in told})}")
assert gaps["ReLU"] > 0.1
assert gaps["FunctionalReLU"] == gaps["SiLU"] == gaps["GELU"] == 0
PYTHON

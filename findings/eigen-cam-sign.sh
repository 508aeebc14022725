#!/usr/bin/env bash
# grad-cam 1.5.7: the map of EigenCAM of a picture and of its mirror image may be each other's opposite.
#
# Guess: the map is the projection of the layer's maps on their first singular vector (Muhammad and Yeasin, IJCNN
# 2020), so a mirrored picture has the mirrored map.
#
# Seen: a singular vector has no sign, and the library takes the one that the decomposition happens to return. It
# also subtracts the mean of each channel, so that the projection has both signs, and cuts what is below zero. Where
# the sign comes out the other way, the map is the complement: all but the object.
#
# Networks of one 1 x 1 convolution with positive weights, each on one picture of a bright square on a dark ground,
# so that the square is all there is to see; and on the picture mirrored left to right and top to bottom. Prints for how
# many the map is higher on the square in all three, in some, in none. Fails if none is left that depends on the mirror.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 pillow==13.0.0 tqdm==4.70.1 \
    opencv-python-headless==4.14.0.94 scikit-learn==1.9.1 matplotlib==3.11.2
env/bin/pip install --quiet --no-deps grad-cam==1.5.7 ttach==0.0.3
env/bin/python - <<'PYTHON'
from collections import Counter
from importlib.metadata import version

import torch
from pytorch_grad_cam import EigenCAM
from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget

print("grad-cam", version("grad-cam"), "torch", version("torch"))
TURNS = {"as it is": (), "left to right": (3,), "top to bottom": (2,)}


def marks_the_square(seed: int) -> dict[str, bool]:
    draw = torch.Generator().manual_seed(seed)
    layer = torch.nn.Conv2d(3, 8, 1, bias=False)
    layer.weight.data = torch.rand(8, 3, 1, 1, generator=draw)
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 1))
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), pooled).eval()
    image = 0.2 * torch.rand(1, 3, 32, 32, generator=draw)
    top, left = torch.randint(0, 22, (2,), generator=draw).tolist()
    square = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    square[..., top : top + 10, left : left + 10] = True
    image = image + 0.7 * square
    found = {}
    for name, axes in TURNS.items():
        turned, where = image.flip(axes), square.flip(axes)[0, 0].numpy()
        seen = EigenCAM(model, [model[1]])(turned, targets=[RawScoresOutputTarget()])[0]
        found[name] = bool(seen[where].mean() > seen[~where].mean())
    return found


results = [marks_the_square(seed) for seed in range(100)]
counts = Counter({3: "in all", 0: "in none"}.get(sum(each.values()), "in some") for each in results)
print("the map is higher on the square:", dict(counts))
assert counts["in some"] > 0
PYTHON

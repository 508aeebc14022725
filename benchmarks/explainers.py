"""Explainers in batches beside the same library called image by image: ``python -m benchmarks.explainers``.

The detector in the box explains images without fine detail, drawn here. Captum with the parameters of the
study, one image a call, gives the values to compare with; Captum with its defaults gives a second time,
where the defaults differ. Both take turns within a round. A second table has the cost of every explainer:
passes an image, counted, and time. Writes explainers.md to read, explainers.csv and explainers_cost.csv.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    LayerGradientXActivation,
    Occlusion,
)
from torch import Tensor, nn

from benchmarks.whitening import describe_machine
from fwstudy.explain.bundle import SHIPPED, read
from fwstudy.interpretability.decomposition import capture, resize
from fwstudy.interpretability.explainers import EXPLAINERS
from fwstudy.interpretability.more_explainers import MORE_EXPLAINERS
from fwstudy.whitening.statistics import evaluation_mode

TOGETHER = "all, one after another"
TARGET = 4.0  # times as fast as the library image by image with its defaults
OURS = {name: (EXPLAINERS | MORE_EXPLAINERS)[name] for name in (
    "Grad-CAM", "LayerCAM", "HiResCAM", "integrated gradients", "occlusion", "input x gradient",
)}  # fmt: skip


def summed(values: Tensor) -> np.ndarray:
    """Relevance of colors as that of pixels: (N, S, S)."""
    return values.detach().sum(1).numpy(force=True)


def cut(maps: Tensor, size: int) -> np.ndarray:
    """A layer's maps (N, h, w) as ours are: resized, without their negative part."""
    return np.clip(resize(maps.detach(), size), 0, None)


def layer_cam(model: nn.Module, layer: nn.Module, image: Tensor) -> np.ndarray:
    """LayerCAM, for which Captum has no class, from what it captures."""
    output, logits = capture(model, layer, image)
    (gradient,) = torch.autograd.grad(logits.sum(), output)
    return cut((gradient.clamp(min=0) * output).sum(1), image.shape[-1])


def occluded(model: nn.Module, image: Tensor, side: int, step: int) -> np.ndarray:
    """Captum's occlusion with a square of that side, moved by so many pixels."""
    shape, strides = (image.shape[1], side, side), (image.shape[1], step, step)
    values = Occlusion(model).attribute(
        image, target=0, sliding_window_shapes=shape, strides=strides
    )
    return values[:, 0].numpy(force=True)


def libraries(model: nn.Module, layer: nn.Module, size: int) -> dict[str, Callable]:
    """The same methods with the study's parameters, for one image."""
    return {
        "Grad-CAM": lambda x: cut(LayerGradCam(model, layer).attribute(x, target=0)[:, 0], size),
        "LayerCAM": partial(layer_cam, model, layer),
        "HiResCAM": lambda x: cut(
            LayerGradientXActivation(model, layer).attribute(x, target=0).sum(1), size
        ),
        "integrated gradients": lambda x: summed(
            IntegratedGradients(model).attribute(x, target=0, n_steps=16)
        ),
        "occlusion": lambda x: occluded(model, x, round(size / 8), round(size / 16)),
        "input x gradient": lambda x: summed(
            InputXGradient(model).attribute(x.clone().requires_grad_(), target=0)
        ),
    }


def with_defaults(model: nn.Module) -> dict[str, Callable]:
    """Those whose defaults cost something else."""
    method = IntegratedGradients(model)
    return {"integrated gradients": lambda x: summed(method.attribute(x, target=0))}


def seconds(call: Callable) -> tuple[float, np.ndarray]:
    """Time of a call, and what it gives."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


class Counted(nn.Module):
    """A model that counts the images that pass through it, forward and backward."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def count_backward(self, gradient: Tensor) -> None:
        """As a hook of the logits."""
        self.backwards += len(gradient)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        self.forwards += len(images)
        logits = self.model(images)
        if logits.requires_grad:
            logits.register_hook(self.count_backward)
        return logits


def costs(model: nn.Module, layer: nn.Module, images: Tensor) -> pd.DataFrame:
    """A row an explainer of the package, of images (N, 3, S, S): passes and milliseconds an image.

    There are none where the explainer refuses the model.
    """
    rows = []
    for name, explain in (EXPLAINERS | MORE_EXPLAINERS).items():
        counted = Counted(model)
        try:
            duration, _ = seconds(partial(explain, counted, layer, images))
        except ValueError as error:  # DeepLift, guided Grad-CAM: not for its activation functions
            print(f"{name}: {error}")
            rows.append({"explainer": name, "images": 0})
            continue
        rows.append(
            {
                "explainer": name,
                "forward passes": counted.forwards / len(images),
                "backward passes": counted.backwards / len(images),
                "ms an image": 1e3 * duration / len(images),
                "images": len(images),
            }
        )
    return pd.DataFrame(rows)


def smooth_images(count: int, size: int) -> Tensor:
    """Images (N, 3, S, S) in [-1, 1] without fine detail."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 16, 16, generator=generator) * 2 - 1
    return nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(-1, 1)


def compare(model: nn.Module, layer: nn.Module, images: Tensor, rounds: int) -> pd.DataFrame:
    """A row an explainer, and one of all, of images (N, 3, S, S), beside the library image by image.

    Milliseconds an image in batches, how many times as fast, largest difference of the maps.
    """
    same, other = libraries(model, layer, images.shape[-1]), with_defaults(model)
    taken, gaps = {}, {}
    with evaluation_mode(model):
        for name, explain in OURS.items():
            times = []
            for _ in range(rounds):
                ours, maps = seconds(partial(explain, model, layer, images))
                alone, single = seconds(lambda n=name: [same[n](image[None]) for image in images])
                default = alone
                if name in other:
                    default, _ = seconds(lambda n=name: [other[n](x[None]) for x in images])
                times.append([ours, alone, default])
            gaps[name] = np.abs(np.concatenate(single) - maps).max() / np.abs(maps).max()
            taken[name] = np.array(times)
    taken[TOGETHER], gaps[TOGETHER] = sum(taken.values()), max(gaps.values())
    return pd.DataFrame(
        {
            "explainer": name,
            "ms an image, in batches": 1e3 * np.median(times[:, 0]) / len(images),
            "times as fast, same parameters": np.median(times[:, 1] / times[:, 0]),
            "times as fast, library's defaults": np.median(times[:, 2] / times[:, 0]),
            "largest difference": float(gaps[name]),
            "images": len(images),
            "rounds": rounds,
        }
        for name, times in taken.items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--costed", type=int, default=8, help="images of the table of costs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    options = parser.parse_args(arguments)
    machine = describe_machine()
    detector = read(Path(__file__).parents[1] / SHIPPED)
    model, layer = detector.model, detector.layer
    images = smooth_images(options.images, detector.crop_size)
    table = compare(model, layer, images, options.rounds)
    table.to_csv(options.output / "explainers.csv", index=False)
    cost = costs(model, layer, images[: options.costed])
    cost.to_csv(options.output / "explainers_cost.csv", index=False)
    times = table.set_index("explainer")["times as fast, library's defaults"]
    met = (times[list(OURS)] >= TARGET).sum()
    text = (
        f"# Explainers in batches and image by image\n\n{machine} `python -m benchmarks.explainers`\n\n"
        f"{table.to_markdown(index=False, floatfmt='.3g')}\n\n"
        f"Differences are shares of the largest relevance. Beside the library image by image with its defaults all "
        f"{len(OURS)} together are {times[TOGETHER]:.1f} times as fast; {met} of them are at least {TARGET:g} times.\n\n"
        f"## What each costs\n\nThe detector has {sum(p.numel() for p in model.parameters()):,} parameters and {layer.num_features} "
        f"channels in the explained layer. An explainer without numbers refuses it. Times are of one call on one "
        f"batch; those above are medians.\n\n{cost.to_markdown(index=False, floatfmt='.4g').replace('nan', '  –')}\n"
    )
    (options.output / "explainers.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

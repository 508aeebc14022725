"""Methods that explain a verdict by a map over the image, behind one signature.

    relevance = EXPLAINERS[name](model, layer, images)

``model`` gives one logit an image, ``layer`` is the norm layer of the study (methods that look at
pixels alone ignore it), ``images`` are (N, 3, S, S) float32 in [-1, 1] on the model's device; the
relevance is (N, S, S) float32, positive where a pixel speaks for *forged*. `evidence_maps` of
`fwstudy.interpretability.decomposition` has this signature, too. Models (modes, gradients, hooks)
and images are left as they were found.

"Nothing seen" is zero: mid-gray, the middle of the images' range, as around zero-padded concepts.
A square of the image that is mid-gray in itself gets no relevance from methods that look at pixels.

Maps that see no image are what each method must beat: `random_maps` here, `center_prior` and
`mean_mask_prior` in `fwstudy.interpretability.decomposition`.
"""

import zlib
from collections.abc import Callable, Iterable
from functools import wraps

import numpy as np
from captum.attr import IntegratedGradients, LayerGradientXActivation, Occlusion
from torch import Tensor, nn

from fwstudy.interpretability.decomposition import grad_cam, layer_map
from fwstudy.whitening.concepts import BATCH_SIZE
from fwstudy.whitening.statistics import evaluation_mode

Explainer = Callable[[nn.Module, nn.Module, Tensor], np.ndarray]


def in_evaluation_mode(explain: Explainer) -> Explainer:
    """The explainer, with the model in evaluation mode meanwhile and in its own modes after."""

    @wraps(explain)
    def explain_evaluated(model: nn.Module, layer: nn.Module, images: Tensor, **options):
        with evaluation_mode(model):
            return explain(model, layer, images, **options)

    return explain_evaluated


def in_batches(
    explain: Explainer, model: nn.Module, layer: nn.Module, batches: Iterable[Tensor]
) -> np.ndarray:
    """The maps (N, S, S) of all images of the batches; each batch goes to the model's device."""
    device = next(model.parameters()).device
    with evaluation_mode(model):
        return np.concatenate([explain(model, layer, batch.to(device)) for batch in batches])


def pixel_map(values: Tensor) -> np.ndarray:
    """Relevance of each color channel (N, 3, S, S), summed: (N, S, S) float32."""
    return values.detach().sum(dim=1).float().numpy(force=True)


class _LayerCam(LayerGradientXActivation):
    """Activations times the positive part of their own gradients; Captum has no class for it."""

    def multiply_gradient_acts(self, gradients, evals):
        return tuple(
            gradient.clamp(min=0) * maps for gradient, maps in zip(gradients, evals, strict=True)
        )


@in_evaluation_mode
def layer_cam(model: nn.Module, layer: nn.Module, images: Tensor) -> np.ndarray:
    """LayerCAM, relu(Σ_c relu(gradient_c) · a_c) with a weight a position, at input resolution.

    Jiang et al., IEEE Transactions on Image Processing 2021. At a layer before the pooling and a
    linear classifier the gradient is the same at all positions, and the map is that of `grad_cam`
    without the channels that speak against a forgery. Departures: the final ReLU comes after the
    interpolation, as in `grad_cam`; no scaling and fusion over layers. Maps are not negative.
    """
    return layer_map(_LayerCam(model, layer).attribute(images, target=0), images)


@in_evaluation_mode
def integrated_gradients(
    model: nn.Module, layer: nn.Module, images: Tensor, num_steps: int = 16
) -> np.ndarray:
    """Gradients along the straight line from mid-gray to the image, times what each pixel changed.

    Sundararajan, Taly, Yan, ICML 2017, equation 1; Captum, Gauss-Legendre quadrature. Summed over
    color channels, so that the map sums to logit(image) - logit(gray), up to the quadrature.

    Args:
        num_steps: points on the line, each a forward and a backward pass.
    """
    values = IntegratedGradients(model).attribute(
        images,
        baselines=0.0,
        target=0,
        n_steps=num_steps,
        internal_batch_size=max(BATCH_SIZE, len(images)),  # else all steps at once in memory
    )
    return pixel_map(values)


@in_evaluation_mode
def occlusion(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    window: float = 1 / 8,
    stride: float = 1 / 16,
) -> np.ndarray:
    """How much the logit falls when a square of the image turns mid-gray, per pixel.

    Zeiler, Fergus, ECCV 2014; Captum: the mean fall over all squares that cover the pixel. Squares
    stand on a grid; cost is one forward pass of the image and one a square, of which there are
    (1 + (1 - window) / stride)²: 225 by default, 64 with stride 1/8.

    Args:
        window: side of the square, as a share of S.
        stride: between two squares, as a share of S; at most the window.
    """
    size = images.shape[-1]
    side, step = (max(1, round(share * size)) for share in (window, stride))
    values = Occlusion(model).attribute(
        images,
        sliding_window_shapes=(images.shape[1], side, side),  # all color channels at once
        strides=(images.shape[1], step, step),
        baselines=0.0,
        target=0,
    )
    return values[:, 0].float().numpy(force=True)


EXPLAINERS: dict[str, Explainer] = {
    "Grad-CAM": grad_cam,
    "LayerCAM": layer_cam,
    "integrated gradients": integrated_gradients,
    "occlusion": occlusion,
}
NEEDS: dict[str, frozenset[str]] = {
    "Grad-CAM": frozenset({"gradients", "layer"}),
    "LayerCAM": frozenset({"gradients", "layer"}),
    "integrated gradients": frozenset({"gradients"}),
    "occlusion": frozenset(),
}
"""What each of them asks of a model: gradients of its logit, a layer whose maps are known."""


def random_maps(images: Tensor, seed: int) -> np.ndarray:
    """White noise: every pixel of every map drawn uniformly from [0, 1), apart from all others.

    An image's pixels decide on its map, whichever others stand beside it.

    What a map earns that knows nothing: the value of each measure by chance. Smooth noise would
    earn the same on average, with a wider spread.

    Returns:
        (N, S, S) float32.
    """
    digests = [zlib.crc32(image.tobytes()) for image in images.numpy(force=True)]
    draws = [np.random.default_rng([seed, digest]) for digest in digests]
    return np.stack([draw.random(images.shape[-2:], dtype=np.float32) for draw in draws])

"""Further methods behind the signature of `fwstudy.interpretability.explainers`, beside its own four.

    relevance = MORE_EXPLAINERS[name](model, layer, images)

Images are (N, 3, S, S) float32 in [-1, 1], maps (N, S, S) float32; those of layers but EigenCAM are cut
at zero after the interpolation, as in `grad_cam`, all others signed. "Nothing seen" is mid-gray. The
stage `explanations` runs those in `leaderboard.RANKED`, no stage the others: some cost hundreds of passes
an image, counted in `benchmarks/explainers.md`. What is random is drawn anew for each image from a seed,
so that a map repeats to the bit and depends on no other image of its batch; global generators stay as
they were.

Captum does the work where it has the method. Grad-CAM++, EigenCAM and ScoreCAM are one or two lines on
what Captum captures: the package grad-cam 1.5.7 scales each map by its own extrema, so that relevance
masses cannot be compared, leaves gradients on the weights, and adds to the denominators of Grad-CAM++
a constant that is larger than they are where gradients are small.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import (
    Attribution,
    DeepLift,
    GradientShap,
    GuidedGradCam,
    InputXGradient,
    KernelShap,
    LayerActivation,
    LayerGradientXActivation,
    Lime,
)
from skimage.segmentation import slic
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fwstudy.interpretability.decomposition import layer_map, resize
from fwstudy.interpretability.explainers import Explainer, in_evaluation_mode, pixel_map
from fwstudy.interpretability.faithfulness import predict_logits
from fwstudy.whitening.concepts import BATCH_SIZE
from fwstudy.whitening.statistics import evaluation_mode

NUM_SEGMENTS = 50  # asked of SLIC, which gives about 40
NUM_SAMPLES = 500  # of LIME and KernelSHAP: two seeds then correlate at 0.86 and 0.70
NUM_STEPS = 32  # of gradient SHAP
NUM_MASKS = 1000  # of RISE
GRAYS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # black to white: what gradient SHAP compares with


def image_by_image(explain: Callable[..., np.ndarray]) -> Explainer:
    """An explainer of batches from one of a single image (1, 3, S, S) to (S, S)."""

    @wraps(explain)
    def explain_batch(model: nn.Module, layer: nn.Module, images: Tensor, **options):
        with evaluation_mode(model):
            maps = [explain(model, layer, image[None], **options) for image in images]
        return np.stack(maps).astype(np.float32)

    return explain_batch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of NumPy and PyTorch (CPU), which Captum draws from, seeded meanwhile."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)


def segments(images: Tensor) -> np.ndarray:
    """Superpixels of each image, by SLIC (Achanta et al., TPAMI 2012; scikit-image's defaults).

    Args:
        images: (N, 3, S, S) float32 in [-1, 1].

    Returns:
        (N, S, S) int64, each image numbered from 0 without gaps.

    Raises:
        ValueError: an image has one segment only, as white noise has.
    """
    found = []
    for number, pixels in enumerate(images.movedim(1, -1).numpy(force=True)):
        _, labels = np.unique(slic(pixels, n_segments=NUM_SEGMENTS), return_inverse=True)
        if labels.max() < 1:
            raise ValueError(f"SLIC finds no segments in image {number} of {len(images)}")
        found.append(labels.reshape(pixels.shape[:2]))
    return np.stack(found)


def quietly(method: Attribution, *inputs: Any, **options: Any) -> Any:
    """What a method of Captum finds, without its warnings that it hooks models and marks inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return method.attribute(*inputs, target=0, **options)


def activation_functions(model: nn.Module) -> list[str]:
    """Kinds of the activation functions that are modules of a model; functional ones are not seen."""
    kinds = {type(module) for module in model.modules()}
    return sorted(k.__name__ for k in kinds if k.__module__ == "torch.nn.modules.activation")


@in_evaluation_mode
def input_x_gradient(model: nn.Module, layer: nn.Module, images: Tensor) -> np.ndarray:
    """Pixel times gradient: the logit's first-order change when the pixel turns mid-gray.

    Shrikumar et al., arXiv 1605.01713; Captum.
    """
    return pixel_map(quietly(InputXGradient(model), images))


@in_evaluation_mode
def deep_lift(model: nn.Module, layer: nn.Module, images: Tensor) -> np.ndarray:
    """DeepLIFT, rescale rule, against mid-gray: the map sums to logit(image) - logit(gray).

    Shrikumar, Greenside, Kundaje, ICML 2017; Captum, which has no rule for ReLU6, SiLU, GELU and
    others and then gives the gradient instead. The sum tells, and is checked.

    Raises:
        ValueError: the map misses its sum: the rules do not hold for this model.
    """
    gray = torch.zeros_like(images)
    explained = quietly(DeepLift(model), images, gray, return_convergence_delta=True)
    values, gap = (value.detach() for value in explained)
    fall, size = values.sum(dim=(1, 2, 3)) - gap, values.abs().sum(dim=(1, 2, 3))
    wrong = gap.abs() > 1e-2 * fall.abs() + 1e-4 * size
    if wrong.any():
        worst = (gap.abs() * wrong).argmax()
        raise ValueError(
            f"DeepLift misses the change of the logit by {gap[worst]:.3g} of {fall[worst]:.3g}: it has "
            f"no rules for this model ({', '.join(activation_functions(model)) or 'no module'} "
            "as activation function); use 'input x gradient'"
        )
    return pixel_map(values)


@image_by_image
def gradient_shap(
    model: nn.Module, layer: nn.Module, image: Tensor, num_steps: int = NUM_STEPS, seed: int = 0
) -> np.ndarray:
    """Expected gradients: integrated gradients from flat images of random brightness, in expectation.

    Lundberg, Lee, NIPS 2017; Captum, without its noise on the input. The map sums, in expectation, to
    the logit minus the mean logit of `GRAYS`.

    Args:
        num_steps: random points between an image and a flat one.
        seed: of these points.
    """
    flat = image.new_tensor(GRAYS)[:, None, None, None].expand(-1, *image.shape[1:])
    with seeded(seed):
        values = GradientShap(model).attribute(image, baselines=flat, n_samples=num_steps, target=0)
    return pixel_map(values)[0]


def _of_segments(method: Lime, image: Tensor, num_samples: int, seed: int) -> np.ndarray:
    """The value of each segment, spread evenly over its pixels, so that the map sums to the same."""
    labels = segments(image)
    with seeded(seed), torch.no_grad():
        values = method.attribute(
            image,
            baselines=0.0,
            target=0,
            feature_mask=torch.from_numpy(labels)[:, None].to(image.device),
            n_samples=num_samples,
            perturbations_per_eval=BATCH_SIZE,
            return_input_shape=False,
        )
    return (values[0].numpy(force=True) / np.bincount(labels.ravel()))[labels[0]]


@image_by_image
def lime(
    model: nn.Module, layer: nn.Module, image: Tensor, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> np.ndarray:
    """LIME: slopes of a weighted linear model of the logit in which segments are gray or not.

    Ribeiro, Singh, Guestrin, KDD 2016; Captum. Departures: the logit, not the probability, whose
    small changes regularization takes for none; ridge regression with penalty 1 (Captum: the lasso);
    SLIC segments turn mid-gray; a segment's slope is divided by its area.

    Args:
        num_samples: random sets of segments, each a forward pass.
        seed: of these sets.
    """
    method = Lime(model, interpretable_model=SkLearnRidge(alpha=1.0))
    return _of_segments(method, image, num_samples, seed)


@image_by_image
def kernel_shap(
    model: nn.Module, layer: nn.Module, image: Tensor, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> np.ndarray:
    """KernelSHAP: Shapley values of segments, estimated by weighted linear regression.

    Lundberg, Lee, NIPS 2017; Captum, on the logit, where absent segments are mid-gray. A segment's
    value is divided by its area: the map sums to logit(image) - logit(gray).
    """
    return _of_segments(KernelShap(model), image, num_samples, seed)


@in_evaluation_mode
def guided_grad_cam(model: nn.Module, layer: nn.Module, images: Tensor) -> np.ndarray:
    """Guided backpropagation times Grad-CAM of the layer.

    Selvaraju et al., ICCV 2017; Captum, bilinear. Captum guides nothing but `nn.ReLU` and gives the
    plain gradient for all else, so another activation function is an error.

    Raises:
        ValueError: an activation function is not `nn.ReLU`, or none is a module.
    """
    kinds = activation_functions(model)
    if kinds != ["ReLU"]:
        found = ", ".join(kinds) or "no module"
        raise ValueError(
            f"guided Grad-CAM is defined for ReLU; the activation functions are {found}"
        )
    return pixel_map(quietly(GuidedGradCam(model, layer), images, interpolate_mode="bilinear"))


@image_by_image
def rise(
    model: nn.Module,
    layer: nn.Module,
    image: Tensor,
    num_masks: int = NUM_MASKS,
    share: float = 0.5,
    cells: int = 8,
    seed: int = 0,
) -> np.ndarray:
    """RISE: by how much the logit is higher where a random mask leaves a pixel open.

    Petsiuk, Das, Saenko, BMVC 2018. Departures: the covariance of logit and mask over
    ``share`` (1 - ``share``) instead of the mean of masks weighted by the score, in which every pixel
    has a pedestal that grows with ``share``; closed pixels are mid-gray; the logit.

    Args:
        num_masks: each a forward pass; the same for all images.
        share: of cells that are open.
        cells: of a mask, along a side.
        seed: of the masks.
    """
    masks = rise_masks(num_masks, image.shape[-1], share, cells, seed).to(image.device)
    parts = [predict_logits(model, image * part[:, None]) for part in masks.split(BATCH_SIZE)]
    logits = torch.from_numpy(np.concatenate(parts)).to(masks)
    total = torch.tensordot(logits - logits.mean(), masks, dims=1)
    return (total / ((num_masks - 1) * share * (1 - share))).numpy(force=True)


def rise_masks(count: int, size: int, share: float, cells: int, seed: int) -> Tensor:
    """Random grids of open and closed cells, enlarged bilinearly and shifted by less than a cell.

    Half a cell at the rim, where the enlarged grid repeats its last value, is never used, so that
    all pixels have the same variance.

    Returns:
        (count, size, size) float32 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    side = -(-size // cells)
    grids = rng.random((count, 1, cells + 2, cells + 2)) < share
    large = interpolate(torch.from_numpy(grids).float(), scale_factor=side, mode="bilinear")[:, 0]
    shifts = rng.integers(side, size=(count, 2)) + (side + 1) // 2
    return torch.stack(
        [mask[y : y + size, x : x + size] for mask, (y, x) in zip(large, shifts, strict=True)]
    )


class _GradCamPlusPlus(LayerGradientXActivation):
    """Activations times the channel weights of Grad-CAM++, which Captum has no class for."""

    def multiply_gradient_acts(self, gradients, evals):
        return tuple(
            (gradient.clamp(min=0) * self.shares(gradient, maps)).sum((2, 3), keepdim=True) * maps
            for gradient, maps in zip(gradients, evals, strict=True)
        )

    def shares(self, gradient: Tensor, maps: Tensor) -> Tensor:
        """Equation 19, with numerator and denominator divided by the squared gradient."""
        below = 2 + maps.sum((2, 3), keepdim=True) * gradient
        return torch.where((gradient == 0) | (below == 0), 0, 1 / below)


@in_evaluation_mode
def grad_cam_plus_plus(model: nn.Module, layer: nn.Module, images: Tensor) -> np.ndarray:
    """Grad-CAM++: channels weighted by the positive gradients of their positions, by equation 19.

    Chattopadhay et al., WACV 2018; as there, the logit stands in an exponential, whose derivatives
    are powers of its own.
    """
    return layer_map(_GradCamPlusPlus(model, layer).attribute(images, target=0), images)


@in_evaluation_mode
def hires_cam(model: nn.Module, layer: nn.Module, images: Tensor) -> np.ndarray:
    """HiResCAM, relu(Σ_c gradient_c · a_c), position by position, at input resolution.

    Draelos, Carin, arXiv 2011.08891; Captum.
    """
    return layer_map(LayerGradientXActivation(model, layer).attribute(images, target=0), images)


@in_evaluation_mode
def eigen_cam(model: nn.Module, layer: nn.Module, images: Tensor) -> np.ndarray:
    """EigenCAM: the layer's maps projected on their first right singular vector over channels.

    Muhammad, Yeasin, IJCNN 2020. It knows no verdict: it shows what the layer sees most of, be it for
    a forgery or against one. A singular vector has no sign; here its entries sum to 0 or more, which
    makes the map of a layer without negative values non-negative.
    """
    maps = LayerActivation(model, layer).attribute(images).detach()
    positions = maps.flatten(2).mT.float()  # (N, h w, C)
    first = torch.linalg.svd(positions, full_matrices=False).Vh[:, 0]
    first = torch.where(first.sum(dim=1, keepdim=True) < 0, -first, first)
    return resize((positions @ first[..., None]).view(len(maps), *maps.shape[2:]), images.shape[-1])


@image_by_image
def score_cam(model: nn.Module, layer: nn.Module, image: Tensor) -> np.ndarray:
    """ScoreCAM: channels weighted by the softmax, over channels, of the logit that they leave.

    Wang et al., CVPR Workshops 2020. Each channel, enlarged and scaled to [0, 1], masks the image.
    The baseline's logit is not needed, as it cancels in the softmax. Weights are positive, so
    that no channel speaks against a forgery.
    """
    size = image.shape[-1]
    with torch.no_grad():
        maps = LayerActivation(model, layer).attribute(image)[0].float()
    logits = []
    for part in maps.split(BATCH_SIZE):
        masks = interpolate(part[:, None], (size, size), mode="bilinear")
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        scaled = torch.where(high > low, (masks - low) / (high - low), 0)
        logits.append(predict_logits(model, image * scaled))
    weights = torch.from_numpy(np.concatenate(logits)).softmax(0).to(maps)
    return layer_map((weights[:, None, None] * maps)[None], image)[0]


MORE_EXPLAINERS: dict[str, Explainer] = {
    "input x gradient": input_x_gradient,
    "DeepLift": deep_lift,
    "gradient SHAP": gradient_shap,
    "LIME": lime,
    "KernelSHAP": kernel_shap,
    "guided Grad-CAM": guided_grad_cam,
    "RISE": rise,
    "Grad-CAM++": grad_cam_plus_plus,
    "HiResCAM": hires_cam,
    "EigenCAM": eigen_cam,
    "ScoreCAM": score_cam,
}

"""Statistics of a whitening layer inside a model: setting them from images, and measuring whiteness."""

import copy
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fwstudy.whitening.covariance import as_rows, covariance, shrink
from fwstudy.whitening.layer import FeatureWhitening, _check, _count
from fwstudy.whitening.sync import all_reduce_count, all_reduce_sum


@torch.no_grad()
def update_statistics(model: nn.Module, layer: FeatureWhitening, batches) -> None:
    """Set the running mean and covariance of a layer exactly, from all batches pooled.

    The model runs in evaluation mode (layers before this one keep their statistics) and is left
    in its mode. Moments are pooled in float64 (Chan, Golub, LeVeque 1983), over processes too.

    Args:
        model: contains `layer`; called with images.
        batches: iterable of images (N, C, H, W), or of tuples that begin with images.

    Raises:
        ValueError: the layer saw fewer than two locations in all processes together.
    """
    device = layer.running_mean.device
    count = 0
    mean = torch.zeros(layer.num_features, dtype=torch.float64, device=device)
    scatter = torch.zeros_like(layer.running_covariance, dtype=torch.float64)

    def accumulate(_, inputs, __):
        nonlocal count, mean, scatter
        rows = as_rows(inputs[0]).double()
        batch_mean, batch_covariance = covariance(rows, layer.num_groups)
        both, shift = count + len(rows), batch_mean - mean
        blocks = shift.unflatten(0, (layer.num_groups, -1, 1))
        between = blocks @ blocks.mT * (count * len(rows) / both)
        mean = mean + shift * (len(rows) / both)
        scatter = scatter + batch_covariance * len(rows) + between
        count = both

    with layer.register_forward_hook(accumulate), evaluation_mode(model):
        for batch in batches:
            model((batch if isinstance(batch, Tensor) else batch[0]).to(device))
    own_count, count = count, all_reduce_count(count, device)
    _check(count > 1, f"batches must give the layer at least two locations, not {count}")
    own_mean, mean = mean, all_reduce_sum(mean * own_count) / count
    blocks = (own_mean - mean).unflatten(0, (layer.num_groups, -1, 1))
    scatter = all_reduce_sum(scatter + blocks @ blocks.mT * own_count)
    layer.running_mean.copy_(mean)
    layer.running_covariance.copy_(shrink(scatter / (count - 1), count, layer.shrinkage))
    layer.refresh()


@torch.no_grad()
def whiteness(features: Tensor) -> dict[str, float]:
    """How white features (N, C, H, W) or (M, C) are; computed in float64.

    Returns:
        mean_correlation, max_correlation: absolute, off the diagonal, over channels that vary
            (0 and 0 when white); mean_variance (1); effective_rank: exp of the entropy of the
            normalised eigenvalues (C), Roy and Vetterli 2007; condition_number (1).

    Example:
        >>> round(whiteness(torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]))["effective_rank"])
        2
    """
    matrix = covariance(features.double())[1][0]
    varies = matrix.diagonal() > 0
    scale = matrix.diagonal()[varies].sqrt()
    correlation = matrix[varies][:, varies] / (scale * scale[:, None])
    others = correlation[~torch.eye(len(scale), dtype=torch.bool, device=scale.device)].abs()
    others = others if len(others) else others.new_zeros(1)
    values = torch.linalg.eigvalsh(matrix).clamp(min=0)
    shares = values / values.sum()
    return {
        "mean_correlation": others.mean().item(),
        "max_correlation": others.max().item(),
        "mean_variance": matrix.diagonal().mean().item(),
        "effective_rank": torch.special.entr(shares).sum().exp().item(),
        "condition_number": (values.max() / values.min()).item(),
    }


@torch.no_grad()
def whiteness_by_mode(
    model: nn.Module, layer: FeatureWhitening, images: Tensor
) -> dict[str, float]:
    """`whiteness` of what a layer makes of images, by the batch's statistics and by the running ones.

    Before scale and activation. Model and layer stay as they are, but for W, which is brought up to
    date as on leaving training. Where several processes run, all must call it.

    Args:
        model: contains `layer`.
        images: (N, 3, S, S), one batch.

    Returns:
        the keys of `whiteness`, each as train_... and eval_...
    """
    found = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with hook, evaluation_mode(model):
        model(images)
    rows = as_rows(found[0].float())
    outputs = {
        "train": copy.deepcopy(layer)._normalize_by_batch(rows, _count(rows)),
        "eval": layer._normalize_by_running(rows),
    }
    return {
        f"{mode}_{name}": value
        for mode, output in outputs.items()
        for name, value in whiteness(output).items()
    }


@contextmanager
def evaluation_mode(model: nn.Module):
    """Evaluation mode inside the block; afterwards each layer has the mode that it had before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode

"""Do the segments that a map marks carry the verdict? An attack that may change only them tells.

Tsigos, Apostolidis, Baxevanakis, Papadopoulos, Mezaris, "Towards Quantitative Evaluation of Explainable
AI Methods for Deepfake Detection", MAD 2024 (arXiv 2404.18649). A map is the better, the more often an
attack on its best one, two or three SLIC segments turns the verdict on a forgery, and the further it
lowers the probability. Fifty segments, the attack by natural evolution strategies and its
settings are those of the published experiment. Departures:

- one logit with a threshold stands for classes, and the attack follows the logit, which does not
  saturate; the class *real* is all that is not *forged*;
- noise differs between color channels, where the published code draws one value for all three;
- the distortion is bounded in all, and pixels stay in range; the published code bounds each step alone;
- settings are in units of pixels in [0, 1], not of normalized ones; ties are ranked at random;
- stability is not measured here, but in `fwstudy.interpretability.sanity`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from torch import Tensor, nn

from fwstudy.evaluation.metrics import Measure
from fwstudy.interpretability.faithfulness import predict_logits
from fwstudy.interpretability.more_explainers import segments

MEASURES = {
    "accuracy_drop": Measure(
        "share of forgeries whose verdict turns when the best segments are attacked; chance is that "
        "of a random map",
        "Tsigos et al. 2024",
        "higher",
    ),
    "sufficiency": Measure(
        "fall of the probability of a forgery when the best segments are attacked; chance is that "
        "of a random map",
        "Tsigos et al. 2024",
        "higher",
    ),
}


def best_segments(relevance: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The pixels of the segments of highest mean relevance; equals in random order.

    Args:
        relevance: (S, S).
        labels: (S, S) int, from `fwstudy.interpretability.more_explainers.segments`.

    Returns:
        (S, S) bool.
    """
    means = np.bincount(labels.ravel(), relevance.ravel()) / np.bincount(labels.ravel())
    at_random = np.random.default_rng(seed).random(len(means))
    return np.isin(labels, np.lexsort((at_random, -means))[:count])


def attack(
    model: nn.Module,
    image: Tensor,
    region: Tensor,
    threshold: float = 0.0,
    bound: float = 16 / 255,
    rate: float = 1 / 255,
    steps: int = 50,
    pairs: int = 40,
    spread: float = 1e-3,
    seed: int = 0,
) -> Tensor:
    """An image that looks alike and has a lower logit, changed inside a region alone.

    Ilyas, Engstrom, Athalye, Lin, "Black-box adversarial attacks", ICML 2018: the sign of a gradient
    that is estimated from pairs of opposite noise. No gradients are asked of the model. Each
    step costs 2 ``pairs`` + 1 forward passes; the first image not above the threshold ends it.

    Args:
        image: (3, S, S) float32 in [-1, 1].
        region: (S, S) bool.
        threshold: logit above which an image is said to be forged.
        bound, rate, spread: largest change of a pixel, its change in a step, and the noise's
            standard deviation, in units of pixels in [0, 1].
        steps: at most.
        seed: of the noise.

    Returns:
        (3, S, S) float32 in [-1, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    found, (bound, rate, spread) = image, (2 * value for value in (bound, rate, spread))
    for _ in range(steps):
        noise = torch.randn(pairs, *image.shape, generator=generator).to(image) * region
        tried = torch.cat([found[None], found + spread * noise, found - spread * noise])
        logit, *others = predict_logits(model, tried)
        if logit <= threshold:
            break
        ahead, behind = torch.tensor(others, dtype=torch.float64).view(2, pairs)
        slope = torch.tensordot((ahead - behind).to(image), noise, dims=1)
        found = found - rate * slope.sign()
        found = found.clamp(image - bound, image + bound).clamp(-1, 1)
    return found


def attack_table(
    model: nn.Module,
    images: Tensor,
    relevance: np.ndarray,
    counts: Sequence[int] = (1, 2, 3),
    threshold: float = 0.0,
    seed: int = 0,
    **options,
) -> pd.DataFrame:
    """What an attack on the best segments of each map does to the verdict.

    Args:
        images: (N, 3, S, S) float32 in [-1, 1], forged.
        relevance: (N, S, S).
        counts: of segments that the attack may change.
        threshold: logit above which an image is said to be forged.
        seed: of ties and noise.
        options: of `attack`.

    Returns:
        columns image (0 … N - 1), segments, before and after (probabilities), sufficiency (their
        difference) and accuracy_drop (1 where the verdict turned, else 0, also where it was wrong
        before); a row for each image and count. Their means over images are the published numbers.

    Raises:
        ValueError: relevance has another shape or is not finite, or an image has no segments.
    """
    if relevance.shape != (len(images), *images.shape[2:]) or not np.isfinite(relevance).all():
        raise ValueError(
            f"relevance must be finite and (N, S, S) like images {tuple(images.shape)}, "
            f"not {relevance.shape}"
        )
    tables, before = [], predict_logits(model, images)
    labels = segments(images)
    for count in counts:
        attacked = []
        for image, values, parts in zip(images, relevance, labels, strict=True):
            region = torch.from_numpy(best_segments(values, parts, count, seed)).to(image.device)
            attacked.append(attack(model, image, region, threshold, seed=seed, **options))
        after = predict_logits(model, torch.stack(attacked))
        turned = (before > threshold) & (after <= threshold)
        columns = {"image": np.arange(len(images)), "segments": count, "before": expit(before)}
        table = pd.DataFrame(columns | {"after": expit(after)})
        fall = table["before"] - table["after"]
        tables.append(table.assign(sufficiency=fall, accuracy_drop=turned.astype(float)))
    return pd.concat(tables, ignore_index=True)

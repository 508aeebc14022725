"""Is one detector better than another? Two models on the same test people, from the same training seeds.

Three things vary: which people are tested, which of their clips, and the seed of training. The bootstrap
draws all three; the permutation test exchanges the two models person by person.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from fwstudy.evaluation.metrics import CONFIDENCE, rank_auc
from fwstudy.evaluation.wins import weighted_auc, won_pairs

KEYS = ["group", "identity", "clip", "frame", "variant", "quality", "label"]
REPEATS = 1000
POWER = 0.8


@dataclass(frozen=True)
class Pair:
    """Scores of a model and of a reference on the same images.

    Args:
        labels: (N,) bool, forged.
        groups: (N,) int, of people who lend each other faces.
        clips: (N,) int, numbered over all groups.
        scores, reference: (N, S) float64, a column a training seed.
    """

    labels: np.ndarray
    groups: np.ndarray
    clips: np.ndarray
    scores: np.ndarray
    reference: np.ndarray


def pair(model: pd.DataFrame, reference: pd.DataFrame) -> Pair:
    """Lay two tables of predictions side by side, on the seeds of the first.

    Args:
        model, reference: columns `KEYS`, seed, score, and video where the faces are of videos.

    Raises:
        ValueError: the two were not scored on the same images, or not the same in every seed.
    """
    seeds = model["seed"].unique()
    keys = [*KEYS, *({"video"} & set(model))]  # one family may have forged a clip more than once
    wide = [
        table[table["seed"].isin(seeds)].pivot(index=keys, columns="seed", values="score")
        for table in (model, reference)
    ]
    if not wide[0].index.equals(wide[1].index) or any(
        table.isna().any(axis=None) for table in wide
    ):
        raise ValueError("not scored on the same images")
    images = wide[0].index.to_frame(index=False)
    return Pair(
        images["label"].to_numpy() == 1,
        pd.factorize(images["group"])[0],
        images.groupby(["group", "clip"]).ngroup().to_numpy(),
        *(table.to_numpy(np.float64) for table in wide),
    )


def auc_by_seed(chosen: Pair) -> np.ndarray:
    """AUC of the model and of the reference: (2, S)."""
    return np.stack(
        [rank_auc(chosen.labels, scores) for scores in (chosen.scores, chosen.reference)]
    )


def hierarchical_bootstrap(chosen: Pair, seed: int = 0, repeats: int = REPEATS) -> np.ndarray:
    """AUC of both models under resampling: groups of people, in each its clips, and training seeds.

    Efron and Tibshirani 1993, chapter 8; levels as in Davison and Hinkley 1997, section 3.8. All
    frames and forgeries of a drawn clip come along.

    Returns:
        (repeats, 2): model and reference, mean over the drawn seeds.
    """
    rng, num_clips = np.random.default_rng(seed), chosen.clips.max() + 1
    clips = [np.unique(chosen.clips[chosen.groups == g]) for g in range(chosen.groups.max() + 1)]
    both = np.concatenate([chosen.scores, chosen.reference], axis=1)
    num_seeds = chosen.scores.shape[1]
    weights, seeds = np.empty((repeats, num_clips)), np.empty((repeats, num_seeds), int)
    for number in range(repeats):
        groups = rng.integers(len(clips), size=len(clips))
        drawn = [rng.choice(clips[g], len(clips[g])) for g in groups]
        weights[number] = np.bincount(np.concatenate(drawn), minlength=num_clips)
        seeds[number] = rng.integers(num_seeds, size=num_seeds)
    found = [
        weighted_auc(*won_pairs(chosen.labels, scores, chosen.clips), weights) for scores in both.T
    ]
    by_seed = np.stack(found, axis=1).reshape(repeats, 2, num_seeds)
    return np.take_along_axis(by_seed, seeds[:, None], axis=2).mean(axis=2)


def minimum_detectable(draws: np.ndarray) -> float:
    """The difference that this study would find in four of five repetitions (two-sided, 5 %).

    (z_0.975 + z_0.8) · standard error (Cohen 1988), the error that of bootstrap draws of the difference.
    """
    quantiles = stats.norm.ppf([(1 + CONFIDENCE) / 2, POWER])
    return float(quantiles.sum() * np.std(draws, ddof=1))


def exchange_p_value(chosen: Pair, seed: int = 0, repeats: int = 4096) -> float:
    """Two-sided p-value of the difference in AUC: models are exchanged within whole groups of people.

    Good 2005, section 3.2. Scores are replaced by their ranks within model and seed, which leaves
    every AUC as it is and gives the two models one scale. All exchanges are made where there are no
    more than ``repeats`` (12 groups: 4096), else as many at random.
    """
    num_groups = chosen.groups.max() + 1
    model, reference = (
        stats.rankdata(scores, axis=0) for scores in (chosen.scores, chosen.reference)
    )
    labels, units = np.tile(chosen.labels, 2), np.r_[chosen.groups, chosen.groups + num_groups]
    counts = [won_pairs(labels, ranks, units) for ranks in np.concatenate([model, reference]).T]

    def difference(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
        own = np.moveaxis(first, axis, -1) < num_groups  # else: the models are exchanged there
        one, other = (np.concatenate(pair, axis=-1) for pair in ((own, ~own), (~own, own)))
        gaps = [weighted_auc(*each, one) - weighted_auc(*each, other) for each in counts]
        return np.mean(gaps, axis=0)

    result = stats.permutation_test(
        (np.arange(num_groups), np.arange(num_groups) + num_groups),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=repeats,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values corrected for their number (Holm 1979): (n,); NaN stays and is not counted."""
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # NaN comes last
    adjusted = np.full_like(p_values, np.nan)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    return adjusted.clip(max=1)

"""What do the concept axes mean? Measures of pooled activations on images whose concept is known.

Axis j stands for concept j. Does it answer to that concept (purity, rank), to that one only (impurity,
similarity), there in the face where the concept is (part share), and does the verdict need it
(permutation importance)?
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.base import ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler, normalize

from fwstudy.evaluation.metrics import REPEATS, Measure, group_interval, rank_auc
from fwstudy.interpretability.localization import MARGIN, part_regions, relevance_mass
from fwstudy.labels import FORGED_PARTS

NUM_FOLDS = 5
PROBE = LogisticRegression()
PROBE_REPEATS = 100  # of the bootstrap of scores of probes
THRESHOLDS = (np.arange(20) + 0.5) / 20  # of the niche: the middles of 20 equal parts of [0, 1]
PERMUTATIONS = 10

_CORRESPONDENCE = "ours, after patch-channel correspondence (Hua, Shi, Wang and Ge, IEEE TIP 2023)"
_IMPURITY = "Espinosa Zarlenga et al., AAAI 2023"
MEASURES: dict[str, Measure] = {
    "purity": Measure(
        "AUC with which axis j alone tells images of concept j from those of the other concepts",
        "Chen, Bei and Rudin, Nature Machine Intelligence 2020",
        "higher",
        0.5,
    ),
    "hit_at_1": Measure(
        "share of images of concept j on which axis j, standardised, is the highest of all C axes; "
        "chance 1/C",
        _CORRESPONDENCE,
        "higher",
    ),
    "hit_at_5": Measure(
        "share of images of concept j on which axis j, standardised, is among the highest five of "
        "all C axes; chance 5/C",
        _CORRESPONDENCE,
        "higher",
    ),
    "mean_rank": Measure(
        "mean place of axis j, standardised, among all C axes on images of concept j; 1 is the "
        "highest; chance (C + 1)/2",
        _CORRESPONDENCE,
        "lower",
    ),
    "similarity_ratio": Measure(
        "cosine similarity of images of different concepts over that within concepts, all axes, mean "
        "of the pairs of concepts; 0 where concepts share no axis, 1 where nothing tells them apart",
        "Chen, Bei and Rudin, Nature Machine Intelligence 2020",
        "lower",
        1.0,
    ),
    "ois": Measure(
        "oracle impurity score: distance between how well axis i tells label j and how well label i "
        "does; 0 where axes tell what their labels tell; axes that tell nothing: about 1/√k",
        _IMPURITY,
        "lower",
    ),
    "nis": Measure(
        "niche impurity score: AUC for label j of the axes hardly correlated with it, mean over the "
        "limit of correlation; 0.5 where they tell nothing, which useless axes reach too, and where "
        "concepts exclude each other even the truth does not: compare with nis_truth",
        _IMPURITY,
        "-",
        0.5,
    ),
    "nis_truth": Measure(
        "niche impurity score of the labels themselves: what follows from how labels occur together",
        "ours",
        "-",
    ),
    "permutation_importance": Measure(
        "fall of the detection AUC when the evidence of the axes is permuted over the images",
        "Breiman, Machine Learning 2001; Fisher, Rudin and Dominici, JMLR 2019",
        "-",
        0.0,
    ),
    "part_share": Measure(
        "share of the positive activation of axis j, on whole faces, inside part j with a margin",
        "ours, after relevance mass (Arras, Osman and Samek, Information Fusion 2022)",
        "higher",
    ),
    "part_area": Measure(
        "share of the image inside part j with a margin: the part share of a constant map",
        "ours",
        "-",
    ),
}


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("activations or evidence hold NaN or infinity")
    return values


def _checked(activations: np.ndarray, concepts: np.ndarray, num_axes: int | None = None) -> tuple:
    activations, concepts = _finite(activations), np.asarray(concepts)
    if activations.ndim != 2 or concepts.shape != activations.shape[:1]:
        raise ValueError(
            "activations (N, C) and concepts (N,) are needed, not "
            f"{activations.shape} and {concepts.shape}"
        )
    for concept in np.unique(concepts):
        if num_axes is not None and not 0 <= concept < num_axes:
            raise ValueError(f"concept {concept} has no axis: there are {num_axes}")
    return activations, concepts


def concept_purity(activations: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """How well axis j alone tells images of concept j from those of the others: one-vs-rest AUC.

    Chen, Bei and Rudin 2020, section "concept purity".

    Args:
        activations: (N, k), of the k concept axes.
        concepts: (N,) int, the concept of each image.

    Returns:
        (k,) AUC, 0.5 is chance; NaN for a concept without images.

    Raises:
        ValueError: shapes that do not match, activations not finite, a concept without axis.
    """
    activations, concepts = _checked(activations, concepts, np.shape(activations)[-1])
    numbers = range(activations.shape[1])
    return np.array([float(rank_auc(concepts == j, activations[:, j])) for j in numbers])


def channel_ranks(
    activations: np.ndarray, concepts: np.ndarray, axes: Sequence[int] | None = None
) -> np.ndarray:
    """On each image the rank of its concept's axis among all axes: patch-channel correspondence.

    Ours, after the idea of Hua et al. 2023 that each channel answers to one patch. Channels differ in
    scale, so each is standardised over the set before they are ranked; a constant channel is 0.

    Args:
        activations: (N, C), of all axes.
        concepts: (N,) int, the concept of each image.
        axes: the axis of each concept; by default axis j is that of concept j.

    Returns:
        (N,) float64 in [1, C], 1 is the highest activation, ties are averaged.

    Raises:
        ValueError: as in `concept_purity`.
    """
    axes = np.arange(np.shape(activations)[-1]) if axes is None else np.asarray(axes)
    activations, concepts = _checked(activations, concepts, len(axes))
    ranks = stats.rankdata(-StandardScaler().fit_transform(activations), axis=1)
    return ranks[np.arange(len(ranks)), axes[concepts]]


def correspondence(ranks: np.ndarray) -> dict[str, float]:
    """hit_at_1, hit_at_5 and mean_rank of ranks (N,) from `channel_ranks`; a tied first is no hit."""
    return {
        "hit_at_1": float(np.mean(ranks <= 1)),
        "hit_at_5": float(np.mean(ranks <= 5)),
        "mean_rank": float(np.mean(ranks)),
    }


def similarity_ratio(
    activations: np.ndarray, concepts: np.ndarray, copies: np.ndarray | None = None
) -> float:
    """Cosine similarity between images of different concepts over that within concepts.

    Chen, Bei and Rudin 2020: with d_ij the mean cosine similarity of images of concepts i and j, the
    mean over pairs of concepts of d_ij / sqrt(d_ii d_jj). Not centered, as in the paper. Sums of unit
    vectors give every d_ij, so no two images need be compared.

    Departures: an image is not compared with itself, so that concepts which nothing tells apart have
    ratio 1 however few their images; and the paper takes the layer's output, of mean zero, while
    activations here come after the activation function: what all have in common is similarity.

    Args:
        activations: (N, C), of all axes.
        concepts: (N,) int, the concept of each image.
        copies: (N,) int, how often each image was drawn in a bootstrap; once by default.

    Returns:
        ratio, lower is better, 0 where concepts share no axis; NaN with fewer than two concepts of two
        images, or where images of a concept are not alike (d_ii not above 0).

    Raises:
        ValueError: shapes that do not match, activations not finite.
    """
    activations, concepts = _checked(activations, concepts)
    unit = normalize(activations)
    copies = np.ones(len(concepts)) if copies is None else copies
    weights = copies * (np.unique(concepts)[:, None] == concepts)
    weights = weights[(weights > 0).sum(axis=1) > 1]
    if len(weights) < 2:
        return float("nan")
    sums = weights @ unit
    inner, number = sums @ sums.T, weights.sum(axis=1)
    with_itself = weights**2 @ (unit**2).sum(axis=1)
    within = (inner.diagonal() - with_itself) / (number**2 - (weights**2).sum(axis=1))
    if within.min() <= 0:
        return float("nan")
    ratio = inner / np.outer(number, number) / np.sqrt(np.outer(within, within))
    return float(ratio[np.triu_indices(len(ratio), 1)].mean())


def _with_folds(activations: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple:
    """Checked activations and labels, and the number of the fold in which each image is held out."""
    activations, labels = _finite(activations), np.asarray(labels)
    if activations.ndim != 2 or activations.shape != labels.shape or len(groups) != len(labels):
        raise ValueError(
            "activations (N, k), labels (N, k) and groups (N,) are needed, not "
            f"{activations.shape}, {labels.shape} and {np.shape(groups)}"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels other than 0 and 1")
    num_folds = min(NUM_FOLDS, len(np.unique(groups)))
    if num_folds < 2:
        raise ValueError("probes are tested on people they have not seen: two groups are needed")
    folds = np.empty(len(labels), int)
    splits = GroupKFold(num_folds).split(activations, groups=groups)
    for number, (training, held_out) in enumerate(splits):
        folds[held_out] = number
        share = labels[training].mean(axis=0)
        for concept in np.flatnonzero((share == 0) | (share == 1)):
            raise ValueError(
                f"concept {concept} is in none or in all of the images that train a probe; "
                "images with and without it are needed from several groups"
            )
    return activations, labels.astype(int), folds


def _held_out(probe, features: np.ndarray, label: np.ndarray, training: np.ndarray) -> np.ndarray:
    fitted = clone(probe).fit(features[training], label[training])
    return fitted.predict_proba(features[~training])[:, 1]


def _standardized(features: np.ndarray, folds: np.ndarray) -> Iterator[tuple]:
    """For each fold: which images train, and all features, standardised on those."""
    for number in np.unique(folds):
        training = folds != number
        yield training, StandardScaler().fit(features[training]).transform(features)


def _axis_scores(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, probe) -> np.ndarray:
    """Held-out score of axis i alone for label j: (N, i, j)."""
    scores = np.empty((*features.shape, labels.shape[1]))
    for training, scaled in _standardized(features, folds):
        for i, j in np.ndindex(scores.shape[1:]):
            scores[~training, i, j] = _held_out(probe, scaled[:, [i]], labels[:, j], training)
    return scores


def _niche_scores(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, probe) -> np.ndarray:
    """Held-out score for label j of the axes outside its niche, for each threshold: (N, β, j)."""
    scores = np.empty((len(features), len(THRESHOLDS), labels.shape[1]))
    for training, scaled in _standardized(features, folds):
        truth = StandardScaler().fit_transform(labels[training])
        correlation = np.abs(truth.T @ scaled[training]) / training.sum()
        for j, label in enumerate(labels.T):
            outside = correlation[j] <= THRESHOLDS[:, None]
            distinct, which = np.unique(outside, axis=0, return_inverse=True)
            found = [_held_out(probe, scaled * mask, label, training) for mask in distinct]
            scores[~training, :, j] = np.stack(found, axis=1)[:, which.ravel()]
    return scores


def _held_out_auc(labels: np.ndarray, scores: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """AUC of scores (N, m, k) for labels (N, k), mean over folds: (m, k).

    Not of all folds at once: their probes differ in level, which would count as an error in rank.
    """
    values = [
        [rank_auc(labels[held, j] == 1, scores[held, :, j]) for j in range(labels.shape[1])]
        for held in (folds == number for number in np.unique(folds))
    ]
    return np.nanmean(values, axis=0).T


def _impurity(
    labels: np.ndarray, scores: np.ndarray, truth: np.ndarray, folds: np.ndarray
) -> float:
    gap = _held_out_auc(labels, scores, folds) - _held_out_auc(labels, truth, folds)
    return float(2 * np.linalg.norm(gap) / labels.shape[1])


def oracle_impurity_score(
    activations: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    probe: ClassifierMixin = PROBE,
) -> float:
    """How far what single axes tell of all labels is from what the labels tell of each other (OIS).

    Espinosa Zarlenga et al. 2023: 2 ‖Π(axes) − Π(labels)‖_F / k, where Π_ij is the AUC, on held-out
    images, of a probe that is given axis (or label) i and predicts label j.

    Departures: a logistic regression instead of a perceptron with hidden units, so an axis tells of a
    label only by rising or falling with it; folds of whole groups of people instead of one random
    split. Chance deviations of the AUC add up: at 100 images a concept, pure axes get about 0.06.

    Args:
        activations: (N, k), of the concept axes.
        labels: (N, k) 0 or 1, whether image n shows concept j; it may show several, one or none.
        groups: (N,) of people; none is in training and test at once.
        probe: scikit-learn classifier with ``predict_proba``, given standardised axes.

    Returns:
        score from 0 (pure) to about 1 (every axis tells every label).

    Raises:
        ValueError: shapes that do not match, activations not finite, labels other than 0 and 1, fewer
            than two groups, a concept in none or all of the images that train a probe.
    """
    activations, labels, folds = _with_folds(activations, labels, groups)
    scores = _axis_scores(activations, labels, folds, probe)
    return _impurity(labels, scores, _axis_scores(labels, labels, folds, probe), folds)


def niche_impurity_score(
    activations: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    probe: ClassifierMixin = PROBE,
) -> float:
    """How well labels are told by the axes that are *not* theirs (NIS).

    Espinosa Zarlenga et al. 2023: the niche of label j at threshold β are the axes whose absolute
    correlation with it exceeds β. The AUC, on held-out images, with which the axes outside the niche
    predict label j, mean over labels and over β in [0, 1], is the score.

    It is 0.5 where they tell nothing, but useless axes get that too: low is no merit in itself. Where
    concepts exclude each other, the absence of all others is presence, and the labels themselves get
    0.9 (six concepts, one an image): compare with that.

    Departures: probes and folds as in `oracle_impurity_score`. The paper trains one probe on all axes
    and sets the niche to zero; the weights left then merely correct for what is no longer there, and
    with leaking axes the AUC falls *below* 0.5 (tested), so here a probe is trained on the axes
    outside the niche. β takes the middles of 20 equal parts of [0, 1]; the authors' code ends at
    0.95, where chance is 0.475.

    Args, Raises: as in `oracle_impurity_score`.

    Returns:
        score in [0, 1].
    """
    activations, labels, folds = _with_folds(activations, labels, groups)
    scores = _niche_scores(activations, labels, folds, probe)
    return float(_held_out_auc(labels, scores, folds).mean())


def _permuted(
    evidence: np.ndarray, labels: np.ndarray, axes: Sequence[int], repeats: int, seed: int
) -> np.ndarray:
    """Logits less bias, (N, 1 + repeats): as they are, then with the axes' evidence permuted."""
    evidence = _finite(evidence)
    if evidence.ndim != 2 or labels.shape != evidence.shape[:1]:
        raise ValueError(
            f"evidence (N, C) and labels (N,) are needed, not {evidence.shape} and {labels.shape}"
        )
    unknown = [axis for axis in axes if not 0 <= axis < evidence.shape[1]]
    if unknown:
        raise ValueError(f"axes {unknown} are not among the {evidence.shape[1]} of the evidence")
    rng = np.random.default_rng(seed)
    own = evidence[:, list(axes)].sum(axis=1)
    rest = np.delete(evidence, list(axes), axis=1).sum(axis=1)
    return np.stack([rest + own, *(rest + rng.permutation(own) for _ in range(repeats))], axis=1)


def _fall(labels: np.ndarray, scores: np.ndarray) -> float:
    auc = rank_auc(labels == 1, scores)
    return float(auc[0] - auc[1:].mean())


def permutation_importance(
    evidence: np.ndarray,
    labels: np.ndarray,
    axes: Sequence[int],
    repeats: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """Fall of the detection AUC when the evidence of some axes is permuted over the images.

    Breiman 2001; Fisher, Rudin and Dominici 2019 (there a ratio of losses). For a linear classifier
    this is exact: the logit with permuted activations is the sum of permuted and other evidence.

    Args:
        evidence: (N, C), weight times pooled activation (`fwstudy.interpretability.decomposition.decompose`).
        labels: (N,) 0 for pristine, 1 for forged.
        axes: permuted together, by one permutation; at most C indices.
        repeats: permutations to average over.

    Returns:
        fall of the AUC: 0 where the axes are not used, AUC − 0.5 where nothing else is, below 0 where
        they do harm; NaN if one class is missing.

    Raises:
        ValueError: shapes that do not match, evidence not finite, an axis that it does not have.
    """
    labels = np.asarray(labels)
    return _fall(labels, _permuted(evidence, labels, axes, repeats, seed))


def part_share(
    maps: np.ndarray,
    parts: np.ndarray,
    names: Sequence[str] = tuple(FORGED_PARTS),
    margin: float = MARGIN,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the positive activation of axis j that lies inside part j, on whole faces.

    Ours. The regions are those of `fwstudy.interpretability.localization.part_regions`: wider than the part, since a
    forgery is blended over its edge and the maps are coarse.

    Args:
        maps: (N, k, H, W), activations of the concept axes at input resolution.
        parts: (N, H, W) uint8, indices into `fwstudy.labels.PARTS`.
        names: (k,) the part of each axis.
        margin: by how much the region exceeds the part, as a share of W.

    Returns:
        two arrays (N, k) in [0, 1]: the share (0 where no activation is positive), and the region's
        share of the image, which is what a constant map gets; NaN where the part is not visible.

    Raises:
        ValueError: shapes that do not match.
    """
    expected = (len(parts), len(names), *parts.shape[1:])
    if maps.shape != expected:
        raise ValueError(f"maps have shape {maps.shape}; parts and names call for {expected}")
    regions = part_regions(parts, margin)[:, [list(FORGED_PARTS).index(name) for name in names]]
    shares = np.stack(
        [relevance_mass(maps[:, j], regions[:, j]) for j in range(len(names))], axis=1
    )
    areas = regions.mean(axis=(2, 3))
    return shares, np.where(areas > 0, areas, np.nan)


def _measured(
    statistic: Callable[[np.ndarray], float], groups: np.ndarray, seed: int, repeats: int
) -> tuple[float, float, float]:
    """A statistic of row numbers: its value, and its interval over groups of people."""
    table = pd.DataFrame({"group": np.asarray(groups), "row": np.arange(len(groups))})
    interval = group_interval(table, lambda part: statistic(part["row"].to_numpy()), seed, repeats)
    return float(statistic(table["row"].to_numpy())), *interval


def importance_table(
    evidence: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    repeats: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """`permutation_importance` of each concept axis, of all named and of all residual ones.

    The bootstrap draws groups of people from images permuted once.

    Args:
        evidence, labels, repeats: as in `permutation_importance`.
        groups: (N,) of people.
        names: (k,) of the first k axes.

    Returns:
        columns axes (a name, ``all named`` or ``all residual``), permutation_importance and its _low
        and _high.
    """
    labels, num_concept_axes = np.asarray(labels), len(names)
    sets = {
        **{name: [number] for number, name in enumerate(names)},
        "all named": list(range(num_concept_axes)),
        "all residual": list(range(num_concept_axes, np.shape(evidence)[1])),
    }
    rows = []
    for name, axes in sets.items():
        scores = _permuted(evidence, labels, axes, repeats, seed)
        values = _measured(
            lambda rows, scores=scores: _fall(labels[rows], scores[rows]), groups, seed, REPEATS
        )
        rows.append((name, *values))
    column = "permutation_importance"
    return pd.DataFrame(rows, columns=["axes", column, f"{column}_low", f"{column}_high"])


def concept_summary(
    table: pd.DataFrame,
    num_concepts: int,
    axes: Sequence[int] | None = None,
    seed: int = 0,
    repeats: int = REPEATS,
    probe_repeats: int = PROBE_REPEATS,
) -> pd.DataFrame:
    """All scalar measures of the axes of one model, each with its interval over groups of people.

    Standardisation and probes are those of the whole table, and the bootstrap draws from their ranks
    and held-out scores. Noise adds to OIS, so its interval leans upwards and may exclude the value.

    Args:
        table: columns 0 … C-1, ``concept`` and ``group`` (`fwstudy.interpretability.measures.concept_activations`).
        num_concepts: k; the table's concepts are 0 … k-1.
        axes: the axis of each concept; the first k by default.
        repeats, probe_repeats: of the bootstrap; the latter for OIS and NIS.

    Returns:
        columns measure (a key of `MEASURES`), value, low, high and chance (for OIS: of axes that tell
        nothing; NaN where there is none).
    """
    values = table.drop(columns=["concept", "group"]).to_numpy(np.float64)
    concepts, groups = table["concept"].to_numpy(), table["group"].to_numpy()
    axes = list(range(num_concepts)) if axes is None else list(axes)
    ranks = channel_ranks(values, concepts, axes)
    named, labels, folds = _with_folds(values[:, axes], np.eye(num_concepts)[concepts], groups)
    single, single_truth, niche, niche_truth = (
        score(features, labels, folds, PROBE)
        for score in (_axis_scores, _niche_scores)
        for features in (named, labels)
    )

    def impurity(rows: np.ndarray) -> float:
        return _impurity(labels[rows], single[rows], single_truth[rows], folds[rows])

    def leakage(rows: np.ndarray, scores: np.ndarray) -> float:
        return float(_held_out_auc(labels[rows], scores[rows], folds[rows]).mean())

    places = ("hit_at_1", "hit_at_5", "mean_rank")
    quick: dict[str, Callable[[np.ndarray], float]] = {
        "purity": lambda rows: np.nanmean(concept_purity(named[rows], concepts[rows])),
        **{name: lambda rows, name=name: correspondence(ranks[rows])[name] for name in places},
        "similarity_ratio": lambda rows: similarity_ratio(
            values, concepts, np.bincount(rows, minlength=len(values))
        ),
    }
    probed: dict[str, Callable[[np.ndarray], float]] = {
        "ois": impurity,
        "nis": lambda rows: leakage(rows, niche),
        "nis_truth": lambda rows: leakage(rows, niche_truth),
    }
    num_axes = values.shape[1]
    chance = {
        **{name: measure.chance for name, measure in MEASURES.items()},
        "hit_at_1": 1 / num_axes,
        "hit_at_5": min(5 / num_axes, 1.0),
        "mean_rank": (num_axes + 1) / 2,
        "ois": _impurity(labels, np.zeros_like(single), single_truth, folds),
    }
    rows = [
        (name, *_measured(statistic, groups, seed, number), chance[name])
        for statistics, number in ((quick, repeats), (probed, probe_repeats))
        for name, statistic in statistics.items()
    ]
    result = pd.DataFrame(rows, columns=["measure", "value", "low", "high", "chance"])
    return result.astype({"chance": float})

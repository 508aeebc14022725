"""What do the concept axes mean? Measures of pooled activations on images whose concept is known.

Axis j stands for concept j. Does it respond to that concept (purity, rank) and to no other
(similarity), at the place of the concept in the face (part share), and does the verdict need it
(permutation importance)?
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.preprocessing import StandardScaler, normalize

from fwstudy.evaluation.metrics import REPEATS, Measure, mean_auc, mean_interval, measured, rank_auc
from fwstudy.interpretability.localization import MARGIN, part_regions, relevance_mass
from fwstudy.labels import FORGED_PARTS

PERMUTATIONS = 10

_CORRESPONDENCE = "ours, after patch-channel correspondence (Hua, Shi, Wang and Ge, IEEE TIP 2023)"
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
    return rank_auc(concepts[:, None] == np.arange(activations.shape[1]), activations)


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


def measured_rows(
    statistic: Callable[[np.ndarray], float],
    groups: np.ndarray,
    seed: int = 0,
    repeats: int = REPEATS,
) -> tuple[float, float, float]:
    """A statistic of row numbers, and its `group_interval`, where groups of people are (N,)."""
    table = pd.DataFrame({"group": groups, "row": np.arange(len(groups))})
    return measured(table, lambda part: statistic(np.asarray(part["row"])), seed, repeats)


def purity_interval(
    own: np.ndarray, concepts: np.ndarray, groups: np.ndarray, seed: int = 0, repeats: int = REPEATS
) -> tuple[float, float, float]:
    """Mean of `concept_purity` over concepts with its `group_interval`, from the pairs won."""
    shown = concepts[:, None] == np.arange(own.shape[1])
    return mean_auc(shown, own, groups, seed, repeats)


def importance_table(
    evidence: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    repeats: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Fall of the detection AUC when the evidence of some axes is permuted over the images.

    Of each concept axis, of all of them and of all residual ones, permuted together. Breiman 2001;
    Fisher, Rudin and Dominici 2019 (there a ratio of losses). For a linear classifier this is exact: the
    logit with permuted activations is the sum of permuted and other evidence. The bootstrap draws
    groups of people from images permuted once.

    Args:
        evidence: (N, C), weight times pooled activation (`fwstudy.interpretability.decomposition.decompose`).
        labels: (N,) 0 for pristine, 1 for forged.
        groups: (N,) of people.
        repeats: permutations to average over.
        names: (k,) of the first k axes.

    Returns:
        a name, ``all concept axes`` or ``all residual axes`` to value, low and high.
    """
    labels = np.asarray(labels)
    sets = {name: [number] for number, name in enumerate(names)}
    sets["all concept axes"] = list(range(len(names)))
    sets["all residual axes"] = list(range(len(names), np.shape(evidence)[1]))
    scores = {n: _permuted(evidence, labels, axes, repeats, seed) for n, axes in sets.items()}
    return {
        name: measured_rows(
            lambda rows, found=found: _fall(labels[rows], found[rows]), groups, seed
        )
        for name, found in scores.items()
    }


def concept_summary(
    table: pd.DataFrame, axes: Sequence[int], seed: int = 0, repeats: int = REPEATS
) -> dict[str, tuple[float, float, float]]:
    """All scalar measures of the axes of one model, each with its interval over groups of people.

    Standardization is that of the whole table, and the bootstrap draws from its ranks.

    Args:
        table: columns 0 … C-1, ``concept`` and ``group``, from
            `fwstudy.interpretability.model.concept_activations`.
        axes: (k,) the axis of each concept; the table's concepts are 0 … k-1.

    Returns:
        a key of `MEASURES` to value, low and high.
    """
    values = table.drop(columns=["concept", "group"]).to_numpy(np.float64)
    concepts, own = table["concept"].to_numpy(), values[:, list(axes)]
    ranks = channel_ranks(values, concepts, axes)
    groups = table["group"].to_numpy()
    means = {"hit_at_1": ranks <= 1, "hit_at_5": ranks <= 5, "mean_rank": ranks}
    return {
        "purity": purity_interval(own, concepts, groups, seed, repeats),
        **{
            name: (float(found.mean()), *mean_interval(1.0 * found, groups, seed, repeats))
            for name, found in means.items()
        },
        "similarity_ratio": measured_rows(
            lambda rows: similarity_ratio(
                values, concepts, np.bincount(rows, minlength=len(values))
            ),
            groups,
            seed,
            repeats,
        ),
    }

"""What is measured of one detector's explanations."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from fwstudy.concepts import BATCH_SIZE, CONCEPT_SETS, Concept
from fwstudy.crops import CropSet, to_tensor
from fwstudy.evidence import (
    capture,
    centre_prior,
    decompose,
    evidence_maps,
    grad_cam,
    mean_mask_prior,
    named_share,
)
from fwstudy.figures import overlay
from fwstudy.metrics import concept_purity, group_interval, rank_auc, relevance_mass
from fwstudy.models import last_norm
from fwstudy.params import Params, Whitening
from fwstudy.solvers import as_rows, covariance
from fwstudy.study import Detector
from fwstudy.whitening import FeatureWhitening, whiteness

WHITENESS_IMAGES = 512
PURITY_IMAGES = 96  # per concept


def device_of(detector: Detector) -> torch.device:
    """Where the detector's weights lie."""
    return next(detector.model.parameters()).device


@torch.inference_mode()
def normalized_features(
    detector: Detector, crops: CropSet, count: int = WHITENESS_IMAGES
) -> torch.Tensor:
    """What the layer makes of its input before its affine map and activation function.

    For batch normalisation: standardised channels. For feature whitening: whitened, rotated axes.

    Args:
        count: at most this many images, evenly spaced.

    Returns:
        (n, C, H, W) float32.
    """
    rows = crops.manifest["row"].to_numpy()
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    found = []
    layer = detector.layer
    handle = layer.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0].float()))
    try:
        for batch in np.array_split(rows, max(1, len(rows) // BATCH_SIZE)):
            detector.model.eval()(to_tensor(crops.images[batch], device_of(detector)))
    finally:
        handle.remove()
    features = torch.cat(found)
    if hasattr(layer, "rotation"):
        return layer.normalize(features)
    scale = (layer.running_var + layer.eps).rsqrt()
    return (features - layer.running_mean[:, None, None]) * scale[:, None, None]


@torch.no_grad()
def subspace_whiteness(layer: FeatureWhitening, features: torch.Tensor) -> dict[str, float]:
    """`whiteness` of whitened features inside the space that the layer's input fills.

    A layer that follows a 1 x 1 convolution from r channels to C > r has an input of rank r, and C
    axes in r dimensions are correlated whatever the rotation. Seen along the principal axes of the
    running covariance, which unseen images had no part in, they need not be.

    Args:
        layer: in evaluation mode.
        features: (N, C, H, W), from `normalized_features`.

    Returns:
        the keys of `whiteness`; rank; and least_correlation, the smallest root mean square correlation
        of C axes in that many dimensions (Welch, IEEE Transactions on Information Theory 1974).
    """
    rows = as_rows(features).double()
    rank = int(torch.linalg.matrix_rank(covariance(rows)[1][0], hermitian=True, rtol=1e-6))
    values, vectors = torch.linalg.eigh(layer.running_covariance.double())
    principal = torch.block_diag(*vectors)[:, values.flatten().argsort()[-rank:]]
    channels = layer.num_features
    bound = ((channels - rank) / (rank * max(channels - 1, 1))) ** 0.5
    inner = rows @ layer.rotation.double() @ principal
    return {**whiteness(inner), "rank": rank, "least_correlation": bound}


def channel_correlation(features: torch.Tensor) -> np.ndarray:
    """Correlation of every two channels over images and positions: (N, C, H, W) -> (C, C)."""
    return torch.corrcoef(features.movedim(1, 0).flatten(1)).numpy(force=True)


@torch.inference_mode()
def concept_activations(detector: Detector, concepts: list[Concept]) -> pd.DataFrame:
    """Pooled activation of every axis on every concept image.

    Returns:
        columns 0 … C-1, and ``concept`` (index) and ``group``.
    """
    detector.model.eval()
    tables = []
    for number, concept in enumerate(concepts):
        maps = [
            capture(detector.model, detector.layer, batch.to(device_of(detector)))[0].mean(
                dim=(2, 3)
            )
            for batch in concept.shown.split(BATCH_SIZE)
        ]
        table = pd.DataFrame(torch.cat(maps).numpy(force=True))
        tables.append(table.assign(concept=number, group=concept.groups))
    return pd.concat(tables, ignore_index=True)


def best_axes(activations: pd.DataFrame, num_concepts: int) -> list[int]:
    """For each concept the axis that tells it from the others best: for models without names."""
    values = activations.drop(columns=["concept", "group"]).to_numpy()
    concepts = activations["concept"].to_numpy()
    return [int(rank_auc(concepts == j, values).argmax()) for j in range(num_concepts)]


def purity_table(
    detector: Detector, settings: Whitening, training: CropSet, test: CropSet, seed: int
) -> pd.DataFrame:
    """Purity of the named axes, and of the best axis there is (chosen on training identities).

    Returns:
        a row for each concept and one for their mean: concept, purity, purity_low, purity_high,
        best, best_low, best_high, best_axis, num_images.
    """
    make = CONCEPT_SETS[settings.concepts]
    concepts = make(test, PURITY_IMAGES, seed, settings.grid_size)
    learned = concept_activations(detector, make(training, 64, seed, settings.grid_size))
    chosen = best_axes(learned, len(concepts))
    table = concept_activations(detector, concepts)
    axes = {"purity": list(range(len(concepts))), "best": chosen}
    values: dict[str, list] = {"concept": [concept.name for concept in concepts] + ["mean"]}
    for name, columns in axes.items():

        def statistic(part: pd.DataFrame, columns=columns) -> np.ndarray:
            return concept_purity(part[columns].to_numpy(), part["concept"].to_numpy())

        whole = statistic(table)
        low, high = group_interval(table, lambda part: np.nanmean(statistic(part)))
        unknown = [np.nan] * len(concepts)
        values |= {
            name: [*whole, np.nanmean(whole)],
            f"{name}_low": [*unknown, low],
            f"{name}_high": [*unknown, high],
        }
    values["best_axis"] = [*chosen, None]
    values["num_images"] = [*table["concept"].value_counts(sort=False), len(table)]
    return pd.DataFrame(values)


def localisation_table(
    baseline: Detector, whitened: Detector, num_named: int, training: CropSet, test: CropSet
) -> pd.DataFrame:
    """Relevance mass on the changed pixels, image by image, for each map and for two priors.

    The priors see no image: a map is worth something only where it beats both.

    Args:
        test: forged whole-face crops.

    Returns:
        columns group, variant, method, mass.
    """
    size = test.images.shape[1]
    priors = {
        "centre prior": centre_prior(size),
        "mean-mask prior": mean_mask_prior(training.select(kind="whole")),
    }
    methods: dict[str, Callable[[torch.Tensor], np.ndarray]] = {
        "Grad-CAM, BatchNorm": lambda images: grad_cam(baseline.model, baseline.layer, images),
        "Grad-CAM, whitened": lambda images: grad_cam(whitened.model, whitened.layer, images),
        "named axes, whitened": lambda images: evidence_maps(
            whitened.model, whitened.layer, images, slice(0, num_named)
        ),
        **{
            name: lambda images, prior=prior: np.broadcast_to(prior, (len(images), size, size))
            for name, prior in priors.items()
        },
    }
    rows = test.manifest["row"].to_numpy()
    batches = np.array_split(rows, max(1, len(rows) // BATCH_SIZE))
    tables = []
    for batch in batches:
        images, masks = to_tensor(test.images[batch], device_of(whitened)), test.changed[batch]
        about = test.manifest.set_index("row").loc[batch, ["group", "variant"]]
        for name, explain in methods.items():
            mass = relevance_mass(explain(images), masks)
            tables.append(about.assign(method=name, mass=mass))
    return pd.concat(tables, ignore_index=True)


def summarize(table: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """Mean of a column with its interval over groups of people, for each key.

    Returns:
        the columns of ``by``, then value, value_low, value_high, num_images, num_undefined.
    """
    rows = []
    for key, part in table.groupby(by, sort=False):
        low, high = group_interval(part, lambda drawn: drawn[value].mean())
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                value: part[value].mean(),
                f"{value}_low": low,
                f"{value}_high": high,
                "num_images": len(part),
                "num_undefined": int(part[value].isna().sum()),
            }
        )
    return pd.DataFrame(rows)


def explanation_metrics(
    detector: Detector, settings: Whitening, params: Params, crops: CropSet
) -> dict:
    """Purity, named share and whiteness of one variant, on test people at the study's quality.

    ``purity`` and ``named_share`` are missing (None) where axes were given no names;
    ``named_share`` also where the layer does not feed the pooling.
    """
    crops = crops.select(quality=params.preprocess.quality)
    training, test = crops.select(split="train"), crops.select(split="test")
    purity = purity_table(detector, settings, training, test, params.train.seed)
    mean = purity.set_index("concept").loc["mean"]
    named = settings.norm != "batch" and settings.rotation == "aligned"
    whole = test.select(kind="whole")
    white = whiteness(normalized_features(detector, whole))
    is_last = detector.layer_name == last_norm(detector.model)
    share = None
    if named and is_last:
        share = named_share(decompose(detector.model, detector.layer, whole), len(purity) - 1)
    return {
        **{
            name: float(mean[name]) if named else None
            for name in ("purity", "purity_low", "purity_high")
        },
        "best_purity": float(mean["best"]),
        "named_share": share,
        **white,
    }


def panel_rows(
    baseline: Detector, whitened: Detector, num_named: int, crops: CropSet, chosen: pd.DataFrame
) -> list[dict]:
    """What `fwstudy.figures.evidence_panel` shows of the chosen rows of a manifest."""
    images = to_tensor(crops.images[chosen["row"]], device_of(whitened))
    maps = {
        "Grad-CAM, BatchNorm": grad_cam(baseline.model, baseline.layer, images),
        "evidence, all axes": evidence_maps(whitened.model, whitened.layer, images),
        "evidence, named axes": evidence_maps(
            whitened.model, whitened.layer, images, slice(0, num_named)
        ),
    }
    limits = {name: np.quantile(np.abs(values), 0.99) for name, values in maps.items()}
    wanted = crops.select(row=chosen["row"].tolist())
    evidence = decompose(whitened.model, whitened.layer, wanted).evidence[:, :num_named]
    order = {row: number for number, row in enumerate(wanted.manifest["row"])}
    return [
        {
            "label": f"{entry['variant']}",
            "image": crops.images[entry["row"]],
            "truth": crops.changed[entry["row"]],
            "evidence": evidence[order[entry["row"]]],
            **{
                name: overlay(crops.images[entry["row"]], values[number], limits[name])
                for name, values in maps.items()
            },
        }
        for number, entry in enumerate(chosen.to_dict("records"))
    ]

"""Feature whitening: a normalisation layer whose channels are uncorrelated and can carry concepts.

Everything that a user of the layer needs::

    from fwstudy.whitening import Concept, FeatureWhitening, align, fold, replace_norm
    from fwstudy.whitening import update_statistics

    layer = replace_norm(model, "bn4", FeatureWhitening.from_batch_norm)  # any BatchNorm2d
    update_statistics(model, layer, loader)                               # whiten by real data
    align(model, layer, [Concept("glasses", with_glasses, without_glasses)])
    ...                                    # fine-tune: the classifier reads new axes
    deployed = fold(model, images)         # standard layers only, the same logits

Method. Batch normalisation centers and scales each channel. Whitening also removes the correlation
between channels. The output of the layer is::

    y = act(weight * R W (x - mean) + bias)        W covariance W^T = I,  R R^T = I

1. W is the inverse root of the covariance of the batch in training and of the running covariance in
   evaluation (`solvers`). It may be held constant for some steps (``whiten_every``), which is faster.
2. White features stay white under every rotation R. So the first k rows of R may be chosen freely, one
   for each of k concepts: R maximises the sum of their mean activations. One thin SVD of the concepts'
   mean features gives the global optimum, and the other axes move as little as possible (`align`).
3. In evaluation the layer is an affine map. It goes into the convolution before it (`fold`).

Where several processes train one model, statistics are those of all of them (`sync`). The module
`iternorm` has the layer as Hua et al. 2021 run it, for comparison. Only PyTorch and NumPy are imported;
timm is, when `create_model` is called. Sources and departures from them are named in each module.
"""

from fwstudy.whitening.concepts import Alignment, Concept, align, whitened_means
from fwstudy.whitening.folding import fold
from fwstudy.whitening.iternorm import IterNormWhitening
from fwstudy.whitening.layer import FeatureWhitening
from fwstudy.whitening.rotation import align_mean, random_rotation
from fwstudy.whitening.statistics import update_statistics, whiteness, whiteness_by_mode
from fwstudy.whitening.surgery import (
    create_model,
    find_classifier,
    last_norm,
    list_norms,
    replace_norm,
)

__all__ = [
    "Alignment",
    "Concept",
    "FeatureWhitening",
    "IterNormWhitening",
    "align",
    "align_mean",
    "create_model",
    "find_classifier",
    "fold",
    "last_norm",
    "list_norms",
    "random_rotation",
    "replace_norm",
    "update_statistics",
    "whitened_means",
    "whiteness",
    "whiteness_by_mode",
]

"""A mean face fitted to five points: where landmarks come from if no mesh is at hand.

The study did so before it read a face mesh; `benchmarks/detection.py` compares the two. Brows, lips and jaw
follow the mean face, so that an open mouth or a raised brow is missed.
"""

import numpy as np
from scipy.interpolate import RBFInterpolator

from fwstudy.faces.forging.warp import interocular, similarity, transform
from fwstudy.faces.photos import five_points

REACH = 0.8  # how far a landmark's displacement is felt, in interocular distances

TEMPLATE = np.array(
    [
        [-1.092, 0.033], [-1.017, 0.378], [-0.978, 0.663], [-0.891, 0.935],
        [-0.809, 1.229], [-0.700, 1.465], [-0.510, 1.665], [-0.270, 1.757],
        [0.000, 1.776], [0.270, 1.757], [0.510, 1.665], [0.700, 1.465],
        [0.809, 1.229], [0.891, 0.935], [0.978, 0.663], [1.017, 0.378],
        [1.092, 0.033], [-0.871, -0.248], [-0.741, -0.328], [-0.548, -0.350],
        [-0.341, -0.314], [-0.210, -0.255], [0.210, -0.255], [0.341, -0.314],
        [0.548, -0.350], [0.741, -0.328], [0.871, -0.248], [0.000, -0.015],
        [0.000, 0.230], [0.000, 0.406], [0.000, 0.645], [-0.217, 0.705],
        [-0.117, 0.738], [0.000, 0.786], [0.117, 0.738], [0.217, 0.705],
        [-0.693, -0.011], [-0.580, -0.076], [-0.426, -0.075], [-0.281, 0.022],
        [-0.435, 0.071], [-0.585, 0.070], [0.281, 0.022], [0.426, -0.075],
        [0.580, -0.076], [0.693, -0.011], [0.585, 0.070], [0.435, 0.071],
        [-0.384, 1.083], [-0.253, 1.051], [-0.114, 1.016], [0.000, 1.007],
        [0.114, 1.016], [0.253, 1.051], [0.384, 1.083], [0.258, 1.242],
        [0.159, 1.296], [0.000, 1.316], [-0.159, 1.296], [-0.258, 1.242],
        [-0.386, 1.068], [-0.178, 1.060], [0.000, 1.073], [0.178, 1.060],
        [0.386, 1.068], [0.178, 1.095], [0.000, 1.106], [-0.178, 1.095],
    ]
)  # fmt: skip
"""(68, 2) mean frontal face: origin between the eyes, unit the interocular distance, y downwards.

The landmarks of 16 rendered heads, averaged and made symmetric; their jaws, wider than those of the
photographs it was tried on, were narrowed by 6 to 11 %.
"""


def landmarks_from_points(points: np.ndarray) -> np.ndarray:
    """Fit the mean face to five points: a similarity, then displacements that fade with distance.

    The displacements are interpolated by Gaussian functions, so that brows and jaw, beyond the five
    points, mostly follow the similarity; a thin-plate spline would widen the jaw of who smiles.

    Args:
        points: (5, 2) pixel coordinates, in the order of `Face`.

    Returns:
        (68, 2) float32, pixel coordinates in the iBUG-68 order.
    """
    anchors = five_points(TEMPLATE)
    matrix = similarity(anchors, points)
    placed, goals = transform(TEMPLATE, matrix), np.asarray(points, np.float64)
    reached = transform(anchors, matrix)
    displacement = RBFInterpolator(
        reached,
        goals - reached,
        kernel="gaussian",
        epsilon=1 / (REACH * interocular(placed)),
        degree=-1,
    )
    return (placed + displacement(placed)).astype(np.float32)

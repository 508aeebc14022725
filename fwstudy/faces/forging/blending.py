"""Make a foreign patch look at home: color, sharpness, camera noise, seams. Pure functions.

Sources: Reinhard et al., "Color Transfer between Images", 2001 (statistics are matched here in
CIELAB, inside a mask, and not in lαβ over whole images); Pérez et al., "Poisson Image Editing",
2003, as in OpenCV's ``seamlessClone``.
"""

import cv2
import numpy as np

STD_RATIO = (0.8, 1.25)  # limits of the change of contrast in a color transfer
SHARPNESS = np.linspace(-0.8, 1.2, 9)  # amounts of unsharp masking (negative: blur) to choose from
GRAIN_BLUR = 0.8  # px; noise is a sum of white noise and of white noise blurred by this
BANDS = (0.6, 1.2)  # px; the high-pass filters that tell the two apart
MIN_PIXELS = 30  # fewer give no statistics


def composite(
    forged: np.ndarray, image: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Blend, leaving the image exactly as it was wherever the weight is 0.

    Args:
        forged: (H, W, 3), any number type, 0..255.
        image: (H, W, 3) uint8.
        weight: (H, W) float, 0..1; rounded to steps of 1/255, as it will be stored.

    Returns:
        The blend (H, W, 3) uint8, and the rounded weight (H, W) float32.
    """
    weight = (np.round(np.clip(weight, 0, 1) * 255) / 255).astype(np.float32)
    base = image.astype(np.float32)
    mixed = base + weight[..., None] * (forged.astype(np.float32) - base)
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8), weight


def transfer_color(
    forged: np.ndarray, image: np.ndarray, forged_mask: np.ndarray, image_mask: np.ndarray
) -> np.ndarray:
    """Give `forged` the mean and standard deviation of `image` in CIELAB.

    Args:
        forged: (H, W, 3) uint8 or float32 0..255, RGB.
        image: the same shape, uint8.
        forged_mask: (H, W) bool, where the statistics of `forged` are taken.
        image_mask: (H, W) bool, where those of `image` are taken.

    Returns:
        (H, W, 3) float32, 0..255; `forged` unchanged if a mask has fewer than `MIN_PIXELS`. Unlike
        in the original, the change of hue fades towards black, so that pupils and open mouths
        keep their color.
    """
    forged = forged.astype(np.float32)
    if min(forged_mask.sum(), image_mask.sum()) < MIN_PIXELS:
        return forged
    source, wanted = (
        cv2.cvtColor(a.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for a in (forged, image)
    )
    there, here = source[forged_mask], wanted[image_mask]
    ratio = np.clip(here.std(0) / (there.std(0) + 1e-3), *STD_RATIO)
    ratio[0] = min(ratio[0], here[:, 0].mean() / (there[:, 0].mean() + 1e-3))  # black stays black
    change = (source - there.mean(0)) * ratio + here.mean(0) - source
    change[..., 1:] *= np.clip(source[..., :1] / (there[:, 0].mean() + 1e-3), 0, 1)  # and gray
    return np.clip(cv2.cvtColor(source + change, cv2.COLOR_LAB2RGB), 0, 1) * 255


def poisson_blend(forged: np.ndarray, image: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Gradients of `forged` with the border values of `image` (Pérez et al. 2003).

    OpenCV also changes pixels outside its mask: composite the result once more.

    Args:
        forged: (H, W, 3), 0..255.
        image: (H, W, 3) uint8.
        support: (H, W) bool; what touches the frame is left out.

    Returns:
        (H, W, 3) uint8; `image` itself if the support is empty.
    """
    inside = np.zeros(support.shape, np.uint8)
    inside[2:-2, 2:-2] = support[2:-2, 2:-2]
    if not inside.any():
        return image
    left, top, width, height = cv2.boundingRect(inside)
    return cv2.seamlessClone(
        np.clip(forged, 0, 255).astype(np.uint8),
        image,
        inside * 255,
        (left + width // 2, top + height // 2),
        cv2.NORMAL_CLONE,
    )


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)


def _robust_std(values: np.ndarray) -> float:
    """Median absolute deviation, scaled to the standard deviation of a normal distribution."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _high_pass_covariances(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(len(BANDS), 3, 3) covariances of the high-passed image in a mask, edges clipped away."""
    covariances = []
    for sigma in BANDS:
        values = (image.astype(np.float32) - _blur(image, sigma))[mask]
        limit = 2.5 * np.array([_robust_std(channel) for channel in values.T])
        covariances.append(np.cov(np.clip(values, -limit, limit).T))
    return np.array(covariances)


def _band_gains() -> np.ndarray:
    """(bands, 2): variance that unit white and unit blurred noise leave in each high pass."""
    impulse = np.zeros((33, 33), np.float32)
    impulse[16, 16] = 1
    grains = (impulse, _blur(impulse, GRAIN_BLUR))
    return np.array(
        [[((grain - _blur(grain, sigma)) ** 2).sum() for grain in grains] for sigma in BANDS]
    )


def _root(matrix: np.ndarray) -> np.ndarray:
    """Square root of the nearest positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0))


def match_sharpness(
    forged: np.ndarray, image: np.ndarray, mask: np.ndarray, competence: float
) -> np.ndarray:
    """Sharpen or soften `forged` until its medium details are as strong as those of `image`.

    Args:
        forged: (H, W, 3), 0..255.
        image: (H, W, 3) uint8.
        mask: (H, W) bool, where the details are compared.
        competence: share of the correction that is applied, 0..1.

    Returns:
        (H, W, 3) float32.
    """
    forged = forged.astype(np.float32)
    if mask.sum() < MIN_PIXELS:
        return forged
    detail = forged - _blur(forged, 1.0)
    # Filters are linear: filter once, then try the amounts on the masked pixels alone.
    wanted, plain, added = (
        (_blur(gray, 0.6) - _blur(gray, 2.0))[mask]
        for gray in (picture.mean(axis=-1) for picture in (image, forged, detail))
    )
    gaps = [abs(_robust_std(plain + amount * added) - _robust_std(wanted)) for amount in SHARPNESS]
    return forged + competence * SHARPNESS[np.argmin(gaps)] * detail


def match_noise(
    forged: np.ndarray,
    image: np.ndarray,
    mask: np.ndarray,
    competence: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Add the camera noise that `forged` lacks, by comparison with `image` in a mask.

    The covariance between the color channels in two high-pass bands is estimated robustly; the
    missing part is drawn as white plus slightly blurred normal noise, which is how sensor noise
    looks after demosaicing.

    Args:
        forged: (H, W, 3), 0..255.
        image: (H, W, 3) uint8.
        mask: (H, W) bool, where the noise is measured; better without strong edges.
        competence: share of the missing noise that is added, 0..1.
        rng: source of the noise.

    Returns:
        (H, W, 3) float32.
    """
    forged = forged.astype(np.float32)
    if mask.sum() < MIN_PIXELS:
        return forged
    missing = _high_pass_covariances(image, mask) - _high_pass_covariances(forged, mask)
    white, blurred = np.linalg.solve(_band_gains(), missing.reshape(2, 9)).reshape(2, 3, 3)
    grain = rng.normal(0, 1, (2, *forged.shape)).astype(np.float32)
    noise = grain[0] @ _root(white).T + _blur(grain[1] @ _root(blurred).T, GRAIN_BLUR)
    return forged + competence * noise.astype(np.float32)

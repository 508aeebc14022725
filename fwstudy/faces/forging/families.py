"""Four families of face forgeries, and forgeries of single parts.

The families are those of FaceForensics++ (Rössler et al., ICCV 2019). Each function takes the
portrait to be forged, a donor, a random generator and the forger's `Skill`, and returns

    image   (H, W, 3) uint8, RGB, equal to ``target.image`` wherever the region is 0
    region  (H, W) float32, blending weight of the forged pixels, 0..1

They follow the originals in what they change, how they blend and what traces they leave, not in
how the donor's picture comes about: where the originals train an autoencoder (Deepfakes) or a
neural texture (NeuralTextures), or fit a 3D model to a video (FaceSwap, Face2Face), the donor here
is a picture that already shows the wanted person, pose and expression. What that picture must show
is said in each function.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fwstudy.clips import Portrait, Variant
from fwstudy.faces.forging import blending, warp
from fwstudy.labels import FAMILIES, PART_PREFIX

# Difficulty. Lengths are shares of the interocular distance; ranges are drawn from uniformly.
POISSON_SHARE = 0.5  # FaceSwap: how often the seam is solved by Poisson instead of feathering
FACE_INSET = 0.04  # how far a swapped face stays inside the outline
SWAP_FEATHER = (0.02, 0.10)
REENACT_FEATHER = (0.08, 0.16)
REENACT_GAIN = 0.02  # Face2Face: standard deviation of the error of the three color gains
REENACT_SHIFT = 0.3  # Face2Face: px, tracking error that makes the forger resample the face
PART_RESOLUTION = (0.2, 0.3)  # size of the generated face of a single forged part, see `Skill`
DEEPFAKE_COVER = 0.68  # share of the square crop that the inner face spans
DEEPFAKE_FEATHER = (0.10, 0.22)
TEXTURE_STRIDE = 2  # NeuralTextures: the generator's last up-sampling
TEXTURE_GRID = 0.02  # standard deviation of the gain of each phase of that up-sampling
PART_STRIDE, PART_GRID = 4, 0.06  # the same for a single forged part: what a codec leaves visible
TEXTURE_MARGIN = 0.35
TEXTURE_FEATHER = 0.25

Forged = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Skill:
    """How well a forger keeps the fine detail of a picture; as it is, for rendered faces.

    Args:
        competence: range of the share of missing noise and sharpness that is restored.
        resolution: range of the size of the face that Deepfakes generate, share of its size in the frame.
        blur: px; what the two resamplings of texture and rendering cost in Face2Face.
        interpolation: of all warps, a flag of OpenCV.
    """

    competence: tuple[float, float] = (0.0, 0.4)
    resolution: tuple[float, float] = (0.4, 0.6)
    blur: float = 0.7
    interpolation: int = cv2.INTER_LINEAR


RENDERED = Skill()
PARTS_FORGER = Skill(resolution=PART_RESOLUTION)
PHOTOGRAPHS = Skill((0.4, 0.8), (0.5, 0.8), interpolation=cv2.INTER_LANCZOS4)
"""Photographs are sharper, so that what a `RENDERED` forger blurs gave two families away without error."""

FACE = ("skin", "nose", "mouth")  # where color statistics are taken
JAW = range(4, 13)


def face_swap(
    target: Portrait, donor: Portrait, rng: np.random.Generator, skill: Skill = RENDERED
) -> Forged:
    """FaceSwap: another person's face, bent to the target's landmarks.

    Landmark warp, color transfer, then Poisson or feathered blending. The original warps by a
    fitted 3D model; here the landmarks' triangles are warped in the image.

    Args:
        target: the face to be replaced.
        donor: any picture of another person; the closer the pose, the better.
        rng: decides on blending, its width and the forger's competence.
    """
    warped = warp.warp_portrait(donor, target, skill.interpolation)
    support = _face_support(target, warped)
    forged = _settle(warped, target, support, rng, skill)
    if rng.random() < POISSON_SHARE:
        forged = blending.poisson_blend(forged, target.image, support)
        width = SWAP_FEATHER[0] / 2
    else:
        width = rng.uniform(*SWAP_FEATHER)
    return _blend(forged, target, support, width)


def face2face(
    target: Portrait, donor: Portrait, rng: np.random.Generator, skill: Skill = RENDERED
) -> Forged:
    """Face2Face: the same person, re-enacted with another expression.

    The face without hair comes from the donor, with a slight error of color and of tracking. The
    original renders a tracked 3D model and fetches the mouth from other frames.

    Args:
        target: the face to be re-enacted.
        donor: the same person in the same pose, with another expression.
        rng: decides on errors, blending width and the forger's competence.
    """
    shift = np.float64([[1, 0, 0], [0, 1, 0]])
    shift[:, 2] = rng.uniform(-REENACT_SHIFT, REENACT_SHIFT, 2)
    moved = warp.align_portrait(donor, shift, target.parsing.shape, skill.interpolation)
    outline = np.concatenate([warp.face_outline(p.landmarks) for p in (target, moved)])
    support = _shared_support(target, moved, outline)
    soft = cv2.GaussianBlur(moved.image, (0, 0), skill.blur)
    forged = _restore(soft, target, support, rng, skill) * (1 + rng.normal(0, REENACT_GAIN, 3))
    return _blend(forged, target, support, rng.uniform(*REENACT_FEATHER))


def deepfakes(
    target: Portrait, donor: Portrait, rng: np.random.Generator, skill: Skill = RENDERED
) -> Forged:
    """Deepfakes: another person's face with the target's pose and expression, from a small net.

    The inner face is squeezed through a low resolution, color matched and blended softly; noise
    like the target's is added. The original decodes the face by an autoencoder trained on the two
    people; here the donor's picture takes the place of the decoder's output.

    Args:
        target: the face to be replaced.
        donor: another person in the target's pose and with the target's expression.
        rng: decides on resolution, blending width and the forger's competence.
    """
    shape = target.parsing.shape
    side = np.ptp(target.landmarks[17:], axis=0).max() / DEEPFAKE_COVER
    small = max(8, round(side * rng.uniform(*skill.resolution)))
    square = np.array([[0, 0], [small, 0], [small, small], [0, small]], np.float64)
    center = target.landmarks[17:].mean(0)
    to_crop = warp.similarity(center + side * (square / small - 0.5), square)
    to_target = warp.similarity(donor.landmarks[17:], target.landmarks[17:])

    aligned = warp.align_portrait(donor, to_target, shape, skill.interpolation)
    smooth = cv2.GaussianBlur(aligned.image, (0, 0), max(0.3, 0.4 * side / small))
    crop = cv2.warpAffine(smooth, to_crop, (small, small), borderMode=cv2.BORDER_REFLECT_101)
    generated = cv2.warpAffine(
        crop,
        to_crop,
        shape[::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    inside = cv2.warpAffine(
        np.ones((small, small), np.uint8),
        to_crop,
        shape[::-1],
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )
    face = Portrait(generated, aligned.landmarks, aligned.parsing)
    support = _face_support(target, face) & (inside > 0)
    support &= warp.hull_mask(warp.face_outline(face.landmarks), shape)
    forged = _settle(face, target, support, rng, skill)
    return _blend(forged, target, support, rng.uniform(*DEEPFAKE_FEATHER))


def neural_textures(
    target: Portrait, donor: Portrait, rng: np.random.Generator, skill: Skill = RENDERED
) -> Forged:
    """NeuralTextures: the mouth alone, re-synthesised with another expression.

    The mouth region passes a strided layer and its up-sampling, whose phases have slightly
    different gains: the checkerboard of transposed convolutions (Odena et al. 2016). The original
    learns a neural texture and a rendering network per video.

    Args:
        target: the face to be re-enacted.
        donor: the same person in the same pose, with another expression of the mouth.
        rng: decides on the grid's gains and on the forger's competence.
    """
    unit = warp.interocular(target.landmarks)
    mouths = np.concatenate([p.landmarks[48:60] for p in (target, donor)])
    jaws = np.concatenate([p.landmarks[list(JAW)] for p in (target, donor)])
    center = mouths.mean(0)
    reach = np.linalg.norm(mouths - center, axis=1, keepdims=True)
    wide = center + (mouths - center) * (1 + TEXTURE_MARGIN * unit / np.maximum(reach, 1))
    support = _shared_support(target, donor, np.concatenate([wide, jaws]))
    forged = _restore(_resynthesise(donor.image, rng), target, support, rng, skill)
    return _blend(forged, target, support, TEXTURE_FEATHER)


def forge_part(target: Portrait, donor: Portrait, part: str, rng: np.random.Generator) -> Forged:
    """Exactly one part of the face from another person, by the method of `deepfakes`.

    These images are examples of a concept, *this part is forged*, so the generator is coarser than that
    of whole faces, and its up-sampling leaves a lattice (Odena et al. 2016): a small part exchanged with
    care cannot be told from an original once a codec has passed over it, and shows nothing.

    Args:
        target: the face to be forged.
        donor: as for `deepfakes`.
        part: one of `FORGED_PARTS`; all other parts and hair are spared.
        rng: decides on resolution and the forger's competence.

    Raises:
        ValueError: unknown part; the message names the known ones.
    """
    region = warp.part_mask(target, part)
    forged, _ = deepfakes(target, donor, rng, PARTS_FORGER)
    gains = rng.normal(0, 1, (PART_STRIDE, PART_STRIDE))
    forged = _checkered(forged, PART_GRID * (gains - gains.mean()) / gains.std())
    return blending.composite(forged, target.image, region)


FORGERIES: dict[str, Callable[[Portrait, Portrait, np.random.Generator, Skill], Forged]] = dict(
    zip(FAMILIES, (face_swap, face2face, deepfakes, neural_textures), strict=True)
)


def forge(
    family: str,
    target: Portrait,
    donor: Portrait,
    rng: np.random.Generator,
    skill: Skill = RENDERED,
) -> Forged:
    """Apply one of `FORGERIES` by name.

    Raises:
        ValueError: unknown family; the message names the known ones.
    """
    if family not in FORGERIES:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(FORGERIES)}")
    return FORGERIES[family](target, donor, rng, skill)


def forged_variant(
    name: str,
    targets: Sequence[Portrait],
    donors: Sequence[Portrait],
    source: str,
    key: list[int],
    skill: Skill = RENDERED,
) -> Variant:
    """Frames forged by a family or, `PART_PREFIX` and a part, in one part, and what exactly changed.

    Each frame's random numbers start from the same key: the same choices in every frame.
    """
    frames, changed, regions = [], [], []
    for target, donor in zip(targets, donors, strict=True):
        rng = np.random.default_rng(key)
        if name.startswith(PART_PREFIX):
            image, region = forge_part(target, donor, name.removeprefix(PART_PREFIX), rng)
        else:
            image, region = forge(name, target, donor, rng, skill)
        frames.append(image)
        changed.append((image != target.image).any(axis=-1))
        regions.append(np.round(region * 255).astype(np.uint8))
    return Variant(np.stack(frames), np.stack(changed), np.stack(regions), source)


def _grown(mask: np.ndarray) -> np.ndarray:
    """A bool mask, a pixel wider."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _face_support(target: Portrait, warped: Portrait) -> np.ndarray:
    """(H, W) bool: just inside the target's outline, where both show face and not hair."""
    hull = warp.hull_mask(warp.face_outline(target.landmarks), target.parsing.shape)
    inner = cv2.distanceTransform(hull.astype(np.uint8), cv2.DIST_L2, 5)
    deep = inner > FACE_INSET * warp.interocular(target.landmarks)
    foreign = [warp.is_part(p.parsing, "background", "hair", "clothes") for p in (target, warped)]
    return deep & ~_grown(foreign[0]) & ~_grown(foreign[1])


def _shared_support(target: Portrait, donor: Portrait, outline: np.ndarray) -> np.ndarray:
    """(H, W) bool: hull of an outline of two faces of one person, without hair and clothes.

    The donor's background counts only where the target shows background too.
    """
    covered = [warp.is_part(p.parsing, "hair", "clothes") for p in (target, donor)]
    behind = [warp.is_part(p.parsing, "background") for p in (target, donor)]
    hull = warp.hull_mask(outline, target.parsing.shape)
    return hull & ~_grown(covered[0] | covered[1] | (behind[1] & ~behind[0]))


def _restore(
    forged: np.ndarray,
    target: Portrait,
    support: np.ndarray,
    rng: np.random.Generator,
    skill: Skill,
) -> np.ndarray:
    """Sharpness and noise of the target's camera, as far as the forger is competent."""
    skin, competence = support & warp.is_part(target.parsing, *FACE), rng.uniform(*skill.competence)
    calm = skin if skin.sum() >= blending.MIN_PIXELS else support  # where noise can be measured
    sharp = blending.match_sharpness(forged, target.image, calm, competence)
    return blending.match_noise(sharp, target.image, calm, competence, rng)


def _settle(
    warped: Portrait,
    target: Portrait,
    support: np.ndarray,
    rng: np.random.Generator,
    skill: Skill,
) -> np.ndarray:
    """Colors of the target, then the sharpness and noise of its camera."""
    here, there = (support & warp.is_part(portrait.parsing, *FACE) for portrait in (target, warped))
    colored = blending.transfer_color(warped.image, target.image, there, here)
    return _restore(colored, target, support, rng, skill)


def _blend(forged: np.ndarray, target: Portrait, support: np.ndarray, feather: float) -> Forged:
    """Composite with a seam of `feather` interocular distances inside the support.

    Slivers of the support, as between strands of hair, are dropped.
    """
    unit = warp.interocular(target.landmarks)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, round(0.1 * unit)),) * 2)
    smooth = cv2.morphologyEx(support.astype(np.uint8), cv2.MORPH_OPEN, brush)
    weight = warp.feather_inside((smooth > 0) & support, feather * unit)
    return blending.composite(forged, target.image, weight)


def _resynthesise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture after a strided layer and a transposed convolution with uneven phases."""
    height, width = image.shape[:2]
    stride = TEXTURE_STRIDE
    rows, columns = -(-height // stride), -(-width // stride)
    padded = cv2.copyMakeBorder(
        image, 0, rows * stride - height, 0, columns * stride - width, cv2.BORDER_REPLICATE
    )
    code = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    grown = cv2.resize(code, (columns * stride, rows * stride), interpolation=cv2.INTER_LINEAR)
    gains = rng.normal(0, TEXTURE_GRID, (stride, stride))
    return _checkered(grown.astype(np.float32), gains)[:height, :width]


def _checkered(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: each phase of a strided up-sampling, (s, s), has a gain of its own."""
    repeats = [-(-side // len(gains)) for side in image.shape[:2]]
    tiled = np.tile(1 + gains, repeats)[: image.shape[0], : image.shape[1], None]
    return image * tiled.astype(np.float32)

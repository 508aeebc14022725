"""The source ``photos``: any folder of face photographs becomes clips of one frame each.

Each person is paired with another. FaceSwap, Deepfakes and single parts come from the partner's
photograph, Face2Face and NeuralTextures from another photograph of the same person. For Deepfakes
the partner's face, of the same expression where file names say so, is bent to the target's
landmarks, in place of the output of a trained autoencoder.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import joblib
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from fwstudy.clips import Clip, Portrait, Variant, is_finished, pristine, save_clip
from fwstudy.faces import detection
from fwstudy.faces.forging import families, warp
from fwstudy.faces.people import IDENTITY_PATTERN, pair_identities, read_attributes, split_name
from fwstudy.labels import FAMILIES, FORGED_PARTS, ORIGINAL

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"}
INTEROCULAR = 0.245  # distance between the eyes, share of the frame's width
EYE_HEIGHT = 0.45  # height of the eyes from the top, share of the frame
MIN_INTEROCULAR = 0.5  # of the wanted distance; smaller faces are used and reported

Photos = dict[str, dict[str, Portrait]]
"""Identity, then the rest of the file name (the expression, as a rule), to the aligned face."""


def read_photo(path: Path) -> np.ndarray:
    """A photograph upright, as its EXIF orientation says: (H, W, 3) uint8, RGB.

    Raises:
        ValueError: the file cannot be decoded; the message says why.
    """
    try:
        with Image.open(path) as photo:
            return np.array(ImageOps.exif_transpose(photo).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"unreadable: {error}") from error


def align_photo(image: np.ndarray, points: np.ndarray, size: int) -> Portrait:
    """Cut the face out of a photograph, upright and of standard size.

    Args:
        image: (H, W, 3) uint8, RGB.
        points: (5, 2), as in `detection.Face`.
        size: height and width of the frame in pixels.

    Returns:
        Portrait of `size` x `size`; beyond the photograph its border is repeated.
    """
    goal = detection.five_points(detection.TEMPLATE) * INTEROCULAR + (0.5, EYE_HEIGHT)
    unit = warp.similarity(points, goal)
    fine = max(1, int(np.ceil(1 / (size * np.hypot(*unit[:, 0])))))  # against aliasing
    large = cv2.warpAffine(
        image, unit * size * fine, (size * fine,) * 2, borderMode=cv2.BORDER_REPLICATE
    )
    landmarks = detection.landmarks_from_points(warp.transform(points, unit * size))
    frame = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
    parts = detection.parts_from_landmarks(landmarks, (size, size), frame)
    return Portrait(frame, landmarks, parts)


def load_face(path: Path, size: int) -> tuple[Portrait | None, list[str]]:
    """The largest face of a photograph, and what there is to report (`align_photo`)."""
    try:
        image = read_photo(path)
    except ValueError as error:
        return None, [str(error)]
    faces = detection.detect_faces(image)
    if not faces:
        return None, ["no face found"]
    notes = [f"{len(faces)} faces found, the largest taken"] if len(faces) > 1 else []
    apart = float(np.linalg.norm(faces[0].points[1] - faces[0].points[0]))
    if apart < MIN_INTEROCULAR * INTEROCULAR * size:
        notes.append(f"small face, enlarged: {apart:.0f} px between the eyes")
    return align_photo(image, faces[0].points, size), notes


def choose_donors(
    photos: Photos, partners: dict[str, str], identity: str, key: str
) -> dict[str, tuple[Portrait, str]]:
    """For each forged variant that can be made of a photograph: the donor and its identity.

    Args:
        photos: all aligned faces.
        partners: see `pair_identities`.
        identity: the person to be forged.
        key: which of the person's photographs.
    """
    target, donors = photos[identity][key], {}
    if identity in partners:
        partner = partners[identity]
        theirs = photos[partner]
        donor = theirs.get(key) or theirs[min(theirs)]
        moved = warp.warp_portrait(
            donor, target.landmarks[warp.STABLE], target.parsing.shape, warp.STABLE
        )
        donors |= {"FaceSwap": (donor, partner), "Deepfakes": (moved, partner)}
        donors |= {f"part:{part}": (moved, partner) for part in FORGED_PARTS}
    own = sorted(photos[identity])
    if len(own) > 1:
        other = photos[identity][own[(own.index(key) + 1) % len(own)]]
        rigid = slice(27, 48)  # nose and eyes
        still = warp.similarity(other.landmarks[rigid], target.landmarks[rigid])
        moved = warp.align_portrait(other, still, target.parsing.shape)
        donors |= {"Face2Face": (moved, identity), "NeuralTextures": (moved, identity)}
    return donors


def make_clip(
    name: str,
    identity: str,
    target: Portrait,
    donors: dict[str, tuple[Portrait, str]],
    attributes: dict,
    seed: int,
) -> Clip:
    """A clip of one frame with all variants for which there are donors (see `choose_donors`).

    The random numbers of each variant depend on `seed`, the name and the variant alone.
    """
    original = target.image[None]
    variants = {ORIGINAL: pristine(original, identity)}
    for variant in (*FAMILIES, *(f"part:{part}" for part in FORGED_PARTS)):
        if variant not in donors:
            continue
        donor, source = donors[variant]
        rng = np.random.default_rng([seed, *f"{name}/{variant}".encode()])
        if variant in FAMILIES:
            image, region = families.forge(variant, target, donor, rng)
        else:
            part = variant.removeprefix("part:")
            image, region = families.forge_part(target, donor, part, rng)
        variants[variant] = Variant(
            frames=image[None],
            mask=(image != target.image).any(-1)[None],
            region=np.round(region * 255).astype(np.uint8)[None],
            source=source,
        )
    return Clip(name, identity, target.landmarks[None], target.parsing[None], variants, attributes)


def _parallel(function: Callable, tasks: list[tuple], num_workers: int, label: str) -> list:
    jobs = joblib.Parallel(n_jobs=num_workers, return_as="generator")(
        joblib.delayed(function)(*task) for task in tasks
    )
    return list(tqdm(jobs, total=len(tasks), desc=label))


def _clip_names(paths: list[Path], root: Path) -> list[str]:
    """The stems; where several files share one, their folders and suffix are added."""
    count = defaultdict(int)
    for path in paths:
        count[path.stem] += 1
    return [
        path.stem if count[path.stem] == 1 else "-".join(path.relative_to(root).parts)
        for path in paths
    ]


def photo_dataset(
    folder_in: Path,
    folder_out: Path,
    size: int,
    seed: int,
    num_workers: int = 1,
    identity_pattern: str = IDENTITY_PATTERN,
) -> tuple[list[Path], list[dict]]:
    """Turn a folder tree of face photographs into clips; readable clips already there are kept.

    Args:
        folder_in: searched with all its sub-folders for `SUFFIXES`.
        folder_out: created if need be.
        size: height and width of the frames in pixels.
        seed: of all random choices.
        num_workers: processes, as in joblib (-1: all cores).
        identity_pattern: regular expression found in the stem of a file name; its first group, or
            the whole match, is the identity, and what is left over the expression.

    Returns:
        The clips' files in sorted order, and a report: a dict with ``file``, ``reason`` and
        ``left_out`` (bool) for each photograph that was left out, used in part, or is doubtful.

    Raises:
        ValueError: no photographs, no usable face, or an illegal pattern; the message names it.
    """
    folder_in, folder_out = Path(folder_in), Path(folder_out)
    try:
        pattern = re.compile(identity_pattern)
    except re.error as error:
        raise ValueError(f"illegal identity pattern {identity_pattern!r}: {error}") from error
    paths = sorted(p for p in folder_in.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise ValueError(f"no photographs ({', '.join(sorted(SUFFIXES))}) in {folder_in}")

    report: list[dict] = []

    def note(path: Path, reason: str, left_out: bool = False) -> None:
        file = path.relative_to(folder_in).as_posix()
        report.append({"file": file, "reason": reason, "left_out": left_out})

    photos: Photos = defaultdict(dict)
    origin: dict[str, tuple[Path, str, str]] = {}
    faces = _parallel(load_face, [(path, size) for path in paths], num_workers, "photographs")
    for path, name, (portrait, notes) in zip(
        paths, _clip_names(paths, folder_in), faces, strict=True
    ):
        split = split_name(path.stem, pattern)
        if portrait is not None and split is None:
            portrait, notes = None, [f"no identity: {identity_pattern!r} not found in its name"]
        for reason in notes:
            note(path, reason, left_out=portrait is None)
        if portrait is not None:
            identity, key = split
            key = key if key not in photos[identity] else f"{key} {name}"
            photos[identity][key] = portrait
            origin[name] = (path, identity, key)
    if not photos:
        raise ValueError(f"no usable face in the {len(paths)} photographs of {folder_in}: {report}")

    attributes = read_attributes(folder_in)
    partners = pair_identities(photos, attributes)
    folder_out.mkdir(parents=True, exist_ok=True)
    tasks = []
    for name, (path, identity, key) in origin.items():
        if identity not in partners:
            note(path, "no other person to pair with: no FaceSwap, Deepfakes or forged parts")
        if len(photos[identity]) == 1:
            note(path, "only photograph of this person: no Face2Face or NeuralTextures")
        if not is_finished(folder_out / f"{name}.npz"):
            donors = choose_donors(photos, partners, identity, key)
            target = photos[identity][key]
            known = attributes.get(identity, {})
            tasks.append((folder_out, name, identity, target, donors, known, seed))
    _parallel(_write_clip, tasks, num_workers, "clips")
    return sorted(folder_out / f"{name}.npz" for name in origin), report


def _write_clip(folder: Path, *arguments) -> Path:
    return save_clip(folder, make_clip(*arguments))

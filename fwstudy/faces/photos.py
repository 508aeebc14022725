"""The source ``photos``: any folder of face photographs becomes clips of one frame each.

Each person is paired with another. FaceSwap, Deepfakes and single parts come from the partner's
photograph, Face2Face and NeuralTextures from another photograph of the same person. For Deepfakes
the partner's face, of the same expression where file names say so, is bent to the target's
landmarks, in place of the output of a trained autoencoder.

Whose photograph it is: see `find_identities`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Container
from pathlib import Path

import numpy as np

from fwstudy.clips import Clip, Portrait, is_finished, pristine, save_clip
from fwstudy.faces.detection import detect_faces, turn_upright
from fwstudy.faces.forging import families, warp
from fwstudy.faces.mesh import NO_MESH, cut_out, fit_first
from fwstudy.faces.parts import FaceShape, draw_parts
from fwstudy.faces.people import (
    IDENTITY_PATTERN,
    pair_identities,
    printable,
    read_attributes,
    split_name,
)
from fwstudy.faces.pictures import SUFFIXES, InputError
from fwstudy.faces.videos.footage import read_frames
from fwstudy.labels import FAMILIES, FORGED_PARTS, ORIGINAL
from fwstudy.runtime import run

INTEROCULAR = 0.245  # distance between the eyes, share of the frame's width
EYE_HEIGHT = 0.45  # height of the eyes from the top, share of the frame
STANDARD = ((-0.5, 0), (0.5, 0), (0, 0.645), (-0.384, 1.083), (0.384, 1.083))
"""A mean face's `five_points`: origin between the eyes, unit the interocular distance."""
MIN_INTEROCULAR = 0.5  # of the wanted distance; smaller faces are used and reported

Photos = dict[str, dict[str, Portrait]]
"""Identity, then the rest of the file name (the expression, as a rule), to the aligned face."""


def align_photo(image: np.ndarray, face: FaceShape, size: int) -> Portrait:
    """Cut the face out of a photograph, upright and of standard size.

    Args:
        image: (H, W, 3) uint8, RGB.
        face: its shape in the photograph.
        size: height and width of the frame in pixels.

    Returns:
        Portrait of `size` x `size`; beyond the photograph its border is repeated.
    """
    goal = (np.array(STANDARD) * INTEROCULAR + (0.5, EYE_HEIGHT)) * size
    matrix = warp.similarity(five_points(face.landmarks), goal)
    face = face.moved(matrix)
    frame = cut_out(image, matrix, size)
    return Portrait(frame, face.landmarks, draw_parts(face, (size, size), frame))


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Right and left eye, tip of the nose, right and left corner of the mouth: (5, 2) of (68, 2)."""
    eyes = [landmarks[36:42].mean(0), landmarks[42:48].mean(0)]
    return np.array([*eyes, *landmarks[[30, 48, 54]]])


def load_face(path: Path, size: int) -> tuple[Portrait | None, list[str]]:
    """The largest face of a photograph, and what there is to report (`align_photo`)."""
    try:
        frames = read_frames(path, 1)
    except InputError as error:
        return None, [str(error).removeprefix(f"{path}: ")]
    if frames.is_clip:
        return None, ["a clip and no photograph"]
    frames = turn_upright(frames)
    (image,), notes = frames.images, frames.notes
    faces = detect_faces(image)
    if not faces:
        return None, [*notes, "no face found"]
    found = fit_first(image, faces)
    if found is None:
        return None, [*notes, NO_MESH]
    if len(faces) > 1:
        notes = [*notes, f"{len(faces)} faces found, the largest clear one taken"]
    apart = warp.interocular(found.landmarks)
    if apart < MIN_INTEROCULAR * INTEROCULAR * size:
        notes = [*notes, f"small face, enlarged: {apart:.0f} px between the eyes"]
    return align_photo(image, found, size), notes


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
    how = families.PHOTOGRAPHS.interpolation
    if identity in partners:
        partner = partners[identity]
        theirs = photos[partner]
        donor = theirs.get(key) or theirs[min(theirs)]
        moved = warp.warp_portrait(donor, target, how)
        donors |= {"FaceSwap": (donor, partner), "Deepfakes": (moved, partner)}
        donors |= {f"part:{part}": (moved, partner) for part in FORGED_PARTS}
    own = sorted(photos[identity])
    if len(own) > 1:
        other = photos[identity][own[(own.index(key) + 1) % len(own)]]
        rigid = slice(27, 48)  # nose and eyes
        still = warp.similarity(other.landmarks[rigid], target.landmarks[rigid])
        moved = warp.align_portrait(other, still, target.parsing.shape, how)
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
        if variant in donors:
            donor, source = donors[variant]
            key = [seed, *f"{name}/{variant}".encode()]
            variants[variant] = families.forged_variant(
                variant, [target], [donor], source, key, families.PHOTOGRAPHS
            )
    return Clip(name, identity, target.landmarks[None], target.parsing[None], variants, attributes)


def _clip_names(paths: list[Path], root: Path) -> list[str]:
    """A name for each file: its stem; where several share one, its folders and suffix are added."""
    stems = Counter(path.stem for path in paths)
    names: dict[str, None] = {}
    for path in paths:
        alone = stems[path.stem] == 1
        name = path.stem if alone else "-".join(path.relative_to(root).parts)
        while name in names:
            name += "_"
        names[name] = None
    return list(names)


def find_identities(
    paths: list[Path], root: Path, identity_pattern: str, known: Container[str] = ()
) -> tuple[dict[Path, tuple[str, str] | None], list[str]]:
    """Whose photograph each file is.

    A pattern with a slash is looked for in the path below `root`, without the suffix; another one in
    the stem. The default pattern is a guess: where the name that it finds occurs in several folders,
    as 0001 does in n01/0001.jpg and n02/0001.jpg, and is not one of a `known` person, a photograph in
    a folder is of the person that the folder is named after.

    Args:
        paths: of photographs below `root`.
        root: the folder with all of them.
        identity_pattern: regular expression; its first group, or the whole match, is the identity.
        known: identities that a table of attributes lists.

    Returns:
        For each path the identity and the rest of the name, or None; and remarks.

    Raises:
        ValueError: an illegal pattern, or folders in folders that leave open whose photographs lie
            there; the message says how to write the pattern.
    """
    try:
        pattern = re.compile(identity_pattern)
    except re.error as error:
        raise ValueError(f"illegal identity pattern {identity_pattern!r}: {error}") from error
    below = {path: path.relative_to(root).with_suffix("") for path in paths}
    in_path = "/" in identity_pattern
    found = {
        path: split_name(place.as_posix() if in_path else path.stem, pattern)
        for path, place in below.items()
    }
    folders: dict[str, set[str]] = defaultdict(set)
    for path, split in found.items():
        if split and split[0] not in known:
            folders[split[0]].add(below[path].parent.as_posix())
    shared = {name: sorted(where) for name, where in folders.items() if len(where) > 1}
    if in_path or not shared:
        return found, []
    name, where = next(iter(shared.items()))
    seen = f"{name!r} is in {len(where)} folders ({where[0]}, {where[1]} ...)"
    if identity_pattern != IDENTITY_PATTERN:
        return found, [f"{seen} and taken for one person, as the identity pattern says"]
    by_name, by_folder = "([^_/]+)[^/]*$", "^([^/]+)/"
    if any(len(place.parts) > 2 for place in below.values()):
        raise ValueError(
            f"{root}: {seen}; set faces.photos.identity_pattern to {by_folder!r} if the first folder "
            f"is the person, to {by_name!r} if the file's name is"
        )
    remark = f"{seen}: the folder is taken for the person; if the name is, set "
    remark += f"faces.photos.identity_pattern to {by_name!r}"
    in_folder = {path: place for path, place in below.items() if len(place.parts) > 1}
    return found | {path: place.parts for path, place in in_folder.items()}, [remark]


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
        folder_in: searched with all its sub-folders for `SUFFIXES`; hidden files are passed over.
        folder_out: created if need be.
        size: height and width of the frames in pixels.
        seed: of all random choices.
        num_workers: processes, as in joblib (-1: all cores).
        identity_pattern: see `find_identities`; what it leaves of the name is the expression.

    Returns:
        The clips' files in sorted order, and a report: a dict with ``file``, ``reason`` and
        ``left_out`` (bool) for each photograph that was left out, used in part, or is doubtful.

    Raises:
        ValueError: no photographs, no usable face, or what `find_identities` raises.
    """
    folder_in, folder_out = Path(folder_in), Path(folder_out)
    found = (path for path in folder_in.rglob("*") if not path.name.startswith("."))
    files = sorted(printable(path) for path in found if path.is_file())
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise ValueError(f"no photographs ({', '.join(sorted(SUFFIXES))}) in {folder_in}")

    report: list[dict] = []

    def note(path: Path, reason: str, left_out: bool = False) -> None:
        file = path.relative_to(folder_in).as_posix()
        report.append({"file": file, "reason": reason, "left_out": left_out})

    attributes = read_attributes(folder_in)
    whose, remarks = find_identities(paths, folder_in, identity_pattern, attributes)
    for remark in remarks:
        note(folder_in, remark)
    for path in files:
        if path.suffix.lower() not in SUFFIXES | {".csv"}:
            note(path, "its suffix is not one of a photograph's", left_out=True)
    photos: Photos = defaultdict(dict)
    origin: dict[str, tuple[Path, str, str]] = {}
    faces = run(load_face, [(path, size) for path in paths], num_workers, "photographs")
    for path, name, (portrait, notes) in zip(
        paths, _clip_names(paths, folder_in), faces, strict=True
    ):
        split = whose[path]
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
    list(run(_write_clip, tasks, num_workers, "clips"))
    return sorted(folder_out / f"{name}.npz" for name in origin), report


def _write_clip(folder: Path, *arguments) -> Path:
    return save_clip(folder, make_clip(*arguments))

"""Faces found and parts placed, on material of growing difficulty: ``make benchmark-detection LONDON=...``.

Writes detection.md to read and detection.csv, one row a measurement. The photographs are those of the London
set (DeBruine and Jones 2017), on which 189 points were placed by hand: ``neutral_front/*.jpg`` and
``landmarks_neutral.csv`` in the folder that is given. Beside this package runs what it did before: MTCNN as
in facenet-pytorch (not with ``--only-yunet``), and a mean face fitted to its five points.

A face counts as found where the middle of a detected box lies among its landmarks; every other detection
is a false one. Both detectors run in one thread, in turns.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.mean_face import landmarks_from_points
from fwstudy.faces.detection import SIDES, _search, detect_faces, turn_upright
from fwstudy.faces.mesh import fit_first
from fwstudy.faces.parts import FaceShape, draw_parts, shape_from_landmarks
from fwstudy.faces.videos.footage import Frames
from fwstudy.labels import PARTS

MARKED = {
    "right_eye": (18, 19, 20, 21, 22, 30, 29, 28),
    "left_eye": (23, 24, 25, 26, 27, 33, 32, 31),
    "right_brow": (71, 72, 73, 74, 75, 76, 84, 83),
    "left_brow": (77, 78, 79, 80, 81, 82, 86, 85),
    "nose": (50, 61, 62, 63, 64, 55, 69, 68, 67, 66, 56),
    "mouth": (87, 88, 89, 90, 91, 92, 93, 108, 107, 106, 105, 104),
}
"""Of each part the hand-placed points around it, in order."""
CANVAS = 640  # px, side of most pictures
SMALL = 24  # px, width of the small faces
WIDTHS = (16, 20, 24, 28, 32, 80, 120, 160)  # px, of faces searched at both sizes
DRAWN = 80  # px, width of a face from which parts are compared
TEMPLES = 0.75  # width of a face, share of that of all points, which the ears belong to
DARK = 0.12  # share of the light
BLUR = 0.12  # standard deviation as share of the interocular distance
CUT = 0.3  # share of a face that lies beyond the border
YAWS = (30, 45, 60)  # degrees, of rendered profiles

Sample = tuple[np.ndarray, list[np.ndarray]]
"""A picture (H, W, 3) uint8, and of each face in it some landmarks (N, 2)."""
Boxes = list[np.ndarray]


def read_marked(table: Path) -> dict[str, np.ndarray]:
    """The hand-placed points of each photograph, (189, 2); NaN where a point is not in the table."""
    points = pd.read_csv(table).pivot(index="point", columns="image").reindex(range(189))
    names = points["x_px"].columns
    return {name: np.stack([points["x_px"][name], points["y_px"][name]], 1) for name in names}


def marked_part(points: np.ndarray, part: str, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: a part as its hand-placed points outline it."""
    outline = np.round(points[list(MARKED[part])] * 16).astype(np.int32)
    return cv2.fillPoly(np.zeros(shape, np.uint8), [outline], 1, cv2.LINE_8, 4) > 0


def overlaps(face: FaceShape, points: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """Intersection over union of each part as it is drawn with the part as it was marked by hand."""
    drawn = draw_parts(face, image.shape[:2], image)
    found = {}
    for part in MARKED:
        own, marked = drawn == PARTS.index(part), marked_part(points, part, image.shape[:2])
        found[part] = float((own & marked).sum() / (own | marked).sum())
    return found


def read_image(path: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8, RGB."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def resized(sample: Sample, scale: float) -> Sample:
    """The picture and its landmarks at another size."""
    image = cv2.resize(sample[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    middle = (scale - 1) / 2  # whole numbers are the centers of pixels
    return image, [points * scale + middle for points in sample[1]]


def turned(sample: Sample, turns: int) -> Sample:
    """The picture and its landmarks after so many quarter turns anticlockwise."""
    image, faces = sample
    for _ in range(turns):
        width = image.shape[1]
        faces = [np.stack([p[:, 1], width - 1 - p[:, 0]], axis=1) for p in faces]
        image = np.ascontiguousarray(np.rot90(image))
    return image, faces


def pasted(samples: Sequence[Sample], columns: int, size: int) -> Sample:
    """Several pictures beside and below each other, (size, size) px each."""
    faces, rows = [], -(-len(samples) // columns)
    canvas = np.full((rows * size, columns * size, 3), 128, np.uint8)
    for place, (image, known) in enumerate(samples):
        corner = np.array([place % columns, place // columns]) * size
        small, known = resized((image, known), size / max(image.shape[:2]))
        canvas[corner[1] :, corner[0] :][: small.shape[0], : small.shape[1]] = small
        faces += [points + corner for points in known]
    return canvas, faces


def small_in_large(sample: Sample, seed: int, width: int = SMALL) -> Sample:
    """A face so many px wide somewhere in a picture of `CANVAS` px."""
    image, (points,) = sample
    small, (points,) = resized(sample, width / (TEMPLES * np.ptp(points[:, 0])))
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, CANVAS - max(small.shape[:2]), 2)
    canvas = cv2.resize(image[:60, :60], (CANVAS, CANVAS))
    canvas[corner[1] :, corner[0] :][: small.shape[0], : small.shape[1]] = small
    return canvas, [points + corner]


def at_border(sample: Sample) -> Sample:
    """The picture cut so that `CUT` of the face lies beyond its left border."""
    image, (points,) = sample
    left = int(np.quantile(points[:, 0], CUT))
    return np.ascontiguousarray(image[:, left:]), [points - (left, 0)]


def blurred(sample: Sample) -> Sample:
    """The picture out of focus."""
    apart = 0.45 * np.ptp(sample[1][0][:, 0])
    return cv2.GaussianBlur(sample[0], (0, 0), BLUR * apart), sample[1]


def dark(sample: Sample) -> Sample:
    """The picture with little light and the noise of a camera."""
    noise = np.random.default_rng(0).normal(0, 3, sample[0].shape)
    return (sample[0] * DARK + noise).round().clip(0, 255).astype(np.uint8), sample[1]


def coded(sample: Sample) -> Sample:
    """The picture after H.264 at c40."""
    from fwstudy.preprocess.codec import compress

    return compress(sample[0][None], "c40")[0][0], sample[1]


def rendered(count: int, yaw: float) -> Iterator[Sample]:
    """Rendered people, turned to alternate sides."""
    from fwstudy.faces.rendering.dataset import identity_of
    from fwstudy.faces.rendering.motion import State
    from fwstudy.faces.rendering.render import Person, apply_camera, measure_exposure, render
    from fwstudy.faces.rendering.scene import sample_scene

    for number in range(count):
        person, scene = Person(identity_of(0, number)), sample_scene((0, number))
        angle = np.radians(yaw) * (-1) ** number
        picture = render(person, scene, State(angle, 0.0, 0.0, (0.0, 0.0), {}), 256)
        image = apply_camera(picture, scene, (0, number), measure_exposure(picture))
        yield image, [picture.landmarks]


def without_faces(count: int) -> Iterator[Sample]:
    """Pictures of scikit-image and noise."""
    from skimage import data

    rng = np.random.default_rng(0)
    for name in ("chelsea", "coffee", "rocket", "brick", "grass", "gravel", "coins", "page"):
        image = getattr(data, name)()
        yield (image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)), []
    for _ in range(count - 8):
        coarse = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        yield cv2.resize(coarse, (CANVAS, CANVAS)), []


def material(portraits: Sequence[Sample], people: int) -> Iterator[tuple[str, Iterator[Sample]]]:
    """Each kind of picture by its name."""
    few = [resized(one, 320 / 768) for one in portraits]
    yield "portraits", iter(portraits)
    yield f"faces {SMALL} px wide", (small_in_large(one, n) for n, one in enumerate(portraits))
    yield "six faces", (pasted(few[n : n + 6], 3, 213) for n in range(0, len(few) - 5, 6))
    yield "a face as wide as the picture", (filled(one) for one in portraits)
    yield "dark", map(dark, portraits)
    yield "blurred", map(blurred, portraits)
    yield "cut by the border", map(at_border, portraits)
    yield "c40", map(coded, few)
    for turns in (1, 2, 3):
        yield f"turned by {90 * turns} degrees", (turned(one, turns) for one in portraits)
    for yaw in (0, *YAWS) if people else ():
        yield f"rendered, {yaw} degrees from the front", rendered(people, yaw)
    yield "no face", without_faces(len(portraits))


def filled(sample: Sample) -> Sample:
    """The face alone, enlarged to 900 px."""
    image, (points,) = sample
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, 0.75 * (high - low).max()
    left, top = np.maximum(0, middle - half).astype(int)
    right, bottom = (middle + half).astype(int)
    cut = np.ascontiguousarray(image[top:bottom, left:right])
    return resized((cut, [points - (left, top)]), 900 / max(cut.shape[:2]))


@cache
def _mtcnn():
    # no dependency of the study: `make benchmark-detection` installs it
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=20)


def by_mtcnn(image: np.ndarray) -> tuple[Boxes, np.ndarray | None]:
    """What the study used before: boxes, and the 68 landmarks of the largest face."""
    scale = min(1.0, CANVAS / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    boxes, scores, points = _mtcnn().detect(small, landmarks=True)
    found = [] if boxes is None else [n for n, score in enumerate(scores) if score >= 0.9]
    found.sort(key=lambda n: -np.prod(boxes[n][2:] - boxes[n][:2]))
    landmarks = landmarks_from_points(points[found[0]] / scale) if found else None
    return [boxes[n] / scale for n in found], landmarks


def by_yunet(image: np.ndarray) -> tuple[Boxes, None]:
    """This package's detector alone."""
    return [face.box for face in detect_faces(image)], None


DETECTORS: dict[str, Callable] = {"YuNet": by_yunet, "MTCNN": by_mtcnn}


def detection(
    samples: Iterator[tuple[str, Iterator[Sample]]], names: Sequence[str]
) -> pd.DataFrame:
    """A row for each picture and detector: faces, found, false, milliseconds."""
    rows = []
    for name in names:  # loads its weights, which is not timed
        DETECTORS[name](np.zeros((64, 64, 3), np.uint8))
    for kind, pictures in samples:
        for image, faces in pictures:
            for name in names:
                begin = time.process_time()
                boxes, _ = DETECTORS[name](image)
                spent = 1e3 * (time.process_time() - begin)
                hit = [[_inside(box, points) for points in faces] for box in boxes]
                found = sum(any(one[n] for one in hit) for n in range(len(faces)))
                false = sum(not any(one) for one in hit)
                rows.append(
                    {"kind": kind, "detector": name, "pictures": 1, "faces": len(faces)}
                    | {"found": found, "false": false, "ms": spent}
                )
    return pd.DataFrame(rows)


def _inside(box: np.ndarray, points: np.ndarray) -> bool:
    middle, extent = (box[:2] + box[2:]) / 2, np.ptp(points, axis=0).max()
    low, high = points.min(axis=0), points.max(axis=0)
    right_size = 0.4 * extent < (box[3] - box[1]) < 3 * extent
    return bool((middle >= low).all() and (middle <= high).all() and right_size)


def turns_found(portraits: Sequence[Sample]) -> pd.DataFrame:
    """Of photographs in four turns, how many are turned back by `turn_upright`."""
    rows = []
    for turns in range(4):
        for sample in portraits:
            image, _ = turned(sample, turns)
            back = turn_upright(Frames([0.0], [image], False, [])).images[0]
            rows.append({"turned by": 90 * turns, "upright": np.array_equal(back, sample[0])})
    return pd.DataFrame(rows).groupby("turned by")["upright"].agg(["sum", "count"]).reset_index()


def part_overlaps(portraits: Sequence[Sample], names: Sequence[str]) -> pd.DataFrame:
    """A row for each photograph and method: the intersection over union of each part."""
    rows = []
    for image, (points,) in portraits:
        shapes = {"YuNet": lambda image: fit_first(image, detect_faces(image))}
        shapes["MTCNN"] = lambda image: shape_from_landmarks(by_mtcnn(image)[1])
        for name in names:
            row = overlaps(shapes[name](image), points, image)
            rows.append({"method": METHODS[name]} | row)
    return pd.DataFrame(rows)


def half_size(portraits: Sequence[Sample]) -> pd.DataFrame:
    """A row for each photograph, width of its face in a picture of `CANVAS` px, and size of the search."""
    rows = []
    for seed, sample in enumerate(portraits):
        for width in WIDTHS:
            image, (points,) = small_in_large(sample, seed, width)
            for side in SIDES:
                faces = _search(image, side / CANVAS)
                shape = fit_first(image, faces) if width >= DRAWN else None
                row = {"face": width, "side": side}
                row["found"] = any(_inside(face.box, points) for face in faces)
                rows.append(row | (overlaps(shape, points, image) if shape else {}))
    return pd.DataFrame(rows)


METHODS = {"YuNet": "YuNet and mesh", "MTCNN": "MTCNN and mean face"}


def write(tables: dict[str, pd.DataFrame], count: int, output: Path) -> None:
    """Write detection.csv, and detection.md, which is printed too."""
    output.mkdir(parents=True, exist_ok=True)
    table = pd.concat([part.assign(section=name) for name, part in tables.items()])
    table.to_csv(output / "detection.csv", index=False, float_format="%.4g")
    sums = tables["detection"].groupby(["kind", "detector"], sort=False)
    whole = sums[["pictures", "faces", "found", "false"]].sum()
    whole["ms a picture (median)"] = sums["ms"].median().round(0)
    parts = tables["parts"].groupby("method", sort=False)
    means, worst = parts.mean(), parts.min()
    shown = means.map("{:.2f}".format) + " (" + worst.map("{:.2f}".format) + ")"
    sizes = tables["half_size"].groupby(["face", "side"])[["found", *MARKED]].mean()
    sizes = sizes.reset_index().astype({"face": str, "side": str})
    text = "\n\n".join(
        [
            "# Faces found, and parts placed",
            f"{count} photographs of the London set, or as many as there are pictures; see `detection.py`.",
            "## Faces",
            whole.reset_index().to_markdown(index=False),
            "## Turned photographs: turned back",
            tables["turns"].to_markdown(index=False),
            "## Parts: intersection over union with hand-placed outlines, mean (worst)",
            shown.reset_index().to_markdown(index=False),
            f"## YuNet at two sizes, faces of some px in pictures of {CANVAS}: found, parts as above",
            sizes.to_markdown(index=False, floatfmt=".2f", missingval=""),
        ]
    )
    (output / "detection.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, write detection.md and detection.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("london", type=Path, help="folder of the London set")
    parser.add_argument("--count", type=int, default=60, help="photographs")
    parser.add_argument("--people", type=int, default=10, help="rendered, of each angle")
    parser.add_argument("--only-yunet", action="store_true", help="without facenet-pytorch")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    options = parser.parse_args(arguments)
    names = list(DETECTORS)[: 1 if options.only_yunet else None]
    cv2.setNumThreads(1)
    if not options.only_yunet:
        import torch

        torch.set_num_threads(1)
    marked = read_marked(options.london / "landmarks_neutral.csv")
    chosen = sorted(marked)[:: max(1, len(marked) // options.count)][: options.count]
    portraits = [
        (read_image(options.london / "neutral_front" / f"{name}.jpg"), [marked[name]])
        for name in chosen
    ]
    tables = {
        "detection": detection(material(portraits, options.people), names),
        "turns": turns_found(portraits[:10]),
        "parts": part_overlaps(portraits, names),
        "half_size": half_size(portraits),
    }
    write(tables, len(portraits), options.output)


if __name__ == "__main__":
    main()

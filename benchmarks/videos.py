"""From videos to face crops: speed, memory and what whole benchmarks take: ``make benchmark-videos``.

Writes videos.md to read and videos.csv, one row a measurement. Videos of rendered people, H.264, stand for
those of FaceForensics++ (640 × 480, one original, four forgeries, four mask videos) and of DFDC (1920 × 1080,
one original, five forgeries). Beside this package runs the loop that is usual elsewhere: OpenCV decodes
every frame, dlib's frontal face detector looks at the same frames as we do, once enlarged as in
FaceForensics++'s own script, and crops go to PNG files. After an untimed round, in which networks are loaded
and processes start, the two take turns in each round, and ratios are taken within a round.
"""

import argparse
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import joblib
import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.whitening import describe_machine
from fwstudy.clips import load_clip, load_header
from fwstudy.crops.boxes import crop
from fwstudy.faces.rendering.dataset import render_dataset
from fwstudy.faces.videos.assemble import cut_group, video_dataset
from fwstudy.faces.videos.footage import open_video
from fwstudy.faces.videos.layouts import Forgery, VideoGroup
from fwstudy.labels import ORIGINAL
from fwstudy.preprocess.build import build_crops

RATE = 25  # frames a second
SWAY = 40  # px by which a face moves about
CROP_SCALE = 1.3


@dataclass(frozen=True)
class Kind:
    """What the videos of a benchmark are like.

    Args:
        height, width: in pixels.
        forgeries: of each original.
        masks: whether each has a mask video.
        videos: in the whole benchmark, masks not counted.
        crop_size: of the crops, in pixels.
    """

    height: int
    width: int
    forgeries: int
    masks: bool
    videos: int
    crop_size: int


KINDS = {
    "FaceForensics++": Kind(480, 640, 4, True, 5000, 299),
    "DFDC": Kind(1080, 1920, 5, False, 100_000, 256),
}


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    seconds: int = 10
    pairs: int = 1  # of people, a take each
    rounds: int = 3
    num_frames: int = 32
    lengths: tuple[int, ...] = (10, 60, 600)  # seconds, of videos whose memory is measured
    counts: tuple[int, ...] = (10, 100, 1000)  # of takes


QUICK = Scale(1, 1, 1, 2, (1, 2), (1, 3))


def write_video(path: Path, faces: np.ndarray, kind: Kind, seconds: int) -> Path:
    """A face that sways before a textured wall; H.264 at CRF 23, a key frame every 250 frames."""
    wall = cv2.resize(
        np.random.default_rng(0).integers(60, 160, (20, 30, 3), dtype=np.uint8),
        (kind.width, kind.height),
    )
    top, left = (kind.height - faces.shape[1]) // 2, (kind.width - faces.shape[2]) // 2
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = kind.height, kind.width, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for number in range(seconds * RATE):
            image, x = wall.copy(), left + int(SWAY * np.sin(number / 20))
            image[top : top + faces.shape[1], x : x + faces.shape[2]] = faces[number % len(faces)]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_take(folder: Path, people: Path, kind: Kind, seconds: int) -> VideoGroup:
    """The videos of one take; forgeries differ in name alone."""
    clip = load_clip(people)
    shown = {name: clip.variants[name].frames for name in (ORIGINAL, "Deepfakes")}
    changed = clip.variants["Deepfakes"].mask
    shown["mask"] = np.uint8(255) * np.repeat(changed[..., None], 3, axis=-1)
    paths = {
        name: write_video(folder / f"{clip.name}-{name}.mp4", frames, kind, seconds)
        for name, frames in shown.items()
    }
    mask = paths["mask"] if kind.masks else None
    forgeries = [
        Forgery(f"method{number}", paths["Deepfakes"], clip.identity, mask)
        for number in range(kind.forgeries)
    ]
    return VideoGroup(clip.name, clip.identity, paths[ORIGINAL], tuple(forgeries))


def ours(
    video_groups: Sequence[VideoGroup], kind: Kind, num_frames: int, workers: int, folder: Path
) -> int:
    """This package: returns the number of crops of originals and forgeries."""
    paths, report = video_dataset(
        video_groups, folder, folder, kind.crop_size, num_frames, CROP_SCALE, "c23", workers
    )
    assert not any(row["left_out"] for row in report), report
    heads = map(load_header, paths)
    return sum(len(head["video"]["numbers"]) * len(head["sources"]) for head in heads)


def usual_take(video_group: VideoGroup, kind: Kind, num_frames: int, folder: Path) -> int:
    """The usual loop on one take, see the module's description."""
    import dlib  # no dependency of the study: `make benchmark-videos` installs it

    detector, box, written = dlib.get_frontal_face_detector(), {}, 0
    videos = [video_group.original, *(forgery.path for forgery in video_group.forgeries)]
    videos += [forgery.mask for forgery in video_group.forgeries if forgery.mask]
    wanted = set(open_video(video_group.original).evenly(num_frames).tolist())
    for place, path in enumerate(videos):
        capture, number = cv2.VideoCapture(str(path)), 0
        while True:
            there, image = capture.read()
            if not there:
                break
            if number in wanted:
                if place == 0:
                    found = detector(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 1)
                    assert found, f"{path}: no face in frame {number}"
                    face = max(found, key=lambda rectangle: rectangle.width())
                    half = round(CROP_SCALE * max(face.width(), face.height()) / 2)
                    x, y = face.center().x, face.center().y
                    box[number] = np.array([x - half, y - half, x + half, y + half])
                square = crop(image, box[number], kind.crop_size, cv2.INTER_AREA)
                cv2.imwrite(str(folder / f"{video_group.name}-{place}-{number}.png"), square)
                written += place <= len(video_group.forgeries)
            number += 1
    return written


def usual(
    video_groups: Sequence[VideoGroup], kind: Kind, num_frames: int, workers: int, folder: Path
) -> int:
    """The usual loop on all takes."""
    return sum(
        joblib.Parallel(workers)(
            joblib.delayed(usual_take)(video_group, kind, num_frames, folder)
            for video_group in video_groups
        )
    )


METHODS: dict[str, Callable[..., int]] = {"fwstudy": ours, "OpenCV and dlib": usual}


def speed(scale: Scale, people: list[Path], folder: Path) -> pd.DataFrame:
    """Crops a second of both methods on one and two cores, and the size of what is kept."""
    rows, cores = [], os.sched_getaffinity(0)
    for name, kind in KINDS.items():
        video_groups = [
            make_take(folder, path, kind, scale.seconds) for path in people[: 2 * scale.pairs]
        ]
        for workers in (1, 2):
            os.sched_setaffinity(0, range(workers))  # decoders have threads of their own
            for run in METHODS.values():  # untimed: processes start, networks are loaded
                with tempfile.TemporaryDirectory() as place:
                    run(video_groups, kind, scale.num_frames, workers, Path(place))
            for turn in tqdm(range(scale.rounds), f"{name}, {workers}"):
                for method, run in METHODS.items():
                    with tempfile.TemporaryDirectory() as place:
                        begin = time.perf_counter()
                        crops = run(video_groups, kind, scale.num_frames, workers, Path(place))
                        seconds = time.perf_counter() - begin
                        kept = sum(file.stat().st_size for file in Path(place).iterdir())
                    rows.append(
                        {
                            "benchmark": name,
                            "workers": workers,
                            "method": method,
                            "round": turn,
                            "seconds": seconds,
                            "videos": len(video_groups) * (1 + kind.forgeries),
                            "crops": crops,
                            "kept_mb": kept / 1e6,
                        }
                    )
    os.sched_setaffinity(0, cores)
    return pd.DataFrame(rows)


def peak_memory(video_group: VideoGroup, num_frames: int) -> float:
    """GB that a process of its own needs at most to cut one take."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_cut_and_measure, (video_group, num_frames))


def _cut_and_measure(video_group: VideoGroup, num_frames: int) -> float:
    cut_group(video_group, video_group.original.parent, 256, num_frames, CROP_SCALE, "c23")
    status = Path("/proc/self/status").read_text()  # getrusage would count the process it came from
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 2**20


def memory(scale: Scale, people: list[Path], folder: Path) -> pd.DataFrame:
    """Peak memory for videos of different length, of which as many frames are taken."""
    kind, rows = Kind(480, 640, 1, True, 0, 256), []
    for seconds in tqdm(scale.lengths, "memory"):
        video_group = make_take(folder, people[0], kind, seconds)
        peak = peak_memory(video_group, scale.num_frames)
        rows.append({"video_seconds": seconds, "frames": scale.num_frames, "peak_gb": peak})
    return pd.DataFrame(rows)


def linearity(scale: Scale, people: list[Path], folder: Path) -> pd.DataFrame:
    """Seconds a take where there are ten, a hundred, a thousand of them: videos of 2 s, 4 frames each."""
    kind, rows = Kind(320, 480, 1, True, 0, 128), []
    video_group = make_take(folder, people[0], kind, 2)
    for count in scale.counts:
        video_groups = [replace(video_group, name=f"take{number:04d}") for number in range(count)]
        with tempfile.TemporaryDirectory() as place:
            begin = time.perf_counter()
            video_dataset(
                video_groups, folder, Path(place), kind.crop_size, 4, CROP_SCALE, "c23", 1
            )
            seconds = time.perf_counter() - begin
        rows.append({"takes": count, "seconds": seconds, "seconds_per_take": seconds / count})
    return pd.DataFrame(rows)


def stored(scale: Scale, people: list[Path], folder: Path) -> pd.DataFrame:
    """MB a video of the crop set in shards, beside those of the clips it is made of."""
    rows = []
    for name, kind in KINDS.items():
        video_groups = [make_take(folder, path, kind, scale.seconds) for path in people[:6]]
        place = folder / f"{kind.crop_size}"
        paths, _ = video_dataset(
            video_groups, folder, place, kind.crop_size, scale.num_frames, CROP_SCALE, "c23", -1
        )
        settings = {"crop_scale": CROP_SCALE, "crop_size": kind.crop_size}
        shares = {"train": 0.4, "validation": 0.3, "test": 0.3}
        build_crops(paths, place / "crops", ["c23"], shares, 0, settings, -1, "zarr")
        videos = len(video_groups) * (1 + kind.forgeries)
        sizes = [
            sum(file.stat().st_size for file in files if file.is_file())
            for files in (paths, (place / "crops").rglob("*"))
        ]
        rows.append(
            {
                "benchmark": name,
                "clips_mb_per_video": sizes[0] / videos / 1e6,
                "crops_mb_per_video": sizes[1] / videos / 1e6,
            }
        )
    return pd.DataFrame(rows)


def throughput(measured: pd.DataFrame) -> pd.DataFrame:
    """The table of `speed`: medians over the rounds, ratios within a round."""
    rows = []
    for (name, workers), part in measured.groupby(["benchmark", "workers"], sort=False):
        times = part.pivot(index="round", columns="method", values="seconds")
        ratio = times["OpenCV and dlib"] / times["fwstudy"]
        for method in METHODS:
            first = part[part["method"] == method].iloc[0]
            seconds = times[method].median()
            rows.append(
                {
                    "videos like": name,
                    "cores": workers,
                    "method": method,
                    "crops a second": first["crops"] / seconds,
                    "videos a minute": 60 * first["videos"] / seconds,
                    "times as fast": f"{ratio.median():.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
                    if method == "fwstudy"
                    else "1",
                }
            )
    return pd.DataFrame(rows)


def extrapolated(measured: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Core-hours and GB of whole benchmarks, from the cost of a video on one core."""
    rows = []
    for name, kind in KINDS.items():
        part = measured[(measured["benchmark"] == name) & (measured["method"] == "fwstudy")]
        one = part[part["workers"] == 1]
        seconds = (one["seconds"] / one["videos"]).median()
        size = sizes.set_index("benchmark").loc[name]
        rows.append(
            {
                "benchmark": name,
                "videos": kind.videos,
                "seconds a video": seconds,
                "core-hours": seconds * kind.videos / 3600,
                "clips, GB": size["clips_mb_per_video"] * kind.videos / 1e3,
                "crop set, GB": size["crops_mb_per_video"] * kind.videos / 1e3,
            }
        )
    return pd.DataFrame(rows)


def write(tables: dict[str, pd.DataFrame], machine: str, scale: Scale, output: Path) -> None:
    """Write videos.csv, and videos.md, which is printed too."""
    table = pd.concat([part.assign(section=name) for name, part in tables.items()])
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "videos.csv", index=False)
    whole = extrapolated(tables["speed"], tables["stored"])
    parts = [
        "# Videos: from video to face crops",
        (
            f"{machine} Videos of {scale.seconds} s, {scale.num_frames} frames of each; "
            f"{scale.rounds} rounds. What is measured is said in `videos.py`."
        ),
        "## Speed",
        throughput(tables["speed"]).to_markdown(index=False, floatfmt=".3g"),
        "## Memory does not grow with a video's length",
        tables["memory"].to_markdown(index=False, floatfmt=".3g"),
        "## Cost grows with the number of videos and no faster",
        tables["linearity"].astype({"takes": str}).to_markdown(index=False, floatfmt=".3g"),
        "## Whole benchmarks, extrapolated from one core",
        whole.to_markdown(index=False, floatfmt=".3g"),
    ]
    text = "\n\n".join(parts) + "\n"
    (output / "videos.md").write_text(text, encoding="utf-8")
    print(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all, write videos.md and videos.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    scale, machine = QUICK if options.quick else Scale(), describe_machine()
    folder = Path(tempfile.mkdtemp())
    try:
        # In this process: joblib ends a worker that has grown by 300 MB since its first task.
        people = render_dataset(folder / "people", 6, 1, 4, 256, 3, 1)
        tables = {
            work.__name__: work(scale, people, folder)
            for work in (speed, memory, linearity, stored)
        }
    finally:
        shutil.rmtree(folder)
    write(tables, machine, scale, options.output)


if __name__ == "__main__":
    main()

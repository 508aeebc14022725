"""Tiny data sets in the official layouts of benchmarks, filmed from rendered people."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fwstudy.clips import Clip
from fwstudy.labels import ORIGINAL

from ..test_inputs import write_clip

CANVAS = (150, 214)  # height and width of the videos; the faces are smaller
CORNER = (12, 50)
NUM_FRAMES = 6
FORGED = "FaceSwap"  # the forgery of trees with one kind: it changes all parts of most faces
RATES = {"c23": 23, "c40": 40}
METHODS = ["Deepfakes", "NeuralTextures", "FaceShifter"]


def on_canvas(frames: np.ndarray) -> np.ndarray:
    """Frames (or masks) set into a larger gray picture, and repeated to `NUM_FRAMES`."""
    frames = np.resize(frames, (NUM_FRAMES, *frames.shape[1:]))
    gray = 0 if frames.dtype == bool else 90
    canvas = np.full((NUM_FRAMES, *CANVAS, *frames.shape[3:]), gray, frames.dtype)
    top, left = CORNER
    canvas[:, top : top + frames.shape[1], left : left + frames.shape[2]] = frames
    return canvas


def write_video(path: Path, frames: np.ndarray, rate: int = 23) -> Path:
    """An H.264 video of (F, H, W, 3) uint8 frames, 25 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, list(frames), codec_options={"crf": str(rate)})


def video_of(clip: Clip, variant: str) -> np.ndarray:
    return on_canvas(clip.variants[variant].frames)


def mask_of(clip: Clip, variant: str) -> np.ndarray:
    mask = on_canvas(clip.variants[variant].mask)
    return np.uint8(255) * np.repeat(mask[..., None], 3, axis=-1)


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def pairs_of(clips: list[Clip]) -> list[tuple[int, int]]:
    """Each person's number and the number of whom they lend a face to."""
    number = {clip.identity: place for place, clip in enumerate(clips)}
    return [(place, number[clip.variants["FaceSwap"].source]) for place, clip in enumerate(clips)]


def split_of(clips: list[Clip]) -> dict[int, str]:
    """Each person's split: a third of the couples each."""
    couples = sorted({tuple(sorted(pair)) for pair in pairs_of(clips)})
    names = ("train", "val", "test")
    return {
        number: names[place * 3 // len(couples)]
        for place, couple in enumerate(couples)
        for number in couple
    }


def faceforensics(root: Path, clips: list[Clip]) -> Path:
    """Official tree; people of a couple lend each other faces, and a third of the couples is in each split."""
    pairs = pairs_of(clips)
    for quality, rate in RATES.items():
        for place, clip in enumerate(clips):
            folder = root / "original_sequences" / "youtube" / quality / "videos"
            write_video(folder / f"{place:03d}.mp4", video_of(clip, ORIGINAL), rate)
        for method in METHODS:
            family = method if method != "FaceShifter" else "FaceSwap"
            folder = root / "manipulated_sequences" / method
            for (target, source), clip in zip(pairs, clips, strict=True):
                name = f"{target:03d}_{source:03d}.mp4"
                write_video(folder / quality / "videos" / name, video_of(clip, family), rate)
                if method != "FaceShifter":
                    write_video(folder / "masks" / "videos" / name, mask_of(clip, family))
    splits = split_of(clips)
    for name in ("train", "val", "test"):
        listed = [pair for pair in pairs if splits[pair[0]] == name and pair[0] < pair[1]]
        write_json(root / f"{name}.json", [[f"{number:03d}" for number in pair] for pair in listed])
    return root


def celeb_df(root: Path, clips: list[Clip], methods: dict[str, str] | None = None) -> Path:
    """Celeb-DF-v2: a third of the couples is in the test list, and one video of YouTube-real."""
    listed, splits = [], split_of(clips)
    for (target, source), clip in zip(pairs_of(clips), clips, strict=True):
        real, fake = f"id{target}_0000.mp4", f"id{target}_id{source}_0000.mp4"
        write_video(root / "Celeb-real" / real, video_of(clip, ORIGINAL))
        fakes = {f"Celeb-synthesis{at}/{fake}": to for at, to in (methods or {"": FORGED}).items()}
        for path, name in fakes.items():
            write_video(root / path, video_of(clip, name))
        if splits[target] == "test":
            listed += [f"1 Celeb-real/{real}", *(f"0 {path}" for path in fakes)]
    write_video(root / "YouTube-real" / "00000.mp4", video_of(clips[0], ORIGINAL)[:, :, ::-1])
    lines = [*listed, "1 YouTube-real/00000.mp4"]
    (root / "List_of_testing_videos.txt").write_text("\n".join(lines))
    return root


def celeb_df_plus(root: Path, clips: list[Clip]) -> Path:
    """Celeb-DF++: one stem under several methods, in folders by kind."""
    methods = {"/FaceSwap/InSwapper": FORGED, "/FaceReenact/LivePortrait": "Face2Face"}
    return celeb_df(root, clips, methods)


def dfdc(root: Path, clips: list[Clip]) -> Path:
    """DFDC: folders with metadata.json, two people in each."""
    for place, clip in enumerate(clips):
        folder = root / f"dfdc_train_part_{place // 2}"
        real, fake = f"real{place}.mp4", f"fake{place}.mp4"
        write_video(folder / real, video_of(clip, ORIGINAL))
        write_video(folder / fake, video_of(clip, FORGED))
        path = folder / "metadata.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        content[real] = {"label": "REAL", "split": "train", "original": None}
        content[fake] = {"label": "FAKE", "split": "train", "original": real}
        write_json(path, content)
    return root


def dfdc_with_test(root: Path, clips: list[Clip]) -> Path:
    """The same, and a labelled test folder, whose forgeries name no originals."""
    rows = []
    for place, clip in enumerate(clips[-4:]):
        for name, variant in ((f"t{place}a.mp4", ORIGINAL), (f"t{place}b.mp4", FORGED)):
            write_video(root / "test" / name, video_of(clip, variant))
            rows.append([name, int(variant != ORIGINAL)])
    with open(root / "test" / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["filename", "label"], *rows])
    return dfdc(root, clips[:-4])


def dfdc_preview(root: Path, clips: list[Clip]) -> Path:
    """DFDC preview: dataset.json; a third of the couples is its test set."""
    content, splits = {}, split_of(clips)
    for (target, source), clip in zip(pairs_of(clips), clips, strict=True):
        part = "test" if splits[target] == "test" else "train"
        real = f"original_videos/{target}/{target}_A_001.mp4"
        fake = f"method_A/{target}_{source}/{target}_{source}_A_001.mp4"
        write_video(root / real, video_of(clip, ORIGINAL))
        write_video(root / fake, video_of(clip, FORGED))
        people = {"target_id": str(target), "swapped_id": None, "set": part, "augmentations": []}
        content[real] = {"label": "real", **people}
        content[fake] = {
            "label": "fake",
            **people,
            "swapped_id": str(source),
            "source_video": f"{target}_A",
        }
    write_json(root / "dataset.json", content)
    return root


def deepfakebench(root: Path, clips: list[Clip]) -> Path:
    """DeepfakeBench: cropped PNG frames with landmarks and masks, and a JSON file with foreign paths."""
    tree: dict = {"FF-real": {}, "FF-DF": {}}
    splits = split_of(clips)
    for (target, source), clip in zip(pairs_of(clips), clips, strict=True):
        videos = {
            "FF-real": ("original_sequences/youtube", f"{target:03d}", ORIGINAL),
            "FF-DF": ("manipulated_sequences/Deepfakes", f"{target:03d}_{source:03d}", "Deepfakes"),
        }
        for label, (place, name, variant) in videos.items():
            below = f"FaceForensics++/{place}/c23"
            paths = []
            for number, frame in enumerate(clip.variants[variant].frames):
                tail = f"{name}/{number * 7:03d}"
                for kind in ("frames", "landmarks", "masks"):
                    (root / below / kind / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(frame).save(root / below / "frames" / f"{tail}.png")
                points = np.concatenate([clip.landmarks[number], np.zeros((13, 2))]).astype(int)
                np.save(root / below / "landmarks" / f"{tail}.npy", points)
                mask = clip.variants[variant].mask[number]
                Image.fromarray(np.uint8(255) * mask).save(root / below / "masks" / f"{tail}.png")
                paths.append("D:\\data\\" + f"{below}/frames/{tail}.png".replace("/", "\\"))
            videos_of = tree[label].setdefault(splits[target], {}).setdefault("c23", {})
            videos_of[name] = {"label": label, "frames": paths}
    write_json(root / "dataset_json" / "FaceForensics++.json", {"FaceForensics++": tree})
    return root


def ffiw(root: Path, clips: list[Clip]) -> Path:
    """FFIW10K: originals, forgeries and masks, by split; the test part apart."""
    splits = split_of(clips)
    for place, clip in enumerate(clips):
        split = splits[place]
        for kind, frames in (
            ("source", video_of(clip, ORIGINAL)),
            ("target", video_of(clip, FORGED)),
            ("target_mask", mask_of(clip, FORGED)),
        ):
            below = f"test/{kind}" if split == "test" else f"{kind}/{split}"
            write_video(root / below / f"{split}_{place:08d}.mp4", frames)
    return root


def folder(root: Path, clips: list[Clip]) -> Path:
    """real/ and fake/ with masks/: videos, names with blanks and letters of other alphabets."""
    for place, clip in enumerate(clips):
        name = f"Jürgen Ω{place}_1"
        write_video(root / "real" / f"{name}.mp4", video_of(clip, ORIGINAL))
        write_video(root / "fake" / "swap" / f"{name}.mov", video_of(clip, FORGED))
        write_video(root / "masks" / "swap" / f"{name}.mkv", mask_of(clip, FORGED))
    return root


def openforensics(root: Path, clips: list[Clip]) -> Path:
    """OpenForensics: pictures of two people, the right one forged, each outlined; nothing has its original."""
    names = {"train": "Train", "val": "Val", "test": "Test-Dev"}
    content = {name: {"images": [], "annotations": []} for name in names.values()}
    for place, (target, source) in enumerate(pairs_of(clips)):
        part = names[split_of(clips)[target]]
        shown = (clips[source].variants[ORIGINAL], clips[place].variants[FORGED])
        image = np.concatenate([on_canvas(variant.frames)[0] for variant in shown], axis=1)
        path = root / "Images" / part / f"{place:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        known = {"id": place, "file_name": f"Images/{part}/{path.name}"}
        content[part]["images"].append(known | {"height": CANVAS[0], "width": 2 * CANVAS[1]})
        top, left = CORNER
        for category in (0, 1):
            x, y = left + category * CANVAS[1] + 30, top + 30  # of a rectangle in the face
            outline = [[x, y, x + 52, y, x + 52, y + 60, x, y + 60]]
            content[part]["annotations"].append(
                {"id": 2 * place + category, "image_id": place, "category_id": category}
                | {"segmentation": outline}
            )
    for part, lists in content.items():
        write_json(root / f"{part}_poly.json", lists)
    return root


VIDEOS = faceforensics, celeb_df, celeb_df_plus, dfdc, dfdc_preview, deepfakebench, ffiw, folder
TREES = {tree.__name__: tree for tree in VIDEOS}

"""Images of people as the tables of the evaluation have them."""

import pandas as pd


def images_of(
    num_people: int, num_frames: int, num_clips: int = 1, families: tuple[str, ...] = ("FaceSwap",)
) -> pd.DataFrame:
    """An original and its forgeries of every frame of every clip."""
    rows = [
        {"split": "test", "group": f"{person}", "identity": f"{person}", "clip": f"{person}_{clip}",
         "frame": frame, "variant": variant, "quality": "c23", "label": int(variant != "original")}
        for person in range(num_people) for clip in range(num_clips) for frame in range(num_frames)
        for variant in ("original", *families)
    ]  # fmt: skip
    return pd.DataFrame(rows)

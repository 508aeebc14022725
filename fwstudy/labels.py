"""Words that the whole study shares: kinds of forgery, parts of a face, how a mask is known."""

import numpy as np

ORIGINAL = "original"
FAMILIES = ("FaceSwap", "Face2Face", "Deepfakes", "NeuralTextures")
PART_PREFIX = "part:"
VIDEO_MARK = "~"
PARTS = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "nose",
    "mouth",
    "hair",
    "clothes",
)
"""Values of a part map, by index. Left and right are the *subject's*."""
MASK_SOURCES = {
    "exact": "every pixel that the forgery changed, known because it was made here",
    "given": "the mask that comes with the data set",
    "difference": "no mask: where forged and original frame differ by more than the codec explains",
    "face": "no mask and no original: the whole face is taken to be forged",
}
"""How the changed pixels of a forgery are known."""
FORGED_PARTS = {
    "left_eye": ("left_eye", "left_brow"),
    "right_eye": ("right_eye", "right_brow"),
    "nose": ("nose",),
    "mouth": ("mouth",),
}
"""The parts that are forged one at a time and give axes their names, and their values of a part map. An
eye comes with its brow, which alone is smaller than what a network's last map resolves."""
FORGED_PART_OF = np.array(
    [
        next((i for i, labels in enumerate(FORGED_PARTS.values()) if label in labels), -1)
        for label in PARTS
    ]
)
"""Index into FORGED_PARTS of each value of a part map; -1 for none: ``FORGED_PART_OF[parts]``."""


def family_of(variant: str) -> str:
    """The family, or the part, of a variant's name: without prefix and video."""
    return variant.removeprefix(PART_PREFIX).partition(VIDEO_MARK)[0]


SKIN_TONES = {"dark": 0.13, "medium": 0.27, "light": 1.0}
"""Upper end of each bin, as the luminance of the albedo."""

ONLY_EMPTY = {"keep_default_na": False, "na_values": [""]}
"""How pandas reads tables of people: a person may be called NA, and only an empty cell is missing."""

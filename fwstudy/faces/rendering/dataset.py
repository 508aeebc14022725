"""The rendered data set: people in pairs, clips of each, and every forgery of every clip.

Identity 2k and 2k + 1 form a pair, alike in sex and skin tone as far as a few draws allow, and lend
each other faces; so a split by pairs shares nobody. Every random choice is keyed by
``[seed, purpose, identity, clip, ...]``: a clip is the same, pixel by pixel, in whatever order and
by however many processes it is made.
"""

import functools
from pathlib import Path

import numpy as np

from fwstudy.clips import Clip, Portrait, is_finished, pristine, save_clip
from fwstudy.faces.forging.families import forged_variant
from fwstudy.faces.rendering.identity import Identity, sample_identity
from fwstudy.faces.rendering.motion import State, sample_driven_clip
from fwstudy.faces.rendering.render import Person, Rendering, apply_camera, measure_exposure, render
from fwstudy.faces.rendering.scene import Scene, sample_scene
from fwstudy.labels import FORGED_PARTS, ORIGINAL, PART_PREFIX
from fwstudy.runtime import run

_IDENTITY, _SCENE, _MOTION, _NOISE, _FORGERY = range(5)
_DRAWS = 12
"""From how many candidates the second of a pair is chosen."""


def identity_name(index: int) -> str:
    """Name of the identity with this index: 7 -> "007"."""
    return f"{index:03d}"


def dissimilarity(first: Identity, second: Identity) -> float:
    """How unfit two people are to lend each other a face; 0 for the same sex, skin and age."""
    tone = abs(np.log(first.skin_luminance / second.skin_luminance))
    years = abs(first.age_years - second.age_years) / 30
    return 3.0 * (first.sex != second.sex) + 2.0 * tone + years


def identity_of(seed: int, identity_index: int) -> Identity:
    """The person with this index in the data set with this seed."""
    first = sample_identity((seed, _IDENTITY, identity_index & ~1))
    if identity_index % 2 == 0:
        return first
    draws = (sample_identity((seed, _IDENTITY, identity_index, draw)) for draw in range(_DRAWS))
    return min(draws, key=lambda candidate: dissimilarity(first, candidate))


class ClipRenderer:
    """One clip's scene, motion and pristine pictures; persons are shared between clips.

    Args:
        seed: of the data set.
        identity_index, clip_index: which clip.
        num_frames, size: its length, and the side of its pictures in pixels.
    """

    def __init__(self, seed: int, identity_index: int, clip_index: int, num_frames: int, size: int):
        self.key = (seed, identity_index, clip_index)
        self.size = size
        self.scene: Scene = sample_scene((seed, _SCENE, identity_index, clip_index))
        motion = (seed, _MOTION, identity_index, clip_index)
        self.states, self.driver = sample_driven_clip(motion, num_frames)
        person = _person(seed, identity_index)
        renderings = [render(person, self.scene, state, size) for state in self.states]
        self.exposure = measure_exposure(renderings[0])
        self.portraits = [self.apply_camera(one, frame, 0) for frame, one in enumerate(renderings)]

    def apply_camera(self, rendering: Rendering, frame: int, version: int) -> Portrait:
        """The picture by this clip's camera; each version of a frame has its own sensor noise."""
        seed, identity_index, clip_index = self.key
        noise = (seed, _NOISE, identity_index, clip_index, frame, version)
        image = apply_camera(rendering, self.scene, noise, self.exposure)
        return Portrait(image, rendering.landmarks, rendering.parsing)

    def render_frames(self, person: Person, states: list[State], version: int) -> list[Portrait]:
        """Somebody in this scene, frame by frame."""
        return [
            self.apply_camera(render(person, self.scene, state, self.size), frame, version)
            for frame, state in enumerate(states)
        ]


@functools.lru_cache(maxsize=2)
def _person(seed: int, identity_index: int) -> Person:
    return Person(identity_of(seed, identity_index))


_clip_renderer = functools.lru_cache(maxsize=4)(ClipRenderer)


def _nearest_in_pose(state: State, others: list[State]) -> int:
    return int(np.argmin([abs(state.yaw - o.yaw) + abs(state.pitch - o.pitch) for o in others]))


def build_clip(
    seed: int,
    identity_index: int,
    clip_index: int,
    num_frames: int,
    size: int,
    part_frames: int | None = None,
) -> Clip:
    """Render one clip and forge it in every way.

    FaceSwap takes the partner's own frame nearest in pose; Face2Face the same person with the
    driver's expression; Deepfakes the partner in the target's pose, expression and light;
    NeuralTextures the same person with the mouth and jaw of the driver's expression. The forged
    parts ``part:<name>`` come from the Deepfakes donor.

    Args:
        seed: of the data set.
        identity_index: who.
        clip_index: which of the person's clips.
        num_frames: how many frames, 0.2 s apart.
        size: side of the pictures in pixels.
        part_frames: in how many of the first frames single parts are forged; None for all.
    """
    shape = (num_frames, size)
    own = _clip_renderer(seed, identity_index, clip_index, *shape)
    partner_index = identity_index ^ 1
    other = _clip_renderer(seed, partner_index, clip_index, *shape)
    person, partner = _person(seed, identity_index), _person(seed, partner_index)
    name, partner_name = identity_name(identity_index), identity_name(partner_index)
    driven = list(zip(own.states, own.driver, strict=True))
    expressions = [state.driven_by(driver.expression) for state, driver in driven]
    mouths = [state.driven_by(driver.expression, mouth_only=True) for state, driver in driven]
    donors = {
        "FaceSwap": [other.portraits[_nearest_in_pose(s, other.states)] for s in own.states],
        "Face2Face": own.render_frames(person, expressions, 1),
        "Deepfakes": own.render_frames(partner, own.states, 2),
        "NeuralTextures": own.render_frames(person, mouths, 3),
    }
    targets = own.portraits
    variants = {ORIGINAL: pristine(np.stack([target.image for target in targets]), name)}
    donors |= {PART_PREFIX + part: donors["Deepfakes"][:part_frames] for part in FORGED_PARTS}
    for number, (variant, faces) in enumerate(donors.items()):
        key = [seed, _FORGERY, identity_index, clip_index, number]
        source = name if variant in ("Face2Face", "NeuralTextures") else partner_name
        variants[variant] = forged_variant(variant, targets[: len(faces)], faces, source, key)
    return Clip(
        name=f"{name}_{clip_index}",
        identity=name,
        landmarks=np.stack([target.landmarks for target in targets]),
        parsing=np.stack([target.parsing for target in targets]),
        variants=variants,
        attributes=person.identity.attributes() | {"partner": partner_name},
    )


def _build_pair(
    folder: Path, seed: int, pair: int, clips_per_identity: int, *shape: int | None
) -> list[Path]:
    """Write the clips of two people; those already there and readable are kept."""
    paths = []
    for clip_index in range(clips_per_identity):
        for identity_index in (2 * pair, 2 * pair + 1):
            path = folder / f"{identity_name(identity_index)}_{clip_index}.npz"
            if not is_finished(path):
                clip = build_clip(seed, identity_index, clip_index, *shape)
                path = save_clip(folder, clip)
            paths.append(path)
    return paths


def render_dataset(
    folder: Path,
    num_identities: int,
    clips_per_identity: int,
    frames_per_clip: int,
    size: int,
    seed: int,
    num_workers: int,
    part_frames: int | None = None,
) -> list[Path]:
    """Write the whole data set; an interrupted run is taken up where it stopped.

    Args:
        folder: where the clips go, one ``.npz`` each.
        num_identities: an even number of people.
        clips_per_identity: clips of each.
        frames_per_clip: frames of each clip, 0.2 s apart.
        size: side of the pictures in pixels.
        seed: of the data set.
        num_workers: processes; the result does not depend on it.
        part_frames: in how many of the first frames single parts are forged; None for all.

    Returns:
        the clips' files, sorted.

    Raises:
        ValueError: an odd number of people.
    """
    if num_identities < 2 or num_identities % 2:
        raise ValueError(f"num_identities must be even and at least 2, got {num_identities}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    how = (clips_per_identity, frames_per_clip, size, part_frames)
    tasks = [(folder, seed, pair, *how) for pair in range(num_identities // 2)]
    found = run(_build_pair, tasks, num_workers, "render", "pair")
    return sorted(path for paths in found for path in paths)

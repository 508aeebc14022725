"""How a person moves in a clip: head pose, expression, gaze and blinks, about 0.2 s a frame."""

from dataclasses import dataclass

import numpy as np

FRAME_SECONDS = 0.2
EXPRESSIONS = {
    "neutral": {},
    "smile": {"mouthSmile": 0.7, "cheekSquint": 0.4, "eyeSquint": 0.2, "mouthUpperUp": 0.12},
    "laugh": {
        "mouthSmile": 0.8,
        "jawOpen": 0.26,
        "cheekSquint": 0.6,
        "eyeSquint": 0.35,
        "mouthUpperUp": 0.6,
    },
    "a": {"jawOpen": 0.38, "mouthLowerDown": 0.3, "mouthUpperUp": 0.15},
    "e": {"jawOpen": 0.14, "mouthStretch": 0.35, "mouthLowerDown": 0.3, "mouthUpperUp": 0.2},
    "o": {"jawOpen": 0.25, "mouthFunnel": 0.65},
    "u": {"mouthPucker": 0.7, "jawOpen": 0.06},
    "m": {"mouthPress": 0.5, "mouthRollLower": 0.3, "mouthRollUpper": 0.2},
    "frown": {"browDown": 0.6, "mouthFrown": 0.45, "eyeSquint": 0.2},
    "surprise": {"browInnerUp": 0.7, "browOuterUp": 0.6, "eyeWide": 0.4, "jawOpen": 0.25},
    "doubt": {"browInnerUp": 0.5, "mouthFrown": 0.25, "mouthPress": 0.2},
}
"""Amounts of the head model's expression units; a unit with two sides stands for both."""
_SINGLE = {"jawOpen", "mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper"}
_SINGLE |= {"browInnerUp"}
_TALK = ("a", "e", "o", "u", "m", "smile", "neutral")
_FEEL = ("neutral", "smile", "laugh", "frown", "surprise", "doubt", "neutral")
LEAST_CHANGE, MEAN_CHANGE = 0.25, 0.7  # of the mouth, see `mouth_change`, between clip and driver
MOUTH_UNITS = ("jaw", "mouth")
"""Beginnings of the names of units that move mouth and jaw."""


@dataclass(frozen=True)
class State:
    """Pose and expression in one frame.

    Args:
        yaw, pitch, roll: radians; positive yaw turns to the subject's left, positive pitch down.
        shift: (x, y) of the head in decimetres.
        expression: expression unit -> amount in 0..1, gaze and blinks included.
    """

    yaw: float
    pitch: float
    roll: float
    shift: tuple[float, float]
    expression: dict[str, float]

    def driven_by(self, expression: dict[str, float], mouth_only: bool = False) -> "State":
        """The same pose and gaze with another expression, or with its mouth and jaw only."""

        def driven(unit: str) -> bool:
            return unit.startswith(MOUTH_UNITS) if mouth_only else not unit.startswith("eyeLook")

        mixed = {unit: amount for unit, amount in self.expression.items() if not driven(unit)}
        mixed |= {unit: amount for unit, amount in expression.items() if driven(unit)}
        return State(self.yaw, self.pitch, self.roll, self.shift, mixed)


def both_sides(units: dict[str, float]) -> dict[str, float]:
    """Spell out units that have a left and a right half."""
    spelled = {}
    for unit, amount in units.items():
        for name in [unit] if unit in _SINGLE else [unit + "Left", unit + "Right"]:
            spelled[name] = amount
    return spelled


def _wander(rng: np.random.Generator, steps: int, spread: float, seconds: float) -> np.ndarray:
    """Ornstein-Uhlenbeck path around zero (steps,), with the given correlation time."""
    keep = np.exp(-FRAME_SECONDS / seconds)
    path = np.empty(steps)
    path[0] = rng.normal()
    for step in range(1, steps):
        path[step] = keep * path[step - 1] + np.sqrt(1 - keep**2) * rng.normal()
    return spread * path


def _expressions(rng: np.random.Generator, steps: int) -> list[dict[str, float]]:
    """Expressions per frame: talking or feeling, eased from one key expression to the next."""
    talking = rng.random() < 0.5
    kinds, hold = (_TALK, 0.35) if talking else (_FEEL, 1.2)
    mood = str(rng.choice(("neutral", "neutral", "smile", "doubt")))
    uneven = {side: float(np.exp(rng.normal(0, 0.08))) for side in ("Left", "Right")}
    end = steps * FRAME_SECONDS
    times, keys = [-hold * rng.random()], []
    while times[-1] <= end:
        times.append(times[-1] + hold * rng.uniform(0.6, 1.4))
    for _ in times:
        strength = rng.uniform(0.4, 1.0)
        key = {unit: 0.25 * amount for unit, amount in both_sides(EXPRESSIONS[mood]).items()}
        for unit, amount in both_sides(EXPRESSIONS[str(rng.choice(kinds))]).items():
            side = next((value for name, value in uneven.items() if unit.endswith(name)), 1.0)
            key[unit] = min(1.0, key.get(unit, 0.0) + strength * amount * side)
        keys.append(key)
    frames = []
    for time in np.arange(steps) * FRAME_SECONDS:
        after = int(np.searchsorted(times, time, side="right"))
        share = (time - times[after - 1]) / (times[after] - times[after - 1])
        share = share * share * (3 - 2 * share)
        first, second = keys[after - 1], keys[after]
        units = sorted(set(first) | set(second))
        frames.append(
            {u: (1 - share) * first.get(u, 0.0) + share * second.get(u, 0.0) for u in units}
        )
    return frames


def _look(across: float, up: float) -> dict[str, float]:
    """Units that turn both eyes; positive is to the subject's left, and up."""
    vertical = "Up" if up > 0 else "Down"
    horizontal = ("Out", "In") if across > 0 else ("In", "Out")
    look = {}
    for side, turn in zip(("Left", "Right"), horizontal, strict=True):
        look[f"eyeLook{turn}{side}"] = min(1.0, abs(across))
        look[f"eyeLook{vertical}{side}"] = min(1.0, abs(up))
    return look


def sample_clip_states(seed: tuple[int, ...], num_frames: int) -> list[State]:
    """Draw pose and expression for the frames of a clip; the same seed gives the same states."""
    rng = np.random.default_rng(seed)
    mean = np.radians([rng.normal(0, 11), rng.normal(0, 5), rng.normal(0, 2.5)])
    mean = mean.clip(-np.radians([25, 10, 7]), np.radians([25, 10, 7]))
    turns = [_wander(rng, num_frames, np.radians(s), 0.8) for s in (3.0, 2.0, 1.2)]
    shifts = [_wander(rng, num_frames, 0.035, 0.8) for _ in range(2)]
    expressions = _expressions(rng, num_frames)
    next_blink, look = rng.exponential(3.0), rng.normal(0, 1, 2) * [0.22, 0.12]
    states = []
    for frame, expression in enumerate(expressions):
        time = frame * FRAME_SECONDS
        if time > next_blink + 0.25:
            next_blink = time + rng.exponential(3.0)
        closed = max(0.0, 1 - abs(time - next_blink - 0.1) / 0.2)
        if closed > 0.05:
            for side in ("Left", "Right"):
                squint = 0.5 * expression.get("eyeSquint" + side, 0.0)
                expression["eyeBlink" + side] = min(closed, 1.0 - squint)
        if rng.random() < 0.3:  # a saccade
            look = rng.normal(0, 1, 2) * [0.22, 0.12]
        yaw, pitch, roll = (
            float(center + turn[frame]) for center, turn in zip(mean, turns, strict=True)
        )
        expression |= _look(look[0] - 0.4 * yaw, look[1] + 0.3 * pitch)
        shift = (float(shifts[0][frame]), float(shifts[1][frame]))
        states.append(State(yaw, pitch, roll, shift, expression))
    return states


def mouth_change(first: State, second: State) -> float:
    """How much two expressions differ in mouth and jaw: sum of the units' differences."""
    units = set(first.expression) | set(second.expression)
    return sum(
        abs(first.expression.get(unit, 0.0) - second.expression.get(unit, 0.0))
        for unit in units
        if unit.startswith(MOUTH_UNITS)
    )


def sample_driven_clip(seed: tuple[int, ...], num_frames: int) -> tuple[list[State], list[State]]:
    """Draw a clip and a second one that drives it, until the mouths differ enough.

    The rule is symmetric and redraws both, so own and driving expressions have one distribution:
    an open mouth does not tell a forgery.

    Args:
        seed: integers that key the draw.
        num_frames: length of both.

    Returns:
        the states of the clip, and those of the driver.
    """
    for attempt in range(1000):
        own = sample_clip_states((*seed, attempt, 0), num_frames)
        driver = sample_clip_states((*seed, attempt, 1), num_frames)
        changes = [mouth_change(*pair) for pair in zip(own, driver, strict=True)]
        if min(changes) >= LEAST_CHANGE and np.mean(changes) >= MEAN_CHANGE:
            return own, driver
    raise RuntimeError(f"no two expressions differ enough in {num_frames} frames; seed {seed}")

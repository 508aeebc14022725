"""Who is seen: age, sex, ancestry, shape of the head, skin, hair and eyes, all from one seed."""

from dataclasses import dataclass

import numpy as np

from fwstudy.faces.rendering.head import load_head
from fwstudy.labels import SKIN_TONES

ANCESTRIES = ("african", "asian", "caucasian")
HAIR_COLORS = {
    "black": (0.014, 0.012, 0.011),
    "dark brown": (0.032, 0.021, 0.015),
    "brown": (0.075, 0.045, 0.027),
    "light brown": (0.15, 0.095, 0.055),
    "blond": (0.32, 0.225, 0.125),
    "red": (0.13, 0.052, 0.024),
    "gray": (0.23, 0.225, 0.22),
    "white": (0.40, 0.39, 0.38),
}
"""Linear RGB."""
_SPREAD = {
    "asym": 0.10,
    "cheek": 0.26,
    "chin": 0.22,
    "ear": 0.22,
    "eyebrows": 0.18,
    "eye": 0.20,
    "forehead": 0.24,
    "head": 0.13,
    "mouth": 0.22,
    "neck": 0.15,
    "nose": 0.24,
}
_OPPOSITES = (
    ("decr", "incr"),
    ("in", "out"),
    ("down", "up"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)
_BIAS = {"eyebrows-angle": 0.5, "eyebrows-trans-up": 0.5, "eye-height2": 0.25}
"""Shifts of the mean shape: the model's neutral brows are low and stern."""
_FEMALE_BIAS = {"chin-width": -0.3, "nose-volume": -0.3, "nose-scale-horiz": -0.15}
"""Further shifts for women, whom random shapes would else make look like men."""


@dataclass(frozen=True)
class Identity:
    """One person.

    Args:
        seed: integers that key every later random choice about this person.
        age_years: 25 to 75.
        sex: "female" or "male".
        ancestry: name -> weight, sum 1.
        skin_luminance: mean albedo of the face, 0.04 (dark) to 0.43 (light).
        skins: ((texture name, weight), ...).
        shape: morph target -> amount.
        hair, hair_color: style ("bald" for none) and a key of `HAIR_COLORS`.
        hair_tint: linear RGB.
        brow, lash, iris: names of proxies and textures.
        redness, freckles, stubble, lipstick, gloss: amounts, 0 for none (gloss: 1 is usual).
        moles: how many.
        cloth: linear RGB and the height of the collar in decimetres.
    """

    seed: tuple[int, ...]
    age_years: int
    sex: str
    ancestry: dict[str, float]
    skin_luminance: float
    skins: tuple[tuple[str, float], ...]
    shape: dict[str, float]
    hair: str
    hair_color: str
    hair_tint: tuple[float, float, float]
    brow: str
    lash: str
    iris: str
    redness: float
    freckles: float
    stubble: float
    lipstick: float
    gloss: float
    moles: int
    cloth: tuple[float, float, float, float]

    @property
    def skin_tone(self) -> str:
        """The bin of `SKIN_TONES` that the albedo falls into."""
        return next(name for name, top in SKIN_TONES.items() if self.skin_luminance <= top)

    def attributes(self) -> dict:
        """What a study may group by, as JSON values."""
        return {
            "age_years": self.age_years,
            "sex": self.sex,
            "skin_tone": self.skin_tone,
            "skin_luminance": round(self.skin_luminance, 4),
            "ancestry": {name: round(weight, 3) for name, weight in self.ancestry.items()},
            "hair": self.hair,
            "hair_color": self.hair_color,
        }


def sample_identity(seed: tuple[int, ...]) -> Identity:
    """Draw a person; the same seed gives the same person."""
    rng = np.random.default_rng(seed)
    ancestry = rng.dirichlet([0.3, 0.3, 0.3])
    sex = "female" if rng.random() < 0.5 else "male"
    maleness = float(rng.uniform(0.0, 0.2) if sex == "female" else rng.uniform(0.8, 1.0))
    age_years = round(25 + 50 * rng.beta(1.0, 1.8))
    oldness = (age_years - 25) / 65.0
    typical = np.exp(ancestry @ np.log([0.085, 0.27, 0.31]))
    luminance = float(np.clip(typical * np.exp(rng.normal(0, 0.25)), 0.04, 0.43))
    shape = _build_weights(ancestry, maleness, oldness, rng) | _shape_weights(sex, rng)
    hair, color = _sample_hair(sex, age_years, ancestry, rng)
    tint = np.array(HAIR_COLORS[color]) * np.exp(rng.normal(0, 0.15))
    fair = ancestry[2] > 0.5
    irises = ("brown", "brown", "brownlight")
    if fair:
        irises = ("blue", "bluegreen", "brown", "brownlight", "deepblue", "green")
    brows = (1, 2, 4, 5, 8, 10, 11, 12) if sex == "female" else (1, 3, 4, 5, 8, 9, 10, 12)
    gray = rng.uniform(0.08, 0.7)
    cloth = (gray * (1 + rng.normal(0, 0.25, 3))).clip(0.03, 0.85) ** 2.2
    male = sex == "male"
    return Identity(
        seed=seed,
        age_years=age_years,
        sex=sex,
        ancestry=dict(zip(ANCESTRIES, map(float, ancestry), strict=True)),
        skin_luminance=luminance,
        skins=_sample_skins(sex, age_years, ancestry, rng),
        shape=shape,
        hair=hair,
        hair_color=color,
        hair_tint=tuple(map(float, tint)),
        brow=f"brow_{rng.choice(brows):02d}",
        lash=f"lash_0{rng.choice((1,) if male else (1, 2, 3))}",
        iris=f"iris_{rng.choice(irises)}",
        redness=float(abs(rng.normal(0, 0.3))),
        freckles=float(max(0.0, rng.normal(-0.4, 0.5))) * float(luminance > 0.2),
        stubble=float(np.clip(rng.normal(0.3, 0.35), 0, 1)) if male else 0.0,
        lipstick=float(abs(rng.normal(0, 0.2))) + (0.0 if male else 0.2),
        gloss=float(np.exp(rng.normal(0, 0.2))),
        moles=int(rng.poisson(2)),
        cloth=(*map(float, cloth), 5.72 + float(rng.normal(0, 0.10))),
    )


def _build_weights(
    ancestry: np.ndarray, maleness: float, oldness: float, rng: np.random.Generator
) -> dict[str, float]:
    """Weights of the targets for ancestry, sex, age, muscle and weight."""
    sexes = {"female": 1 - maleness, "male": maleness}
    ages = {"young": 1 - oldness, "old": oldness}
    muscle, weight = rng.normal(0, 0.25, 2).clip(-1, 1)

    def levels(amount: float) -> dict[str, float]:
        return {"min": max(0.0, -amount), "average": 1 - abs(amount), "max": max(0.0, amount)}

    weights = {}
    for sex, by_sex in sexes.items():
        for age, by_age in ages.items():
            for name, by_ancestry in zip(ANCESTRIES, ancestry, strict=True):
                weights[f"macro/{name}-{sex}-{age}"] = by_sex * by_age * by_ancestry
            for much_muscle, by_muscle in levels(muscle).items():
                for much_weight, by_weight in levels(weight).items():
                    name = f"macro/universal-{sex}-{age}-{much_muscle}muscle-{much_weight}weight"
                    weights[name] = by_sex * by_age * by_muscle * by_weight
    return {name: float(amount) for name, amount in weights.items() if amount > 1e-4}


def _shape_axes() -> list[tuple[str | None, str]]:
    """Targets as pairs (negative, positive) of one axis; (None, name) if there is no opposite."""
    names = [name for name in load_head().targets if name.startswith("shape/")]
    axes, seen = [], set()
    for name in names:
        for low, high in _OPPOSITES:
            opposite = name.removesuffix(f"-{low}") + f"-{high}"
            if name.endswith(f"-{low}") and opposite in names:
                axes.append((name, opposite))
                seen |= {name, opposite}
    axes += [(None, name) for name in names if name not in seen]
    return sorted(axes, key=lambda axis: axis[1])


def _shape_weights(sex: str, rng: np.random.Generator) -> dict[str, float]:
    """Random face shape; left and right move together but for a little asymmetry."""
    weights, of_left = {}, {}
    biases = _BIAS | (_FEMALE_BIAS if sex == "female" else {})
    for negative, positive in _shape_axes():
        name = positive.removeprefix("shape/")
        sided = name[:2] in ("l-", "r-")
        axis = name[2:] if sided else name
        kind = axis.split("-")[0]
        spread = _SPREAD.get(kind, 0.25)
        if any(word in name for word in ("pointed", "triangle", "epicanthus")):
            spread *= 0.5
        if "scale" in name:
            spread *= 0.7
        if "trans" in name and kind in ("head", "neck"):
            spread *= 0.3
        bias = next((value for key, value in biases.items() if axis.startswith(key)), 0.0)
        amount = float(np.clip(rng.normal(0, spread), -2.2 * spread, 2.2 * spread)) + bias
        if negative is None:
            amount = max(0.0, amount - spread)
        if sided:
            amount = of_left.setdefault(axis, amount) + float(rng.normal(0, 0.03))
        if amount > 0:
            weights[positive] = amount
        elif negative is not None:
            weights[negative] = -amount
    return weights


def _sample_hair(
    sex: str, age_years: int, ancestry: np.ndarray, rng: np.random.Generator
) -> tuple[str, str]:
    """Hair style and color."""
    if sex == "male":
        styles = ["short01", "short01", "short02", "short04", "short04"]
    else:
        styles = ["long01", "ponytail01", "ponytail01", "braid01", "short01"]
    if ancestry[0] > 0.5:
        styles = ["afro01", "afro01", "short04", "short04", "ponytail01"]
        styles = styles[:-1] if sex == "male" else styles
    bald = sex == "male" and rng.random() < 0.10 + 0.006 * (age_years - 25)
    style = "bald" if bald else str(rng.choice(styles))
    if ancestry[2] > 0.5:
        colors = ["black", "dark brown", "brown", "brown", "light brown", "blond", "red"]
    else:
        colors = ["black", "black", "dark brown"]
    color = str(rng.choice(colors))
    if age_years > 50 and rng.random() < 0.6:
        color = str(rng.choice(["gray", "white"] if age_years > 60 else ["gray", color]))
    return style, color


def _sample_skins(
    sex: str, age_years: int, ancestry: np.ndarray, rng: np.random.Generator
) -> tuple[tuple[str, float], ...]:
    """Two skin textures to mix: one of the person's kind, one by chance."""
    stage = "young" if age_years < 40 else "middleage" if age_years < 58 else "old"

    def texture(kind: int) -> str:
        if kind == 0:
            return f"skin_{stage}_darkskinned_{sex}"
        name = f"skin_{stage}_lightskinned_{sex}"
        if kind == 1:
            return name + ("3" if stage == "young" else "2")
        return name + (str(rng.choice(["", "2"])) if stage == "young" else "")

    first = texture(int(ancestry.argmax()))
    second = texture(int(rng.choice(3, p=(ancestry + 0.1) / (ancestry + 0.1).sum())))
    share = float(rng.uniform(0.6, 0.85))
    return ((first, share), (second, 1 - share))

"""The people of the training set, with the parts and colours of each.

Everything follows from `SEED`. The first entries are the bundled avatars, chosen by hand.
"""

from __future__ import annotations

import colorsys
import math
import random
from dataclasses import asdict, dataclass

SEED = 20240607
RANDOM_PEOPLE = 634
HELD_OUT = 64

SKIN = ["ffdbb4", "f7cfa9", "edb98a", "e3a877", "d08b5b", "c07d50", "ae5d29", "94573a", "7a4a34", "614335"]
HAIR = [
    "a55728", "2c1b18", "b58143", "d6b370", "724133", "4a312c", "ecdcbf", "c93305", "e8e1e1", "1f2430",
    "8a8d93",
]  # fmt: skip
DYED = ["f59797", "5d8bb8", "7a5aa6", "3f8f86", "d86a8f"]
CLOTHES = [
    "262e33", "65c9ff", "5199e4", "25557c", "e6e6e6", "929598", "3c4f5c", "b1e2ff", "a7ffc4", "ffafb9",
    "ffffb1", "ff488e", "ff5c5c", "ffffff", "2f6f5e", "8a4f7d", "e8a33d", "c4553b", "6c6fb5", "4d7c3a",
    "d9c7a8", "7b3f3f",
]  # fmt: skip
BACKGROUND = [
    "cfe3f5", "f6dcc9", "d8ecd5", "f3d4dc", "e3d9f2", "fbeec2", "d3ecec", "e9e4da", "dfe3ea", "f2c9b0",
    "b9d6c8", "a9c4e4", "c9b8dd", "f0c987", "8fb8b8", "e7b7b7", "93a8c9", "b7c59a", "6f8fae", "54748c",
]  # fmt: skip

LONG_HAIR = {
    "bob", "curly", "curvy", "longButNotTooLong", "miaWallace", "straight01", "straight02",
    "straightAndStrand", "bigHair", "dreads", "shaggyMullet", "hijab", "froBand", "frida", "fro",
}  # fmt: skip
SHORT_HAIR = [
    "bun", "shavedSides", "dreads01", "dreads02", "frizzle", "shaggy", "shortCurly", "shortFlat",
    "shortRound", "shortWaved", "sides", "theCaesar", "theCaesarAndSidePart",
]  # fmt: skip
HATS = ["hat", "hijab", "turban", "winterHat1", "winterHat02", "winterHat03", "winterHat04"]
TOPS_LONG = sorted(LONG_HAIR - {"hijab"})
CLOTHING = [
    "blazerAndShirt", "blazerAndSweater", "collarAndSweater", "hoodie", "overall", "shirtCrewNeck",
    "shirtScoopNeck", "shirtVNeck", "graphicShirt",
]  # fmt: skip
GRAPHICS = ["bat", "bear", "cumbia", "deer", "diamond", "hola", "pizza"]
GLASSES = ["prescription01", "prescription02", "round"]
BEARDS = ["beardLight", "beardMajestic", "beardMedium", "moustacheFancy", "moustacheMagnum"]
IRIS = ["3b2a22", "4a3326", "2f3e52", "3f5a49", "5a4630", "26262b"]


@dataclass
class Person:
    """One identity: SVG parts, colours (hex without #) and the drawn features' proportions."""

    name: str
    top: str | None
    skin: str
    hair: str
    clothing: str
    clothes: str
    background: str
    hat: str = "5199e4"
    accessories: str | None = None
    accessories_color: str = "262e33"
    facial_hair: str | None = None
    facial_hair_color: str = "4a312c"
    graphic: str = "bear"
    iris: str = "3b2a22"
    bare_arms: bool = False
    #: 0 dot eyes as in the part set, 1 eyes with whites
    eye_white: float = 1.0
    eye_size: float = 1.0
    brow_thickness: float = 1.0
    brow_arch: float = 1.0
    lip_fullness: float = 1.0
    lip_rose: float = 0.5
    mouth_width: float = 1.0
    smile: float = 1.0
    blush: float = 0.5
    lashes: float = 0.0

    def options(self) -> dict[str, object]:
        """Options of the avatar library, without eyes, brows and mouth, which the renderer draws."""
        return {
            "seed": self.name,
            "eyes": [],
            "eyebrows": [],
            "mouth": [],
            "style": ["default"],
            "top": [self.top] if self.top else [],
            "topProbability": 100,
            "accessories": [self.accessories] if self.accessories else [],
            "accessoriesProbability": 100,
            "facialHair": [self.facial_hair] if self.facial_hair else [],
            "facialHairProbability": 100,
            "clothing": [self.clothing],
            "clothingGraphic": [self.graphic],
            "skinColor": [self.skin],
            "hairColor": [self.hair],
            "hatColor": [self.hat],
            "facialHairColor": [self.facial_hair_color],
            "clothesColor": [self.clothes],
            "accessoriesColor": [self.accessories_color],
        }

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


BUNDLED = [
    Person(
        "maya",
        "straight02",
        "edb98a",
        "4a312c",
        "shirtScoopNeck",
        "e2574c",
        "d3ecec",
        iris="4a3326",
        lashes=1.0,
        lip_fullness=1.1,
        lip_rose=0.8,
        blush=0.8,
    ),
    Person(
        "leo",
        "shortWaved",
        "ffdbb4",
        "a55728",
        "hoodie",
        "3f7cac",
        "fbeec2",
        iris="2f3e52",
        brow_thickness=1.15,
        lip_fullness=0.85,
        lip_rose=0.35,
    ),
    Person(
        "amara",
        "fro",
        "8a5a3c",
        "2c1b18",
        "overall",
        "e8a33d",
        "d8ecd5",
        iris="2a1c16",
        lashes=1.0,
        lip_fullness=1.25,
        lip_rose=0.7,
        blush=0.4,
        bare_arms=True,
    ),
    Person(
        "omar",
        "shortFlat",
        "c07d50",
        "2c1b18",
        "blazerAndShirt",
        "25557c",
        "f6dcc9",
        facial_hair="beardLight",
        facial_hair_color="2c1b18",
        iris="3b2a22",
        brow_thickness=1.25,
        lip_rose=0.4,
    ),
    Person(
        "greta",
        "shortCurly",
        "f7cfa9",
        "e8e1e1",
        "collarAndSweater",
        "6c6fb5",
        "f3d4dc",
        accessories="round",
        accessories_color="3c4f5c",
        iris="2f3e52",
        lashes=0.6,
        lip_rose=0.7,
        blush=0.7,
    ),
    Person(
        "kenji",
        "shortRound",
        "f1c79b",
        "1f2430",
        "shirtCrewNeck",
        "2f6f5e",
        "e3d9f2",
        accessories="prescription02",
        accessories_color="262e33",
        iris="26262b",
        brow_arch=0.8,
        lip_rose=0.4,
    ),
]


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def _jitter(rng: random.Random, color: str, hue: float, saturation: float, value: float) -> str:
    h, s, v = colorsys.rgb_to_hsv(*_rgb(color))
    h = (h + rng.uniform(-hue, hue)) % 1.0
    s = min(1.0, max(0.0, s * (1 + rng.uniform(-saturation, saturation))))
    v = min(1.0, max(0.05, v * (1 + rng.uniform(-value, value))))
    return "".join(f"{round(c * 255):02x}" for c in colorsys.hsv_to_rgb(h, s, v))


def _distance(a: str, b: str) -> float:
    return math.dist(_rgb(a), _rgb(b))


def _far_color(
    rng: random.Random, palette: list[str], others: list[str], spread: tuple[float, float, float]
) -> str:
    """A jittered palette colour that stands off from the given ones."""
    best, best_distance = palette[0], -1.0
    for _ in range(6):
        color = _jitter(rng, rng.choice(palette), *spread)
        distance = min(_distance(color, other) for other in others)
        if distance > 0.28:
            return color
        if distance > best_distance:
            best, best_distance = color, distance
    return best


def _random_top(rng: random.Random) -> str | None:
    kind = rng.random()
    if kind < 0.47:
        return rng.choice(TOPS_LONG)
    if kind < 0.86:
        return rng.choice(SHORT_HAIR)
    return rng.choice(HATS) if kind < 0.97 else None


def _random_person(rng: random.Random, index: int) -> Person:
    top = _random_top(rng)
    skin = _jitter(rng, rng.choice(SKIN), 0.008, 0.08, 0.04)
    hair = _jitter(rng, rng.choice(HAIR if rng.random() < 0.88 else DYED), 0.02, 0.2, 0.15)
    clothes = _far_color(rng, CLOTHES, [skin], (0.05, 0.2, 0.1))
    background = _far_color(rng, BACKGROUND, [skin, hair, clothes], (0.03, 0.3, 0.05))
    bearded = top not in LONG_HAIR and rng.random() < 0.36
    clothing = rng.choice(CLOTHING)
    lips = rng.random()
    return Person(
        name=f"p{index:04d}",
        top=top,
        skin=skin,
        hair=hair,
        clothing=clothing,
        clothes=clothes,
        background=background,
        hat=_far_color(rng, CLOTHES, [skin, background], (0.05, 0.2, 0.1)),
        accessories=rng.choice(GLASSES) if rng.random() < 0.25 else None,
        accessories_color=rng.choice(["262e33", "3c4f5c", "25557c", "7b3f3f", "929598"]),
        facial_hair=rng.choice(BEARDS) if bearded else None,
        facial_hair_color=_jitter(rng, hair, 0.01, 0.05, 0.05) if rng.random() < 0.8 else rng.choice(HAIR),
        graphic=rng.choice(GRAPHICS),
        iris=rng.choice(IRIS),
        bare_arms=clothing == "overall"
        or (clothing.startswith(("shirt", "graphic")) and rng.random() < 0.35),
        eye_white=1.0 if rng.random() < 0.75 or sum(_rgb(skin)) < 1.35 else 0.0,
        eye_size=rng.uniform(0.9, 1.12),
        brow_thickness=rng.uniform(0.75, 1.35),
        brow_arch=rng.uniform(0.6, 1.3),
        lip_fullness=rng.uniform(0.75, 1.3),
        lip_rose=lips,
        mouth_width=rng.uniform(0.9, 1.1),
        smile=rng.uniform(0.5, 1.3),
        blush=rng.uniform(0.0, 0.9),
        lashes=1.0 if top in LONG_HAIR and rng.random() < 0.7 else 0.0,
    )


def all_people(extra: int = 0) -> list[Person]:
    """The bundled avatars followed by the random people, always the same, and `extra` more to train on."""
    rng = random.Random(SEED)
    return [*BUNDLED, *(_random_person(rng, index) for index in range(RANDOM_PEOPLE + extra))]


def split() -> dict[str, list[str]]:
    """Names by use. `held_out` is never trained on. The bundled avatars are always in `train`."""
    rng = random.Random(SEED + 1)
    people = all_people()
    names = [person.name for person in people[len(BUNDLED) :]]
    held_out = sorted(rng.sample(names, HELD_OUT))
    bundled = [person.name for person in BUNDLED]
    return {
        "bundled": bundled,
        "held_out": held_out,
        "train": bundled + [name for name in names if name not in set(held_out)],
    }

"""The pictures on which the measure of fit is tried: drawn people of several styles, and photographs."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from demo.factory.evaluate.material import HeldOut
from gateway.avatars.cropping import WHOLE, Crop, CropError, cut
from protocol.model.assets import AssetError
from protocol.model.pictures import read_picture
from protocol.process.settings import ROOT

HERE = Path(__file__).resolve().parent
SAMPLE = HERE.parent / "sample"
#: The figure smaller in its frame, as a person crops one that fills its picture.
SMALLER: Crop = (-0.15, -0.12, 1.3, 1.3)
#: The head and what is around it.
CLOSER: Crop = (0.12, 0.0, 0.76, 0.76)


@dataclass(frozen=True, eq=False)
class FitPicture:
    """One picture in the shape of the model's frames."""

    #: `photo`, or a style.
    kind: str
    name: str
    picture: Image.Image


def draw_people(folder: Path, count: int) -> Path:
    """Draw `count` people of each style. Needs Node and npm. Returns the folder of their pictures.

    Raises:
        subprocess.CalledProcessError: npm or the drawing failed.
    """
    node, people = folder / "node", folder / "people"
    shutil.copytree(HERE / "node", node, ignore=shutil.ignore_patterns("node_modules"))
    people.mkdir()
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=node, check=True, capture_output=True)
    subprocess.run(["node", "draw.mjs", str(people), str(count)], cwd=node, check=True)
    return people


def drawn(people: Path, ratio: float) -> Iterator[FitPicture]:
    """Each person of a folder twice: as drawn, and smaller in the frame. Names begin with the style."""
    for file in sorted(people.glob("*.png")):
        picture, kind = read_picture(file), file.stem.rpartition("-")[0]
        for crop, way in ((WHOLE, ""), (SMALLER, " smaller")):
            yield FitPicture(kind, file.stem + way, cut(picture, crop, ratio))


def photographs(folder: Path, ratio: float) -> Iterator[FitPicture]:
    """Each photograph of a folder twice: by the usual crop, and closer."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            picture = read_picture(file)
            for crop, way in ((WHOLE, ""), (CLOSER, " closer")):
                yield FitPicture("photo", file.stem + way, cut(picture, crop, ratio))
        except (AssetError, CropError):
            continue  # a file of another kind, or too small a picture


def in_turn(samples: Iterable[FitPicture], seed: int = 0) -> Iterator[FitPicture]:
    """The pictures with one of each kind in turn. Those of a kind come in an order of chance."""
    kinds: dict[str, list[FitPicture]] = {}
    for sample in samples:
        kinds.setdefault(sample.kind, []).append(sample)
    for of_kind in kinds.values():
        random.Random(seed).shuffle(of_kind)
    for turn in zip_longest(*kinds.values()):
        yield from (sample for sample in turn if sample is not None)


def own_kind(folder: Path, ratio: float) -> Iterator[FitPicture]:
    """Figures of the model's own kind: bundled ones, held-out ones, and each changed in six ways."""
    held_out = HeldOut(SAMPLE / "identities.npz", SAMPLE / "speech.npz", 3, 512, torch.device("cpu"))
    avatars, _ = held_out.write(folder / "held out")
    for file in sorted([*(ROOT / "demo/bundled/avatars").glob("*.png"), *avatars.glob("*.png")]):
        picture = read_picture(file)
        changed = {
            "": picture,
            " mirrored": ImageOps.mirror(picture),
            " of other colours": _turned(picture, 40),
            " of opposite colours": _turned(picture, 128),
            " dark": ImageEnhance.Brightness(picture).enhance(0.75),
            " pale": ImageEnhance.Color(picture).enhance(0.5),
        }
        for way, each in changed.items():
            yield FitPicture("own kind", file.stem + way, cut(each, WHOLE, ratio))
        yield FitPicture("own kind", f"{file.stem} shifted", cut(picture, (-0.03, -0.02, 1.05, 1.05), ratio))


def _turned(picture: Image.Image, by: int) -> Image.Image:
    """The picture with its hues turned by `by` of 256 steps."""
    hsv = np.array(picture.convert("HSV"))
    hsv[..., 0] += np.uint8(by)
    return Image.fromarray(hsv, "HSV").convert("RGB")

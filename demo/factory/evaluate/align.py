"""How well own avatars are aligned by their faces.

    python -m demo.factory.evaluate.align --photos FOLDER --official FOLDER

`--official` has pictures in the framing of the official weights (../shared/data/reference). Pictures of a
model's framing say where its faces lie. They are then laid into larger pictures at random places and sizes,
and the alignment has to find the frame again. Photographs say how often a face is found, and how far from its
place it lies once the part is cut. With `--shoulders` the detector of upper bodies is tried beside it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gateway.avatars.alignment import BUNDLED, OFFICIAL, Face, align, sight_of
from gateway.avatars.cropping import cut
from gateway.avatars.decoding import MOST_PIXELS
from gateway.avatars.faces import find_faces
from protocol.model.assets import AssetError
from protocol.model.pictures import read_picture
from protocol.process.settings import ROOT, load_settings

#: Sides in pixels at which the pictures of a model are looked at.
SIDES = (256, 400, 512, 640, 768)
#: Random places for each picture of a model.
PLACES = 12
#: The detector of upper bodies, and the longer side in pixels at which it looks.
UPPER_BODY, BODY_SIDE = "haarcascade_upperbody.xml", 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    arguments = _parse(argv)
    models = {
        "bundled": (BUNDLED, _pictures(ROOT / "demo/bundled/avatars")),
        "official": (OFFICIAL, _pictures(arguments.official)),
    }
    for name, (target, pictures) in models.items():
        shown = dict(pictures)
        _print_place(name, target, shown)
        _print_found_again(name, target, shown)
    if arguments.photos:
        for name, (target, _) in models.items():
            _print_photos(name, target, _pictures(arguments.photos))
    if arguments.photos and arguments.shoulders:
        _print_shoulders(_pictures(arguments.photos))
    return 0


def _pictures(folder: Path) -> Iterator[tuple[str, Image.Image]]:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            yield file.name, read_picture(file, most_pixels=MOST_PIXELS)
        except AssetError:
            continue


def _place(picture: Image.Image) -> Face | None:
    """The largest face, as fractions of a square picture's side."""
    faces = sight_of(picture.size, find_faces(picture)).faces
    side = picture.width
    return Face(faces[0].x / side, faces[0].y / side, faces[0].side / side) if faces else None


def _print_place(name: str, target: Face, pictures: dict[str, Image.Image]) -> None:
    places, missed = [], 0
    for picture in pictures.values():
        seen = [_place(picture.resize((side, side), Image.Resampling.LANCZOS)) for side in SIDES]
        found = [(face.x, face.y, face.side) for face in seen if face is not None]
        missed += len(seen) - len(found)
        if found:
            places.append(np.median(found, axis=0))
    mean = ", ".join(f"{value:.3f}" for value in np.mean(places, axis=0))
    spread = ", ".join(f"{value:.3f}" for value in np.std(places, axis=0))
    print(
        f"{name}: face at ({mean}) ± ({spread}) in {len(places)} of {len(pictures)} pictures,"
        f" {missed} of {len(pictures) * len(SIDES)} looks without; the gateway's"
        f" ({target.x}, {target.y}, {target.side})"
    )


def _print_found_again(name: str, target: Face, pictures: dict[str, Image.Image]) -> None:
    """Lay each picture into larger ones, and compare the aligned part with where it lies."""
    chance, apart, sizes, missed = random.Random(0), [], [], 0
    for picture in pictures.values():
        for _ in range(PLACES):
            side = chance.randrange(300, 700)
            whole = Image.new("RGB", (1100, 1000), (190, 186, 180))
            at = (chance.randrange(0, 1100 - side), chance.randrange(0, 1000 - side))
            whole.paste(picture.resize((side, side), Image.Resampling.LANCZOS), at)
            aligned = align(sight_of(whole.size, find_faces(whole)), target, 1.0)
            if aligned.reason or aligned.crop is None:
                missed += 1
                continue
            left, top, width, height = np.multiply(aligned.crop, (1100, 1000, 1100, 1000))
            middle = (left + width / 2 - at[0] - side / 2, top + height / 2 - at[1] - side / 2)
            apart.append(float(np.hypot(*middle)) / side)
            sizes.append(abs(width / side - 1))
    print(
        f"{name}: laid into larger pictures: found again {len(apart)} of {len(apart) + missed};"
        f" middle off by {_share(apart)} of the side, size by {_share(sizes)}"
    )


def _share(values: Sequence[float]) -> str:
    return f"{np.median(values):.1%} (median), {np.quantile(values, 0.9):.1%} (90 %)" if values else "–"


def _print_photos(name: str, target: Face, pictures: Iterator[tuple[str, Image.Image]]) -> None:
    told: Counter[str] = Counter()
    seconds, apart, sizes = [], [], []
    for _, picture in pictures:
        begun = time.process_time()
        sight = sight_of(picture.size, find_faces(picture))
        seconds.append(time.process_time() - begun)
        aligned = align(sight, target, 1.0)
        told[aligned.reason or "face"] += 1
        if aligned.reason is None and aligned.crop is not None:
            again = _place(cut(picture, aligned.crop, 1.0))
            if again is None:
                told["(not found again in the part)"] += 1
                continue
            apart.append(float(np.hypot(again.x - target.x, again.y - target.y)))
            sizes.append(abs(again.side - target.side))
    print(f"\n{name}: {len(seconds)} photos: " + ", ".join(f"{key} {n}" for key, n in told.most_common()))
    print(f"  the face's middle is off by {_share(apart)} of the frame's side, its size by {_share(sizes)}")
    print(f"  processor time {np.median(seconds):.3f} s (median), {max(seconds):.3f} s (most)")


def _print_shoulders(pictures: Iterator[tuple[str, Image.Image]]) -> None:
    """How often the detector of upper bodies has one box, around the face: centred, its head at the top."""
    import cv2

    cv2.setNumThreads(1)
    detector = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / UPPER_BODY))
    told: Counter[str] = Counter()
    seconds = []
    for _, picture in pictures:
        picture.thumbnail((BODY_SIDE, BODY_SIDE), Image.Resampling.LANCZOS)
        faces = sight_of(picture.size, find_faces(picture)).faces
        if not faces:
            continue
        begun = time.process_time()
        bodies = detector.detectMultiScale(np.asarray(picture.convert("L")), 1.05, 3)
        seconds.append(time.process_time() - begun)
        around = [body for body in bodies if _agrees(faces[0], [float(value) for value in body])]
        if not around:
            told["none around the face"] += 1
        else:
            told["one alone, around the face" if len(bodies) == 1 else "others beside"] += 1
    print(f"\nupper bodies in {len(seconds)} photos with a face: {dict(told)}")
    print(f"  processor time {np.median(seconds):.3f} s (median), {max(seconds):.3f} s (most)")


def _agrees(face: Face, body: Sequence[float]) -> bool:
    left, top, width, height = body
    across, down = (face.x - left) / width, (face.y - top) / height
    return abs(across - 0.5) < 0.12 and 0.1 < down < 0.6 and 1.5 < width / face.side < 4


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.factory.evaluate.align", description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    reference = Path(load_settings([]).shared_dir) / "data/reference"
    parser.add_argument("--official", type=Path, default=reference, help=f"default {reference}")
    parser.add_argument("--shoulders", action="store_true", help="try the detector of upper bodies too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())

"""Rasterise people from their SVGs with `resvg-py`, on a machine that has neither Node nor a network.

    python -m demo.factory.figure.make_identities --only-svgs people.json.xz     # where Node is
    python -m demo.factory.figure.make_identities --svgs people.json.xz --processes 60

The SVGs of all 4,040 people take 160 KB, their layers 52 MB and more. Both ways use the same rasteriser.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from demo.factory.figure.layers import hair_behind, premultiplied_average, split_layers
from demo.factory.figure.people import LONG_HAIR, Person

#: Layers of one person by name, premultiplied uint8 (size, size, 4). "behind" is for long hair alone.
Layers = dict[str, np.ndarray]
LARGER = 2  # drawn this many times larger and averaged, so that outlines are soft


def write_svgs(svgs: list[str], target: Path) -> None:
    """Write the people's SVGs, compressed."""
    target.write_bytes(lzma.compress(json.dumps(svgs).encode()))


def read_svgs(source: Path) -> list[str]:
    """The SVGs of `write_svgs`, in the order of `all_people`."""
    svgs: list[str] = json.loads(lzma.decompress(source.read_bytes()))
    return svgs


def person_layers(person: Person, svg: str, size: int) -> Layers:
    """The layers of one person, `size` pixels wide."""
    import resvg_py  # a tool of this module alone, imported in each process

    pictures = {}
    for name, text in split_layers(svg, person.skin).items():
        drawn = resvg_py.svg_to_bytes(svg_string=text, width=LARGER * size, skip_system_fonts=True)
        with Image.open(io.BytesIO(bytes(drawn))) as png:
            pictures[name] = premultiplied_average(np.asarray(png.convert("RGBA")), LARGER)
    hair = pictures.pop("hair")
    if person.top in LONG_HAIR:
        pictures["behind"] = hair_behind(hair)
    return pictures


def rasterise(people: list[Person], svgs: list[str], size: int, processes: int) -> Iterator[Layers]:
    """The layers of each person, in order, drawn by `processes` processes."""
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(person_layers, people, svgs, repeat(size), chunksize=4)

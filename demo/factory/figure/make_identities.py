"""Build the identities: `python -m demo.factory.figure.make_identities`.

It needs Node and npm once, because the avatar parts and a rasteriser come from the npm registry. The renderer
reads only the result, `demo/factory/figure/build/identities.npz`. A machine without Node takes the people's
SVGs from a file (`--svgs`, see `demo.factory.figure.raster`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from demo.factory.figure.layers import VIEW, VIEW_X, VIEW_Y, hair_behind, premultiplied_average, split_layers
from demo.factory.figure.people import BUNDLED, LONG_HAIR, Person, all_people, split
from demo.factory.figure.raster import rasterise, read_svgs, write_svgs
from demo.factory.figure.renderer import Renderer

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
AVATARS = HERE.parents[1] / "bundled/avatars"
SPLIT_FILE = HERE / "split.json"
#: People drawn by one process, which keeps the memory of all that it drew.
BATCH = 500
PROPORTIONS = [
    "eye_white", "eye_size", "brow_thickness", "brow_arch", "lip_fullness", "lip_rose", "mouth_width",
    "smile", "blush", "lashes", "bare_arms",
]  # fmt: skip


def _node(folder: Path, *arguments: str) -> None:
    subprocess.run(["node", "draw.mjs", *arguments], cwd=folder, check=True)


def _prepare_node(build: Path) -> Path:
    """A folder with the script and its npm packages."""
    folder = build / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "draw.mjs"):
        shutil.copy(HERE / "node" / name, folder / name)
    if not (folder / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


def _rasterise(folder: Path, people: list[Person], size: int) -> dict[str, np.ndarray]:
    """Premultiplied uint8 (people, size, size, 4) by layer."""
    layers = {name: np.zeros((len(people), size, size, 4), np.uint8) for name in ("body", "front", "behind")}
    for first in range(0, len(people), BATCH):
        part = slice(first, first + BATCH)
        _rasterise_some(folder, people[part], size, {name: layer[part] for name, layer in layers.items()})
    return layers


def _svgs(folder: Path, people: list[Person]) -> list[str]:
    """One SVG a person, from the avatar library."""
    options = folder / "options.json"
    people_json = folder / "people.json"
    options.write_text(json.dumps([person.options() for person in people]))
    _node(folder, "people", options.name, people_json.name)
    svgs: list[str] = json.loads(people_json.read_text())
    return svgs


def _rasterise_some(folder: Path, people: list[Person], size: int, layers: dict[str, np.ndarray]) -> None:
    """Fills the layers of these people."""
    svgs = {}
    for person, svg in zip(people, _svgs(folder, people), strict=True):
        for layer, text in split_layers(svg, person.skin).items():
            svgs[f"{person.name}.{layer}"] = text
    svg_json = folder / "layers.json"
    svg_json.write_text(json.dumps(svgs))
    pictures = folder / "png"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir()
    _node(folder, "raster", svg_json.name, pictures.name, str(2 * size))
    for number, person in enumerate(people):
        images = {}
        for layer in ("body", "front", "hair"):
            with Image.open(pictures / f"{person.name}.{layer}.png") as png:
                images[layer] = premultiplied_average(np.asarray(png.convert("RGBA")), 2)
        layers["body"][number], layers["front"][number] = images["body"], images["front"]
        if person.top in LONG_HAIR:
            layers["behind"][number] = hair_behind(images["hair"])
    shutil.rmtree(pictures)


def _colors(people: list[Person], attribute: str) -> np.ndarray:
    return np.array([list(bytes.fromhex(getattr(person, attribute))) for person in people], dtype=np.uint8)


def _rasterise_svgs(
    people: list[Person], svgs: list[str], size: int, processes: int
) -> dict[str, np.ndarray]:
    """As `_rasterise`, from these SVGs."""
    layers = {name: np.zeros((len(people), size, size, 4), np.uint8) for name in ("body", "front", "behind")}
    for number, drawn in enumerate(rasterise(people, svgs[: len(people)], size, processes)):
        for name, layer in drawn.items():
            layers[name][number] = layer
    return layers


def build(
    target: Path, people: list[Person], arrays: dict[str, np.ndarray], *, compressed: bool = True
) -> None:
    """Write every identity's layers, colours and proportions to one file.

    Args:
        target: the file.
        people: the identities, those of the split first.
        arrays: their layers, premultiplied uint8 (people, size, size, 4) by name.
        compressed: False writes a file that is larger and read sooner.
    """
    has_behind = arrays["behind"][..., 3].any(axis=(1, 2))
    arrays["behind"] = arrays["behind"][has_behind]
    contents: dict[str, Any] = dict(
        names=np.array([person.name for person in people]),
        view=np.array([VIEW_X, VIEW_Y, VIEW], dtype=np.float32),
        behind_of=np.flatnonzero(has_behind).astype(np.int64),
        proportions=np.array(
            [[float(getattr(person, key)) for key in PROPORTIONS] for person in people], dtype=np.float32
        ),
        proportion_names=np.array(PROPORTIONS),
        **{key: _colors(people, key) for key in ("skin", "hair", "clothes", "background", "iris")},
        **arrays,
    )
    part = target.with_suffix(".part.npz")  # a reader never meets half a file
    (np.savez_compressed if compressed else np.savez)(part, **contents)
    part.replace(target)
    SPLIT_FILE.write_text(json.dumps(split(), indent=1) + "\n")


def write_avatars(assets: Path, folder: Path, size: int) -> None:
    """Write the bundled avatars' reference pictures, in the neutral state."""
    names = [person.name for person in BUNDLED]
    renderer = Renderer(assets, size=size, identities=names)
    pictures = renderer.reference(torch.arange(len(names))).mul(255.0).round().byte()
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=384, help="side of the stored layers (default 384)")
    parser.add_argument("--output", type=Path, default=BUILD / "identities.npz")
    parser.add_argument(
        "--avatars", type=Path, default=AVATARS, help="folder of the bundled avatars' pictures"
    )
    parser.add_argument("--extra", type=int, default=3400, help="people beyond the split's, to train on")
    parser.add_argument("--avatar-size", type=int, default=256)
    parser.add_argument("--only-svgs", type=Path, help="write the people's SVGs to this file alone")
    parser.add_argument("--svgs", type=Path, help="take them from this file, and resvg-py in place of Node")
    parser.add_argument("--processes", type=int, default=1, help="with --svgs: processes that rasterise")
    arguments = parser.parse_args()
    people = all_people(arguments.extra)
    if arguments.only_svgs:
        folder = _prepare_node(BUILD)
        batches = (people[first : first + BATCH] for first in range(0, len(people), BATCH))
        write_svgs([svg for batch in batches for svg in _svgs(folder, batch)], arguments.only_svgs)
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if arguments.svgs:
        arrays = _rasterise_svgs(people, read_svgs(arguments.svgs), arguments.size, arguments.processes)
    else:
        arrays = _rasterise(_prepare_node(arguments.output.parent), people, arguments.size)
    build(arguments.output, people, arrays, compressed=not arguments.svgs)
    if not arguments.svgs:
        write_avatars(arguments.output, arguments.avatars, arguments.avatar_size)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Weights between those of two training states.

Run it as `python -m demo.factory.train blend --state A --other B --share S`.

A stage that went on from A to B may gain in one figure and lose in another. Weights between A and B can do
better than the mean of both figures, because both networks began as one (WiSE-FT, Wortsman et al. 2022).
A head that A has never trained is between nothing and something: `--whole PREFIX` takes it from B as it is.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from demo.factory.train.listen import ADAPTER

PARTS = ("vae", "networks")


def blend_states(state: Path, other: Path, share: float, whole: str | None = None) -> None:
    """Move all that is trained in `state`, weights and running averages, by `share` towards that in `other`.

    Tensors whose names begin with `whole` move all the way. A part's moments of the optimiser are dropped
    where the part moved, because they fit neither any more.

    Raises:
        ValueError: the share is outside 0 to 1, or the two states hold different tensors.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"--share {share}: choose from 0 (as it is) to 1 (the other state's)")
    files = {part: [f"{part}.{kind}.safetensors" for kind in ("weights", "average")] for part in PARTS}
    if (state / ADAPTER).is_file() and (other / ADAPTER).is_file():
        files["adapter"] = [ADAPTER]
    for name in chain.from_iterable(files.values()):
        _check_alike(state / name, other / name)
    for part, names in files.items():
        moved = [_blend(state / name, other / name, share, whole) for name in names]
        if any(moved):
            (state / f"{part}.moments.safetensors").unlink(missing_ok=True)


def _shapes(file: Path) -> dict[str, list[int]]:
    """Shapes of a file's tensors. None is read."""
    with safe_open(file, "pt") as tensors:
        return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118


def _check_alike(file: Path, other: Path) -> None:
    if _shapes(file) != _shapes(other):
        raise ValueError(f"{file} and {other} are of different networks")


def _blend(file: Path, other: Path, share: float, whole: str | None) -> bool:
    """Blend one file's tensors. Returns whether they changed."""
    ours, theirs = load_file(file), load_file(other)
    if all(value.equal(theirs[key]) for key, value in ours.items()):
        return False
    shares = {key: 1.0 if whole and key.startswith(whole) else share for key in ours}
    save_file({key: value.lerp(theirs[key], shares[key]) for key, value in ours.items()}, file)
    return True

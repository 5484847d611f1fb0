"""Weights between those of two training states.

Run it as `python -m demo.factory.train blend --state A --other B --share S`.

A stage that went on from A to B may gain in one figure and lose in another. Weights between A and B can do
better than the mean of both figures, because both networks began as one (WiSE-FT, Wortsman et al. 2022).
A head that A has never trained is between nothing and something: `--whole PREFIX` takes it from B as it is.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file


def blend_vae(state: Path, other: Path, share: float, whole: str | None = None) -> None:
    """Move the VAE in `state`, weights and running average, by `share` towards that in `other`.

    Tensors whose names begin with `whole` move all the way.

    The optimiser's moments are dropped, because they fit neither any more.

    Raises:
        ValueError: the share is outside 0 to 1, or the two states hold different tensors.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"--share {share}: choose from 0 (as it is) to 1 (the other state's)")
    for kind in ("weights", "average"):
        name = f"vae.{kind}.safetensors"
        ours, theirs = load_file(state / name), load_file(other / name)
        if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
            raise ValueError(f"{state / name} and {other / name} are of different networks")
        shares = {key: 1.0 if whole and key.startswith(whole) else share for key in ours}
        save_file({key: value.lerp(theirs[key], shares[key]) for key, value in ours.items()}, state / name)
    (state / "vae.moments.safetensors").unlink(missing_ok=True)

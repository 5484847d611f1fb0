"""Write the bundled pose loops: `python -m demo.factory.poses.make_poses [--out FOLDER] [--all]`."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.factory.motion.hands import GESTURES, hand_track
from demo.factory.motion.life import life_track
from demo.factory.motion.marks import MARKS_COLOR, MARKS_EDGES, MARKS_RADIUS, life_to_marks

FOLDER = Path(__file__).resolve().parent
SPLIT = FOLDER / "split.json"
#: Where the loops that ship lie.
BUNDLED = FOLDER.parents[1] / "bundled/poses"
#: The written split, as JSON.
Split = dict[str, Any]


def load_split(path: Path = SPLIT) -> Split:
    """The written split: seeds by name (`train`, `held_out`), the `bundled` names, `life_seed`, `frames`."""
    split: Split = json.loads(path.read_text(encoding="utf-8"))
    return split


def pose_arrays(name: str, split: Split | None = None) -> dict[str, NDArray[Any]]:
    """All arrays of one pose file, by key: hands, hands_score, fps, style, life, marks, marks_*.

    Raises:
        ValueError: the split has no such pose.
    """
    split = split or load_split()
    seeds = {**split["train"], **split["held_out"]}
    if name not in seeds:
        raise ValueError(f"no pose {name!r} in {SPLIT.name}; it has {', '.join(sorted(seeds))}")
    frames, fps = split["frames"], split["fps"]
    gestures = tuple(split["gestures"].get(name, GESTURES))
    hands = hand_track(seeds[name], frames, fps, gestures)
    life = life_track(frames, split["life_seed"], fps)
    return {
        "hands": hands,
        "hands_score": np.ones(hands.shape[:3], dtype=np.float32),
        "fps": np.array(fps, dtype=np.int64),
        "style": np.array("sdf"),
        "life": life,
        "marks": life_to_marks(life),
        "marks_edges": MARKS_EDGES,
        "marks_color": MARKS_COLOR,
        "marks_radius": MARKS_RADIUS,
    }


def main() -> None:
    """Write the bundled loops (or every one of the split with --all)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument(
        "--all", action="store_true", help="every loop of the split, not the bundled ones alone"
    )
    arguments = parser.parse_args()
    split = load_split()
    names = [*split["train"], *split["held_out"]] if arguments.all else split["bundled"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = arguments.out / f"{name}.npz"
        arrays: dict[str, Any] = pose_arrays(name, split)
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()

"""Pose loops, signs of life, their marks, and the drawing of pose maps."""

import numpy as np
import pytest
import torch
from torch import Tensor

from demo.factory.figure.rest import rest_hands
from demo.factory.motion import pose_map
from demo.factory.motion.hands import hand_track
from demo.factory.motion.life import HEAD_ROLL, HEAD_SHIFT, LOOP_FRAMES, life_track
from demo.factory.motion.marks import LIFE_COLUMNS, MARKS_COUNT, MARKS_EDGES, life_to_marks
from demo.factory.poses.make_poses import BUNDLED, load_split, pose_arrays
from gpu_worker.poses import sdf as pose_sdf

SPLIT = load_split()


def test_split_keeps_training_and_held_out_apart() -> None:
    assert len(SPLIT["train"]) >= 12 and len(SPLIT["held_out"]) >= 3
    seeds = [*SPLIT["train"].values(), *SPLIT["held_out"].values()]
    assert len(set(seeds)) == len(seeds)
    assert not set(SPLIT["train"]) & set(SPLIT["held_out"])


@pytest.mark.parametrize("name", [*SPLIT["train"], *SPLIT["held_out"]])
def test_hand_loops_start_at_rest_move_stay_inside_and_close(name: str) -> None:
    hands = pose_arrays(name)["hands"]
    assert hands.shape == (288, 2, 21, 2) and hands.dtype == np.float32
    np.testing.assert_allclose(hands[0], rest_hands(), atol=2e-3)
    step = np.abs(np.diff(hands, axis=0, append=hands[:1])).max(axis=(1, 2, 3))
    assert step[-1] < 0.01 and step.max() < 0.09
    assert hands.min() > 0 and hands.max() < 1
    assert (hands.max(axis=0) - hands.min(axis=0)).max() > 0.05


def test_hands_have_their_size() -> None:
    hands = hand_track(5)
    size = np.linalg.norm(hands[:, :, 12] - hands[:, :, 0], axis=-1)
    assert 0.10 < np.percentile(size, 50) < 0.2 and size.max() < 0.2


def test_shipped_loops_are_what_the_script_makes() -> None:
    for name in SPLIT["bundled"]:
        expected = pose_arrays(name)
        with np.load(BUNDLED / f"{name}.npz", allow_pickle=False) as file:
            assert set(file) == set(expected)
            for key, value in expected.items():
                if value.dtype.kind == "f":
                    np.testing.assert_allclose(file[key], value, atol=1e-5)
                else:
                    assert np.array_equal(file[key], value)
    assert load_split()["frames"] % 12 == 0


@pytest.mark.parametrize("seed", range(8))
def test_life_blinks_breathes_and_closes(seed: int) -> None:
    life = life_track(LOOP_FRAMES, seed)
    closed = life[:, 0]
    starts = np.flatnonzero((closed[1:] > 0.5) & (closed[:-1] <= 0.5)) / 24
    assert 2 <= len(starts) <= 6 and closed.max() > 0.95
    gaps = np.diff(np.append(starts, starts[0] + LOOP_FRAMES / 24))
    assert (gaps > 1.95).all() and (gaps < 5.3).all()
    assert closed[0] == 0 and closed[-1] == 0
    bounds = np.array([1, 1, HEAD_SHIFT, HEAD_SHIFT, HEAD_ROLL, 1, 1, 1]) + 1e-6
    assert (np.abs(life) <= bounds).all()
    np.testing.assert_allclose(life[0, [2, 3, 4, 5, 6, 7]], 0, atol=1e-6)
    slow = np.delete(life, 0, axis=1)
    step = np.abs(np.diff(slow, axis=0, append=slow[:1]))
    assert (step[-1] <= step.max(axis=0) + 1e-6).all()
    spectrum = np.abs(np.fft.rfft(life[:, 1] - life[:, 1].mean()))
    assert int(spectrum.argmax()) == 3  # three breaths in 12 s


def test_marks_tell_every_motion() -> None:
    still = np.zeros(len(LIFE_COLUMNS), dtype=np.float32)
    base = life_to_marks(still)
    assert base.shape == (MARKS_COUNT, 2) and MARKS_EDGES.max() == MARKS_COUNT - 1
    for column, size in enumerate((1, 1, HEAD_SHIFT, HEAD_SHIFT, HEAD_ROLL, 1, 1, 1)):
        moved = still.copy()
        moved[column] = size
        assert np.abs(life_to_marks(moved) - base).max() > 0.02, LIFE_COLUMNS[column]
    with pytest.raises(ValueError, match="eyelid_closed"):
        life_to_marks(np.zeros((3, 4), np.float32))


def _draw(
    name: str, frames: slice, size: int | tuple[int, int] = 64
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    arrays = pose_arrays(name)
    hands, score, marks = (torch.from_numpy(arrays[key][frames]) for key in ("hands", "hands_score", "marks"))
    return (hands, score, marks), pose_map.draw_pose_maps(hands, score, marks, size)


def test_pose_maps_are_bounded_and_independent_of_batching() -> None:
    (hands, score, marks), together = _draw("talk", slice(40, 44), (64, 96))
    assert together.shape == (4, 3, 64, 96) and together.dtype == torch.float32
    assert together.min() >= 0 and together.max() <= 1 and together.max() > 0.9
    alone = torch.cat(
        [
            pose_map.draw_pose_maps(hands[i : i + 1], score[i : i + 1], marks[i : i + 1], (64, 96))
            for i in range(4)
        ]
    )
    assert torch.equal(alone, together)


def test_pose_maps_do_not_depend_on_cropping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU draws each capsule over the whole map, the CPU over its extent: the same picture."""
    (hands, score, marks), cropped = _draw("lively", slice(100, 102))
    monkeypatch.setattr(pose_sdf, "_extent", lambda start, stop, radius, h, w: (slice(0, h), slice(0, w)))
    assert torch.equal(pose_map.draw_pose_maps(hands, score, marks, 64), cropped)


def test_unseen_points_are_left_out_and_wrong_shapes_named() -> None:
    (hands, score, marks), full = _draw("talk", slice(0, 1))
    gone = pose_map.draw_pose_maps(hands, torch.zeros_like(score), torch.full_like(marks, torch.nan), 64)
    assert gone.abs().max() == 0 and full.abs().max() > 0
    off = pose_map.draw_pose_maps(hands + 5, score, marks - 5, 64)
    assert off.abs().max() == 0
    with pytest.raises(ValueError, match="hands_score"):
        pose_map.draw_pose_maps(hands, score[:, :1], marks, 64)


def test_serving_draws_in_numpy_as_training_does_in_torch() -> None:
    arrays = pose_arrays("talk" if "talk" in SPLIT["train"] else next(iter(SPLIT["train"])))
    some = slice(0, 48, 12)
    names = ("hands", "hands_score", "marks", "marks_edges", "marks_color", "marks_radius")
    of_file = [np.ascontiguousarray(arrays[name]) for name in names]
    hands, score, marks, edges, colours, radii = of_file
    hands[0, 0, 3] = np.nan
    points = (hands[some], score[some], marks[some])
    drawn = pose_sdf.draw_pose_maps(*points, edges, colours, radii, (64, 48))
    a, b, c, d, e, f = map(torch.from_numpy, (*points, edges, colours, radii))
    wanted = pose_sdf.draw_pose_maps(a, b, c, d, e, f, (64, 48))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, wanted.numpy(), atol=2e-5)

"""Drawing and reading of poses; the official drawing against golden maps."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_worker.poses.raster import draw_disc, draw_line, resize_bilinear
from gpu_worker.poses.track import PoseFileError, PoseTrack, draw_hands
from scripts.convert_pose import convert, main, read_pose
from tests.helpers.parity import shared_dir, whole_golden


def real_poses() -> Path:
    folder = shared_dir() / "data" / "pose" / "01"
    if not folder.exists():
        pytest.skip(f"the real pose sequence is absent: {folder}")
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pose") / "01.npz"
    assert main([str(real_poses()), str(out)]) == 0
    return out


def hand(n: int = 3, seed: int = 0) -> dict[str, Any]:
    g = np.random.default_rng(seed)
    return {
        "hands": g.uniform(0.2, 0.8, (n, 2, 21, 2)).astype(np.float32),
        "hands_score": np.ones((n, 2, 21), np.float32),
        "fps": np.int64(24),
    }


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "track.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("frame", [0, 60, 200])
def test_official_maps(converted: Path, frame: int) -> None:
    wanted = whole_golden("pose_maps.npz")[f"pose_{frame}"].astype(int)
    maps = PoseTrack.load(converted, (768, 768)).draw([frame])
    drawn = (maps[0].transpose(1, 2, 0) * 255).round().astype(int)
    equal = (np.abs(drawn - wanted).max(axis=2) <= 1).mean()
    print(f"parity: pose map {frame}: {100 * equal:.3f} % of pixels within 1 grey level")
    assert equal >= 0.999


def test_whole_sequence_is_converted(converted: Path) -> None:
    track = PoseTrack.load(converted, (768, 768))
    assert len(track) == 336
    assert track.fps == 24
    pose = np.load(real_poses() / "335.npy", allow_pickle=True).item()
    np.testing.assert_allclose(track.hands[335], pose["hands"], rtol=1e-6)


def test_maps_of_other_sizes(converted: Path) -> None:
    track = PoseTrack.load(converted, (256, 512))
    maps = track.draw([0, 1, 2])
    assert maps.shape == (3, 3, 256, 512)
    assert 0 < maps.max() <= 1
    assert maps.any(axis=(1, 2, 3)).all()


def picture(canvas: np.ndarray) -> list[str]:
    return ["".join(".#"[int(value > 0)] for value in row) for row in canvas[:, :, 0]]


def test_disc_and_line_pixels() -> None:
    canvas = np.zeros((9, 9, 3), np.uint8)
    draw_disc(canvas, (4, 4), 4, (1, 1, 1))
    quarter = ["....#....", "..#####..", ".#######.", ".#######."]
    assert picture(canvas) == [*quarter, "#########", *quarter[::-1]]
    canvas = np.zeros((7, 9, 3), np.uint8)
    draw_line(canvas, (2, 2), (6, 4), 2, (1, 1, 1))
    line = [".........", "..#......", ".####....", "..#####..", "....####.", "......#..", "........."]
    assert picture(canvas) == line


def test_drawing_outside_is_clipped() -> None:
    canvas, larger = np.zeros((10, 12, 3), np.uint8), np.zeros((400, 120, 3), np.uint8)
    for x, y in [(-30, 5), (40, -20), (5, 300), (11, 9)]:
        for target, right, down in ((canvas, 0, 0), (larger, 50, 50)):
            draw_line(target, (5 + right, 5 + down), (x + right, y + down), 2, (9, 9, 9))
            draw_disc(target, (x + right, y + down), 4, (9, 9, 9))
    assert np.array_equal(canvas, larger[50:60, 50:62])
    assert 0 < (canvas > 0).mean() < 1


def test_resize_keeps_a_flat_picture() -> None:
    assert (resize_bilinear(np.full((10, 20, 3), 77, np.uint8), 7, 13) == 77).all()
    assert not resize_bilinear(np.zeros((10, 20, 3), np.uint8), 7, 13).any()


def test_points_not_seen_are_left_out() -> None:
    points, scores = hand(1)["hands"][0], np.ones((2, 21))
    points[0] = np.nan
    scores[1] = np.nan
    assert not draw_hands(points, scores, 64, 64).any()
    points[0], scores[0] = -5.0, 1.0
    assert not draw_hands(points, scores, 64, 64).any()


def test_sdf_style_is_drawn_with_marks(tmp_path: Path) -> None:
    marks = {
        "marks": np.full((3, 2, 2), 0.5, np.float32),
        "marks_edges": np.array([[0, 1], [1, 1]]),
        "marks_color": np.array([[1, 0, 0], [0, 1, 0]], np.float32),
        "marks_radius": np.array([0.1, 0.05], np.float32),
    }
    path = saved(
        tmp_path, **{**hand(), "hands_score": np.zeros((3, 2, 21), np.float32)}, style="sdf", **marks
    )
    maps = PoseTrack.load(path, (32, 48)).draw([2, 0])
    assert maps.shape == (2, 3, 32, 48)
    assert maps[0, 1, 16, 24] == 1
    with pytest.raises(PoseFileError, match="marks_edges"):
        marks["marks_edges"] = np.array([[0, 7], [1, 1]])
        PoseTrack.load(saved(tmp_path, **hand(), style="sdf", **marks), (32, 32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hands": np.zeros((3, 21, 2), np.float32)}, "hands is float32"),
        ({"hands": np.zeros((0, 2, 21, 2), np.float32)}, "no frames"),
        ({"hands_score": np.zeros((2, 2, 21), np.float32)}, "hands_score"),
        ({"fps": np.int64(0)}, "fps is 0"),
        ({"style": "painted"}, "painted"),
        ({"style": "sdf"}, "marks is missing"),
        ({"draw_params": np.full((3, 6), 5000)}, "draw_params"),
        ({"hands": np.array([{"a": 1}], dtype=object)}, "not a pose file"),
    ],
)
def test_damaged_track_names_file_and_key(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = saved(tmp_path, **{**hand(), **change})
    with pytest.raises(PoseFileError, match=words) as caught:
        PoseTrack.load(path, (64, 64))
    assert str(path) in str(caught.value)


def test_other_files_are_no_tracks(tmp_path: Path) -> None:
    with pytest.raises(PoseFileError, match="no such"):
        PoseTrack.load(tmp_path / "none.npz", (64, 64))
    path = tmp_path / "text.npz"
    path.write_text("hello")
    with pytest.raises(PoseFileError, match="not a pose file"):
        PoseTrack.load(path, (64, 64))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def test_converter_admits_only_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "0.npy", np.array({"hands": Harmful()}, dtype=object), allow_pickle=True)
    assert main([str(tmp_path), str(tmp_path / "out.npz")]) == 1
    captured = capsys.readouterr()
    assert "executed" not in captured.out
    assert "0.npy" in captured.err
    assert "only numpy arrays" in captured.err
    assert not (tmp_path / "out.npz").exists()


def test_converter_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files"):
        convert(tmp_path, 24)
    pose = {"hands": np.zeros((2, 21, 2)), "hands_score": np.zeros((2, 21))}
    np.save(tmp_path / "0.npy", np.array(pose, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="draw_pose_params is missing"):
        convert(tmp_path, 24)
    pose["draw_pose_params"] = np.array([768, 768, 0, 768, 0, 768])
    for number in (0, 2):
        np.save(tmp_path / f"{number}.npy", np.array(pose, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"1\.npy is missing"):
        convert(tmp_path, 24)
    (tmp_path / "1.npy").write_bytes(pickle.dumps(pose))
    with pytest.raises(ValueError, match=r"1\.npy: not a DWPose file"):
        read_pose(tmp_path / "1.npy")

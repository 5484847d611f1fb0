"""Pose folders as the official extraction tool writes them, drawn as the official code draws them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.thumbnails import pose_svg
from gpu_worker.poses.track import PoseFileError, PoseTrack
from scripts.convert_pose import ConvertError, convert, main
from tests.helpers.parity import golden

#: Frames of the golden file, and the number of hands in each.
FRAMES = {
    "zero_padded/0002": 2,
    "two_people/1": 4,
    "one_hand/1": 1,
    "no_hands/1": 0,
    "crowd/0": 6,  # with every score from 0 to 1, and hands beyond the borders
}


def write_frames(folder: Path, names: Sequence[str], frames: Sequence[str]) -> Path:
    """Files as the official tool pickles them: `names` in `folder`, with these golden frames in turn."""
    folder.mkdir()
    arrays = golden("poses/folders.npz")
    for name, frame in zip(names, frames, strict=True):
        pose = {key: arrays[f"{frame}/{key}"] for key in ("hands", "hands_score")}
        params = [int(value) for value in arrays[f"{frame}/draw_pose_params"]]
        whole = {**pose, "bodies": {}, "num": 0, "draw_pose_params": params}
        np.save(folder / name, np.array(whole, dtype=object), allow_pickle=True)
    return folder


def maps_of(folder: Path, out: Path, count: int) -> NDArray[np.int64]:
    """Maps (count, 768, 768, 3) in 0..255 of the folder's frames, by way of the converter."""
    assert main([str(folder), str(out)]) == 0
    drawn = PoseTrack.load(out, (768, 768)).draw(range(count))
    pixels: NDArray[np.int64] = (drawn.transpose(0, 2, 3, 1) * 255).round().astype(np.int64)
    return pixels


def official_map(frame: str) -> NDArray[np.int64]:
    return golden("poses/folders.npz")[f"{frame}/map"].astype(np.int64)


@pytest.mark.parametrize("frame", FRAMES)
def test_every_hand_is_drawn_as_the_official_code_draws_it(tmp_path: Path, frame: str) -> None:
    drawn = maps_of(write_frames(tmp_path / "p", ["0.npy"], [frame]), tmp_path / "p.npz", 1)[0]
    wanted = official_map(frame)
    differ = np.abs(drawn - wanted).max(axis=2) > 1
    print(f"parity: {frame}: {differ.sum()} of {differ.size} pixels differ by more than 1 grey level")
    assert not differ.any()
    assert wanted.any() == (FRAMES[frame] > 0)


def test_frames_with_unlike_numbers_of_hands_stand_in_one_folder(tmp_path: Path) -> None:
    """No hand of one frame is seen in another."""
    names = [f"{number}.npy" for number in range(len(FRAMES))]
    drawn = maps_of(write_frames(tmp_path / "p", names, list(FRAMES)), tmp_path / "p.npz", len(FRAMES))
    for picture, frame in zip(drawn, FRAMES, strict=True):
        assert np.abs(picture - official_map(frame)).max() <= 1, frame


@pytest.mark.parametrize(
    "names",
    [
        ["0000.npy", "0001.npy", "0002.npy"],
        ["00.npy", "01.npy", "2.npy"],
        ["2.npy", "0.npy", "1.npy"],
        [f"{number:03d}.npy" for number in range(12)],
        [f"{number}.npy" for number in range(12)],
    ],
)
def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    cycle = list(FRAMES)
    frames = [cycle[int(name.removesuffix(".npy")) % len(cycle)] for name in names]
    made = convert(write_frames(tmp_path / "p", names, frames), 24)
    hands = [int(np.isfinite(frame).all(axis=(1, 2)).sum()) for frame in made["hands"]]
    assert hands == [FRAMES[cycle[number % len(cycle)]] for number in range(len(names))]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0.npy", "1.npy", "3.npy"], "2.npy is missing, and 3.npy is there"),
        (["1.npy", "2.npy"], "0.npy is missing, and 1.npy is there"),
        (["0000.npy", "0002.npy"], "0001.npy is missing, and 0002.npy is there"),
        (["0.npy", "00.npy"], "0.npy and 00.npy have one number"),
        (["first.npy", "._0.npy", "٣.npy"], "no files 0.npy, 1.npy"),
    ],
)
def test_a_gap_is_refused_with_the_number_that_is_missing(
    tmp_path: Path, names: list[str], words: str
) -> None:
    """The official program counts from 0 and stops at the first file that is missing."""
    folder = write_frames(tmp_path / "p", names, ["one_hand/1"] * len(names))
    with pytest.raises(ConvertError) as caught:
        convert(folder, 24)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)


def test_other_files_of_the_folder_are_no_frames(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "p", ["0.npy", "1.npy", "._1.npy"], ["one_hand/1"] * 3)
    (folder / ".DS_Store").touch()
    assert len(convert(folder, 24)["hands"]) == 2


@pytest.mark.parametrize(
    ("key", "shape"), [("hands", (21, 2)), ("hands", (2, 20, 2)), ("hands_score", (1, 21))]
)
def test_hands_of_another_shape_are_refused(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    pose = {
        "hands": np.zeros((2, 21, 2)),
        "hands_score": np.zeros((2, 21)),
        "draw_pose_params": [768, 768, 0, 768, 0, 768],
        key: np.zeros(shape),
    }
    np.save(tmp_path / "0.npy", np.array(pose, dtype=object), allow_pickle=True)
    with pytest.raises(ConvertError, match=rf"0\.npy: {key} is float64"):
        convert(tmp_path, 24)


def test_a_track_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_frames(tmp_path / "p", ["0.npy"], ["one_hand/1"])
    assert main([str(folder), str(tmp_path / "nowhere" / "p.npz")]) == 1
    assert capsys.readouterr().err == f"convert_pose: {tmp_path}/nowhere/p.npz: No such file or directory\n"


@pytest.mark.parametrize("people", range(5))
def test_hands_of_any_number_of_people_keep_their_order(tmp_path: Path, people: int) -> None:
    """All left hands, then all right ones: the official code draws them in the order of the file."""
    hands = np.full((2 * people, 21, 2), 0.5) + np.arange(2 * people)[:, None, None] / 100
    pose = {
        "hands": hands,
        "hands_score": np.ones((2 * people, 21)),
        "draw_pose_params": [768, 768, 0, 768, 0, 768],
    }
    np.save(tmp_path / "0.npy", np.array(pose, dtype=object), allow_pickle=True)
    made = convert(tmp_path, 24)["hands"][0]
    assert len(made) == max(2, 2 * people)  # a track has places for two hands at least
    np.testing.assert_allclose(made[: 2 * people], hands, rtol=1e-6)
    assert np.isnan(made[2 * people :]).all()


def test_the_page_shows_every_hand(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "p", ["0.npy", "1.npy"], ["two_people/1", "no_hands/1"])
    assert main([str(folder), str(tmp_path / "p.npz")]) == 0
    for keyframes in (1, 36):
        svg = ElementTree.fromstring(pose_svg(tmp_path / "p.npz", keyframes))
        drawn = svg.findall("{*}g")[1].findall("{*}path")
        assert len(drawn) == 4
        assert "nan" not in ElementTree.tostring(svg).decode()


def test_the_style_sdf_has_two_hands(tmp_path: Path) -> None:
    hands, scores = np.zeros((1, 4, 21, 2), np.float32), np.zeros((1, 4, 21), np.float32)
    np.savez(tmp_path / "p.npz", hands=hands, hands_score=scores, fps=np.int64(24), style="sdf")
    with pytest.raises(PoseFileError, match="hands is float32"):
        PoseTrack.load(tmp_path / "p.npz", (64, 64))

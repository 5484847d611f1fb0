"""Avatars that come after the GPU worker's start, and go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpu_worker.avatars.store import AvatarStore, Picture
from gpu_worker.engine_api import ClipError

OWN = "own-" + "0123456789abcdef" * 2


class Shelf:
    """Reference features on disk: notes the pictures that it is asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def load(self, picture: Picture) -> int | None:
        self.asked.append(int(picture[0, 0, 0]))
        return None

    def has(self, picture: Picture) -> bool:
        return False

    def store(self, picture: Picture, made: int) -> bool:
        self.asked.append(int(picture[0, 0, 0]))
        return True


def save(path: Path, grey: int) -> None:
    Image.new("RGB", (16, 16), (grey, grey, grey)).save(path)


def store_of(tmp_path: Path, shelf: Shelf | None = None, budget: int = 100) -> AvatarStore[int]:
    """A store whose features are the picture's grey, one byte each."""
    (tmp_path / "own").mkdir()
    save(tmp_path / "ada.png", 10)
    return AvatarStore(
        [tmp_path / "ada.png"], 16, 16, lambda picture: int(np.mean(picture)),
        size_of=lambda made: 1, budget=budget, kept=shelf, own_folder=tmp_path / "own",
    )  # fmt: skip


def test_one_that_comes_later_is_taken_and_never_kept_on_disk(tmp_path: Path) -> None:
    shelf = Shelf()
    store = store_of(tmp_path, shelf)
    with pytest.raises(ClipError, match="was removed, or never was"):
        store.resolve(OWN)
    save(tmp_path / "own" / f"{OWN}.png", 77)
    assert store.resolve(OWN) == OWN and store.get(OWN) == 77 and store.get(OWN) == 77
    assert store.names == ["ada"] and 77 not in shelf.asked
    assert store.get("default") == 10 and 10 in shelf.asked


def test_one_that_is_removed_is_forgotten_at_once(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    file = tmp_path / "own" / f"{OWN}.png"
    save(file, 77)
    store.get(OWN)
    assert store.bytes == 1
    file.unlink()
    assert store.get("ada") == 10
    assert store.bytes == 1 and len(store) == 1
    with pytest.raises(ClipError) as error:
        store.get(OWN)
    assert error.value.fatal


def test_other_names_lead_to_no_file(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    save(tmp_path / "own" / "own-short.png", 5)
    save(tmp_path / f"{OWN}.png", 5)
    for name in ("own-short", f"../{OWN}", OWN.upper(), f"{OWN}.", f"{OWN}/../{OWN}"):
        with pytest.raises(ClipError, match="there is no avatar"):
            store.resolve(name)


def test_a_damaged_picture_ends_its_session_alone(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    (tmp_path / "own" / f"{OWN}.png").write_bytes(b"damaged")
    with pytest.raises(ClipError, match="cannot be read"):
        store.get(OWN)
    assert store.get("ada") == 10

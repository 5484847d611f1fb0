"""Names of avatars and poses: every file appears, with the name that people gave it and an id of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gateway.thumbnails import Thumbnails
from gpu_worker.avatars.store import AvatarStore
from protocol.model.assets import (
    MAX_ID_CHARS,
    PICTURE_SUFFIXES,
    AssetError,
    display_names,
    name_of,
    named_files,
    picture_files,
    pose_files,
)
from protocol.process.settings import Settings
from protocol.wire.limits import check_id
from scripts.run.poses import convert_pose_folders
from tests.helpers.official_pose import write_official_pose

LONG = "a portrait of somebody whose name is longer than an id may be, and then somewhat longer, number "


def made(root: Path, names: Sequence[str]) -> list[Path]:
    """Picture files of these names under `root`, each of a colour of its own."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        suffix = {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}.get(name.rpartition(".")[2].lower(), "PNG")
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(root / name, suffix)
    return [root / name for name in names]


#: The ids of José, which is the same in both ways to write it, and of Bea with a mark of direction.
JOSE = name_of(Path("Jos\u00e9"))
BEA = name_of(Path("bea\u200e"))


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        # two users
        (["alice/portrait.png", "bob/portrait.png"], ["portrait (alice)", "portrait (bob)"]),
        # scripts other than Latin, and letters with marks
        (["张三.png", "李四.png"], ["张三", "李四"]),
        (["José.png", "Jose.png"], ["José", "Jose"]),
        (["Ольга.png", "Игорь.png", "محمد.png", "😀.png"], ["Ольга", "Игорь", "محمد", "😀"]),
        (["张三/照片.png", "李四/照片.png"], ["照片 (张三)", "照片 (李四)"]),
        # spaces and signs
        (
            ["my face.png", "my  face.png", "my_face.png"],
            ["my face · my_face", "my face · my__face", "My face"],
        ),
        (["Ann & Bob (2).png", "50%.png"], ["Ann & Bob (2)", "50%"]),
        # 100 characters and more, alike at the start
        ([f"{LONG}{n:03d}.png" for n in (1, 2)], [f"{LONG}{n:03d}" for n in (1, 2)]),
        # one stem with several suffixes
        (["ann.png", "ann.jpg", "ann.webp"], ["ann.png", "ann.jpg", "ann.webp"]),
        (["x/ann.png", "y/ann.png", "y/ann.jpg"], ["ann.png (x)", "ann.png (y)", "ann.jpg (y)"]),
        # upper and lower case
        (["Ann.png", "ann.png", "ANN.png"], ["Ann", "ann", "ANN"]),
        (["ann.PNG", "ann.png"], ["ann.PNG", "ann.png"]),
        # plain words, as before
        (["ada.png", "my_face-2.png"], ["Ada", "My face 2"]),
        # one name in the two ways that Unicode writes é, as a copy from a Mac beside one from elsewhere
        (["Jos\u00e9.png", "Jose\u0301.png"], [f"José · {JOSE}", f"José · {JOSE}-2"]),
        (["Jos\u00e9/p.png", "Jose\u0301/p.png"], ["p · p", "p · p-2"]),
        # emoji of several characters, and words with joiners
        (["👩\u200d💻.png", "❤️.png", "می\u200cخواهم.png"], ["👩\u200d💻", "❤️", "می\u200cخواهم"]),
        # marks of direction are left out, and control characters end a word
        (["\u202egnp.ann.png", "שלום\u200f.png", "a\u2066b\u2069.png"], ["gnp.ann", "שלום", "Ab"]),
        (["bea\u200e.png", "bea.png"], [f"bea · {BEA}", "bea · bea"]),
        (["a\tb.png", "a\nb\x7f.png", "\x01.png"], ["a b.png", "a b .png", "_"]),
        # 255 bytes, as long as a file's name may be
        (
            [f"{'b' * 251}.png", f"{'張' * 83}x.png", f"{'張' * 83}y.png"],
            [f"B{'b' * 250}", f"{'張' * 83}x", f"{'張' * 83}y"],
        ),
        # folders of one name too: the id is what is left
        (["a/x/ann.png", "b/x/ann.png"], ["ann · ann", "ann · ann-2"]),
        # a name that another file would get
        (["a/p.png", "b/p.png", "p (a).png"], ["p (a)", "p (b)", "p (a).png"]),
    ],
)
def test_every_file_is_shown_with_its_name(tmp_path: Path, names: list[str], wanted: list[str]) -> None:
    files = made(tmp_path / "f", names)
    for find in (picture_files, pose_files):  # files that are named are taken whatever their ending
        found = find(files)
        assert list(display_names(found).values()) == wanted
        for name in found:
            check_id("avatar", name)


async def test_both_processes_give_a_file_the_same_id(tmp_path: Path) -> None:
    names = ["alice/portrait.png", "bob/portrait.png", "张三.png", "李四.png", f"{LONG}1.png", f"{LONG}2.png"]
    files = made(tmp_path, names)
    settings = replace(Settings(), reference_image=tuple(files))
    pictures = Thumbnails(settings)
    store = AvatarStore(files, 8, 8, lambda p: p, size_of=lambda _: 1, budget=10)
    assert list(pictures.avatar_names) == store.names
    assert list(pictures.avatar_names.values())[2:4] == ["张三", "李四"]
    for number, name in enumerate(store.names):
        assert store.get(name)[0, 0, 0] == 10 * number
        assert await pictures.avatar(name, (8, 8)) is not None


def test_an_id_does_not_depend_on_other_files(tmp_path: Path) -> None:
    """An address with `?avatar=…` shows the same person when a file comes along."""
    alone = name_of(tmp_path / "李四.png")
    assert list(picture_files(made(tmp_path, ["张三.png", "李四.png"])))[1] == alone
    assert re.fullmatch(r"Jose-[0-9a-f]{8}", name_of(Path("José.png")))
    assert name_of(Path("Jose\u0301.png")) == name_of(Path("Jos\u00e9.png"))  # both ways to write é
    # A number at the end goes only to an id that no file has by its own name.
    files = made(tmp_path, ["a/x.png", "b/x.png", "x-2.png"])
    assert list(picture_files(files)) == ["x", "x-3", "x-2"]


def test_ids_of_many_alike_files_stay_short(tmp_path: Path) -> None:
    files = made(tmp_path, [f"{number}/{'a' * 64}.png" for number in range(30)])
    ids = list(picture_files(files))
    assert len(set(ids)) == 30
    assert max(map(len, ids)) <= MAX_ID_CHARS


def test_a_file_that_is_given_twice_appears_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, ["ann.png"])
    monkeypatch.chdir(tmp_path)
    assert list(named_files([Path("ann.png"), tmp_path, Path()], PICTURE_SUFFIXES, "picture")) == ["ann"]


def test_names_that_are_no_text_are_shown_on_one_line(tmp_path: Path) -> None:
    odd = [b"\xff\xfe.png", b"two\nlines\x1b[31m.png"]
    try:
        for raw in odd:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).touch()
    except OSError:
        pytest.skip("this file system takes no such names")
    names = display_names(picture_files([tmp_path]))
    assert sorted(names.values()) == ["two lines [31m", "\ufffd\ufffd"]
    json.dumps(names, ensure_ascii=False).encode()
    for name in names:
        check_id("avatar", name)


def test_official_pose_folders_of_any_name_appear(tmp_path: Path) -> None:
    """They are converted into files of their names. A name of 255 bytes has no room for the ending."""
    names = ["张三", "a b\nc", "-x", "José", "w" * 255, "v.1", "." + "h" * 20]
    folders = [write_official_pose(tmp_path / "in" / name, 1) for name in names]
    (tmp_path / "run").mkdir()
    left_out: list[str] = []
    found = pose_files(convert_pose_folders(folders, tmp_path / "run", left_out))
    assert not left_out
    wanted = ["张三", "a b c", "-x", "José", "W" + "w" * 250, "v.1", "." + "h" * 20]
    assert list(display_names(found).values()) == wanted


@pytest.mark.parametrize(
    "fault", ["missing", "no picture in it", "may not be entered", "pipe", "cut", "heic"]
)
async def test_one_that_cannot_be_used_is_left_out_and_named(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others work: both processes have them, under the ids that they would have had."""
    bad = tmp_path / "bad.png"
    if fault in ("no picture in it", "may not be entered"):
        bad.mkdir()
    elif fault == "pipe":
        os.mkfifo(bad)
    elif fault in ("cut", "heic"):
        bad.write_bytes(b"\x89PNG\r\n\x1a\n" if fault == "cut" else b"\0\0\0\x18ftypheic")
    if fault == "may not be entered":
        entries = Path.iterdir

        def iterdir(path: Path) -> Iterator[Path]:
            if path == bad:
                raise PermissionError(13, "Permission denied", str(path))
            return entries(path)

        monkeypatch.setattr(Path, "iterdir", iterdir)
    good = made(tmp_path, ["ann.png", "eve.png"])
    paths = (good[0], bad, good[1])
    store = AvatarStore(paths, 8, 8, lambda p: p, size_of=lambda _: 1, budget=10)
    assert store.names == ["ann", "eve"]
    cards = Thumbnails(replace(Settings(), reference_image=paths))
    assert [await cards.avatar(name, (8, 8)) is not None for name in store.names] == [True, True]
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "left out: " in told[0] and str(bad) in told[0]
    with pytest.raises(AssetError, match=r"bad\.png"):
        AvatarStore([bad], 8, 8, lambda p: p, size_of=lambda _: 1, budget=10)

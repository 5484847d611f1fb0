"""The token file: its contents, who may read it, and writers that meet."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.door.token_file import (
    MAX_RETIRED,
    PREFIX,
    SCOPES,
    TokenBook,
    TokenFileError,
    add_token,
    entry_for,
    hash_of,
    new_book,
    new_token,
    read_book,
    revoke_token,
    rotate_key,
    write_book,
    writing,
)

NOW = 1_764_237_600


def book_with(*names: str) -> TokenBook:
    book = new_book()
    for name in names:
        book = add_token(book, entry_for(f"{PREFIX}{name}", name, ("session",), NOW))
    return book


def written(path: Path, book: TokenBook) -> Path:
    with writing(path):
        write_book(path, book)
    return path


def test_a_book_comes_back_as_it_was_written(tmp_path: Path) -> None:
    limits = {"expires": NOW + 60, "sessions": 3, "avatars": ("ada", "leo")}
    book = add_token(book_with("one"), entry_for(new_token(), "two", SCOPES, NOW, **limits))
    path = written(tmp_path / "new folder/tokens.json", rotate_key(revoke_token(book, "one", NOW)))
    read = read_book(path)
    assert read.tokens[1] == book.tokens[1] and read.tokens[0].revoked == NOW
    assert read.retired == (book.key.id,) and read.key.id != book.key.id
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


def test_the_file_holds_no_token(tmp_path: Path) -> None:
    token = new_token()
    book = add_token(new_book(), entry_for(token, "studio", ("mint",), NOW))
    text = written(tmp_path / "t.json", book).read_text()
    assert token not in text and token[len(PREFIX) :] not in text and hash_of(token) in text
    found = read_book(tmp_path / "t.json").find(token)
    assert found is not None and found.name == "studio"
    assert read_book(tmp_path / "t.json").find(token + "x") is None


def test_tokens_are_long_and_differ() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100 and all(len(token) == len(PREFIX) + 43 for token in tokens)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o777, 0o601, 0o610])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "t.json", new_book())
    path.chmod(mode)
    with pytest.raises(TokenFileError, match=f"mode {mode:04o}.*chmod 600"):
        read_book(path)


def test_other_kinds_of_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "t.json", new_book())
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, words in {
        "link": "is a link",
        "pipe": "not a regular file",
        ".": "regular file",
        "no": "scripts.tokens add",
    }.items():
        with pytest.raises(TokenFileError, match=words):
            read_book(tmp_path / name)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(TokenFileError, match="belongs to user"):
        read_book(path)


ENTRY = {"name": "a", "id": "1", "hash": "0" * 64, "scopes": ["session"], "made": NOW}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a b"}, {"name": ""}, {"name": "x" * 65}, {"name": 1}, {"hash": "0" * 63}, {"hash": None},
        {"scopes": []}, {"scopes": ["root"]}, {"scopes": "session"}, {"sessions": 0}, {"sessions": -1},
        {"sessions": True}, {"avatars": []}, {"avatars": "ada"}, {"avatars": [1]}, {"expires": "soon"},
        {"made": None}, {"session": 1}, {"avatar": ["ada"]},
    ],
)  # fmt: skip
def test_a_wrong_entry_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = written(tmp_path / "t.json", new_book())
    fields = json.loads(path.read_text())
    fields["tokens"] = [ENTRY]
    path.write_text(json.dumps(fields))
    assert read_book(path).tokens[0].name == "a"
    fields["tokens"] = [{**ENTRY, **changes}]
    path.write_text(json.dumps(fields))
    with pytest.raises(TokenFileError, match="token 1"):
        read_book(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 2}', '{"version": 1, "tokens": []}', "[" * 5000, "\0", '"x"',
     '{"version": 1, "tokens": [], "signing_key": {"id": "a", "secret": "00"}}',
     '{"version": 1, "tokens": [], "signing_key": {"id": "a", "secret": 5}}'],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(TokenFileError, match=str(path)):
        read_book(path)


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", new_book())
    fields = json.loads(path.read_text())
    fields["tokens"] = [ENTRY, {**ENTRY, "id": "2", "hash": "1" * 64}]
    path.write_text(json.dumps(fields))
    with pytest.raises(TokenFileError, match="two tokens of one name"):
        read_book(path)


def test_names_are_taken_until_they_are_revoked() -> None:
    book = book_with("a")
    again = entry_for(new_token(), "a", ("session",), NOW)
    with pytest.raises(TokenFileError, match="already"):
        add_token(book, again)
    assert add_token(revoke_token(book, "a", NOW), again).tokens == (again,)
    with pytest.raises(TokenFileError, match="there are a"):
        revoke_token(book, "b", NOW)


def test_retired_keys_are_bounded() -> None:
    book = new_book()
    ids = [book.key.id]
    for _ in range(40):
        book = rotate_key(book)
        ids.append(book.key.id)
    assert book.retired == tuple(ids[-MAX_RETIRED - 1 : -1]) and len(set(ids)) == 41


def _add(path: Path, name: str) -> None:
    with writing(path):
        write_book(path, add_token(read_book(path), entry_for(new_token(), name, ("session",), NOW)))


def test_writers_that_meet_lose_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", new_book())
    fork = multiprocessing.get_context("spawn")
    writers = [fork.Process(target=_add, args=(path, f"n{k}")) for k in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert sorted(token.name for token in read_book(path).tokens) == ["n0", "n1", "n2", "n3"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.json.lock"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "t.json", book_with("old"))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TokenFileError, match="No space left"), writing(path):
        write_book(path, book_with("new"))
    assert read_book(path).tokens[0].name == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.json.lock"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenFileError, match="cannot be written"), writing(tmp_path / "file/t.json"):
        pass

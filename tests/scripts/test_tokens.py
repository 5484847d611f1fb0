"""The command that makes, lists and revokes tokens."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.door.signed_tokens import verify
from gateway.door.token_file import PREFIX, read_book
from protocol.process.settings import ROOT, Settings, SettingsError, load_settings
from scripts.run.welcome import link_command
from scripts.talk.__main__ import main as speak
from scripts.tokens import CommandError, main, moment, seconds
from tests.gateway.conftest import running


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual token file of a user whose configuration is empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "echomimic-live/tokens.json"


def test_the_token_stands_alone_on_stdout(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add", "me", "--expires", "30d", "--sessions", "2", "--avatars", "ada, leo"]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"{PREFIX}[\w-]{{43}}\n", out) and out.strip() not in err and str(file) in err
    entry = read_book(file).find(out.strip())
    assert entry is not None and entry.scopes == ("session", "avatars", "mint") and entry.sessions == 2
    assert entry.avatars == ("ada", "leo")
    assert entry.expires is not None and abs(entry.expires - time.time() - 30 * 86400) < 60
    assert file.stat().st_mode & 0o777 == 0o600


def test_list_revoke_and_add_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add", "a", "--scopes", "metrics"]) == main(["add", "b"]) == 0
    assert main(["add", "a"]) == 2
    assert "already" in capsys.readouterr().err
    assert main(["revoke", "a", "c"]) == 2 and read_book(file).by_name("a").revoked is None  # type: ignore[union-attr]
    assert main(["revoke", "a"]) == 0
    capsys.readouterr()
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"a +metrics .* revoked 20", lines[1]) and re.match(
        r"b +session,avatars,mint .* good$", lines[2]
    )
    assert main(["add", "a"]) == 0


def test_a_link_opens_the_page(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["add", "watch", "--scopes", "metrics"])
    assert main(["link"]) == 2 and "no token may mint" in capsys.readouterr().err
    main(["add", "me"])
    capsys.readouterr()
    assert main(["link", "--port", "9000", "--ttl", "2h", "--avatars", "ada"]) == 0
    out, err = capsys.readouterr()
    address, _, token = out.strip().partition("#token=")
    book = read_book(file)
    claims = verify(book.key, (), token, time.time())
    assert address == "http://127.0.0.1:9000/" and claims.avatars == ("ada",) and claims.sessions == 1
    assert claims.expires - claims.issued == 7200 and token not in err
    assert main(["link", "me", "--url", "https://face.example/x/"]) == 0
    assert capsys.readouterr().out.startswith("https://face.example/x/#token=ey")
    for wrong in (
        ["link", "watch"],
        ["link", "nobody"],
        ["link", "--ttl", "25h"],
        ["link", "--url", "face.example"],
    ):
        assert main(wrong) == 2, wrong
    main(["rotate"])
    assert read_book(file).retired == (book.key.id,)


def test_the_settings_name_the_file(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["add", "a", "--token-file", str(tmp_path / "x.json")]) == 0
    monkeypatch.setenv("ECHOMIMIC_TOKEN_FILE", str(tmp_path / "y.json"))
    assert main(["add", "a"]) == main(["list"]) == 0
    assert (tmp_path / "x.json").exists() and (tmp_path / "y.json").exists() and not file.exists()
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--token-fil", "x"])  # a flag that there is not


def test_what_cannot_be_done_is_said(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["list"], ["revoke", "a"], ["rotate"], ["link"]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert "no token file" in err and "scripts.tokens add NAME" in err and "Traceback" not in err
    assert not file.parent.exists()
    wrong = [["a b"], ["a", "--scopes", "root"], ["a", "--expires", "soon"], ["a", "--expires", "2001-01-01"],
             ["a", "--sessions", "0"], ["a", "--avatars", ","]]  # fmt: skip
    for words in wrong:
        assert main(["add", *words]) == 2, words
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME")
    capsys.readouterr()
    assert main(["add", "me"]) == 2
    assert "HOME is not set" in capsys.readouterr().err


def test_times() -> None:
    assert [seconds(text) for text in ("90s", "45m", "12h", "30d", "2w")] == [
        90,
        2700,
        43200,
        2592000,
        1209600,
    ]
    assert moment("12h", 1000) == 1000 + 43200 and moment("2100-01-01T00:00:00+00:00", 0) == 4102444800
    for wrong in ("", "5", "h", "0m", "1y", "-1d", "²d", "9999999d"):
        with pytest.raises(CommandError):
            seconds(wrong)


def test_one_more_command_opens_the_port(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"-m scripts\.tokens add NAME"):
        load_settings(["--host", "0.0.0.0"], {})
    assert main(["add", "me"]) == 0
    assert load_settings(["--host", "0.0.0.0"], {}).token_file == file
    assert load_settings(["--host", "::"], {}).token_file == file
    assert load_settings([], {}).token_file is None
    assert load_settings(["--host", "0.0.0.0", "--no-auth"], {}).token_file is None


@pytest.mark.process
@pytest.mark.parametrize("module", ["gateway", "scripts.run"])
def test_a_bad_token_file_is_told_before_anything_starts(tmp_path: Path, module: str) -> None:
    path = tmp_path / "t.json"
    path.write_text("{}")
    path.chmod(0o644)
    command = [sys.executable, "-m", module, "--token-file", str(path), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and f"chmod 600 {path}" in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["t.json"]


def test_a_run_says_how_a_link_to_it_is_made(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["add", "me"])
    here = Settings(host="192.0.2.9", port=9001)
    assert "token-file" not in link_command(here)
    for settings in (here, Settings(token_file=tmp_path / "my tokens.json", port=9001)):
        words = shlex.split(link_command(settings))
        main(["add", "me", "--token-file", str(settings.token_file)])
        capsys.readouterr()
        assert words[1:4] == ["-m", "scripts.tokens", "link"] and main(words[3:]) == 0
        assert capsys.readouterr().out.startswith(f"http://{settings.host}:9001/#token=")


@pytest.mark.process
def test_the_client_brings_a_token(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["add", "me"])
    token = capsys.readouterr().out
    (tmp_path / "token").write_text(token)
    with running(token_file=file) as run:
        talk = ["--url", run.url(""), "--seconds", "1"]
        assert speak(talk) == 2 and "refused: A token is needed here" in capsys.readouterr().err
        for version in ([], ["--v2"]):
            assert speak([*talk, *version, "--token-from", str(tmp_path / "token")]) == 0
        assert speak([*talk, "--token-from", str(file)]) == 2, "a file with more than a token"
    out, err = capsys.readouterr()
    assert token.strip() not in out + err

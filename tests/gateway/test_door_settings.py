"""The door's settings, its headers about frames, and its lines in the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answers import security_headers
from gateway.door.refusals import MOST_LINES, SAME_LINE_EVERY, Refusal, RefusalLog
from gateway.door.rules import Door
from protocol.process.settings import Settings, load_settings
from protocol.process.web_hosts import parse_origin


def test_frames_are_for_the_named_origins_alone() -> None:
    closed = security_headers(())
    assert closed["X-Frame-Options"] == "DENY"
    assert closed["Content-Security-Policy"].endswith("frame-ancestors 'none'")
    opened = security_headers(("https://a.example", "https://*.b.example:8443"))
    assert "X-Frame-Options" not in opened
    assert opened["Content-Security-Policy"].endswith(
        "frame-ancestors 'self' https://a.example https://*.b.example:8443"
    )


@given(st.text(max_size=30))
def test_an_origin_setting_puts_nothing_else_into_the_policy(text: str) -> None:
    try:
        (origin,) = Settings(embed_origins=(text,)).embed_origins
    except ValueError:
        return
    assert parse_origin(origin) and not set(origin) & set(" ;,'\"\r\n")


class Lines:
    """A clock, and the lines that a RefusalLog writes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.log = RefusalLog(lambda: self.now, self.lines.append)

    def refuse(self, text: str, times: int = 1) -> None:
        for _ in range(times):
            self.log.add(Refusal("host", "No.", text))


def test_the_log_says_each_thing_once_a_minute() -> None:
    said = Lines()
    said.refuse("a", 500)
    said.refuse("b")
    assert said.lines == ["a", "b"]
    said.now = SAME_LINE_EVERY + 1
    said.refuse("a")
    assert said.lines[2] == "a (499 more in the meantime)"
    said.log.add(Refusal("busy", "No.", ""))
    assert len(said.lines) == 3


def test_a_flood_of_different_refusals_is_bounded() -> None:
    said = Lines()
    for second in range(600):
        said.now = second / 10
        for number in range(20):
            said.refuse(f"{second}.{number}")
    assert len(said.lines) <= MOST_LINES
    assert len(said.log._lines) <= MOST_LINES
    said.now = 1000.0
    said.refuse("later")
    assert said.lines[-1].startswith("later (") and "11990 other refusals" in said.lines[-1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "gpu7.lan", "fe80::1%eth0"])
def test_beyond_loopback_someone_must_have_said_who_may_come_in(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # no token file at the usual place
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"make a token.*--no-auth"):
        load_settings(["--host", host], env={})
    assert load_settings(["--host", host, "--no-auth"], env={}).auth is False
    assert load_settings(["--host", host, "--token-file", "t"], env={}).auth
    with pytest.raises(ValueError, match="exclude each other"):
        load_settings(["--host", host, "--no-auth", "--token-file", "t"], env={})


@pytest.mark.parametrize(
    ("flag", "bad"),
    [
        ("--host", ["0x7f.1", "127.1", "2130706433", "[::1]", "localhost:80", "*", "a b", "http://a"]),
        ("--allowed-hosts", ["*", "http://a.example", "a.example/", "a b", "user@a", "[::1", "*.a",
            "1.2.3.4.5", "0x7f.1",
                             "127.1", "a..b", "a:b", "a:99999"]),
        ("--allowed-origins", ["*", "null", "a.example", "https://a.example/", "https://", "https://*",
            "https://a;b",
                               "https://u@a", "https://a.example:x", "https://a 'self'", "https://127.1"]),
        ("--embed-origins", ["*", "'none'", "https://a;script-src *", "https:"]),
        ("--root-path", ["face", "/", "/face/", "//face", "/a//b", "/..", "/a/../b", "/a/.", "/a?b", "/a b",
            "/%66", "/a;b"]),
        ("--trusted-proxies", ["*", "proxy.lan", "10.0.0.1/8", "10.0.0.0/33", "fd00::/129", "1.2.3"]),
    ],
)  # fmt: skip
def test_wrong_settings_are_told_with_their_flag(flag: str, bad: list[str]) -> None:
    for value in bad:
        with pytest.raises(ValueError, match=f"^(argument )?{flag}") as err:
            load_settings(["--no-auth", f"{flag}={value}"], env={})
        assert "give" in str(err.value) or "name" in str(err.value), value


@pytest.mark.parametrize(
    ("flag", "good"),
    [
        ("--host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "fe80::1%eth0", "gpu-7.lan", "my_box"]),
        ("--allowed-hosts", ["a", ".a.example", "a.example:80", "1.2.3.4", "1.2.3.4:80", "::1", "[::1]",
            "[::1]:80"]),
        ("--allowed-origins", ["https://a.example", "http://a:80", "https://*.a.example", "http://[::1]:80",
            "tauri://localhost"]),
        ("--root-path", ["/face", "/a/b-c_d.e~f"]),
        ("--trusted-proxies", ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"]),
    ],
)  # fmt: skip
def test_good_settings_are_taken(flag: str, good: list[str]) -> None:
    for value in good:
        Door(load_settings(["--no-auth", flag, value], env={}))

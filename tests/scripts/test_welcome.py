"""The lines at the console of a run that is ready, and its QR code, read back as a camera would."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from gateway.door.guard import Guard
from gateway.door.tls import TlsGate
from gateway.door.token_file import add_token, entry_for, new_book, new_token, write_book
from gateway.door.token_watch import TokenWatch
from protocol.process import addresses
from protocol.process.settings import Settings
from scripts.run import welcome as module
from scripts.run.qr_code import qr_lines, qr_width
from scripts.run.welcome import ConsoleLink, lan_hosts, network_lines, page_link, phone_lines
from tests.helpers.qr_picture import picture_of, texts_of_codes

LINK = "https://192.168.1.5:8443/#token=" + "eyJhbGciOiJIUzI1NiJ9." * 8
ENDS = time.time() + 600


class Terminal(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool = True, encoding: str = "utf-8") -> None:
        super().__init__()
        self._terminal = terminal
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("text", ["https://10.0.0.1/", LINK, "https://[fd00::5]:8443/?token=" + "a" * 500])
def test_the_code_reads_as_its_text(text: str) -> None:
    lines = qr_lines(text)
    assert {len(line) for line in lines} == {len(lines[0])}
    assert qr_width(text) == picture_of(lines).shape[1] // 6
    assert texts_of_codes(picture_of(lines)) == [text]


@pytest.fixture
def lan(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [addresses.parse_ip(text) for text in ("172.17.0.1", "192.168.1.5", "fd00::5")]
    monkeypatch.setattr(module, "own_addresses", lambda: found)
    monkeypatch.setattr(module, "own_names", lambda: ["box", "box.local"])
    monkeypatch.setattr(module, "_default_route_address", lambda: "192.168.1.5")
    monkeypatch.setattr(module, "_columns", lambda stream: 120)
    monkeypatch.setenv("TERM", "xterm-256color")


def settings(host: str = "0.0.0.0", tls: str | None = "self-signed") -> Settings:
    return Settings(host=host, port=8443, tls=tls, auth=False)


def link(_settings: Settings, url: str) -> ConsoleLink:
    return ConsoleLink(LINK, ENDS)


@pytest.mark.usefixtures("lan")
def test_the_address_of_the_default_route_comes_first() -> None:
    assert lan_hosts("0.0.0.0") == ["192.168.1.5", "172.17.0.1", "box.local"]
    assert lan_hosts("::") == ["192.168.1.5", "172.17.0.1", "fd00::5", "box.local"]
    assert lan_hosts("192.168.1.5") == ["192.168.1.5"]
    assert lan_hosts("127.0.0.1") == lan_hosts("localhost") == lan_hosts("::1") == []


@pytest.mark.usefixtures("lan")
def test_a_terminal_gets_a_code_with_the_link() -> None:
    told, *code = phone_lines(settings(), Terminal(), link)
    assert LINK in told and time.strftime("%H:%M", time.localtime(ENDS)) in told
    assert texts_of_codes(picture_of(code)) == [LINK]


@pytest.mark.usefixtures("lan")
def test_whatever_is_no_terminal_gets_no_token_and_no_code() -> None:
    assert list(phone_lines(settings(), Terminal(terminal=False), link)) == []
    assert list(phone_lines(settings(host="127.0.0.1"), Terminal(), link)) == []
    (line,) = phone_lines(settings(), Terminal(), lambda settings, url: None)
    assert "scripts.tokens link" in line


@pytest.mark.usefixtures("lan")
@pytest.mark.parametrize("case", ["narrow", "ascii", "dumb"])
def test_a_terminal_that_cannot_show_the_code_gets_the_link(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "narrow":
        monkeypatch.setattr(module, "_columns", lambda stream: 30)
    if case == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    (line,) = phone_lines(settings(), Terminal(encoding="ascii" if case == "ascii" else "utf-8"), link)
    assert LINK in line


@pytest.mark.usefixtures("lan")
def test_the_log_gets_addresses_without_a_token() -> None:
    lines = list(network_lines(settings()))
    assert "https://192.168.1.5:8443" in lines[0] and "https://box.local:8443" in lines[0]
    assert "--tls self-signed" in list(network_lines(settings(tls=None)))[1]
    assert list(network_lines(settings(host="127.0.0.1"))) == []


@pytest.mark.usefixtures("lan")
def test_the_fingerprint_is_that_of_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert len(list(network_lines(settings()))) == 1, "there is none yet"
    gate = TlsGate(settings())
    assert list(network_lines(settings()))[-1] == gate.fingerprint
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in"]
    file = str(tmp_path / "echomimic-live/self-signed.pem")
    if shutil.which("openssl"):
        told = subprocess.run([*command, file], capture_output=True, text=True, check=True)
        assert told.stdout.strip().endswith(f"={gate.fingerprint}")


def test_the_link_has_a_token_that_the_gateway_takes(tmp_path: Path) -> None:
    token_file = tmp_path / "tokens.json"
    asked = Settings(host="0.0.0.0", port=8443, tls="self-signed", token_file=token_file)
    assert page_link(asked, "https://box/") is None, "there is no file"
    now = int(time.time())
    session = entry_for(new_token(), "page", ("session",), now)
    old = entry_for(new_token(), "old", ("mint",), now - 99, expires=now - 9)
    program = entry_for(new_token(), "site", ("mint",), now, avatars=("ada",))
    book = add_token(add_token(new_book(), session), old)
    write_book(token_file, book)
    assert page_link(asked, "https://box/") is None, "no token may mint"
    write_book(token_file, add_token(book, program))
    made = page_link(asked, "https://box/")
    assert made is not None and made.ends is not None and 3500 < made.ends - now <= 3601
    token = made.url.removeprefix("https://box/#token=")
    grant = Guard(TokenWatch(token_file)).check(token, "192.168.1.9", "session")
    assert grant.name == "site" and grant.scopes == ("session",) and grant.avatars == ("ada",)

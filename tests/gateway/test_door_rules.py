"""The rules of Host and Origin, without sockets."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request

from gateway.door.refusals import Refused
from protocol.process.addresses import is_loopback, own_names
from protocol.process.web_hosts import parse_authority
from tests.gateway.visitors import door, host_allowed, origin_allowed, see

# ------------------------------------------------------------------ Host

LOOPBACK_HOSTS = [
    "localhost", "LOCALHOST:80", "localhost.", "127.0.0.1", "127.0.0.1:1", "127.8.9.10", "[::1]",
    "[::1]:8080",
    "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]:8080",
]  # fmt: skip
#: None is allowed on loopback. Those that resolvers read as numbers are allowed nowhere.
NUMERIC_TRICKS = [
    "0x7f.1", "0x7f000001", "127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.1.",
    "127.0.0.0x1", "1.2.3.4.5", "127.0.0.1%00", "127.0.0.01", "１２７.0.0.1", "0x",
]  # fmt: skip
UNREADABLE = [
    "", " ", "user@localhost", "localhost@evil.example", "user:pass@localhost", "localhost:", "localhost:x",
    "localhost:80:80", "localhost:99999", "localhost:-1", "[::1", "::1", "[::1]x", "[::1]:", "[localhost]",
    "localhost/", "localhost?", "localhost#", "localhost\\", "localhost,evil.example",
    "localhost evil.example",
    "evil.example#localhost", "127.0.0.1#@evil.example", "127.0.0.1\\@evil.example", "http://localhost",
    "localhost;", "localhost%2eevil.example", "[::1]@evil", "*", "local\u0131host",
]  # fmt: skip
FOREIGN = [
    "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil-localhost",
    "localhost..", "0.0.0.0", "[::]", "192.168.1.7", "[fe80::1]", "[fe80::1%25eth0]:8080", "xn--lclhost-5wa",
    socket.gethostname(), "rebind.network",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
@pytest.mark.parametrize("flags", [(), ("--allowed-hosts", "a"), ("--host", "0.0.0.0", "--no-auth")])
def test_loopback_names_are_always_allowed(host: str, flags: tuple[str, ...]) -> None:
    assert host_allowed(door(*flags), host)


@pytest.mark.parametrize("host", [*NUMERIC_TRICKS, *UNREADABLE])
@pytest.mark.parametrize("flags", [(), ("--host", "0.0.0.0", "--no-auth")])
def test_hosts_that_are_read_in_two_ways_are_allowed_nowhere(host: str, flags: tuple[str, ...]) -> None:
    assert not host_allowed(door(*flags), host)


@pytest.mark.parametrize("host", FOREIGN)
def test_on_loopback_nothing_else_is_allowed(host: str) -> None:
    assert not host_allowed(door(), host)


def test_beyond_loopback_numbers_and_own_names_are_allowed() -> None:
    judge = door("--host", "0.0.0.0", "--no-auth")
    for host in ("192.168.1.7:8080", "[fd00::7]", "[fe80::1%25eth0]:8080", *own_names()):
        assert host_allowed(judge, host), host
    for host in ("evil.example", "evil.local", f"{socket.gethostname()}.evil.example"):
        assert not host_allowed(judge, host), host


def test_with_allowed_hosts_only_the_connected_number_is_allowed() -> None:
    judge = door("--host", "0.0.0.0", "--no-auth", "--allowed-hosts", "face.example")
    assert host_allowed(judge, "192.168.1.7:8080", local="192.168.1.7")
    assert host_allowed(judge, "[fd00:0::7]", local="fd00::7")
    assert host_allowed(judge, "192.168.1.7", local="::ffff:192.168.1.7")
    assert host_allowed(judge, "FACE.example.:8080")
    assert not host_allowed(judge, "192.168.1.8", local="192.168.1.7")
    assert not any(host_allowed(judge, name) for name in own_names())


@pytest.mark.parametrize(
    ("entry", "good", "bad"),
    [
        ("face.example", ["face.example", "Face.Example:1", "face.example."], ["a.face.example",
        "xface.example"]),
        (".example", ["example", "a.example", "a.b.example:9"], ["xexample", "example.evil", ".example"]),
        ("face.example:81", ["face.example:81"], ["face.example", "face.example:80"]),
        ("face.example:80", ["face.example", "face.example:80"], ["face.example:81"]),
        ("192.168.1.7", ["192.168.1.7:5"], ["192.168.1.8"]),
        ("fd00::7", ["[fd00:0:0::7]"], ["[fd00::8]"]),
        ("[fd00::7]:81", ["[fd00::7]:81"], ["[fd00::7]"]),
    ],
)  # fmt: skip
def test_entries_of_allowed_hosts(entry: str, good: list[str], bad: list[str]) -> None:
    judge = door("--allowed-hosts", entry)
    assert [host for host in good if not host_allowed(judge, host)] == []
    assert [host for host in bad if host_allowed(judge, host)] == []


def test_the_name_that_is_listened_on_is_allowed() -> None:
    judge = door("--host", "gpu7.lan", "--no-auth", "--allowed-hosts", "face.example")
    assert host_allowed(judge, "GPU7.lan:8080") and not host_allowed(judge, "gpu8.lan")


def test_a_request_has_one_host() -> None:
    for hosts in ([], ["localhost", "localhost"], ["localhost", "evil.example"]):
        request = Request("/", Headers([("Host", host) for host in hosts]))
        with pytest.raises(Refused, match="one Host"):
            door().visitor(request, "127.0.0.1", "127.0.0.1", False)


HOST_PIECES = st.sampled_from(
    [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "evil.example",
        "@",
        ":",
        ".",
        "[",
        "]",
        "%",
        "0x7f",
        "1",
        "80",
        "a",
        "-",
    ]
)
ANY_HOST = st.lists(HOST_PIECES, min_size=1, max_size=6).map("".join) | st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), max_size=12
)


@given(ANY_HOST)
def test_an_allowed_host_is_loopback_in_the_standard_library_too(host: str) -> None:
    if not host_allowed(door(), host):
        return
    name = urlsplit(f"http://{host}/").hostname
    assert name is not None and is_loopback(name.removesuffix("."))


@given(ANY_HOST)
def test_a_host_is_written_as_it_is_read(host: str) -> None:
    read = parse_authority(host)
    if read is not None:
        assert parse_authority(str(read)) == read


# ------------------------------------------------------------------ Origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"), ("HTTP://LOCALHOST:8080", "localhost:8080"),
        ("http://localhost", "localhost"), ("http://localhost:80", "localhost"), ("http://localhost",
        "localhost:80"),
        ("https://localhost", "localhost"), ("https://localhost:8443", "localhost:8443"),
        ("http://[::1]:8080", "[0::1]:8080"), ("http://127.0.0.1:1", "127.0.0.1:1"),
    ],
)  # fmt: skip
def test_the_page_of_the_same_host_may_connect(origin: str, host: str) -> None:
    assert origin_allowed(door(), origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "localhost"), ("", "localhost"), ("localhost", "localhost"), ("http://", "localhost"),
        ("http://localhost:1", "localhost"), ("http://localhost", "localhost:1"), ("http://evil.example",
        "localhost"),
        ("http://localhost.evil.example", "localhost"), ("http://localhost@evil.example", "localhost"),
        ("http://evil.example@localhost", "localhost"), ("http://localhost/", "localhost"),
        ("http://localhost http://localhost", "localhost"), ("file://localhost", "localhost"),
        ("ws://localhost", "localhost"), ("http://127.0.0.1", "localhost"), ("https://localhost:80",
        "localhost"),
        ("chrome-extension://abcdef", "localhost"), ("http://*.localhost", "localhost"),
    ],
)  # fmt: skip
def test_every_other_page_is_refused(origin: str, host: str) -> None:
    assert not origin_allowed(door(), origin, host)


def test_an_http_page_may_not_connect_over_tls() -> None:
    assert origin_allowed(door(), "https://localhost:8080", "localhost:8080", tls=True)
    assert not origin_allowed(door(), "http://localhost:8080", "localhost:8080", tls=True)


def test_entries_of_allowed_origins() -> None:
    judge = door("--allowed-origins", "https://app.example,https://*.wild.example:8443,app-shell://ui")
    good = [
        "https://app.example",
        "https://APP.example:443",
        "https://a.b.wild.example:8443",
        "app-shell://ui",
    ]
    bad = ["http://app.example", "https://app.example:8443", "https://wild.example:8443",
    "https://xwild.example:8443",
           "https://a.wild.example", "https://*.wild.example", "app-shell://other", "null"]  # fmt: skip
    assert [origin for origin in good if not origin_allowed(judge, origin, "localhost")] == []
    assert [origin for origin in bad if origin_allowed(judge, origin, "localhost")] == []


def test_two_origins_are_none() -> None:
    judge = door()
    visitor = see(judge, [("Origin", "http://localhost")] * 2)
    assert judge.origin_refusal(visitor, visitor.origins)
    assert judge.origin_refusal(visitor, ()) is None


def test_a_refusal_names_the_flag() -> None:
    judge = door()
    visitor = see(judge, [("Origin", "https://a.example")], host="face.example:81")
    host, origin = judge.host_refusal(visitor), judge.origin_refusal(visitor, visitor.origins)
    assert host and "--allowed-hosts face.example" in host.log and "face.example" in host.message
    assert origin and "--allowed-origins https://a.example" in origin.log
    assert "trusted-proxies" not in origin.log
    visitor = see(judge, [("Origin", "https://a.example"), ("X-Forwarded-Host", "a.example")])
    origin = judge.origin_refusal(visitor, visitor.origins)
    assert origin and "--trusted-proxies 127.0.0.1" in origin.log

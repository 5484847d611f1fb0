"""The rules of forwarded headers, prefixes and absolute addresses, without sockets."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.door.refusals import Refused
from gateway.door.rules import Visitor
from gateway.door.target import strip_prefix
from protocol.process.addresses import parse_ip
from tests.gateway.visitors import door, see

PROXY, OTHER = "10.0.0.1", "203.0.113.9"
PROXIED = ("--trusted-proxies", "10.0.0.0/24,fd00::/64", "--allowed-hosts", "face.example,.wild.example")


def seen_by(*headers: tuple[str, str], peer: str = PROXY, host: str = "localhost") -> Visitor:
    return see(door(*PROXIED), headers, peer=peer, host=host)


@pytest.mark.parametrize(
    ("lists", "address"),
    [
        (["198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        (["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["1.1.1.1, 198.51.100.1, 10.0.0.2, 10.0.0.3"], "198.51.100.1"),
        (["10.0.0.5, 10.0.0.2"], "10.0.0.5"),
        (["198.51.100.1:4711"], "198.51.100.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["::ffff:198.51.100.1"], "198.51.100.1"),
        (["1.1.1.1, unknown"], PROXY),
        (["1.1.1.1, _hidden, 10.0.0.2"], "10.0.0.2"),
        (["1.1.1.1, "], PROXY),
        (["127.0.0.1"], "127.0.0.1"),
    ],
)
def test_the_rightmost_address_that_is_no_proxy_counts(lists: list[str], address: str) -> None:
    assert seen_by(*(("X-Forwarded-For", text) for text in lists)).address == address


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ("for=198.51.100.1", "198.51.100.1", "http://localhost"),
        ('for="[2001:db8::1]:4711";proto=https;host=face.example', "2001:db8::1", "https://face.example"),
        ("For=1.1.1.1, FOR=198.51.100.1; Proto=HTTPS", "198.51.100.1", "https://localhost"),
        ("for=198.51.100.1;proto=https;host=face.example, for=10.0.0.2;proto=http;host=internal",
        "198.51.100.1",
         "https://face.example"),
        ('for="_a\\"b, for=9.9.9.9", for=198.51.100.1', "198.51.100.1", "http://localhost"),
        ('for=9.9.9.9, for="unclosed', PROXY, "http://localhost"),
        ("for=unknown", PROXY, "http://localhost"),
        ("proto=https", PROXY, "https://localhost"),
        ("for=198.51.100.1;", "198.51.100.1", "http://localhost"),
    ],
)  # fmt: skip
def test_the_standard_header(text: str, address: str, url: str) -> None:
    visitor = seen_by(("Forwarded", text))
    assert (visitor.address, visitor.url) == (address, url)


def test_scheme_and_host_of_a_proxy() -> None:
    visitor = seen_by(
        ("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host",
        "face.example")
    )  # fmt: skip
    assert visitor.url == "https://face.example" and not visitor.on_this_machine and not visitor.proxy
    judge = door(*PROXIED)
    assert judge.host_refusal(visitor) is None
    assert judge.origin_refusal(visitor, ("https://face.example",)) is None
    assert judge.origin_refusal(visitor, ("http://face.example",))
    chain = seen_by(
        ("X-Forwarded-For", "198.51.100.1, 10.0.0.2"), ("X-Forwarded-Proto", "https, http"),
        ("X-Forwarded-Host", "face.example, inside"),
    )  # fmt: skip
    assert chain.url == "https://face.example"
    assert seen_by(("X-Forwarded-Proto", "gopher")).scheme == "http"


FORWARDED = (
    ("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "face.example"),
    ("Forwarded", "for=198.51.100.1;proto=https;host=face.example"),
)  # fmt: skip


@pytest.mark.parametrize("peer", [OTHER, "127.0.0.1", "::1", "2001:db8::5", ""])
@pytest.mark.parametrize("header", FORWARDED)
def test_headers_of_strangers_are_ignored(peer: str, header: tuple[str, str]) -> None:
    visitor = seen_by(header, peer=peer)
    assert (visitor.address, visitor.url) == (peer, "http://localhost")
    assert visitor.proxy == peer and not visitor.on_this_machine


def test_headers_that_contradict_each_other_are_refused() -> None:
    """A proxy writes one of both and passes on the other, which its client wrote."""
    for peer in (PROXY, "fd00::5"):
        with pytest.raises(Refused) as err:
            seen_by(("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=9.9.9.9"), peer=peer)
        assert err.value.refusal.code == "bad_request" and peer in err.value.refusal.log
    agreeing = seen_by(("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=198.51.100.1"))
    assert agreeing.address == "198.51.100.1"


def test_every_named_host_is_checked() -> None:
    """A page on the proxy's machine can forward a host of its choice, but not choose its own Host header."""
    judge = door(*PROXIED)
    for host, forwarded in (("evil.example", "localhost"), ("localhost", "evil.example")):
        visitor = seen_by(("X-Forwarded-Host", forwarded), host=host)
        refusal = judge.host_refusal(visitor)
        assert refusal and "evil.example" in refusal.log
    with pytest.raises(Refused):
        seen_by(("X-Forwarded-Host", "user@localhost"))


@pytest.mark.parametrize("own", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.168.1.7"])
def test_this_machine_is_known_by_its_addresses(own: str) -> None:
    assert see(door(), peer=own, local="192.168.1.7").on_this_machine
    for peer in (OTHER, "192.168.1.8", ""):
        assert not see(door(), peer=peer, local="192.168.1.7").on_this_machine


def test_a_proxy_on_this_machine_makes_nobody_local() -> None:
    judge = door("--trusted-proxies", "127.0.0.1")
    assert not see(judge, [("X-Forwarded-For", OTHER)]).on_this_machine
    assert see(judge, [("X-Forwarded-For", "127.0.0.1")]).on_this_machine
    assert not see(door(), [("X-Forwarded-For", "127.0.0.1")]).on_this_machine
    for hidden in (("X-Forwarded-For", "unknown"), ("Forwarded", "for=_x"), ("X-Forwarded-Proto", "https")):
        assert not see(judge, [hidden]).on_this_machine
    assert see(judge).on_this_machine


def test_a_proxy_elsewhere_has_a_loopback_of_its_own() -> None:
    assert not seen_by(("X-Forwarded-For", "127.0.0.1")).on_this_machine
    assert not seen_by(("X-Forwarded-For", "unknown")).on_this_machine


ADDRESSES = st.ip_addresses().map(str)
#: Pieces of a list that a client may invent.
INVENTED = st.lists(
    ADDRESSES | st.sampled_from(["unknown", "", "_x", "[", "10.0.0.9", '"', "::1"]), max_size=4
)


@given(INVENTED, ADDRESSES)
def test_a_client_cannot_choose_its_address(invented: list[str], client: str) -> None:
    assume(not door(*PROXIED).is_proxy(client))
    told = seen_by(("X-Forwarded-For", ", ".join([*invented, client])))
    assert parse_ip(told.address) == parse_ip(client)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), ADDRESSES)
def test_a_client_cannot_choose_its_address_in_the_standard_header(invented: str, client: str) -> None:
    assume(not door(*PROXIED).is_proxy(client))
    node = f'"[{client}]"' if ":" in client else client
    told = seen_by(("Forwarded", f"{invented}, for={node}"))
    assert parse_ip(told.address) in (parse_ip(client), parse_ip(PROXY))


# ------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/face/", "/"), ("/face/ws", "/ws"), ("/ws", "/ws"), ("/face", "/face"), ("/faces/ws", "/faces/ws"),
        ("/face/../ws", "/../ws"), ("/face//ws", "//ws"), ("//face/ws", "//face/ws"), ("/%66ace/ws",
        "/%66ace/ws"),
        ("/face%2fws", "/face%2fws"), ("/face/%2e%2e/ws", "/%2e%2e/ws"), ("/x/../face/ws", "/x/../face/ws"),
        ("/FACE/ws", "/FACE/ws"), ("/face/face/ws", "/face/ws"), ("/face/./ws", "/./ws"), ("/face\\ws",
        "/face\\ws"),
    ],
)  # fmt: skip
def test_only_the_prefix_as_it_is_spelled_is_taken_off(path: str, inner: str) -> None:
    assert strip_prefix(path, "/face") == inner
    assert see(door("--root-path", "/face"), target=path).path == inner
    assert see(door(), target=path).path == path


def test_an_absolute_address_has_to_name_the_host() -> None:
    visitor = see(door(), target="http://localhost:80/ws?a=b", host="localhost:80")
    assert (visitor.path, visitor.query) == ("/ws", "a=b")
    for target in ("http://evil.example/", "http://localhost@evil.example/", "http://localhost:81/",
        "//localhost",
                   "http:///", "ws", "", "*", "?a", "http://[", "ftp://localhost/",
                   "javascript:alert(1)"):  # fmt: skip
        if target.startswith("//"):
            assert see(door(), target=target).path == target
            continue
        with pytest.raises(Refused):
            see(door(), target=target)

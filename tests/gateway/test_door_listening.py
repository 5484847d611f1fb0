"""The addresses that a gateway listens on, the bound of its connections, and the launcher's way to it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from gateway.door.token_file import add_token, entry_for, new_book, new_token, write_book, writing
from gateway.gateway import PLAIN_CONNECTIONS, SPARE_CONNECTIONS
from protocol.process.addresses import own_addresses, own_names, parse_ip
from protocol.process.settings import NO_AUTH_WARNING
from scripts.run.address import base_url
from scripts.run.launch import ask_ready, worker_counts
from tests.gateway.conftest import Running, running
from tests.gateway.raw_http import UPGRADE, exchange
from tests.helpers.ports import listening
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.process

LOOPBACK = parse_ip("127.0.0.1")


def can_listen(address: str) -> bool:
    try:
        with socket.create_server((address, 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not can_listen("::1"), reason="this machine has no IPv6")


@pytest.fixture(scope="module")
def lan() -> Iterator[Running]:
    """A gateway that the network reaches."""
    with running(host="0.0.0.0", auth=False) as run:
        yield run


def test_nothing_listens_but_the_port(gateway: Running, lan: Running) -> None:
    assert listening(gateway.process.pid) == {("127.0.0.1", gateway.settings.port)}
    assert listening(lan.process.pid) == {("0.0.0.0", lan.settings.port)}


def test_the_network_reaches_it_by_number_and_own_name(lan: Running) -> None:
    port = lan.settings.port
    hosts = [f"{name}:{port}" for name in (*own_names(), "127.0.0.1", "localhost", "192.168.7.7")]
    assert [host for host in hosts if "<title>" not in exchange(port, host=host).text] == []
    for host in ("evil.example", "0x7f.1", "evil.local"):
        assert exchange(port, host=host).status in (400, 421)
        page = [*UPGRADE, ("Origin", f"http://{host}")]
        assert exchange(port, "/ws", page, host=host).status in (400, 421)
    for address in [str(address) for address in own_addresses() if address.version == 4][:1]:
        assert "<title>" in exchange(port, to=address).text
        own = [*UPGRADE, ("Origin", f"http://{address}:{port}")]
        assert exchange(port, "/ws", own, to=address).status == 101


def test_on_the_network_a_token_opens_the_door(tmp_path: Path) -> None:
    file, token = tmp_path / "tokens.json", new_token()
    entry = entry_for(token, "me", ("session",), int(time.time()))
    with writing(file):
        write_book(file, add_token(new_book(), entry))
    with running(host="0.0.0.0", token_file=file) as run:
        port = run.settings.port
        assert listening(run.process.pid) == {("0.0.0.0", port)}
        address = str(next((a for a in own_addresses() if a.version == 4), LOOPBACK))
        for target, headers in (("/avatars.json", ()), ("/ws", UPGRADE)):
            assert exchange(port, target, headers, to=address).status == 401
            wrong = exchange(port, f"{target}?token={new_token()}", headers, to=address)
            assert wrong.status == 401 and "token" in wrong.text
            bearer = [*headers, ("Authorization", f"Bearer {token}")]
            assert exchange(port, target, bearer, to=address).status in (101, 200)
        # A good token opens to no other site.
        hostile = [*UPGRADE, ("Origin", "https://evil.example")]
        assert exchange(port, f"/ws?token={token}", hostile, to=address).status == 403
        assert exchange(port, f"/avatars.json?token={token}", host="evil.example").status == 421
        assert NO_AUTH_WARNING not in run.log() and token not in run.log()


def test_a_tunnel_with_a_port_of_its_own_reaches_the_page(gateway: Running) -> None:
    """As `ssh -L 9000:127.0.0.1:8080` does: the browser's Host and Origin have the tunnel's port."""
    for host in ("127.0.0.1:9000", "localhost:9000", "[::1]:9000"):
        assert "<title>" in exchange(gateway.settings.port, host=host).text
        page = [*UPGRADE, ("Origin", f"http://{host}")]
        assert exchange(gateway.settings.port, "/ws", page, host=host).status == 101


def test_a_run_without_tokens_warns(gateway: Running, lan: Running) -> None:
    assert f"{NO_AUTH_WARNING}" in lan.log() and "WARNING" in lan.log()
    assert NO_AUTH_WARNING not in gateway.log() and "every user of this machine" in gateway.log()


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "reached"),
    [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"]), ("localhost", ["127.0.0.1"])],
)
def test_ipv6_and_names(host: str, reached: list[str]) -> None:
    with running(host=host, auth=host != "::") as run:
        port = run.settings.port
        for address in reached:
            assert "<title>" in exchange(port, to=address).text
        assert exchange(port, host=f"[::1]:{port}", to=reached[0]).status == 200
        assert exchange(port, host="[::ffff:127.0.0.1]", to=reached[0]).status == 200
        assert ask_ready(run.settings, worker_counts(run.settings)).ready
        zone = exchange(port, host="[fe80::1%25lo]", to=reached[0])
        assert zone.status == (200 if host == "::" else 421)
        own = [*UPGRADE, ("Origin", f"http://[::1]:{port}")]
        assert exchange(port, "/ws", own, host=f"[0::1]:{port}", to=reached[0]).status == 101


def own_hosts() -> list[str]:
    """An address of each family on this machine's interfaces, and its own name where that leads here."""
    addresses = own_addresses()
    found = [str(next((a for a in addresses if a.version == version), "")) for version in (4, 6)]
    try:
        name = own_names()[0]
        if parse_ip(str(socket.getaddrinfo(name, 0, socket.AF_INET)[0][4][0])) in [*addresses, LOOPBACK]:
            found.append(name)
    except OSError:
        pass
    return [host for host in found if host] + link_local_hosts()


def link_local_hosts() -> list[str]:
    """A link-local IPv6 address with its zone, where there is one."""
    every = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    return [entry.address for entry in every if entry.address.startswith("fe80:") and "%" in entry.address][
        :1
    ]


@pytest.mark.parametrize("host", own_hosts())
def test_one_interface_or_name_alone(host: str) -> None:
    """The launcher's probe and the page's address work with each `--host`."""
    with running(host=host, auth=False) as run:
        assert ask_ready(run.settings, worker_counts(run.settings)).ready
        assert base_url(run.settings) == run.url("")
        assert run.get("/healthz") == (200, "ok\n")
        assert len(listening(run.process.pid)) == 1
        here = host if "%" in host else next(iter(listening(run.process.pid)))[0]
        page = [*UPGRADE, ("Origin", base_url(run.settings))]
        shown = base_url(run.settings).partition("//")[2]
        assert exchange(run.settings.port, "/ws", page, host=shown, to=here).status == 101


def test_idle_connections_do_not_take_all_descriptors() -> None:
    """Beyond a bound further ones are cut at once, and those that leave make room."""
    with running() as run, ExitStack() as held:
        address = ("127.0.0.1", run.settings.port)
        bound = run.settings.most_sessions + SPARE_CONNECTIONS + PLAIN_CONNECTIONS
        for _ in range(bound):
            held.enter_context(socket.create_connection(address, 5))
        assert wait_for(lambda: exchange(run.settings.port, "/healthz").status == 0, 5)
        held.close()
        assert wait_for(lambda: exchange(run.settings.port, "/healthz").status == 200, 5)

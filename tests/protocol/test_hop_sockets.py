"""Sockets of a hop: the addresses that are refused, and the run folder that holds them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import zmq

from protocol.hop import endpoints, sockets
from protocol.hop.keys import load_key
from protocol.hop.server import HopServer
from tests.protocol.conftest import client_of

Context = zmq.Context[zmq.Socket[bytes]]


def test_a_second_server_is_refused(ctx: Context, endpoint: str) -> None:
    server = HopServer(ctx, endpoint, sticky=False, dead_after=2)
    with pytest.raises(endpoints.EndpointError, match="in use by another process"):
        HopServer(ctx, endpoint, sticky=False, dead_after=2)
    server.close()
    HopServer(ctx, endpoint, sticky=False, dead_after=2).close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("tcp://0.0.0.0:5000", "loopback only"),
        ("tcp://example.org:5000", "loopback only"),
        ("tcp://*:5000", "loopback only"),
        ("inproc://x", "loopback only"),
        ("ipc://relative/path", "absolute"),
        ("ipc:///tmp/" + "x" * 110, "107"),
    ],
)
def test_endpoints_that_are_refused(ctx: Context, url: str, why: str) -> None:
    with pytest.raises(endpoints.EndpointError, match=why):
        HopServer(ctx, url, sticky=False, dead_after=2)
    with pytest.raises(endpoints.EndpointError, match=why):
        client_of(ctx, url)


def test_the_run_folder_is_for_this_user_only(run_dir: Path) -> None:
    endpoints.prepare_run_dir(run_dir / "new" / "folder")
    assert (run_dir / "new" / "folder").stat().st_mode & 0o777 == 0o700
    (run_dir / "open").mkdir(mode=0o755)
    os.chmod(run_dir / "open", 0o755)
    with pytest.raises(endpoints.EndpointError, match="chmod 700"):
        endpoints.prepare_run_dir(run_dir / "open")
    (run_dir / "link").symlink_to(run_dir)
    with pytest.raises(endpoints.EndpointError, match="not a folder of this user"):
        endpoints.prepare_run_dir(run_dir / "link")
    (run_dir / "file").touch()
    with pytest.raises(endpoints.EndpointError, match="--run-dir"):
        endpoints.prepare_run_dir(run_dir / "file")
    with pytest.raises(endpoints.EndpointError, match="--run-dir"):
        endpoints.prepare_run_dir(run_dir / "file" / "below")


def test_a_file_where_the_socket_belongs_is_kept(ctx: Context, run_dir: Path) -> None:
    """libzmq removes whatever stands at the path that it binds."""
    (run_dir / "results").write_text("mine")
    with pytest.raises(endpoints.EndpointError, match=r"is no socket.*--run-dir"):
        sockets.BoundRouter(ctx, f"ipc://{run_dir}/results", max_part_bytes=100)
    assert (run_dir / "results").read_text() == "mine"


def test_a_tcp_port_in_use_is_an_error(ctx: Context, run_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(endpoints.EndpointError, match="another run"):
            HopServer(
                ctx,
                f"tcp://127.0.0.1:{taken.getsockname()[1]}",
                sticky=False,
                dead_after=2,
                key=load_key(run_dir),
            )

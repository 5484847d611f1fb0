"""A gateway that speaks HTTPS: sessions over it, renewal while it runs, and clients that speak plain HTTP."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.door.self_signed import ensure_certificate, wanted_names
from protocol.process.settings import ROOT
from scripts.talk.live import ClientError, server_info
from tests.gateway.clients import client_v2, noise
from tests.gateway.conftest import Running, free_port, running
from tests.helpers.certificates import make_pair

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the user's configuration, for this process and those that it starts."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def gateway(config: Path) -> Iterator[Running]:
    files, made = ensure_certificate(wanted_names("127.0.0.1"), config / "echomimic-live")
    assert made
    before = files.key.read_bytes()
    trust = ssl.create_default_context(cafile=str(files.certificate))
    with running(trust=trust, tls="self-signed", max_sessions=3, idle_flush=1.0) as run:
        assert files.key.read_bytes() == before, "the certificate that is there serves"
        yield run


async def test_a_session_runs_over_wss_with_a_certificate_that_is_checked(gateway: Running) -> None:
    async with client_v2(gateway, ssl=gateway.trust) as client:
        await client.speak(noise(1.5))
        await client.until(lambda c: len(c.frames) == 36)
    assert gateway.url().startswith("https://") and gateway.get("/healthz") == (200, "ok\n")


def test_the_health_check_asks_over_tls(gateway: Running) -> None:
    """It is a container's, by the command of the Dockerfile."""
    flags = ["--port", str(gateway.settings.port), "--tls", "self-signed"]
    command = [sys.executable, "-m", "scripts.run.health"]
    assert f'"{command[1]}", "{command[2]}"' in (ROOT / "Dockerfile").read_text()
    for wanted, words, more in (
        (0, '"ready": true', []),
        (1, "does not answer", ["--port", str(free_port())]),
    ):
        words_of = [*command, *flags, *more]
        done = subprocess.run(words_of, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == wanted and words in done.stdout, done


def test_a_client_that_does_not_know_the_certificate_refuses_it(gateway: Running) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(gateway, ssl.create_default_context())
    with pytest.raises(ClientError, match="vouches for its certificate"):
        server_info(gateway.url(""))


@pytest.mark.parametrize(("version", "taken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions_before_1_2_are_refused(gateway: Running, version: str, taken: bool) -> None:
    context = unchecked()
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL itself would not offer the old version otherwise
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if taken:
        assert connect(gateway, context)
    else:
        with pytest.raises(OSError):
            connect(gateway, context)


def test_plain_http_gets_a_redirect_and_no_reset(gateway: Running) -> None:
    for method in ("GET", "HEAD", "POST"):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.settings.port, timeout=5)
        connection.request(method, "/page?token=x")
        answer = connection.getresponse()
        assert answer.status == 307
        assert answer.headers["Location"] == f"https://127.0.0.1:{gateway.settings.port}/"
        assert method == "HEAD" or b"https://" in answer.read()
        connection.close()


@pytest.mark.parametrize("data", [b"\x00" * 100, b"SSH-2.0-x\r\n", b"GET", b"", os.urandom(2000)])
def test_garbage_does_no_harm(gateway: Running, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=5) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(4096):
                pass
        except ConnectionResetError:
            pass
    assert gateway.get("/healthz")[0] == 200


async def test_a_renewed_certificate_serves_new_connections_and_old_ones_go_on(tmp_path: Path) -> None:
    first, second = make_pair(), make_pair()
    cert, key = first.write(tmp_path / "live")
    trust = ssl.create_default_context(cadata=(first.certificate + second.certificate).decode())
    with running(trust=trust, tls_cert=cert, tls_key=key) as run:
        async with client_v2(run, ssl=trust) as client:
            assert serial(run) == first.serial
            second.write(tmp_path / "live")
            end = time.monotonic() + 15
            while serial(run) != second.serial:
                assert time.monotonic() < end, "the renewed certificate was not taken"
                await asyncio.sleep(0.2)
            await client.speak(noise(0.5))
            await client.until(lambda c: len(c.frames) == 12)


@pytest.mark.parametrize("module", ["scripts.run", "scripts.fake_stages", "gateway"])
def test_a_certificate_that_cannot_serve_ends_the_start_with_a_sentence(module: str, tmp_path: Path) -> None:
    cert, key = make_pair(begins=-9, ends=-1).write(tmp_path)
    flags = ["--tls-cert", str(cert), "--tls-key", str(key), "--port", str(free_port())]
    flags += ["--run-dir", str(tmp_path / "run"), "--log-dir", str(tmp_path / "logs")]
    command = [sys.executable, "-m", module, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and "the certificate expired on" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_openssl_finds_the_certificate_right(config: Path) -> None:
    """A second reader of the certificate: its names, its use, and its signature."""
    file = str(config / "echomimic-live/self-signed.pem")
    command = ["openssl", "verify", "-CAfile", file, "-purpose", "sslserver", "-verify_hostname", "localhost"]
    done = subprocess.run([*command, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(run: Running, context: ssl.SSLContext) -> bytes:
    """The gateway's certificate."""
    with socket.create_connection(("127.0.0.1", run.settings.port), timeout=5) as sock:
        with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
            found = secure.getpeercert(binary_form=True)
    assert found
    return found


def serial(run: Running) -> int:
    from cryptography import x509

    return x509.load_der_x509_certificate(connect(run, unchecked())).serial_number

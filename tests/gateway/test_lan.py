"""A phone's way in: the code on the console, HTTPS with the self-signed certificate, and the microphone."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.door.token_file import add_token, entry_for, new_book, new_token, write_book
from protocol.process.settings import ROOT
from scripts.run.welcome import lan_hosts
from tests.gateway.conftest import free_port
from tests.helpers.certificates import spki_hash
from tests.helpers.chromium import Chromium, find_chromium
from tests.helpers.ports import listening
from tests.helpers.qr_picture import code_lines, picture_of, texts_of_codes

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not lan_hosts("0.0.0.0")[1:], reason="needs an address beside loopback"),
]


@contextmanager
def at_a_terminal(folder: Path, *flags: str) -> Iterator[tuple[str, int]]:
    """A run with drawn faces whose console is a terminal: all that it prints at first, and its pid."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 80, 160, 0, 0))
    env = {**os.environ, "XDG_CONFIG_HOME": str(folder), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "scripts.fake_stages", "--portraits", "demo/bundled/avatars", *flags]
    with (folder / "log").open("w") as log:
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=theirs, stderr=log) as process:
            os.close(theirs)
            try:
                yield read_until_quiet(ours), process.pid
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(10)
                os.close(ours)


def read_until_quiet(descriptor: int) -> str:
    """Everything up to the end of the code. A busy machine takes its time between "ready" and the code."""
    text, end, block = b"", time.monotonic() + 30, "█".encode()
    while time.monotonic() < end:
        readable, _, _ = select.select([descriptor], [], [], 1.0 if block in text else 5.0)
        if not readable and block in text:
            break
        if readable:
            text += os.read(descriptor, 65536)
    return text.decode()


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")
async def test_the_code_on_the_console_leads_a_phone_to_a_session(tmp_path: Path) -> None:
    port, token_file, program = free_port(), tmp_path / "tokens.json", new_token()
    write_book(token_file, add_token(new_book(), entry_for(program, "home", ("mint",), int(time.time()))))
    flags = ["--host", "0.0.0.0", "--port", str(port), "--tls", "self-signed"]
    flags += ["--token-file", str(token_file), "--run-dir", str(tmp_path / "run")]
    with at_a_terminal(tmp_path, *flags) as (console, pid):
        (link,) = texts_of_codes(picture_of(code_lines(console)))
        url = urlsplit(link)
        assert (url.scheme, url.hostname, url.port) == ("https", lan_hosts("0.0.0.0")[0], port)
        assert listening(pid) == {("0.0.0.0", port)}
        certificate = (tmp_path / "echomimic-live/self-signed.pem").read_bytes()
        certificate = certificate[certificate.index(b"-----BEGIN CERTIFICATE") :]
        trust = f"--ignore-certificate-errors-spki-list={spki_hash(certificate)}"
        async with Chromium(flags=(trust,)) as phone:
            page = await phone.open(link)
            await page.size(390, 844, phone=True)
            assert await page.evaluate("isSecureContext && 'getUserMedia' in navigator.mediaDevices")
            await page.until("window.echomimic?.state === 'idle'")
            await page.click("#start")
            await page.until("window.echomimic.stats?.shown > 24")
            assert page.problems == []
        log = (tmp_path / "log").read_text()
    assert url.query.removeprefix("token=") in console and "self-signed" in console
    assert "token=" not in log and program not in log + console


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")
async def test_behind_the_warning_page_there_is_the_microphone_too(tmp_path: Path) -> None:
    """A browser that knows nothing of the certificate, and a person who proceeds at its warning."""
    port = free_port()
    flags = ["--host", "0.0.0.0", "--port", str(port), "--tls", "self-signed", "--no-auth"]
    with at_a_terminal(tmp_path, *flags, "--run-dir", str(tmp_path / "run")):
        async with Chromium() as phone:
            page = await phone.open("about:blank")
            url = f"https://{lan_hosts('0.0.0.0')[0]}:{port}/"
            told = await page.command("Page.navigate", url=url)
            assert told["errorText"] == "net::ERR_CERT_AUTHORITY_INVALID"
            # As the two taps do: "Advanced", "Proceed".
            await page.command("Security.setIgnoreCertificateErrors", ignore=True)
            await page.go(url)
            assert await page.evaluate("isSecureContext && 'getUserMedia' in navigator.mediaDevices")
            await page.until("window.echomimic?.state === 'idle'")
            await page.click("#start")
            await page.until("window.echomimic.stats?.shown > 24")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_takes_the_certificate_at_every_address_and_name(tmp_path: Path) -> None:
    """A strict second client: chain, names and use of the certificate."""
    port = free_port()
    flags = ["--host", "0.0.0.0", "--port", str(port), "--tls", "self-signed", "--no-auth"]
    with at_a_terminal(tmp_path, *flags, "--run-dir", str(tmp_path / "run")):
        file = tmp_path / "echomimic-live/self-signed.pem"
        for host in ("localhost", "127.0.0.1", *lan_hosts("0.0.0.0")):
            command = ["curl", "-sS", "--cacert", str(file), "--resolve", f"{host}:{port}:127.0.0.1"]
            command.append(f"https://{host}:{port}/healthz")
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
            assert done.stdout == "ok\n", (host, done.stderr)

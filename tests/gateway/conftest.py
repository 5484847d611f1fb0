"""A real gateway process, and a fake of the stages behind it."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from protocol.process.addresses import bracketed, reachable_hosts
from protocol.process.settings import ROOT, Settings, flags_of
from scripts.fake_stages.face import FacePainter
from scripts.fake_stages.workers import FakeBehaviour, FakeStages


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    """A gateway process with its stages."""

    def __init__(self, settings: Settings, flags: list[str], stages: FakeStages) -> None:
        self.settings = settings
        self.stages = stages
        self._flags = flags
        #: Whose certificates this client takes, for a gateway with TLS.
        self.trust: ssl.SSLContext | None = None
        self.start()

    def start(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in stop()
        command = [sys.executable, "-m", "gateway", *self._flags]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=self._log)

    def kill(self) -> None:
        """End the process at once, as a fault does."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def stop(self) -> None:
        """Stop the process and check that it ended well."""
        self.process.terminate()
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        with self._log:
            self._log.seek(0)
            log = self._log.read()
        assert status == 0, log
        assert "Traceback" not in log and "gateway has a fault" not in log, log

    def log(self) -> str:
        """The process's log so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def does(self) -> FakeBehaviour:
        return self.stages.behaviour

    def url(self, path: str = "/", scheme: str = "http") -> str:
        secure = "s" if self.settings.serves_tls else ""
        host = bracketed(reachable_hosts(self.settings.host)[0])
        return f"{scheme}{secure}://{host}:{self.settings.port}{path}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url(path), timeout=5, context=self.trust) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode()

    def metric(self, name: str) -> float:
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name + " ")]
        return float(lines[0].split()[-1])

    def wait_ready(self, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.get('/readyz')}")


@contextmanager
def running(
    portraits: Path | None = None, trust: ssl.SSLContext | None = None, **settings: Any
) -> Iterator[Running]:
    """A gateway with these settings; stopped, and its exit status checked, at the end."""
    with tempfile.TemporaryDirectory(prefix="eml-") as folder:
        own = settings.pop("own_avatar_dir", Path(folder) / "own")
        made = Settings(port=free_port(), run_dir=Path(folder) / "run", own_avatar_dir=own, **settings)
        flags = flags_of(made)
        with FakeStages(made, FacePainter(256, portraits, own)) as stages:
            run = Running(made, flags, stages)
            run.trust = trust
            try:
                run.wait_ready()
                yield run
            finally:
                run.stop()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    # A stall of this process shorter than the flush changes nothing.
    with running(max_sessions=3, idle_flush=1.0) as run:
        yield run


@pytest.fixture(autouse=True)
def fresh_behaviour(request: pytest.FixtureRequest) -> None:
    if "gateway" in request.fixturenames:
        request.getfixturevalue("gateway").stages.behaviour = FakeBehaviour()

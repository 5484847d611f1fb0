"""A whole run of the stages, started by a benchmark or a test."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]

#: name → [(labels, value), …]
MetricSamples = dict[str, list[tuple[dict[str, str], float]]]


class RunError(RuntimeError):
    """The run did not come up, or a part of it failed. The text says why."""


class ManagedRun:
    """Starts the supervisor with `flags` on a free port, for the time of its `with` block.

    `command` runs something else that behaves like it, such as `scripts/run_all.sh`.
    With `environment`, which replaces this process's, the run is given no log folder and takes its default.
    """

    def __init__(
        self,
        *flags: str,
        timeout: float = 180.0,
        command: Sequence[str] = (),
        port: int | None = None,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.stopped_in = float("nan")
        self._timeout = timeout
        self._command = [*(command or (sys.executable, "-m", "scripts.run")), "--port", str(self.port)]
        self._flags = list(flags)
        self._cwd = cwd
        self._folder = tempfile.TemporaryDirectory(prefix="echomimic-run-")
        self._console = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the run
        self.log_dir = Path(self._folder.name)
        self._environment = environment
        if environment is None:
            self._command += ["--log-dir", str(self.log_dir)]

    def __enter__(self) -> ManagedRun:
        self.process = subprocess.Popen(
            [*self._command, *self._flags],
            cwd=self._cwd,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=self._console,
            text=True,
        )
        began = time.monotonic()
        try:
            self._wait_ready()
        except BaseException:
            self.__exit__()
            raise
        self.ready_in = time.monotonic() - began
        return self

    def __exit__(self, *_exc: object) -> None:
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.stopped_in = time.monotonic() - began
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._console.close()
        self._folder.cleanup()

    def console(self) -> str:
        """The run's standard error so far."""
        self._console.seek(0)
        return self._console.read().decode("utf-8", "replace")

    def log(self) -> str:
        """The run's log file so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.log_dir.glob("run_*.log")))

    def metrics(self) -> MetricSamples:
        """The gateway's /metrics now."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past every proxy
        with direct.open(f"{self.url}/metrics", timeout=5) as answer:
            return parse_metrics(answer.read().decode())

    def pids(self) -> list[int]:
        """The stages' processes: the supervisor's children."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self._timeout
        assert self.process.stdout is not None
        while time.monotonic() < deadline:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                line = self.process.stdout.readline()
                if line == f"ready: {self.url}\n":
                    return
                if not line:
                    status = self.process.wait()
                    raise RunError(f"the run ended with status {status}:\n{self.console()}")
        raise RunError(f"the run was not ready within {self._timeout:g} s:\n{self.console()}")


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parse_metrics(text: str) -> MetricSamples:
    """MetricSamples of a Prometheus text, by name."""
    found: MetricSamples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found

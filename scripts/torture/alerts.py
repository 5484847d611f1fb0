"""Real faults under a real Prometheus with the shipped rules: which alert fires for which fault.

    python -m scripts.torture alerts      some three minutes; needs `prometheus` (apt install prometheus)

All durations of the rules are divided by `--pace`, so that a rule of five minutes is one of ten seconds.
Thresholds and expressions stay as they ship.
Exit status: 0 if each alert fires for its fault, and none in a healthy run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from protocol.wire.messages import Samples
from scripts.run.managed import ROOT, ManagedRun, RunError, free_port
from scripts.torture.faults import Viewing, stopped, worker_pids
from scripts.torture.viewer import spoken

RULES = ROOT / "deploy/prometheus/alerts.yml"
#: Seconds without a fault in which no alert may fire.
HEALTHY = 30.0
#: Seconds in which an alert has to fire.
FIRES_WITHIN = 45.0
MINUTE = re.compile(r"\b(\d+)m\b")


def faster(rules: str, pace: float) -> str:
    """The rules with each duration divided by `pace`."""
    return MINUTE.sub(lambda found: f"{60 * int(found[1]) / pace * 1000:.0f}ms", rules)


class Prometheus:
    """A server of its own on loopback that reads one run, with the rules at `pace`."""

    def __init__(self, run: ManagedRun, pace: float) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = tempfile.TemporaryDirectory(prefix="echomimic-prometheus-")
        folder = Path(self._folder.name)
        (folder / "alerts.yml").write_text(faster(RULES.read_text(), pace))
        job = {"job_name": "echomimic-live", "static_configs": [{"targets": [f"127.0.0.1:{run.port}"]}]}
        (folder / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {
                        "scrape_interval": "500ms",
                        "scrape_timeout": "400ms",
                        "evaluation_interval": "500ms",
                    },
                    "rule_files": ["alerts.yml"],
                    "scrape_configs": [job],
                }
            )
        )

    def __enter__(self) -> Prometheus:
        folder = self._folder.name
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=error"]
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError):
                self._ask("query", query="vector(1)")
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RunError("Prometheus did not come up")
            time.sleep(0.2)

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        alerts = self._ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def broken_rules(self) -> list[str]:
        """The rules that Prometheus could not evaluate, with its reasons."""
        (group,) = self._ask("rules")["groups"]
        return [f"{rule['name']}: {rule['lastError']}" for rule in group["rules"] if rule["health"] == "err"]

    def _ask(self, what: str, **words: str) -> dict[str, Any]:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(address, timeout=5) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data


def encoders_killed(run: ManagedRun, over: threading.Event) -> None:
    """Encoders are killed, one each second, four in all."""
    for _ in range(4):
        for pid in worker_pids(run, "encoder_worker")[:1]:
            os.kill(pid, signal.SIGKILL)
        if over.wait(1.0):
            return


def encoders_slowed(run: ManagedRun, over: threading.Event) -> None:
    """The encoders stand still for 2.4 s of each 2.5 s."""
    while not over.wait(0.1):
        with ExitStack() as stack:
            for pid in worker_pids(run, "encoder_worker"):
                with suppress(ProcessLookupError):
                    stack.enter_context(stopped(pid))
            over.wait(2.4)


def gpu_worker_stopped(run: ManagedRun, over: threading.Event) -> None:
    """The only GPU worker stands still, and so does the next one."""
    halted: set[int] = set()
    while not over.wait(0.05):
        for pid in set(worker_pids(run, "gpu_worker")) - halted:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            halted.add(pid)
    for pid in halted & set(worker_pids(run, "gpu_worker")):
        os.kill(pid, signal.SIGCONT)


def gateway_stopped(run: ManagedRun, over: threading.Event) -> None:
    """The gateway stands still until the supervisor replaces it."""
    with stopped(worker_pids(run, "gateway")[0]):
        over.wait(20.0)


#: Each fault, and the alerts that have to fire for it.
FAULTS: dict[str, tuple[Callable[[ManagedRun, threading.Event], None], set[str]]] = {
    "encoders killed": (encoders_killed, {"EchomimicWorkersRestart"}),
    "encoders slowed": (
        encoders_slowed,
        {"EchomimicFramesLate", "EchomimicFirstFrameSlow", "EchomimicQueueWait", "EchomimicClipsFail"},
    ),
    "GPU worker stopped": (gpu_worker_stopped, {"EchomimicNotReady"}),
    "gateway stopped": (gateway_stopped, {"EchomimicDown"}),
}


def trial(voice: Samples, pace: float, *flags: str) -> bool:
    """Do every fault to one run. Prints when each alert fires. Returns whether all did, and none before."""
    kept = True
    with ManagedRun(*flags, "--encoders", "2") as run, Prometheus(run, pace) as watching:
        with Viewing(run.url, voice):
            roused = _roused(watching, set(), HEALTHY)
            print(f"{'healthy run':20s} {', '.join(roused) or 'nothing fires'}", flush=True)
            kept = not roused
            for name, (fault, expected) in FAULTS.items():
                over = threading.Event()
                thread = threading.Thread(target=fault, args=(run, over), daemon=True)
                thread.start()
                roused = _roused(watching, expected, FIRES_WITHIN)
                over.set()
                thread.join()
                kept = kept and expected <= set(roused)
                print(f"{name:20s} {_line(roused, expected)}", flush=True)
        if broken := watching.broken_rules():
            print("rules that Prometheus could not evaluate:", *broken, sep="\n  ")
            kept = False
    return kept


def _roused(watching: Prometheus, expected: set[str], most: float) -> dict[str, float]:
    """The alerts that fire until all expected ones do, or for `most` seconds: name → after how many."""
    began = time.monotonic()
    before = watching.firing() if expected else set()
    roused: dict[str, float] = {}
    while time.monotonic() - began < most and not (expected and expected <= set(roused)):
        time.sleep(0.25)
        for name in watching.firing() - before:
            roused.setdefault(name, time.monotonic() - began)
    return roused


def _line(roused: dict[str, float], expected: set[str]) -> str:
    seen = [f"{name.removeprefix('Echomimic')} after {at:.1f} s" for name, at in roused.items()]
    missing = [f"{name.removeprefix('Echomimic')} did not fire" for name in sorted(expected - set(roused))]
    return ", ".join(seen + missing)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trial. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.torture alerts", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", choices=("passthrough", "bundled"), default="passthrough")
    parser.add_argument("--pace", type=float, default=30.0, help="how much faster the rules are")
    args = parser.parse_args(argv)
    if shutil.which("prometheus") is None:
        print("prometheus is not installed (on Debian and Ubuntu: apt install prometheus)", file=sys.stderr)
        return 2
    flags = ["--passthrough"] if args.model == "passthrough" else []
    return 0 if trial(spoken(), args.pace, *flags) else 1

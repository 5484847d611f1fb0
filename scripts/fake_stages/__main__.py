"""`python -m scripts.fake_stages`: the page and the gateway without torch and without a model.

The gateway is the real one. Stand-ins for the workers answer it with a drawn face over the real sockets.

    python -m scripts.fake_stages --port 8080
    python -m scripts.fake_stages --delay 1.5 --portraits demo/bundled/avatars

Exit status: 0 after Ctrl-C or SIGTERM, 1 when the run cannot start or the gateway ends, 2 for bad settings.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from protocol.model.own_avatars import own_avatar_folder
from protocol.process.settings import NO_AUTH_WARNING, Settings, flags_of, is_open_to_all, load_settings
from scripts.fake_stages.face import FacePainter
from scripts.fake_stages.workers import FakeBehaviour, FakeStages
from scripts.run.address import base_url, connect_gateway
from scripts.run.child import die_with_parent
from scripts.run.launch import check_certificate
from scripts.run.rundir import RunDir, RunDirError, check_port_free
from scripts.run.start import command_of
from scripts.run.welcome import network_lines, phone_lines

READY_WITHIN = 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes."""
    own, others = _parser().parse_known_args(argv)
    try:
        settings = load_settings(others)
        painter = FacePainter(own.size, own.portraits, own_avatar_folder(settings))
        check_certificate(settings)
        check_port_free(settings.host, settings.port)
        with RunDir(settings.run_dir, settings.port):
            return _serve(settings, painter, FakeBehaviour(delay=own.delay))
    except ValueError as error:  # SettingsError is one
        print(f"fake_stages: {error}", file=sys.stderr)
        return 2
    except RunDirError as error:
        print(f"fake_stages: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.fake_stages",
        allow_abbrev=False,  # --port would mean --portraits
        description="The page and the gateway without torch: stand-ins for the workers draw a face.",
        epilog="Every other flag is one of the gateway's; `python -m gateway --help` lists them.",
    )
    parser.add_argument(
        "--delay", type=float, default=0.0, metavar="SECONDS", help="time from a clip's sound to its frames"
    )
    parser.add_argument("--size", type=int, default=512, metavar="PIXELS", help="width and height of frames")
    parser.add_argument(
        "--portraits", type=Path, metavar="FOLDER", help="portraits to speak with, instead of drawn faces"
    )
    return parser


def _serve(settings: Settings, painter: FacePainter, behaviour: FakeBehaviour) -> int:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    gateway = subprocess.Popen(
        command_of(sys.executable, "gateway", *flags_of(settings)),
        preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - there is one thread yet
    )
    try:
        with FakeStages(settings, painter, behaviour) as stages:
            if not _wait_ready(settings, gateway, stopped):
                return 0 if stopped.is_set() else 1
            print(f"ready: {base_url(settings)}", flush=True)
            for line in (*network_lines(settings), *phone_lines(settings, sys.stdout)):
                print(line, flush=True)
            if is_open_to_all(settings):
                print(f"WARNING {NO_AUTH_WARNING}", file=sys.stderr, flush=True)
            while not stopped.wait(0.2):
                if gateway.poll() is not None or not stages.is_alive():
                    return 1
            return 0
    finally:
        gateway.terminate()
        gateway.wait()


def _wait_ready(settings: Settings, gateway: subprocess.Popen[bytes], stopped: threading.Event) -> bool:
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end and gateway.poll() is None and not stopped.wait(0.1):
        connection = connect_gateway(settings, 1)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return True
        except OSError:
            pass  # it does not listen yet
        finally:
            connection.close()
    if gateway.poll() is None and not stopped.is_set():
        print(f"fake_stages: the gateway is not ready within {READY_WITHIN:g} s", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())

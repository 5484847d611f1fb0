"""Starting and stopping whole runs: readiness, restarts, one run per port, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from protocol.process.settings import default_run_dir
from scripts.run.managed import ROOT, ManagedRun, free_port
from tests.helpers.waiting import wait_for
from tests.integration.conftest import processes_with

pytestmark = [pytest.mark.process, pytest.mark.timing]

SUPERVISOR = [sys.executable, "-m", "scripts.run"]


def start(*flags: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SUPERVISOR, *flags], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_every_stage_is_a_process_and_the_log_has_them_all(plain_run: ManagedRun) -> None:
    assert len(plain_run.pids()) == 5
    for stage in ("gateway", "audio_worker", "gpu_worker", "encoder_worker.0", "encoder_worker.1"):
        assert f"[{stage}] started as process" in plain_run.log()


def test_nothing_of_a_run_listens_but_the_port(plain_run: ManagedRun) -> None:
    supervisor = psutil.Process(plain_run.process.pid)
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in (supervisor, *supervisor.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    }
    assert listening == {("127.0.0.1", plain_run.port)}


def test_a_second_run_on_the_port_is_told_so(plain_run: ManagedRun, tmp_path: Path) -> None:
    second = start("--port", str(plain_run.port), "--log-dir", str(tmp_path))
    assert second.returncode == 1
    assert f"port {plain_run.port} is in use" in second.stderr
    assert "--port" in second.stderr


def test_a_killed_stage_comes_back(plain_run: ManagedRun) -> None:
    (victim, *_) = [pid for pid in processes_with("audio_worker") if str(plain_run.port) in command_line(pid)]
    os.kill(victim, signal.SIGKILL)
    assert wait_for(lambda: "audio_worker ended with signal 9 (SIGKILL)" in plain_run.console(), 3)
    assert wait_for(lambda: len(plain_run.pids()) == 5, 5)
    assert victim not in plain_run.pids()
    assert wait_for(lambda: len(re.findall(r"audio_worker 0-\d+ is warm", plain_run.log())) == 2, 60)
    assert warm(plain_run)


def test_readyz_is_false_within_a_second_after_a_death(plain_run: ManagedRun) -> None:
    """The GPU worker, since another test kills the audio worker and the third time ends the run."""
    assert wait_for(lambda: ready(plain_run), 60)
    (victim, *_) = [pid for pid in processes_with("gpu_worker") if str(plain_run.port) in command_line(pid)]
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    assert wait_for(lambda: not ready(plain_run), 10)
    took = time.monotonic() - killed
    print(f"/readyz was false {took:.2f} s after the kill")
    assert took < 1
    assert wait_for(lambda: ready(plain_run), 60)


def ready(run: ManagedRun) -> bool:
    try:
        with urllib.request.urlopen(f"{run.url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_a_stop_takes_under_five_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    with ManagedRun("--passthrough") as run:
        assert default_run_dir(run.port).is_dir()
    assert run.stopped_in < 5
    assert run.process.returncode == 0
    assert processes_with(str(run.port)) == []
    assert not default_run_dir(run.port).exists()


def test_a_killed_supervisor_takes_the_stages_along() -> None:
    with ManagedRun("--passthrough") as run:
        # the supervisor, a worker of each stage, and the guard that clears the run folder
        assert len(processes_with(str(run.port))) == 6
        run.process.kill()
        assert wait_for(lambda: processes_with(str(run.port)) == [], 8)
        run.process.wait()
    with ManagedRun("--passthrough", port=run.port):  # what it left is no hindrance
        pass
    assert not default_run_dir(run.port).exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--fps", "fast"], "--fps fast: not a whole number"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--port", "70000"], "--port 70000"),
    ],
)
def test_a_bad_flag_is_named(flags: list[str], words: str) -> None:
    done = start(*flags)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_configuration_that_cannot_work_ends_the_run_at_once(tmp_path: Path) -> None:
    done = start(
        "--config", str(tmp_path / "none.yaml"), "--port", str(free_port()), "--log-dir", str(tmp_path)
    )
    assert done.returncode == 1
    assert "none.yaml" in done.stderr
    assert "cannot work with this configuration" in done.stderr
    assert "starting it again" not in done.stderr


def test_help_lists_every_flag_of_the_design() -> None:
    text = start("--help").stdout
    flags = (
        "port audio-margin use-init-latent no-use-init-latent compile-unet config reference-image pose-dir"
    )
    for flag in (*flags.split(), "sample-rate", "fps", "clip-frames", "steps", "cfg", "encoders"):
        assert re.search(rf"--{flag}\b", text), flag


def test_run_all_works_through_a_link_from_another_folder_with_a_space(tmp_path: Path) -> None:
    """The real script, with the environment that scripts/test.sh has made."""
    venv = Path(sys.prefix)
    if not (venv / ".echomimic-installed-requirements.lock").is_file():
        pytest.skip("this environment was not made by scripts/test.sh, so run_all.sh would install into it")
    folder = tmp_path / "a folder"
    folder.mkdir()
    link = folder / "live"
    link.symlink_to(ROOT / "scripts/run_all.sh")
    command = ["env", f"ECHOMIMIC_VENV={venv}", "bash", str(link), "--passthrough"]
    with ManagedRun(command=command, cwd=folder) as run:
        assert warm(run)
        assert run.ready_in < 60
    assert run.stopped_in < 5
    assert processes_with(str(run.port)) == []


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def warm(run: ManagedRun) -> bool:
    samples = run.metrics().get("echomimic_ready", [])
    return bool(samples) and samples[0][1] == 1

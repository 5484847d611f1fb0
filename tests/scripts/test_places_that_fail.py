"""Files that may not be read, full disks, users without a home or a name, proxies: all named rightly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from protocol.process.user import complete_user
from scripts.run.managed import ROOT, ManagedRun, free_port
from tests.scripts.test_rundir import state_of

pytestmark = pytest.mark.process

#: Root reads and writes everything. Without these rights its files' modes count for it too.
_LESS = "-dac_override,-dac_read_search"
_NAMELESS = 12345


def as_user_whose_modes_count() -> list[str]:
    """The beginning of a command that runs it with the rights that the files' modes give."""
    if os.getuid() != 0:
        return []
    _need("setpriv")
    return ["setpriv", f"--bounding-set={_LESS}", f"--inh-caps={_LESS}", "--"]


def as_nameless_user() -> list[str]:
    """Runs a command as a user id without a name. It may read everything, as Python can be in root's home."""
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    _need("setpriv")
    ids = [f"--reuid={_NAMELESS}", f"--regid={_NAMELESS}", "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"]


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")


def launch(*flags: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    command = [*before, sys.executable, "-m", "scripts.run", "--port", str(free_port()), "--passthrough"]
    return subprocess.run(
        [*command, *flags], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder that may not be entered, with one of every kind of file in it."""
    folder = tmp_path / "closed"
    (folder / "poses").mkdir(parents=True)
    shutil.copy(ROOT / "demo/bundled/avatars/maya.png", folder / "maya.png")
    shutil.copy(ROOT / "demo/bundled/poses/calm.npz", folder / "poses/calm.npz")
    (folder / "run.yaml").write_text("port: 9000\n")
    return folder


@pytest.mark.parametrize(
    ("flag", "name", "mode"),
    [
        ("--settings", "run.yaml", 0o600),
        ("--config", "run.yaml", 0o600),
        ("--reference-image", "maya.png", 0o600),
        ("--reference-image", "", 0o000),
        ("--avatar-dir", "", 0o000),
        ("--pose-dir", "poses/calm.npz", 0o600),
        ("--pose-dir", "poses", 0o000),
        ("--run-dir", "run", 0o600),
        ("--log-dir", "logs", 0o000),
    ],
)
def test_a_folder_that_may_not_be_entered_is_named_and_is_no_port(
    closed: Path, flag: str, name: str, mode: int
) -> None:
    closed.chmod(mode)
    try:
        done = launch(flag, str(closed / name), before=as_user_whose_modes_count())
    finally:
        closed.chmod(0o700)
    assert done.returncode in (1, 2), done.stderr
    assert str(closed) in done.stderr
    assert "may not" in done.stderr or "Permission denied" in done.stderr
    assert "port" not in done.stderr.replace("--port", "") and "Traceback" not in done.stderr


def test_a_file_that_may_not_be_read_beside_others_leaves_the_run_going(closed: Path, tmp_path: Path) -> None:
    shutil.copy(closed / "maya.png", closed / "other.png")
    (closed / "other.png").chmod(0)
    command = [*as_user_whose_modes_count(), sys.executable, "-m", "scripts.run"]
    flags = ["--passthrough", "--reference-image", str(closed)]
    with ManagedRun(*flags, command=command) as run:
        assert "is warm" in run.log()


def test_the_gateways_own_file_is_named_and_is_no_port(closed: Path, tmp_path: Path) -> None:
    """The gateway alone, where no launcher has looked before."""
    flags = ["--port", str(free_port()), "--reference-image", str(closed), "--run-dir", str(tmp_path / "run")]
    command = [*as_user_whose_modes_count(), "timeout", "-s", "TERM", "8", sys.executable, "-m", "gateway"]
    closed.chmod(0)
    try:
        done = subprocess.run(
            [*command, *flags], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        closed.chmod(0o700)
    assert f"{closed}: this user may not read it" in done.stderr
    assert "cannot listen" not in done.stderr and "serving on" in done.stderr


def test_a_taken_port_is_called_a_taken_port(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "--port", port, "--run-dir", str(tmp_path / "run")],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in done.stderr


def on_full_disk(folder: Path) -> list[str]:
    """Runs a command with a full disk at the folder."""
    if os.getuid() != 0:
        pytest.skip("only root can mount")
    _need("unshare")
    folder.mkdir(exist_ok=True)
    code = 'mount -t tmpfs -o size=64k,nr_inodes=1 full "$0" || exit 77; exec "$@"'
    before = ["unshare", "--mount", "--propagation", "private", "bash", "-c", code, str(folder)]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount here")
    return before


@pytest.mark.parametrize("flag", ["--run-dir", "--log-dir"])
def test_a_full_disk_is_called_a_full_disk(tmp_path: Path, flag: str) -> None:
    done = launch(flag, str(tmp_path / "full/place"), before=on_full_disk(tmp_path / "full"))
    assert done.returncode == 1
    assert f"{tmp_path}/full/place: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("home", [None, "", "/", "/nowhere", "relative"])
def test_a_user_without_home_and_name_runs(tmp_path: Path, home: str | None) -> None:
    """All that such a user has is a place for temporary files."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    tmp_path.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if home is not None:
        environment["HOME"] = home
    code = (
        "from protocol.process.settings import settings_from_command_line as load; load();"
        "import getpass, os, pathlib; print(getpass.getuser(), pathlib.Path.home());"
        "import openvino; open(pathlib.Path.home() / 'file', 'w').close()"
    )
    done = subprocess.run(
        [*as_nameless_user(), sys.executable, "-c", code],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"user{_NAMELESS} {tmp_path}/tmp/echomimic-live-{_NAMELESS}-state/home")


def test_a_whole_run_of_a_user_without_home_and_name(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    before = state_of(ROOT / "scripts")
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [*as_nameless_user(), sys.executable, "-m", "scripts.run"]
    with ManagedRun("--passthrough", command=command, environment=environment) as run:
        logs = list((tmp_path / "tmp").glob("echomimic-live-*-state/logs/run_*.log"))
        assert logs, run.console()
    assert state_of(ROOT / "scripts") == before


def test_a_home_among_the_temporary_files_that_is_somebody_elses_is_not_used(tmp_path: Path) -> None:
    """Compiled code is loaded from there, so nobody else may have put it there."""
    import tempfile

    environment = {"HOME": "/nowhere"}
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    planted = Path(tempfile.gettempdir()) / f"echomimic-live-{os.getuid()}-state"
    if planted.exists():
        pytest.skip(f"{planted} is there already")
    planted.mkdir()
    os.chown(planted, _NAMELESS, _NAMELESS)
    try:
        os.environ.pop("XDG_STATE_HOME", None)
        complete_user(environment)
        assert environment["HOME"] != "/nowhere" and str(planted) not in environment["HOME"]
    finally:
        shutil.rmtree(planted)


def test_the_environments_proxies_are_not_asked_for_this_machine(tmp_path: Path) -> None:
    dead = "http://127.0.0.1:9"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "ws_proxy")
    environment = {
        **{k: v for k, v in os.environ.items() if k.lower() != "no_proxy"},
        **dict.fromkeys(names, dead),
        "XDG_STATE_HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "scripts.run", "--log-dir", str(tmp_path / "logs")]
    with ManagedRun("--passthrough", command=command, environment=environment) as run:
        talk = subprocess.run(
            [sys.executable, "-m", "scripts.talk", "--url", run.url, "--seconds", "1"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert talk.returncode == 0, talk.stderr + talk.stdout

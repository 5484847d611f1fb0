"""A run starts from any folder, and an installed copy of the project stays as it was installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.process.settings.places import default_log_dir, state_dir
from scripts.run.managed import ROOT, ManagedRun
from scripts.run.start import START

pytestmark = pytest.mark.process

HOSTILE = ("torch.py", "numpy.py", "zmq.py", "yaml.py", "pip.py", "venv.py", "scripts", "protocol", "gateway")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder with modules that are called like the project's, and a reference image."""
    folder = tmp_path / "a user's folder"
    folder.mkdir()
    for name in HOSTILE:
        file = folder / name if name.endswith(".py") else folder / name / "__init__.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"raise RuntimeError('imported {name} of the working folder')\n")
    shutil.copy(ROOT / "demo/bundled/avatars/maya.png", folder / "face.png")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that `pip install` has put the project into, closed for writing."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if names.returncode != 0:
        pytest.skip("a checkout of git is needed: it knows the project's files")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("demo/factory"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    shutil.rmtree(source)
    for path in target.rglob("*"):
        path.chmod(path.stat().st_mode & ~0o222)
    yield target
    for path in [target, *target.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder."""
    found = {str(path): path.stat() for path in sorted(folder.rglob("*"))}
    return {name: (info.st_size, info.st_mtime_ns) for name, info in found.items()}


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment with another home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "PYTHON"))}
    return {**kept, "HOME": str(home), **more}


def stand_in_venv(folder: Path) -> Path:
    """An environment with this Python in which run_all.sh finds everything installed."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    code = 'root=$1; . "$1/scripts/setup_env.sh"; stamp_of requirements.lock'
    command = ["bash", "-c", code, "bash", str(ROOT)]
    stamp = subprocess.run(command, capture_output=True, text=True, check=True)
    (folder / ".echomimic-packages-requirements.lock").write_text(stamp.stdout.rstrip("\n"))
    return folder


@pytest.mark.process
@pytest.mark.parametrize("safe_path", ["", "1"])
def test_run_all_starts_from_a_folder_with_modules_of_the_same_names(
    hostile: Path, tmp_path: Path, safe_path: str
) -> None:
    venv = stand_in_venv(tmp_path / "venv")
    command = ["bash", str(ROOT / "scripts/run_all.sh"), "--log-dir", "my logs"]
    env = environment(tmp_path, ECHOMIMIC_VENV=str(venv), PYTHONSAFEPATH=safe_path)
    flags = ("--passthrough", "--reference-image", "face.png")
    with ManagedRun(*flags, command=command, cwd=hostile, environment=env) as run:
        assert "of the working folder" not in run.console()
    assert list((hostile / "my logs").glob("run_*.log"))


def test_help_needs_nothing_of_the_working_folder(hostile: Path) -> None:
    command = ["bash", str(ROOT / "scripts/run_all.sh"), "--help"]
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--reference-image" in done.stdout, done.stderr


@pytest.mark.process
def test_an_installed_copy_runs_and_stays_as_it_is(installed: Path, hostile: Path, tmp_path: Path) -> None:
    before = files_of(installed)
    command = [sys.executable, str(installed / "bin/echomimic-live")]
    env = environment(tmp_path / "home", PYTHONPATH=str(installed))
    (tmp_path / "home").mkdir()
    with ManagedRun("--passthrough", command=command, cwd=hostile, environment=env) as run:
        log = next((tmp_path / "home/.local/state/echomimic-live/logs").glob("run_*.log"))
        started = [Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in run.pids()]
    assert all(str(installed / "scripts/run/start.py") in words for words in started)
    assert "is warm" in log.read_text()
    assert files_of(installed) == before
    assert not list(hostile.rglob("*.pyc"))


def test_an_installed_copy_has_the_bundled_model_and_not_its_factory(installed: Path) -> None:
    weights = {path.name for path in (installed / "demo/bundled/model").iterdir()}
    tracked = {path.name for path in (ROOT / "demo/bundled/model").iterdir()}
    assert weights >= tracked
    for kind in ("avatars", "poses"):
        assert len(list((installed / f"demo/bundled/{kind}").iterdir())) > 2
    assert (installed / "gateway/page/app.js").is_file()
    assert (installed / "clients/js/client/wire.js").is_file()
    assert not (installed / "demo/factory").exists()
    assert (installed / "echomimic_live_client/py.typed").is_file()


@pytest.mark.parametrize("module", ["scripts.run", "scripts.talk", "scripts.bench"])
def test_a_module_is_run_with_its_arguments(module: str, hostile: Path) -> None:
    done = subprocess.run(
        [sys.executable, START, module, "--help"], cwd=hostile, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module} ")


def test_the_state_folder_follows_the_environment(tmp_path: Path) -> None:
    home, state = tmp_path / "home", tmp_path / "state"
    home.mkdir()
    state.mkdir()
    assert state_dir({"HOME": str(home)}) == home / ".local/state/echomimic-live"
    assert state_dir({"HOME": str(home), "XDG_STATE_HOME": str(state)}) == state / "echomimic-live"
    assert state_dir({"HOME": str(home), "XDG_STATE_HOME": "state"}) == home / ".local/state/echomimic-live"
    (tmp_path / "file").touch()
    unusable: list[dict[str, str]] = [{}, {"HOME": ""}, {"HOME": str(tmp_path / "file/home")}]
    for env in unusable:
        place = state_dir(env)
        assert place.is_absolute() and place.parent.is_dir() and str(os.getuid()) in place.name


def test_a_checkout_keeps_its_logs_beside_the_code(tmp_path: Path) -> None:
    assert default_log_dir({"HOME": str(tmp_path)}) == ROOT / "logs"
    assert default_log_dir({"HOME": str(tmp_path)}, tmp_path) == tmp_path / ".local/state/echomimic-live/logs"

"""The virtual environment of the scripts: only one that they made is emptied, any other is left as it is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scripts.test_rundir import ROOT, state_of

pytestmark = pytest.mark.process

MARK = ".echomimic-venv"
STAMP = ".echomimic-installed-requirements.lock"


def run_all(venv: Path | str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The real script; every test with it expects a refusal, and without an index nothing is installed."""
    command = ["env", "PIP_NO_INDEX=1", f"ECHOMIMIC_VENV={venv}", "bash", str(ROOT / "scripts/run_all.sh")]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def ready_venv(
    venv: Path | None, root: Path = ROOT, step: str = "install_env"
) -> subprocess.CompletedProcess[str]:
    """The script's steps that need no network: everything but the packages of the lock files."""
    code = f'set -u; root=$1; . "$2"; name_venv; {step}'
    command = ["env", f"ECHOMIMIC_VENV={venv or ''}", "bash", "-c", code, "bash", str(root)]
    command.append(str(ROOT / "scripts/setup_env.sh"))
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def break_python(venv: Path) -> None:
    """The Python that the environment was made with is gone."""
    for link in (venv / "bin").glob("python*"):
        link.unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3")


def works(venv: Path) -> bool:
    return subprocess.run([venv / "bin" / "python", "-c", ""], check=False).returncode == 0


@pytest.fixture
def somebodys(tmp_path: Path) -> Path:
    """An environment with a dead Python and a file of its owner's."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("home = /nowhere\n")
    (venv / "notes.txt").write_text("mine")
    (venv / STAMP).write_text("of a version before the mark, which installed here")
    break_python(venv)
    return venv


def test_a_dead_environment_of_somebodys_is_refused_and_untouched(somebodys: Path) -> None:
    before = state_of(somebodys)
    done = run_all(somebodys)
    assert done.returncode == 1
    assert f"ECHOMIMIC_VENV={somebodys} is a virtual environment whose Python does not answer" in done.stderr
    assert done.stderr.count("\n") == 1
    assert state_of(somebodys) == before


@pytest.mark.parametrize("end", ["", "/"])
def test_a_link_to_an_environment_of_ours_is_refused(tmp_path: Path, somebodys: Path, end: str) -> None:
    (somebodys / MARK).touch()
    (tmp_path / "link").symlink_to(somebodys)
    before = state_of(somebodys)
    assert run_all(f"{tmp_path / 'link'}{end}").returncode == 1
    assert (tmp_path / "link").is_symlink()
    assert state_of(somebodys) == before


def test_a_folder_with_files_is_not_filled(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    before = state_of(folder)
    done = run_all("a folder", cwd=tmp_path)
    assert done.returncode == 1
    assert f"ECHOMIMIC_VENV={folder} is a folder with files" in done.stderr
    assert state_of(folder) == before


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is not a folder" in run_all(tmp_path / "file").stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_ours_is_marked_and_made_anew_when_its_python_is_gone(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()  # an empty folder is taken
    inode = venv.stat().st_ino
    assert ready_venv(venv).returncode == 0
    assert (venv / MARK).is_file() and works(venv)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (venv / "lib" / "link").symlink_to(tmp_path / "mine")
    break_python(venv)
    done = ready_venv(venv)
    assert done.returncode == 0 and "making it anew" in done.stderr
    assert (venv / MARK).is_file() and works(venv) and venv.stat().st_ino == inode
    assert not (venv / "lib" / "link").exists()
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_an_environment_whose_making_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / MARK).touch()
    assert ready_venv(venv).returncode == 0
    assert works(venv)
    shutil.rmtree(next((venv / "lib").glob("python*/site-packages")))
    done = ready_venv(venv, step="install_env; ready_pip")
    assert done.returncode == 0 and "has no pip" in done.stderr
    assert list((venv / "lib").glob("python*/site-packages/pip"))


def test_a_working_environment_of_somebodys_gets_pip_and_keeps_its_files(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    made = ready_venv(None, step=f'"$(find_python)" -m venv --without-pip "{venv}"')
    assert made.returncode == 0, made.stderr
    (venv / "notes.txt").write_text("mine")
    done = ready_venv(venv, step="install_env; ready_pip")
    assert done.returncode == 0, done.stderr
    assert list((venv / "lib").glob("python*/site-packages/pip"))
    assert (venv / "notes.txt").exists() and not (venv / MARK).exists()


@pytest.mark.parametrize("stamped", [True, False])
def test_the_default_place_counts_as_ours_with_a_stamp(
    tmp_path: Path, somebodys: Path, stamped: bool
) -> None:
    root = tmp_path / "project"
    root.mkdir()
    somebodys.rename(root / ".venv")
    if not stamped:
        (root / ".venv" / STAMP).unlink()
    before = state_of(root / ".venv")
    done = ready_venv(None, root)
    if stamped:
        assert done.returncode == 0 and works(root / ".venv")
    else:
        assert done.returncode == 1
        assert "move it away, or name another folder with ECHOMIMIC_VENV" in done.stderr
        assert state_of(root / ".venv") == before


def test_an_installed_environment_of_somebodys_in_the_default_place_stays_theirs(tmp_path: Path) -> None:
    """Installing leaves no stamp there that would make it ours when its Python dies."""
    root = tmp_path / "project"
    venv = root / ".venv"
    root.mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        (root / name).touch()
    no_network = "install_torch() { :; }; pip_install() { say pip; }; install_env requirements.lock"
    assert ready_venv(None, root, step=f'"$(find_python)" -m venv "{venv}"').returncode == 0
    assert "pip" in ready_venv(None, root, step=no_network).stderr
    assert ready_venv(None, root, step=no_network).stderr == ""  # the stamp is believed
    break_python(venv)
    before = state_of(venv)
    done = ready_venv(None, root)
    assert done.returncode == 1 and "whose Python does not answer" in done.stderr
    assert state_of(venv) == before


def test_a_python_that_fails_once_loses_nothing(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / MARK).touch()
    python = venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\n[ -e "{tmp_path}/once" ] && exit 0\n: >"{tmp_path}/once"; exit 1\n')
    python.chmod(0o755)
    assert ready_venv(venv).returncode == 0
    assert (tmp_path / "once").exists() and python.exists()

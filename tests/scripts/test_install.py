"""Installing as people's machines are: their settings, slow and broken networks, and ends in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.install.repair import is_whole
from tests.helpers.slow_index import SlowIndex, make_wheel, serve_index
from tests.helpers.waiting import wait_for
from tests.scripts.test_rundir import ROOT, state_of

pytestmark = [pytest.mark.process, pytest.mark.long]

#: A version that no folder of wheels has, and that no constraint of a machine's forbids.
TORCH = "1.99"
#: Installs what a run by torch needs.
BOTH = "install_env requirements.lock requirements-torch.lock"
#: Makes an editable wheel with nothing but Python.
BACKEND = """
import sys
sys.path.insert(0, {root!r})
from tests.helpers.slow_index import make_wheel

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "project-1.0-py3-none-any.whl"
    with open(folder + "/" + name, "wb") as file:
        file.write(make_wheel("project", "1.0", {{}}))
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "project"
version = "1.0"
"""
MANY_FILES = {f"part_{k:04}.txt": b"x" * 100 for k in range(4000)}


@pytest.fixture(scope="module")
def wheels() -> dict[str, bytes]:
    return {
        f"torch-{TORCH}-py3-none-any.whl": make_wheel("torch", TORCH, MANY_FILES),
        "alpha-1.0-py3-none-any.whl": make_wheel("alpha", "1.0", {"data.bin": bytes(300_000)}),
        "beta-1.0-py3-none-any.whl": make_wheel("beta", "1.0", {}),
    }


@pytest.fixture
def index(wheels: dict[str, bytes]) -> Iterator[SlowIndex]:
    with serve_index(wheels) as server:
        yield server


@pytest.fixture(scope="module")
def made_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment as the script makes it, to copy: making one takes seconds."""
    venv = tmp_path_factory.mktemp("made") / "venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", str(venv)], check=True)
    (venv / ".echomimic-venv").touch()
    return venv


class Machine:
    """A user's machine: a home, a path with a Python, and a project to install."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.tools = folder / "tools"
        self.root = folder / "project"
        self.venv = folder / "venv"
        for place in (self.home, self.tools, self.root):
            place.mkdir()
        python = Path(sys.base_prefix) / f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"
        (self.tools / "python3").symlink_to(python)
        (self.root / "requirements.lock").write_text("alpha==1.0\nbeta==1.0\n")
        (self.root / "requirements-torch.lock").write_text(f"torch=={TORCH}\n")
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        (self.root / "backend.py").write_text(BACKEND.format(root=str(ROOT)))

    def add_uv(self) -> None:
        """Put uv on the path. Skips the test where there is none."""
        uv = shutil.which("uv")
        if uv is None:
            pytest.skip("needs uv")
        (self.tools / "uv").write_text(
            f'#!/bin/sh\nPATH="{os.environ["PATH"]}" exec "{uv}" --cache-dir "{self.folder}/uv" "$@"\n'
        )
        (self.tools / "uv").chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "HOME": str(self.home), "PATH": f"{self.tools}:/usr/bin:/bin", "ECHOMIMIC_VENV": str(self.venv),
            "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "LANG": "C.UTF-8", **more,
        }  # fmt: skip

    def start(self, step: str = BOTH, **more: str) -> subprocess.Popen[str]:
        code = f'set -u; root=$1; . "$2"; torch_version={TORCH}; {step}'
        command = ["bash", "-c", code, "bash", str(self.root), str(ROOT / "scripts/setup_env.sh")]
        return subprocess.Popen(
            command, env=self.environment(**more), cwd=self.folder, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, step: str = BOTH, **more: str) -> subprocess.CompletedProcess[str]:
        process = self.start(step, **more)
        out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @property
    def packages(self) -> Path:
        (found,) = self.venv.glob("lib/python*/site-packages")
        return found

    def assert_whole(self) -> None:
        """Everything is installed, in the environment and nowhere else, and nothing is left of the work."""
        code = "import torch, alpha, beta, project; print(torch.value + alpha.value + beta.value)"
        done = subprocess.run(
            [self.venv / "bin/python", "-I", "-c", code], capture_output=True, text=True, check=False
        )
        assert done.stdout == "3\n", done.stderr
        infos = list(self.packages.glob("*.dist-info"))
        assert all(is_whole(info) for info in infos)
        assert {info.name.partition("-")[0] for info in infos} >= {"torch", "alpha", "beta", "project"}
        assert not list(self.packages.glob("~*"))
        assert not (self.venv / ".echomimic-tmp").exists()
        assert not (self.venv / ".echomimic-unfinished").exists()
        assert not (self.home / ".local/lib").exists()


@pytest.fixture
def machine(tmp_path: Path, made_venv: Path) -> Machine:
    """A machine with an empty environment that the script made."""
    machine = Machine(tmp_path)
    shutil.copytree(made_venv, machine.venv, symlinks=True)
    return machine


def hostile_settings(folder: Path) -> dict[str, str]:
    """Settings of pip that would send packages elsewhere or change them, by name."""
    return {
        "user": "true", "target": f"{folder}/elsewhere", "prefix": f"{folder}/elsewhere",
        "root": f"{folder}/elsewhere", "require-virtualenv": "true", "no-deps": "true", "no-binary": ":all:",
        "only-binary": "x",
        "dry-run": "true", "python": "/usr/bin/python3", "require-hashes": "true", "ignore-installed": "true",
    }  # fmt: skip


def hostile_variables(folder: Path) -> dict[str, str]:
    (folder / "modules").mkdir()
    for name in ("torch", "pip", "alpha", "encodings"):
        (folder / "modules" / f"{name}.py").write_text("raise RuntimeError('of PYTHONPATH')")
    return {
        "PYTHONHOME": "/nowhere", "PYTHONPATH": str(folder / "modules"), "VIRTUAL_ENV": "/nowhere",
        "PYTHONUSERBASE": str(folder / "elsewhere"),
    }  # fmt: skip


def test_variables_that_send_packages_elsewhere_do_no_harm(machine: Machine, index: SlowIndex) -> None:
    settings = hostile_settings(machine.folder)
    variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
    done = machine.run(
        **variables, **hostile_variables(machine.folder), PIP_INDEX_URL=f"{index.url}/", TMPDIR="/nowhere"
    )
    assert done.returncode == 0, done.stderr
    machine.assert_whole()
    assert not (machine.folder / "elsewhere").exists()
    assert "not used here" in done.stderr and "prefix" in done.stderr and "target" in done.stderr
    assert f"installing PyTorch {TORCH} from your index {index.url}/ …" in done.stderr
    assert "PYTHONHOME is left out" in done.stderr
    again = machine.run(**variables, **{"PYTHONHOME": "/nowhere"})
    assert again.returncode == 0 and "installing" not in again.stderr


def test_a_pip_conf_that_sends_packages_elsewhere_does_no_harm(machine: Machine, index: SlowIndex) -> None:
    settings = {"index-url": index.url, **hostile_settings(machine.folder)}
    conf = machine.folder / "pip.conf"
    conf.write_text("[install]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    done = machine.run(PIP_CONFIG_FILE=str(conf))
    assert done.returncode == 0, done.stderr
    machine.assert_whole()
    assert not (machine.folder / "elsewhere").exists()
    assert f"from your index {index.url} …" in done.stderr


def test_uvs_index_is_used_without_uv(machine: Machine, index: SlowIndex) -> None:
    done = machine.run(UV_INDEX_URL=index.url.replace("//", "//me:secret@"))
    assert done.returncode == 0, done.stderr
    machine.assert_whole()
    assert f"from your index {index.url} …" in done.stderr and "secret" not in done.stderr


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_uv_installs_where_it_is_there_and_does_no_harm(
    machine: Machine, index: SlowIndex, variable: str
) -> None:
    machine.add_uv()
    elsewhere = str(machine.folder / "elsewhere")
    hostile = {"UV_SYSTEM_PYTHON": "1", "UV_TARGET": elsewhere, "UV_PREFIX": elsewhere, "UV_NO_BINARY": "1"}
    hostile |= {
        "UV_REQUIRE_HASHES": "1",
        "UV_PYTHON": "/usr/bin/python3",
        "UV_PROJECT_ENVIRONMENT": elsewhere,
    }
    # the working folder is another project's, with settings of its own
    (machine.folder / "uv.toml").write_text(f'no-index = true\n[pip]\ntarget = "{elsewhere}"\n')
    done = machine.run(
        **hostile, **{variable: index.url}, PIP_TARGET=elsewhere, **hostile_variables(machine.folder)
    )
    assert done.returncode == 0, done.stderr
    machine.assert_whole()
    assert (machine.packages / "alpha-1.0.dist-info/INSTALLER").read_text() == "uv"
    assert not (machine.folder / "elsewhere").exists()
    assert f"from your index {index.url} …" in done.stderr


def test_a_uv_toml_that_sends_packages_elsewhere_leaves_it_to_pip(machine: Machine, index: SlowIndex) -> None:
    machine.add_uv()
    (machine.home / ".config/uv").mkdir(parents=True)
    (machine.home / ".config/uv/uv.toml").write_text(f'[pip]\ntarget = "{machine.folder}/elsewhere"\n')
    done = machine.run(PIP_INDEX_URL=index.url)
    assert done.returncode == 0, done.stderr
    machine.assert_whole()
    assert "installing with pip and not with uv: uv.toml sets target" in done.stderr
    assert not (machine.folder / "elsewhere").exists()


def test_a_uv_that_fails_leaves_it_to_pip(machine: Machine, index: SlowIndex) -> None:
    (machine.tools / "uv").write_text('#!/bin/sh\ncase "$*" in *help*) ;; *) exit 2 ;; esac\n')
    (machine.tools / "uv").chmod(0o755)
    assert machine.run(PIP_INDEX_URL=index.url).returncode == 0
    machine.assert_whole()


def test_an_index_that_is_switched_off_is_named(machine: Machine) -> None:
    done = machine.run(PIP_NO_INDEX="1")
    assert done.returncode == 1
    assert "indexes are switched off, so packages come from your folders of wheels alone" in done.stderr
    assert "could not install the packages of requirements.lock" in done.stderr
    done = machine.run("install_env requirements-torch.lock", PIP_NO_INDEX="1")
    assert done.returncode == 1
    assert "from your folders of wheels, since indexes are switched off" in done.stderr
    assert f"could not install PyTorch {TORCH} for CPython {sys.version_info[0]}." in done.stderr


def test_folders_of_wheels_do_without_an_index(machine: Machine, wheels: dict[str, bytes]) -> None:
    (machine.folder / "wheels").mkdir()
    for name, data in wheels.items():
        (machine.folder / "wheels" / name).write_bytes(data)
    done = machine.run(PIP_NO_INDEX="1", PIP_FIND_LINKS="./wheels")
    assert done.returncode == 0, done.stderr
    machine.assert_whole()


def signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    # whoever outlives its group is waited for: the kernel's lock says so
    assert wait_for(lambda: not group_members(process.pid), 10)


def group_members(group: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_an_end_in_the_middle_leaves_nothing_that_breaks_the_next(
    machine: Machine, index: SlowIndex, tool: str
) -> None:
    """It is ended while a wheel is being fetched, then while another one's files are being written."""
    if tool == "uv":
        machine.add_uv()
    # What looks broken and is older than the interrupted installation is somebody's, and stays.
    theirs = machine.packages / "theirs-1.0.dist-info"
    theirs.mkdir()
    (theirs / "METADATA").write_text("Name: theirs\nVersion: 1.0\n")
    time.sleep(1.1)  # the installation's beginning is kept in whole seconds
    for number in (signal.SIGINT, signal.SIGKILL):
        index.rate = 100_000
        index.asked.clear()
        process = machine.start(PIP_INDEX_URL=index.url)
        assert wait_for(lambda: any("/files/torch" in path for path in index.asked), 30)
        signal_group(process, number)
        index.rate = 0
        shutil.rmtree(machine.packages / "torch", ignore_errors=True)
        process = machine.start(PIP_INDEX_URL=index.url)
        assert wait_for(lambda: count_files(machine.packages / "torch") > 200, 30)
        signal_group(process, number)
    done = machine.run(PIP_INDEX_URL=index.url)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(theirs)
    machine.assert_whole()


def count_files(folder: Path) -> int:
    return len(os.listdir(folder)) if folder.is_dir() else 0


def test_an_end_while_the_environment_is_made_has_it_made_anew(tmp_path: Path, index: SlowIndex) -> None:
    machine = Machine(tmp_path)
    for number in (signal.SIGINT, signal.SIGKILL):
        process = machine.start(PIP_INDEX_URL=index.url)
        assert wait_for(lambda: bool(list(machine.venv.glob("lib/python*/site-packages/pip/_vendor"))), 30)
        signal_group(process, number)
    done = machine.run(PIP_INDEX_URL=index.url)
    assert done.returncode == 0, done.stderr
    assert "interrupted; making it anew" in done.stderr
    machine.assert_whole()


def test_two_installations_at_once_wait_for_each_other(machine: Machine, index: SlowIndex) -> None:
    index.rate = 600_000
    first, second = machine.start(PIP_INDEX_URL=index.url), machine.start(PIP_INDEX_URL=index.url)
    told = first.communicate(timeout=60)[1] + second.communicate(timeout=60)[1]
    assert (first.returncode, second.returncode) == (0, 0), told
    assert told.count("another installation works in") == 1
    assert told.count(f"installing PyTorch {TORCH}") == 1
    machine.assert_whole()


def test_a_network_that_breaks_and_stands_still_is_tried_again(machine: Machine, index: SlowIndex) -> None:
    index.broken, index.silent = 1, 1
    done = machine.run(PIP_INDEX_URL=index.url, PIP_DEFAULT_TIMEOUT="1", PIP_RETRIES="0")
    assert done.returncode == 0, done.stderr
    assert "trying again in 2 s (2 of 5)" in done.stderr
    machine.assert_whole()


def test_a_folder_with_a_python_that_is_no_environment_is_refused(machine: Machine, index: SlowIndex) -> None:
    """ECHOMIMIC_VENV=/usr must never be installed into."""
    (machine.venv / "pyvenv.cfg").unlink()
    (machine.venv / ".echomimic-venv").unlink()
    before = state_of(machine.venv)
    done = machine.run(PIP_INDEX_URL=index.url)
    assert done.returncode == 1
    assert "has a Python and is no virtual environment" in done.stderr
    assert state_of(machine.venv) == before


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, ""),
        ({"ECHOMIMIC_TORCH": "1"}, "ECHOMIMIC_TORCH=1"),
        ({"ECHOMIMIC_TORCH": "0", "NVIDIA": "yes"}, ""),
        ({"NVIDIA": "yes"}, "an NVIDIA driver is there"),
        ({"MACHINE": "riscv64"}, "OpenVINO has no wheels for Linux on riscv64"),
        ({"NEEDS": "--cpu-engine torch"}, "--cpu-engine torch"),
    ],
)
def test_torch_comes_where_a_run_needs_it(
    machine: Machine, index: SlowIndex, given: dict[str, str], reason: str
) -> None:
    """And is installed before that run, which says why."""
    needs = machine.root / "scripts/run/start.py"
    needs.parent.mkdir(parents=True)
    needs.write_text(f"print({given.get('NEEDS', '')!r})")
    code = f"uname() {{ [ $1 = -s ] && echo Linux || echo {given.get('MACHINE', 'x86_64')}; }}"
    code += f"; has_nvidia() {{ [ -n '{given.get('NVIDIA', '')}' ]; }}; install_for_run --port 1"
    environment = {key: value for key, value in given.items() if key.startswith("ECHOMIMIC")}
    done = machine.run(code, **environment, PIP_INDEX_URL=index.url)
    assert done.returncode == 0, done.stderr
    assert ("this run needs PyTorch" in done.stderr) == bool(reason)
    assert reason in done.stderr
    assert bool(list(machine.packages.glob("torch-*.dist-info"))) == bool(reason)
    assert list(machine.packages.glob("alpha-*.dist-info"))

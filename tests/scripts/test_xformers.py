"""xformers is installed where an NVIDIA GPU is and its wheel fits torch, which stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from scripts.run.managed import ROOT

pytestmark = pytest.mark.process

VERSION = "0.0.35"
SITE = Path(np.__file__).parents[1]
METADATA = "Metadata-Version: 2.1\nName: xformers\nVersion: {}\n"
SMI = '#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: NVIDIA Test (UUID: GPU-0)"\n'


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment in which the packages of this one are seen, pip and torch included."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "outer.pth").write_text(f"{SITE}\n")
    return folder


def write_wheel(folder: Path, *requirements: str) -> None:
    """A wheel of xformers for any machine, with these requirements and one module."""
    folder.mkdir(exist_ok=True)
    info = f"xformers-{VERSION}.dist-info"
    wanted = "".join(f"Requires-Dist: {one}\n" for one in requirements)
    with zipfile.ZipFile(folder / f"xformers-{VERSION}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("xformers/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"{METADATA.format(VERSION)}{wanted}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def install(venv: Path, *, smi: str = SMI, works: str = "true") -> str:
    """Runs the step, with a stand-in for the GPU, an index of its own and an answer to "does it work"."""
    tools, wheels = venv.parent / "tools", venv.parent / "wheels"
    tools.mkdir(exist_ok=True)
    (tools / "nvidia-smi").write_text(smi)
    (tools / "nvidia-smi").chmod(0o755)
    code = 'set -u; root=$1; . "$1/scripts/setup_env.sh"; name_venv; '
    code += f"xformers_works() {{ {works}; }}; install_xformers"
    env = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "ECHOMIMIC_VENV": str(venv),
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    command = ["bash", "-c", code, "bash", str(ROOT)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def installed(venv: Path) -> set[str]:
    """Packages in the environment itself."""
    return {path.name.split("-")[0] for path in venv.glob("lib/python*/site-packages/*.dist-info")}


def test_a_wheel_that_fits_is_installed_and_nothing_else(venv: Path) -> None:
    write_wheel(venv.parent / "wheels", "torch>=2.4", "no-such-package")
    assert f"installed xformers {VERSION}" in install(venv)
    assert installed(venv) == {"xformers"}
    assert install(venv) == ""  # the second start has nothing to do


def test_a_wheel_for_another_torch_is_not_installed(venv: Path) -> None:
    write_wheel(venv.parent / "wheels", "numpy", "torch==2.1.0")
    told = install(venv)
    assert "needs torch==2.1.0" in told and "attention is torch's own" in told
    assert installed(venv) == set()
    assert install(venv) == ""


def test_a_wheel_that_does_not_work_goes_again(venv: Path) -> None:
    write_wheel(venv.parent / "wheels", "torch")
    assert "does not work" in install(venv, works="false")
    assert installed(venv) == set()
    assert install(venv, works="false") == ""


def test_without_a_wheel_the_run_goes_on_and_tries_again(venv: Path) -> None:
    (venv.parent / "wheels").mkdir()
    assert "found no wheel" in install(venv)
    write_wheel(venv.parent / "wheels", "torch")
    assert "installed xformers" in install(venv)


def test_without_a_gpu_nothing_is_done(venv: Path) -> None:
    write_wheel(venv.parent / "wheels", "torch")
    assert install(venv, smi="#!/bin/sh\nexit 9\n") == ""
    assert installed(venv) == set()


def test_a_version_of_the_users_stays(venv: Path) -> None:
    write_wheel(venv.parent / "wheels", "torch")
    (packages,) = venv.glob("lib/python*/site-packages")
    info = packages / "xformers-0.0.30.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format("0.0.30"))
    assert install(venv) == ""
    assert info.is_dir()

"""The install of a machine without a GPU: a real environment, by the script that run_all.sh uses."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.blocked_torch import BLOCKED
from tests.scripts.test_rundir import ROOT

#: Most MiB of the environment. With torch it has 1200.
MOST = 400


@pytest.mark.long
@pytest.mark.process
@pytest.mark.timeout(1200)
def test_a_machine_without_a_gpu_gets_no_torch(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    code = (
        'set -u; root=$1; . "$1/scripts/setup_env.sh"; has_nvidia() { return 1; }; install_for_run --port 0'
    )
    environment = {name: value for name, value in os.environ.items() if name != "ECHOMIMIC_TORCH"}
    environment |= {"ECHOMIMIC_VENV": str(venv), "HOME": str(tmp_path)}
    begin = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", code, "bash", str(ROOT)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (packages,) = venv.glob("lib/python*/site-packages")
    size = sum(file.lstat().st_blocks * 512 for file in venv.rglob("*") if file.is_file()) / 2**20
    print(f"environment without torch: {size:.0f} MiB, installed in {time.monotonic() - begin:.0f} s")
    assert not [name for name in BLOCKED if (packages / name).exists()]
    assert size < MOST
    needs = [str(venv / "bin/python"), str(ROOT / "scripts/run/start.py"), "scripts.run.needs"]
    asked = subprocess.run(needs, env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout == ""

"""`scripts/train_bundled.sh` removes only the copy of the training state that it made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]


def dry_run(state: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts/train_bundled.sh"), "--dry-run", "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_folder_of_the_users_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sharpened").mkdir()
    done = dry_run(tmp_path)
    assert done.returncode == 2
    assert f"did not make {tmp_path}/sharpened" in done.stderr
    assert "rm -rf" not in done.stderr


def test_its_own_copy_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "sharpened").mkdir()
    (tmp_path / "sharpened" / ".echomimic-sharpened").touch()
    done = dry_run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"+ rm -rf -- {tmp_path}/sharpened" in done.stderr

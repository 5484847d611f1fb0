"""A clone of the repository: the line ends of its files, its hooks, and the contributors' pages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.run.managed import ROOT


@pytest.mark.process
def test_a_clone_made_on_windows_runs(tmp_path: Path) -> None:
    """Git for Windows sets core.autocrlf, and WSL's bash then reads the files."""
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("not a checkout of git")
    clone = tmp_path / "clone"
    command = ["git", "-c", "core.autocrlf=true", "clone", "-q", "--shared", str(ROOT), str(clone)]
    subprocess.run(command, check=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=clone, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name]
    assert len(names) > 300
    assert [name for name in names if has_returns(clone / name)] == []
    command = ["bash", str(clone / "scripts/run_all.sh"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--reference-image" in done.stdout, done.stderr


def has_returns(path: Path) -> bool:
    """Whether a text file has carriage returns; git takes a file with a zero byte for a binary one."""
    data = path.read_bytes()
    return b"\r\n" in data and b"\0" not in data


def test_the_hooks_name_tools_of_the_lock_file() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    tools = {tool for hook in hooks for tool in re.findall(r"/bin/([\w-]+)", hook["entry"])}
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    packages = {"lint-imports": "import-linter"}
    for tool in tools:
        assert re.search(rf"^{packages.get(tool, tool)}==", lock, re.MULTILINE), tool
    for hook in hooks:
        (script,) = re.findall(r"bash -c '(.*)' --", hook["entry"])
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0, hook["id"]


def test_the_changelog_has_the_version() -> None:
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased" and version in headings[1]


def test_commands_of_the_contributors_page_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for script in set(re.findall(r"scripts/\w+\.sh", text)):
        assert (ROOT / script).is_file(), script
    for module in set(re.findall(r"python -m ((?:scripts|encoder_worker)[\w.]*)", text)):
        assert (ROOT / module.replace(".", "/") / "__main__.py").is_file(), module

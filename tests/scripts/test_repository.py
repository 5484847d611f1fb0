"""A clone of the repository: its files have no carriage returns, its hooks and contributors' pages are sound."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.run.managed import ROOT


def git(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


@pytest.mark.process
def test_a_clone_made_on_windows_runs(tmp_path: Path) -> None:
    """Git for Windows sets core.autocrlf, and WSL's bash then reads the files."""
    clone = tmp_path / "clone"
    git("clone", "-q", "--shared", "-c", "core.autocrlf=true", str(ROOT), str(clone))
    shutil.copy(ROOT / ".gitattributes", clone)  # the one that is being worked on
    git("rm", "-q", "-r", "--cached", ".", cwd=clone)
    git("-c", "advice.updateSparsePath=false", "reset", "-q", "--hard", cwd=clone)
    text = [name for name in git("ls-files", "-z", cwd=clone).split("\0") if name]
    assert len(text) > 300
    returns = [
        name for name in text if (clone / name).suffix in ("", ".sh", ".py", ".js") and carries(clone / name)
    ]
    assert returns == []
    command = ["bash", str(clone / "scripts/run_all.sh"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--reference-image" in done.stdout, done.stderr


def carries(path: Path) -> bool:
    return path.is_file() and b"\r\n" in path.read_bytes()


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

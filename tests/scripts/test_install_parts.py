"""The installer's parts: the user's settings both ways, progress, another try, which Python, which GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.install import progress
from scripts.install.sources import PYPI, read_sources, without_password
from tests.scripts.test_rundir import ROOT

HOME = {"HOME": "/nowhere", "XDG_CONFIG_DIRS": "/nowhere"}


def test_nearer_settings_of_pip_win_and_unknown_ones_are_left_out() -> None:
    text = (
        "global.index-url='https://a/simple'\ninstall.index-url='https://b/simple'\n"
        ":env:.extra_index_url='https://c/simple https://d/simple'\nglobal.invented-later='x'\n"
        "download.index-url='https://other/simple'\nfreeze.timeout='10'\n:env:.user='0'\n"
    )
    found = read_sources(text, HOME)
    assert found.index == "https://b/simple"
    assert found.extra_indexes == ["https://c/simple", "https://d/simple"]
    assert found.left_out == ("invented-later",)
    made = found.for_pip({"PIP_TARGET": "/x", "PIP_INVENTED": "1", "KEPT": "1"})
    assert made == {
        "KEPT": "1", "PIP_INDEX_URL": "https://b/simple", "PIP_CONFIG_FILE": os.devnull,
        "PIP_EXTRA_INDEX_URL": "https://c/simple https://d/simple",
    }  # fmt: skip


def test_pips_settings_reach_uv_by_its_names() -> None:
    text = (
        ":env:.index-url='https://a/simple'\n:env:.extra-index-url='https://c/simple\\nhttps://d/simple'\n"
        "global.find-links='wheels /abs https://e/list'\nglobal.trusted-host='a b'\nglobal.timeout='7'\n"
        "global.cert='/ca.pem'\nglobal.proxy='http://proxy:3128'\nglobal.constraint='limits.txt'\n"
        "global.no-index='true'\nglobal.no-cache-dir='true'\n"
    )
    made = read_sources(text, HOME).for_uv({"UV_TARGET": "/x", "KEPT": "1"})
    assert made == {
        "KEPT": "1", "UV_DEFAULT_INDEX": "https://a/simple", "UV_INDEX": "https://c/simple https://d/simple",
        "UV_FIND_LINKS": f"{Path.cwd()}/wheels,/abs,https://e/list", "UV_INSECURE_HOST": "a b",
        "UV_HTTP_TIMEOUT": "7", "SSL_CERT_FILE": "/ca.pem", "ALL_PROXY": "http://proxy:3128",
        "UV_CONSTRAINT": f"{Path.cwd()}/limits.txt", "UV_NO_INDEX": "1", "UV_NO_CACHE": "1",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }  # fmt: skip


def test_each_tool_keeps_its_own_index() -> None:
    uv = {"UV_DEFAULT_INDEX": "mine=https://uv/simple", "UV_INDEX": "two=https://uv2/simple"}
    found = read_sources(":env:.index-url='https://pip/simple'", {**HOME, **uv})
    assert found.for_uv(uv)["UV_DEFAULT_INDEX"] == "mine=https://uv/simple"
    assert found.for_pip({})["PIP_INDEX_URL"] == "https://pip/simple"
    alone = read_sources("", {**HOME, **uv})
    assert alone.for_pip({})["PIP_INDEX_URL"] == "https://uv/simple"
    assert alone.for_pip({})["PIP_EXTRA_INDEX_URL"] == "https://uv2/simple"


@pytest.mark.parametrize("url", [PYPI, f"{PYPI}/", ""])
def test_pypi_itself_is_no_index_of_the_users(url: str) -> None:
    assert read_sources(f":env:.index-url='{url}'", HOME).index == ""


@pytest.mark.parametrize(
    ("text", "refused", "index"),
    [
        ('[pip]\nprefix = "/x"\n', "uv.toml sets prefix", False),
        ("[pip]\nsystem = true\n", "uv.toml sets system", False),
        ('[[index]]\nurl = "https://a/simple"\n', "", True),
        ('index-url = "https://a/simple"\n', "", True),
        ("native-tls = true\n", "", False),
    ],
)
def test_a_file_of_uvs_is_looked_at(tmp_path: Path, text: str, refused: str, index: bool) -> None:
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/uv/uv.toml").write_text(text)
    found = read_sources("", {**HOME, "HOME": str(tmp_path)})
    assert (found.uv_refused, found.uv_file_index) == (refused, index)


def test_what_uv_has_no_like_of_leaves_it_to_pip() -> None:
    assert "client-cert" in read_sources(":env:.client-cert='/me.pem'", HOME).uv_refused


def test_passwords_are_not_shown() -> None:
    assert without_password("https://me:secret@host:8443/simple") == "https://host:8443/simple"


def run(code: str, **more: object) -> bool:
    return progress.run_patiently([sys.executable, "-u", "-c", code], os.environ, **more)  # type: ignore[arg-type]


def test_a_line_comes_while_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert progress.EVERY <= 10
    monkeypatch.setattr(progress, "EVERY", 0.2)
    (tmp_path / "wheel").write_bytes(bytes(3_000_000))
    assert run("import time; print('Downloading torch (187 MB)'); time.sleep(1)", watched=tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 6
    assert lines[-1].endswith("3 MB: Downloading torch (187 MB)")


def test_a_line_comes_too_while_much_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.2)
    assert run("import time\nfor k in range(50): print('Collecting', k); time.sleep(0.02)")
    assert "Collecting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("ReadTimeoutError: HTTPSConnectionPool(host='x', port=443): Read timed out.", 3),
        ("error: Failed to fetch: operation timed out", 3),
        ("ConnectionResetError(104, 'Connection reset by peer')", 3),
        ("Temporary failure in name resolution", 3),
        ("ERROR: HTTP error 503 while getting https://x", 3),
        ("ERROR: Wheel 'torch' located at /tmp/x.whl is invalid.", 3),
        ("OSError: [Errno 28] No space left on device", 1),
        ("ERROR: No matching distribution found for torch==2.13.0", 1),
    ],
)
def test_only_the_network_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: str,
    runs: int,
) -> None:
    monkeypatch.setattr(progress, "FIRST_WAIT", 0.01)
    code = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); print({words!r}); raise SystemExit(1)"
    assert not run(code, tries=3)
    assert (tmp_path / "runs").read_text() == "x" * runs
    told = capsys.readouterr().err
    assert f"    {words}" in told and told.count("trying again") == runs - 1


# ------------------------------------------------------------------ the shell's part

REAL = Path(sys.base_prefix) / f"bin/python{sys.version_info[0]}.{sys.version_info[1]}"


def shell(code: str, *, path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'set -u; root="$1"; . "$2"; {code}', "bash", str(ROOT)]
    command.append(str(ROOT / "scripts/setup_env.sh"))
    environment = {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(path), **more}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def put_python(place: Path, version: str | None) -> None:
    """A Python on the path that has the real one's manners, and says that it is of this version."""
    place.parent.mkdir(exist_ok=True)
    if version is None:
        place.symlink_to(REAL)
        return
    # sys.version_info is told by the fits of the script: an old one answers that it does not fit
    place.write_text(f"#!/bin/sh\ncase \"$*\" in *platform*) echo 'CPython {version}' ;; *) exit 1 ;; esac\n")
    place.chmod(0o755)


@pytest.mark.process
@pytest.mark.parametrize("name", ["python3.10", "python3.11", "python3.12", "python3.13", "python3.14"])
def test_of_several_pythons_one_with_wheels_is_chosen(tmp_path: Path, name: str) -> None:
    tools = tmp_path / "tools"
    for other in ("python3", "python", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14"):
        put_python(tools / other, None if other == name else "3.9.2")
    assert shell("find_python", path=tools).stdout == f"{tools / name}\n"


@pytest.mark.process
def test_a_python_is_judged_by_itself(tmp_path: Path) -> None:
    minor = sys.version_info[1]
    put_python(tmp_path / "tools/python3", None)
    for change, fits in (
        (":", True),
        (f"oldest_python={minor + 1}", False),
        (f"newest_python={minor - 1}", False),
    ):
        done = shell(f"{change}; python_fits python3 && echo fits", path=tmp_path / "tools")
        assert (done.stdout == "fits\n") == fits


@pytest.mark.process
def test_where_no_python_fits_they_are_named(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    for name in ("python3", "python", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13"):
        put_python(tools / name, "3.9.2")
    done = shell("install_env requirements.lock", path=tools, ECHOMIMIC_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "needs Python 3.10 to 3.14, the ones that PyTorch 2." in done.stderr
    assert "found CPython 3.9.2" in done.stderr
    assert not (tmp_path / "venv").exists()
    named = shell("find_python", path=tools, PYTHON=str(tools / "python3"))
    assert f"PYTHON={tools / 'python3'} is not used: CPython 3.9.2" in named.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("places", "smi", "nvidia"),
    [
        ([], None, False),
        (["dev/dxg"], None, False),  # WSL, with a GPU of Intel or AMD
        (["dev/dxg"], "exit 9", False),  # NVIDIA's driver, and no GPU of theirs
        (["dev/dxg"], "echo 'GPU 0: NVIDIA RTX'", True),
        (["dev/nvidiactl"], None, True),
        (["driver/version"], None, True),
        ([], "echo 'GPU 0: NVIDIA RTX'", False),
    ],
)
def test_cuda_is_for_nvidias_gpus_alone(
    tmp_path: Path, places: list[str], smi: str | None, nvidia: bool
) -> None:
    for folder in ("dev", "driver", "wsl", "tools"):
        (tmp_path / folder).mkdir()
    for place in places:
        (tmp_path / place).touch()
    if smi:
        (tmp_path / "wsl/nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
        (tmp_path / "wsl/nvidia-smi").chmod(0o755)
    code = f"devices={tmp_path}/dev; nvidia_driver={tmp_path}/driver; wsl_libraries={tmp_path}/wsl"
    done = shell(f"{code}; has_nvidia && echo yes", path=tmp_path / "tools")
    assert (done.stdout == "yes\n") == nvidia, done.stderr


@pytest.mark.process
def test_an_environment_of_somebodys_with_another_python_is_refused(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (tmp_path / "tools").mkdir()
    code = "newest_python=9; install_env requirements.lock"
    done = shell(code, path=tmp_path / "tools", ECHOMIMIC_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "has a Python that PyTorch" in done.stderr and "nothing in it was changed" in done.stderr

"""`python -I scripts/run/start.py scripts.install`: installs into the virtual environment of this Python.

    … scripts.install venv FOLDER                       makes an environment, with the Python that runs this
    … scripts.install packages -r requirements.lock     pip's arguments, installed by uv or pip
    … scripts.install torch 2.13.0 --cpu                from the user's index, else PyTorch's of CPU builds
    … scripts.install pip download …                    pip with the user's index and no other setting
    … scripts.install repair 1764237000                 forgets packages that were interrupted since then

Exit status: 0 when it is done, 1 when it failed, 2 without a virtual environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from scripts.install.progress import run_patiently, say
from scripts.install.repair import forget_broken
from scripts.install.sources import Sources, read_sources, without_password

ROOT = Path(__file__).resolve().parents[2]
#: Folder in the environment for downloads, so that a kill leaves nothing elsewhere and a small /tmp suffices.
TEMPORARY = ".echomimic-tmp"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
#: Seconds without an answer after which a connection is given up and tried again.
TIMEOUT = "60"
_PROBE_SECONDS = 4.0


def main() -> int:
    """Do what the first argument says. Returns the exit status."""
    verb, *arguments = sys.argv[1:]
    if verb != "venv" and sys.prefix == sys.base_prefix and not (Path(sys.prefix) / "conda-meta").is_dir():
        say(f"{sys.prefix} is no virtual environment; nothing was installed")
        return 2
    try:
        return VERBS[verb](arguments)
    except KeyboardInterrupt:  # die by the signal, so that the shell stops too
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 130


def make_venv(arguments: list[str]) -> int:
    """Make a virtual environment in the folder."""
    command = [sys.executable, "-I", "-m", "venv", arguments[0]]
    return 0 if run_patiently(command, os.environ, tries=1) else 1


def install_packages(arguments: list[str], sources: Sources | None = None) -> int:
    """Install what pip's `arguments` say: by uv where it takes the user's settings, else by pip."""
    sources = sources or user_sources()
    tell_left_out(sources)
    temporary = Path(sys.prefix) / TEMPORARY
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        uv = find_uv(sources)
        if uv and run_patiently(
            [uv, "pip", "install", "--python", sys.executable, *map(_absolute_file, arguments)],
            sources.for_uv(os.environ),
            cwd=ROOT,
            watched=Path(sysconfig.get_path("purelib")),
            tries=2,
        ):
            return 0
        if uv:
            say("uv could not install them; trying with pip …")
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        command = [sys.executable, "-I", "-m", "pip", "install", *options, *arguments]
        environment = {
            "PIP_DEFAULT_TIMEOUT": TIMEOUT,
            **sources.for_pip(os.environ),
            "TMPDIR": str(temporary),
        }
        if run_patiently(command, environment, watched=temporary):
            return 0
        if sources.no_index:
            say("indexes are switched off, so packages come from your folders of wheels alone")
        return 1
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def install_torch(arguments: list[str]) -> int:
    """Install torch at a version. With `--cpu`, of the builds without CUDA where the user has no index.

    Wheels for Linux on PyPI bring gigabytes of CUDA's libraries, so CPU builds come from PyTorch's own index.
    A user who has an index instead of PyPI gets torch from there like all the rest.
    """
    version, cpu = arguments[0], "--cpu" in arguments
    wanted = f"torch=={version}"
    sources = user_sources()
    for_cpu = " for the CPU (no NVIDIA driver found)" if cpu else ""
    if sources.no_index or sources.index or sources.uv_file_index:
        place = without_password(sources.index) or "the index of uv.toml"
        place = (
            "your folders of wheels, since indexes are switched off"
            if sources.no_index
            else f"your index {place}"
        )
        say(f"installing PyTorch {version} from {place} …")
        if cpu and not sources.no_index:
            say(
                "  (a build with CUDA there brings some GB that this machine does not use;"
                f" a mirror of {CPU_INDEX} in PIP_EXTRA_INDEX_URL avoids that)"
            )
        return install_packages([wanted], sources)
    if cpu and index_answers(f"{CPU_INDEX}/torch/"):
        say(f"installing PyTorch {version}{for_cpu} …")
        option = "--extra-index-url" if sources.extra_indexes else "--index-url"
        if install_packages([option, CPU_INDEX, wanted], sources) == 0:
            return 0
    if cpu:
        say("PyTorch's index of CPU builds does not answer; installing from the default index …")
    else:
        say(f"installing PyTorch {version} …")
    return install_packages([wanted], sources)


def run_pip(arguments: list[str]) -> int:
    """Run pip quietly with the user's index and no other setting of theirs."""
    command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, env=user_sources().for_pip(os.environ), check=False).returncode


def repair(arguments: list[str]) -> int:
    """Forget the packages that an interrupted installation left in pieces."""
    since = float(arguments[0])
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    broken = [name for folder in sorted(folders) for name in forget_broken(Path(folder), since)]
    shutil.rmtree(Path(sys.prefix) / TEMPORARY, ignore_errors=True)
    if broken:
        say(f"the last installation was interrupted; installing anew: {', '.join(broken)}")
    return 0


def user_sources() -> Sources:
    """The user's settings of pip and uv. Where pip cannot read its own, they are none and a line says so."""
    command = [sys.executable, "-I", "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(
            f"pip's settings cannot be read and are left out: {(done.stderr.strip() or '?').splitlines()[-1]}"
        )
        return read_sources("", os.environ)
    return read_sources(done.stdout, os.environ)


def tell_left_out(sources: Sources) -> None:
    """Name the settings that would send packages elsewhere or change them."""
    if sources.left_out:
        say(f"not used here, since packages go into {sys.prefix}: pip's {', '.join(sources.left_out)}")


def find_uv(sources: Sources) -> str:
    """The path of a uv that works and takes the user's settings, or ""."""
    uv = shutil.which("uv")
    if not uv:
        return ""
    if sources.uv_refused:
        say(f"installing with pip and not with uv: {sources.uv_refused}")
        return ""
    try:
        done = subprocess.run([uv, "pip", "--help"], capture_output=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return uv if done.returncode == 0 else ""


def index_answers(url: str) -> bool:
    """Whether an index answers soon. A process of its own asks, since to look up a name may take long."""
    code = (
        "import sys, urllib.request as r; r.urlopen(r.Request(sys.argv[1], method='HEAD'), timeout=4).close()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, url],
            capture_output=True,
            check=False,
            timeout=_PROBE_SECONDS + 1,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _absolute_file(argument: str) -> str:
    """A wheel or folder of the working folder by its whole path, since uv is started in the project's."""
    return os.path.abspath(argument) if argument.endswith(".whl") else argument


VERBS: dict[str, Callable[[list[str]], int]] = {
    "venv": make_venv,
    "packages": install_packages,
    "torch": install_torch,
    "pip": run_pip,
    "repair": repair,
}

if __name__ == "__main__":
    sys.exit(main())

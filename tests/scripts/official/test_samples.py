"""The official sample portrait and pose: fetched, checked against git's sums, or done without."""

from __future__ import annotations

import functools
import http.server
import io
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.process.settings import load_settings
from scripts.official import prepare, samples
from scripts.official.prepare import Preparation
from scripts.official.samples import PORTRAIT, POSE, fetch_samples, folder_sha1, git_sha1

FRAMES = 12


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files like the official ones, whose sums the module expects."""
    folder = tmp_path / "repository"
    (folder / PORTRAIT).parent.mkdir(parents=True)
    (folder / PORTRAIT).write_bytes(b"a picture")
    (folder / POSE).mkdir(parents=True)
    frames = {f"{number}.npy": b"frame %d" % number for number in range(FRAMES)}
    for name, content in frames.items():
        (folder / POSE / name).write_bytes(content)
    monkeypatch.setattr(samples, "POSE_FRAMES", FRAMES)
    monkeypatch.setattr(samples, "PORTRAIT_SHA1", git_sha1("blob", b"a picture"))
    monkeypatch.setattr(samples, "POSE_SHA1", folder_sha1(frames))
    return folder


@pytest.fixture
def raw(repository: Path) -> Iterator[str]:
    """The address of a server of those files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(repository))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_both_are_fetched(raw: str, tmp_path: Path) -> None:
    found = fetch_samples(tmp_path / "new", raw)
    assert found.portrait == tmp_path / "new" / PORTRAIT and found.portrait.read_bytes() == b"a picture"
    assert sorted(path.name for path in found.pose.iterdir()) == sorted(f"{n}.npy" for n in range(FRAMES))
    assert (found.pose / "11.npy").read_bytes() == b"frame 11"
    assert samples.find_samples([tmp_path, tmp_path / "new"]) == found


@pytest.mark.parametrize("name", [PORTRAIT, f"{POSE}/3.npy"])
def test_another_content_is_not_taken(raw: str, repository: Path, tmp_path: Path, name: str) -> None:
    """Pose files are pickles, so nothing is written before all of them have been checked."""
    (repository / name).write_bytes(b"another one")
    with pytest.raises(OSError, match="another content than git's sum says"):
        fetch_samples(tmp_path / "new", raw)
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_not_there(raw: str, repository: Path, tmp_path: Path) -> None:
    (repository / POSE / "3.npy").unlink()
    with pytest.raises(OSError, match="404"):
        fetch_samples(tmp_path / "new", raw)


def test_without_them_the_bundled_ones_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(checkout: Path) -> object:
        raise OSError("https://example.org: no route to host")

    monkeypatch.setattr(prepare, "fetch_samples", fail)
    console = io.StringIO()
    settings = load_settings(["--model", "official"], {})
    preparation = Preparation(settings, {}, io.StringIO(), console)
    assert preparation._with_samples(settings, preparation._fetch_samples()) == settings
    told = console.getvalue()
    assert "no route to host" in told and samples.PAGE in told
    assert "the bundled avatars and poses serve; --reference-image and --pose-dir name others" in told


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_sums_are_those_of_git(tmp_path: Path) -> None:
    files = {f"{number}.npy": bytes([number]) * number for number in range(12)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", "-f", *files)
    assert git("write-tree") == folder_sha1(files)

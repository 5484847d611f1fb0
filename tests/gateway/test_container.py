"""A built image in a real container: its ports, its door, and a session through the published port.

`docs/deploy.md` says how an image is built. Its name is given by a variable:

    ECHOMIMIC_TEST_IMAGE=echomimic-live:cpu pytest tests/gateway/test_container.py

`ECHOMIMIC_TEST_RUNTIME` names another program than `podman`, with flags that stand before its command.
"""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.gateway.clients import client_v2, noise
from tests.gateway.conftest import free_port
from tests.helpers.waiting import wait_for

IMAGE = os.environ.get("ECHOMIMIC_TEST_IMAGE", "")
RUNTIME = shlex.split(os.environ.get("ECHOMIMIC_TEST_RUNTIME", "podman"))
#: As in compose.yaml: a read-only root, no capabilities, one folder to write to.
BOUNDS = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
#: Prints every address at which a process of the container listens.
SCAN = """
import psutil
listening = (psutil.CONN_LISTEN, psutil.CONN_NONE)
print([(c.laddr.ip, c.laddr.port) for c in psutil.net_connections("inet") if c.status in listening])
"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not IMAGE or shutil.which(RUNTIME[0]) is None, reason="needs ECHOMIMIC_TEST_IMAGE"),
]


def runtime(*arguments: str) -> str:
    """The output of a command of the container runtime, which must succeed."""
    done = subprocess.run([*RUNTIME, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@dataclass(frozen=True)
class Container:
    """A container whose stages are warm, and a token that it takes."""

    name: str
    port: int
    token: str

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    volume: Path = tmp_path_factory.mktemp("data")
    volume.chmod(0o777)
    name, port = f"face-{uuid.uuid4().hex[:8]}", free_port()
    mount = ["-v", f"{volume}:/data"]
    token = runtime("run", "--rm", *BOUNDS, *mount, IMAGE, "scripts.tokens", "add", "me").split()[0]
    publish = ["-p", f"127.0.0.1:{port}:8080"]
    runtime("run", "--detach", "--name", name, *BOUNDS, *mount, *publish, IMAGE)
    try:
        health = ["exec", name, "python", "-m", "scripts.run.health"]
        ready = wait_for(
            lambda: subprocess.run([*RUNTIME, *health], capture_output=True, check=False).returncode == 0, 180
        )
        assert ready, runtime("logs", name)
        yield Container(name, port, token)
    finally:
        runtime("rm", "--force", name)


def test_nothing_but_the_page_listens(container: Container) -> None:
    assert ast.literal_eval(runtime("exec", container.name, "python", "-c", SCAN)) == [("0.0.0.0", 8080)]


async def test_a_session_through_the_published_port_needs_a_token(container: Container) -> None:
    with pytest.raises(InvalidStatus, match="401"):
        async with client_v2(container):
            pass
    bearer = {"Authorization": f"Bearer {container.token}"}
    async with client_v2(container, additional_headers=bearer) as client:
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) >= 12, seconds=30)


def test_an_image_without_torch_names_the_one_that_has_it(container: Container) -> None:
    search = "import importlib.util; print(importlib.util.find_spec('torch') is not None)"
    if runtime("exec", container.name, "python", "-c", search).strip() == "True":
        pytest.skip("the image is of the target cuda")
    asked = ["exec", container.name, "python", "-m", "scripts.run", "--port", "8081", "--model", "official"]
    done = subprocess.run([*RUNTIME, *asked], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "PyTorch" in done.stderr and "docker build --target cuda" in done.stderr

"""CUDA's multi-process service (MPS): kernels of several processes run on one GPU at the same time.

Without it a GPU gives its processes slices of time in turn, and each slice ends with a change of context. The
driver brings the service's programs. No right but that of using the GPU is needed, and no setting of the GPU
is changed: clients are told by environment variables where the service is.

Source: NVIDIA, Multi-Process Service (docs.nvidia.com/deploy/mps), "Starting and Stopping MPS on Linux".
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

#: The program that starts, asks and stops the service.
CONTROL = "nvidia-cuda-mps-control"

#: Where it lies beside PATH: in containers and virtual machines the driver is a folder of its own.
OTHER_PLACES = ("/usr/local/nvidia/bin", "/usr/lib/nvidia/bin", "/opt/nvidia/bin")

#: Where clients find the service, and where it writes its log.
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"

#: A client's place among others: 0 normal, 1 below normal.
PRIORITY = "CUDA_MPS_CLIENT_PRIORITY"

#: Seconds for an answer of the control program, and for a first client.
CONTROL_SECONDS, CLIENT_SECONDS = 10.0, 30.0

#: A client that only opens the first GPU. It ends with status 0 where that works.
FIRST_CLIENT = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
device, context = ctypes.c_int(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
"""


def control_program(environment: Mapping[str, str]) -> str | None:
    """The path of the control program, or None where the driver has none."""
    places = [*environment.get("PATH", "").split(os.pathsep), *OTHER_PLACES]
    return shutil.which(CONTROL, path=os.pathsep.join(places))


@contextmanager
def multi_process_service(environment: Mapping[str, str]) -> Iterator[dict[str, str] | None]:
    """Starts a service for the time of the `with` block.

    Args:
        environment: of its clients, as it is without the service.

    Yields:
        The variables that make a process its client, or None where there is none. The log says why.
    """
    program = control_program(environment)
    if program is None:
        logger.info("no multi-process service: this driver has no %s", CONTROL)
        yield None
        return
    # A short path, since sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        clients = {PIPES: str(Path(folder) / "pipe"), LOGS: str(Path(folder) / "log")}
        for path in clients.values():
            Path(path).mkdir(mode=0o700)
        everything = {**environment, **clients}
        why = _start(program, everything)
        try:
            if why:
                logger.warning("no multi-process service: %s; %s", why, _end_of_logs(Path(folder)))
            yield clients if not why else None
        finally:
            _control(program, everything, "quit")


def _start(program: str, environment: Mapping[str, str]) -> str:
    """Starts the service and opens the GPU as its client. Returns why that failed, or ""."""
    try:
        begun = subprocess.run(
            [program, "-d"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CONTROL_SECONDS,
            check=False,
        )
        if begun.returncode:
            return f"{CONTROL} ended with status {begun.returncode}: {begun.stderr.strip()}"
        client = subprocess.run(
            [sys.executable, "-c", FIRST_CLIENT],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not start: {error}"
    return "" if client.returncode == 0 else "a first client could not open the GPU"


def _control(program: str, environment: Mapping[str, str], order: str) -> None:
    try:
        subprocess.run(
            [program],
            env=dict(environment),
            input=f"{order}\n",
            capture_output=True,
            text=True,
            timeout=CONTROL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("the multi-process service does not take %s: %s", order, error)


def _end_of_logs(folder: Path) -> str:
    """The last lines that the service wrote."""
    lines = [line for log in sorted(folder.glob("log/*.log")) for line in log.read_text().splitlines()[-3:]]
    return "; ".join(lines)[:600] or "it wrote no log"

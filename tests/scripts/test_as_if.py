"""A GPU benchmark as if on an older card: the parts that need no GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from protocol.process.settings import ROOT
from scripts.bench.gpu import as_if
from tests.helpers.compile_kernels import SHARED_MEMORY

pytestmark = pytest.mark.slow

PRETENDING = """
import os, torch
from triton.compiler import compiler
from triton.runtime import driver

asked = []

class Driver:  # keeps torch's own function, as Triton's does
    def __init__(self):
        self.capability = torch.cuda.get_device_capability

    def get_current_target(self):
        asked.append(self.capability)

torch.cuda.get_device_capability = real = lambda device=None: (9, 0)
driver.set_active(Driver())
from scripts.bench.gpu.as_if import pretend
pretend("8.6")
assert torch.cuda.get_device_capability() == torch.cuda.get_device_capability(0) == (8, 6)
assert compiler.max_shared_mem(0) == 101376
assert os.environ["TRITON_OVERRIDE_ARCH"] == "sm86"
assert asked == [real]
print("pretends")
"""


def test_the_project_sees_the_older_card_and_triton_loads_for_the_real_one() -> None:
    """In a process of its own, since torch and Triton are changed there for good."""
    pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")
    done = subprocess.run(
        [sys.executable, "-c", PRETENDING], cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.stdout == "pretends\n", done.stderr[-2000:]


def test_shared_memory_is_that_of_the_compile_tests() -> None:
    for capability, size in as_if.SHARED_MEMORY.items():
        assert SHARED_MEMORY[int(capability.replace(".", ""))] == size


def test_a_benchmark_runs_with_its_words(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--capability", "8.9", "scripts.bench.gpu.decode", "--help"]
    assert as_if.main(words) == 0
    assert "--decoder {kl,tiny}" in capfd.readouterr().out

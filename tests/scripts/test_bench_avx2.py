"""The stand-in for a processor with AVX2 alone: OpenVINO there knows no AVX-512."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench.host.avx2 import ANSWER, QUESTION, copy_without_avx512, environment

ASK = "import openvino; print(openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))"


def test_an_answer_is_as_long_as_its_question() -> None:
    assert len(ANSWER) == len(QUESTION)


def test_the_command_gets_the_copy_and_a_home_of_its_own(tmp_path: Path) -> None:
    made = environment(tmp_path, {"PYTHONPATH": "/other", "HOME": "/root", "LANG": "C"})
    assert made["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/other"
    assert (made["HOME"], made["LANG"], made["ECHOMIMIC_DTYPE"]) == (str(tmp_path), "C", "float32")


@pytest.mark.long
def test_openvino_has_no_bfloat16_there(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert copy_without_avx512(tmp_path) > 0
    made = environment(tmp_path, os.environ)
    told = subprocess.run([sys.executable, "-c", ASK], env=made, capture_output=True, text=True, check=True)
    assert "FP32" in told.stdout
    assert "BF16" not in told.stdout

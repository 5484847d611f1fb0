"""The stand-in for a processor with AVX2 alone: OpenVINO there knows no AVX-512."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.bench.host.avx2 import ANSWER, QUESTION, copy_without_avx512, environment
from scripts.bench.host.processors import ENGINES, ProcessorRun, lines

ASK = "import openvino; print(openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))"


def test_an_answer_is_as_long_as_its_question() -> None:
    assert len(ANSWER) == len(QUESTION)


def test_the_command_gets_the_copy_and_a_home_of_its_own(tmp_path: Path) -> None:
    made = environment(tmp_path, {"PYTHONPATH": "/other", "HOME": "/root", "LANG": "C"})
    assert made["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/other"
    assert (made["HOME"], made["LANG"], made["ECHOMIMIC_DTYPE"]) == (str(tmp_path), "C", "float32")
    assert made["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert environment(tmp_path, {}, vnni=True) == environment(tmp_path, {}) | {
        "ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"
    }


@pytest.mark.long
def test_openvino_has_no_bfloat16_there(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    assert copy_without_avx512(tmp_path) > 0
    made = environment(tmp_path, os.environ)
    told = subprocess.run([sys.executable, "-c", ASK], env=made, capture_output=True, text=True, check=True)
    assert "FP32" in told.stdout
    assert "BF16" not in told.stdout


LOG = """\
10:00 INFO encoder_worker.decode: decoding by float32 channels_last: float32 12 ms a frame
11:00 INFO encoder_worker.decode: decoding by int8 and float32 by OpenVINO: a frame takes
12:00 INFO gpu_worker.engine.load: denoising by OpenVINO: in float32 a clip takes torch 0.1 s
12:30 INFO gpu_worker.engine.shipped_networks: denoising by int8 and float32: a clip takes 90 ms
13:00 INFO audio_worker.features: Whisper by torch: a clip takes torch 1 ms, OpenVINO 2 ms
"""


def test_the_log_tells_the_engines_that_were_chosen() -> None:
    assert [match.group(0) for match in ENGINES.finditer(LOG)] == [
        "decoding by int8 and float32 by OpenVINO:", "denoising by OpenVINO: in float32",
        "denoising by int8 and float32:", "Whisper by torch:",
    ]  # fmt: skip


def test_a_row_says_which_stages_are_emulated_and_whether_others_worked() -> None:
    report = {
        "fps": 24, "clip_frames": 4, "latency_median": 0.06, "latency_p95": 0.08, "frames_late": 0,
        "frames_received": 480, "problems": [],
    }  # fmt: skip
    run = ProcessorRun(
        report,
        {"gpu_worker": 0.5, "gateway": 0.3},
        2,
        (20.0, 3.0),
        {"gpu_worker": 500 << 20},
        ["Whisper by torch"],
        ["gpu_worker"],
        1.5,
    )
    told = "\n".join(lines({"AVX2, 2 cores": run, "as it is": replace(run, emulated=[], others=0.0)}))
    assert " 0.40 " in told and "0 of 480" in told and "20.0 s then 3.0 s" in told
    assert "AVX2, 2 cores: without AVX-512: gpu_worker" in told
    assert "as it is: without AVX-512: no stage" in told
    assert "processor time a second: gpu_worker 0.500 s, gateway 0.300 s" in told
    assert "RSS: gpu_worker 500 MiB" in told
    assert told.count("NOT QUIET") == 1

"""Run a command as if this processor had AVX2 and no AVX-512: `python -m scripts.bench.host.avx2 COMMAND …`.

For example `python -m scripts.bench.host.avx2 python -m scripts.bench --only default`.

Torch and numpy take their instructions from environment variables. OpenVINO asks the processor, and first
whether the system saves its wide registers (the instruction XGETBV). In a copy of the library this question
is answered with "only the 256-bit ones". The copy stands first on the command's PYTHONPATH, which all stages
inherit, and is removed afterwards.
The processor stays as fast as it is, so an older one with AVX2 takes longer.

With `--vnni` before the command, OpenVINO may use VNNI of 256 bits, as many processors since 2021 have it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: XGETBV, and in its place `mov al, 7; nop`: the state of x87, SSE and AVX is saved, and of AVX-512 is not.
QUESTION, ANSWER = b"\x0f\x01\xd0", b"\xb0\x07\x90"

#: The libraries that ask, in OpenVINO's folder of libraries.
ASKING = ("libopenvino_intel_cpu_plugin.so", "libopenvino.so.*")

#: Torch's and numpy's instructions, and no bfloat16 (which AVX2 processors do not multiply).
VARIABLES = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "ECHOMIMIC_DTYPE": "float32",
}


def copy_without_avx512(target: Path) -> int:
    """Copies OpenVINO into a folder, with the question answered. Returns how many places ask it.

    Raises:
        FileNotFoundError: OpenVINO is not installed.
    """
    found = importlib.util.find_spec("openvino")
    if found is None or found.origin is None:
        raise FileNotFoundError("OpenVINO is not installed")
    copy = shutil.copytree(Path(found.origin).parent, target / "openvino")
    places = 0
    for pattern in ASKING:
        for library in (copy / "libs").glob(pattern):
            code = library.read_bytes()
            places += code.count(QUESTION)
            library.write_bytes(code.replace(QUESTION, ANSWER))
    return places


def environment(folder: Path, given: Mapping[str, str], *, vnni: bool = False) -> dict[str, str]:
    """The command's variables: the given ones, the copy first among modules, and a home of its own.

    The user's kept networks and choices are those of the whole processor.
    """
    paths = [str(folder), *given.get("PYTHONPATH", "").split(os.pathsep)]
    joined = os.pathsep.join(path for path in paths if path)
    own = {"PYTHONPATH": joined, "HOME": str(folder), **({"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"} if vnni else {})}
    return {**given, **VARIABLES, **own}


def main() -> int:
    """Run the command. Returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.host.avx2", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--vnni", action="store_true", help="leave VNNI with 256 bits")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="to run, with its arguments")
    args = parser.parse_args()
    words: list[str] = args.command
    if not words:
        parser.error("give a command")
    if words[0] == "python":
        words[0] = sys.executable
    with tempfile.TemporaryDirectory(prefix="echomimic-avx2-") as folder:
        places = copy_without_avx512(Path(folder))
        kind = "AVX2 and VNNI" if args.vnni else "AVX2 alone"
        print(f"as if with {kind}: {places} questions of OpenVINO are answered", flush=True)
        variables = environment(Path(folder), os.environ, vnni=args.vnni)
        return subprocess.run(words, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

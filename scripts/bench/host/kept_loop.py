"""The processor time that loops on disk save: `python -m scripts.bench.host.kept_loop`.

A client listens to silence for as long as a gesture lasts, in four starts of a run with a home of its own.
The first one converts networks and makes everything that is kept. Before the second one its loops and their
pictures are removed, so it denoises and decodes them again. The third one finds the loops alone, and the
fourth one their pictures too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from protocol.wire.clock import FULL_RATE, SAMPLE_RATE
from scripts.bench.common.tools import UsageMeter, machine, settle, table
from scripts.bench.common.turns import LOOP_SECONDS, in_room
from scripts.run.managed import ManagedRun, MetricSamples
from scripts.talk.live import Plan, speak

#: Starts of the run, by what they find of loops.
STARTS = ("nothing kept", "all but loops kept", "loops kept", "their pictures too")
#: Files that are removed before a start.
REMOVED = {STARTS[1]: ("features/loop-*", "pictures/clip-*"), STARTS[2]: ("pictures/clip-*",)}
#: Seconds after which a worker has kept a new loop.
KEEPS_WITHIN = 8.0


def listen(home: Path, flags: Sequence[str]) -> tuple[float, float, int, int]:
    """One start's silence: processor seconds of GPU worker and encoder, clips denoised and clips decoded."""
    environment = {**os.environ, "HOME": str(home)}
    with ManagedRun(*flags, timeout=600, environment=environment) as run:
        settle([run.process.pid])
        before = _counts(run.metrics())
        quiet = in_room(np.zeros(round(LOOP_SECONDS * SAMPLE_RATE), np.float32), 2)
        with UsageMeter([run.process.pid]) as meter:
            asyncio.run(speak(run.url, Plan(quiet, version=2), FULL_RATE, FULL_RATE // 2))
        denoised, decoded = (now - then for now, then in zip(_counts(run.metrics()), before, strict=True))
        settle([run.process.pid], KEEPS_WITHIN)
    return meter.spent["gpu_worker"], meter.spent["encoder_worker"], denoised, decoded


def _counts(samples: MetricSamples) -> tuple[int, int]:
    """Clips that went through the engine so far, and through the decoder.

    The first clip of a kept loop goes through the engine, and is read there.
    """
    names = ("echomimic_stage_denoise_seconds_count", "echomimic_stage_clips_decoded_total")
    denoised, decoded = (sum(value for _, value in samples.get(name, [])) for name in names)
    return round(denoised), round(decoded)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.host.kept_loop", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("flag", nargs="*", help="flags of the run, after --")
    args = parser.parse_args(argv)
    print(f"{machine()}; {LOOP_SECONDS:g} s of silence", flush=True)
    rows = [("start", "GPU worker", "encoder", "clips to denoise", "to decode")]
    with tempfile.TemporaryDirectory(prefix="echomimic-home-") as folder:
        home = Path(folder)
        for start in STARTS:
            for pattern in REMOVED.get(start, ()):
                for file in (home / ".cache/echomimic-live").glob(pattern):
                    file.unlink()
            gpu, encoder, denoised, decoded = listen(home, ["--fps", "24", "--max-sessions", "1", *args.flag])
            rows.append((start, f"{gpu:.2f} s", f"{encoder:.2f} s", str(denoised), str(decoded)))
            print(table(rows)[-1], flush=True)
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

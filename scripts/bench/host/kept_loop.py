"""The processor time that loops on disk save: `python -m scripts.bench.host.kept_loop`.

A client listens to silence for as long as a gesture lasts, in three starts of a run with a home of its own.
The first one converts networks and makes everything that is kept. Before the second one its loops are
removed, so it denoises them again. The third one reads them.
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
STARTS = ("nothing kept", "all but loops kept", "loops kept")
#: Seconds after which a worker has kept a new loop.
KEEPS_WITHIN = 8.0


def listen(home: Path, flags: Sequence[str]) -> tuple[float, float, int]:
    """One start: the GPU worker's processor seconds in the silence, the encoder's, and clips denoised."""
    environment = {**os.environ, "HOME": str(home)}
    with ManagedRun(*flags, timeout=600, environment=environment) as run:
        settle([run.process.pid])
        before = _denoised(run.metrics())
        quiet = in_room(np.zeros(round(LOOP_SECONDS * SAMPLE_RATE), np.float32), 2)
        with UsageMeter([run.process.pid]) as meter:
            asyncio.run(speak(run.url, Plan(quiet, version=2), FULL_RATE, FULL_RATE // 2))
        denoised = _denoised(run.metrics()) - before
        settle([run.process.pid], KEEPS_WITHIN)
    return meter.spent["gpu_worker"], meter.spent["encoder_worker"], denoised


def _denoised(samples: MetricSamples) -> int:
    """Clips that went through the engine so far. The first of a kept loop does, and is read there."""
    return round(sum(value for _, value in samples.get("echomimic_stage_denoise_seconds_count", [])))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.host.kept_loop", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("flag", nargs="*", help="flags of the run, after --")
    args = parser.parse_args(argv)
    print(f"{machine()}; {LOOP_SECONDS:g} s of silence", flush=True)
    rows = [("start", "GPU worker", "encoder", "clips to denoise")]
    with tempfile.TemporaryDirectory(prefix="echomimic-home-") as folder:
        home = Path(folder)
        for start in STARTS:
            if start == STARTS[1]:
                for file in (home / ".cache/echomimic-live/features").glob("loop-*"):
                    file.unlink()
            gpu, encoder, denoised = listen(home, ["--fps", "24", "--max-sessions", "1", *args.flag])
            rows.append((start, f"{gpu:.2f} s", f"{encoder:.2f} s", str(denoised)))
            print(table(rows)[-1], flush=True)
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Runs the supervisor over stages given as JSON, [[name, [command…]], …], for the tests.

A third argument is the number of seconds that a worker must work for, so that its failures are forgotten. A
fourth one is the number of seconds without a sign of life after which it is killed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from scripts.run.restart import RestartPolicy
from scripts.run.rundir import RunDir
from scripts.run.runlog import RunLog
from scripts.run.supervisor import Readiness, StageProcess, Supervisor


def main() -> int:
    folder = Path(sys.argv[1])
    ready_after = time.monotonic() + 0.2
    with RunDir(folder / "run", 1):
        log = RunLog(folder / "logs")
        proven = float(sys.argv[3]) if len(sys.argv) > 3 else RestartPolicy().proven
        stages = [
            StageProcess(name, command, RestartPolicy(proven=proven))
            for name, command in json.loads(sys.argv[2])
        ]
        try:
            return Supervisor(
                stages,
                log,
                probe=lambda: Readiness(time.monotonic() > ready_after, "the clock"),
                on_ready=lambda: log.announce("ready: fake"),
                silent_after=float(sys.argv[4]) if len(sys.argv) > 4 else 8.0,
            ).run()
        finally:
            log.close()


if __name__ == "__main__":
    sys.exit(main())

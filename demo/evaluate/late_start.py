"""The command `python -m demo.evaluate.late_start`: what `trial_late` says."""

from __future__ import annotations

from protocol.openmp import sleep_at_barriers

if __name__ == "__main__":
    sleep_at_barriers()  # before torch is imported
    from demo.evaluate.trial_late import main

    raise SystemExit(main())

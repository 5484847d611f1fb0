"""The command `python -m demo.factory.evaluate.idle`. `trial_idle` has its help and its work."""

from __future__ import annotations

from protocol.model.hardware.threads import let_waiting_threads_sleep

if __name__ == "__main__":
    let_waiting_threads_sleep()  # before torch is imported
    from demo.factory.evaluate.trial_idle import main

    raise SystemExit(main())

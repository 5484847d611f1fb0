"""The command `python -m demo.factory.evaluate.edges`. `trial_edges` has its help and its work."""

from __future__ import annotations

from protocol.model.hardware.threads import let_waiting_threads_sleep

if __name__ == "__main__":
    let_waiting_threads_sleep()  # before torch is imported
    from demo.factory.evaluate.trial_edges import main

    raise SystemExit(main())

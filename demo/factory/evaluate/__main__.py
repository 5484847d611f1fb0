from __future__ import annotations

from protocol.model.hardware.threads import let_waiting_threads_sleep

if __name__ == "__main__":
    let_waiting_threads_sleep()  # before torch is imported
    from demo.factory.evaluate.command import main

    raise SystemExit(main())

from __future__ import annotations

from protocol.model.hardware.threads import sleep_at_barriers

if __name__ == "__main__":
    sleep_at_barriers()  # before torch is imported
    from demo.factory.evaluate.command import main

    raise SystemExit(main())

"""`python -m scripts.run.health`: whether the run of these settings is ready, for a container's health check.

It reads the settings as every process does, so in a container they are best given by ECHOMIMIC_* variables.

Exit status: 0 when every stage has a warm worker, 1 when not, with the gateway's answer on stdout.
"""

from __future__ import annotations

import http.client
import sys

from protocol.process.settings import Settings, settings_from_command_line
from scripts.run.address import connect_gateway

#: Seconds for the gateway's answer. A health check that takes longer counts as failed.
TIMEOUT = 4.0


def is_ready(settings: Settings) -> tuple[bool, str]:
    """Whether `/readyz` says so, and its answer."""
    connection = connect_gateway(settings, TIMEOUT)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status == http.client.OK, answer.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return False, f"the gateway does not answer: {error}"
    finally:
        connection.close()


def main() -> int:
    """Ask once."""
    ready, text = is_ready(settings_from_command_line())
    print(text)
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())

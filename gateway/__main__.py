"""`python -m gateway`: settings → sockets → gateway → run."""

from __future__ import annotations

import asyncio
import logging
import signal

import zmq

from gateway.door.certificates import CertificateError
from gateway.door.token_file import TokenFileError
from gateway.gateway import Gateway
from protocol.hop.endpoints import EndpointError
from protocol.process.logs import set_up_logging
from protocol.process.settings import Settings, settings_from_command_line

logger = logging.getLogger(__name__)


def main() -> int:
    """Exit status: 0 after SIGTERM or SIGINT, 2 when the settings cannot work, 1 after any other error."""
    settings = settings_from_command_line()
    set_up_logging("gateway", level=settings.log_level)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        asyncio.run(_run(settings, context))
    except (EndpointError, TokenFileError, CertificateError) as error:
        logger.critical("the gateway cannot work: %s", error)
        return 2
    except OSError as error:  # it names its file, if it is about one
        logger.critical("the gateway ends by an error", exc_info=error)
        return 1
    finally:
        context.term()
    return 0


async def _run(settings: Settings, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gateway = Gateway(settings, context)
    try:
        await gateway.run(stop)
    finally:
        gateway.close()


if __name__ == "__main__":
    raise SystemExit(main())

"""The addresses at which processes listen."""

from __future__ import annotations

import psutil


def listening(pid: int) -> set[tuple[str, int]]:
    """Every TCP or UDP address at which a process and its children listen."""
    process = psutil.Process(pid)
    return {
        (connection.laddr.ip, connection.laddr.port)
        for part in (process, *process.children(recursive=True))
        for connection in part.net_connections("inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    }

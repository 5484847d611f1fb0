"""Stand-ins for a connection and for the sessions of a gateway. They note each call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NotedConnection:
    """A connection that notes the names of the methods that are called."""

    def __init__(self, name: str, core: Any) -> None:
        self.name = name
        self.core = core
        self.grant = None
        self.parked_until: float | None = None
        self.told: list[str] = []
        self.errors: list[Exception] = []

    def __getattr__(self, method: str) -> Any:
        """Any other method notes its name."""
        return lambda *_: self.told.append(method)

    def end(self, error: Exception) -> None:
        self.errors.append(error)


class NotedSessions(SimpleNamespace):
    """Sessions by name. It notes which ones are ended."""

    def __init__(self, *connections: NotedConnection) -> None:
        super().__init__()
        self.by_name = {one.name: one for one in connections}
        self.ended: list[str] = []

    def get(self, name: str) -> NotedConnection | None:
        return self.by_name.get(name)

    def all(self) -> list[NotedConnection]:
        return list(self.by_name.values())

    def end(self, connection: NotedConnection) -> None:
        self.ended.append(connection.name)

"""The Prometheus text format, as much of it as gauges and counters need."""

from __future__ import annotations

from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Exposition:
    """Collects samples; families come out in the order of their first sample."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, list[str]]] = {}

    def add(self, name: str, value: float, labels: Mapping[str, str] | None = None, text: str = "") -> None:
        """One sample. Names that end in `_total` are counters, the others gauges."""
        kind = "counter" if name.endswith("_total") else "gauge"
        head = (f"# HELP {name} {text}\n" if text else "") + f"# TYPE {name} {kind}\n"
        lines = self._families.setdefault(name, (head, []))[1]
        inner = ",".join(f'{key}="{_escape(label)}"' for key, label in (labels or {}).items())
        lines.append(f"{name}{{{inner}}} {value:.10g}\n" if inner else f"{name} {value:.10g}\n")

    def text(self) -> str:
        return "".join(head + "".join(lines) for head, lines in self._families.values())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

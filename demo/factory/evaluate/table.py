"""Rows of the report: a figure, its target, and whether it is met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure of the report.

    Attributes:
        name: name of the figure.
        value: the measured value, as text.
        target: its target, as text.
        met: whether the target is met, or None for a figure without one.
        note: how it is measured, where the name does not say it.
    """

    name: str
    value: str
    target: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        return {None: "", True: "met", False: "NOT MET"}[self.met]


@dataclass
class Section:
    """Rows that belong together, the numbers behind them (JSON), pictures and curves for the report."""

    title: str
    rows: list[Row] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, Any] = field(default_factory=dict)

    def at_least(
        self, name: str, value: float, target: float, unit: str = "", digits: int = 2, note: str = ""
    ) -> None:
        self._bound(name, value, f"≥ {target:g}{unit}", value >= target, unit, digits, note)

    def at_most(
        self, name: str, value: float, target: float, unit: str = "", digits: int = 2, note: str = ""
    ) -> None:
        self._bound(name, value, f"≤ {target:g}{unit}", value <= target, unit, digits, note)

    def below(
        self, name: str, value: float, target: float, unit: str = "", digits: int = 2, note: str = ""
    ) -> None:
        self._bound(name, value, f"< {target:g}{unit}", value < target, unit, digits, note)

    def told(self, name: str, value: str, note: str = "") -> None:
        """A figure without a target."""
        self.rows.append(Row(name, value, note=note))

    def judged(self, name: str, value: str, target: str, met: bool, note: str = "") -> None:
        self.rows.append(Row(name, value, target, bool(met), note))

    def _bound(
        self, name: str, value: float, target: str, met: bool, unit: str, digits: int, note: str
    ) -> None:
        self.rows.append(Row(name, f"{value:.{digits}f}{unit}", target, bool(met), note))


def as_text(sections: list[Section]) -> str:
    """For a terminal."""
    rows = [row for section in sections for row in section.rows]
    # A long figure without a target may stand out; it must not widen the column for all.
    judged = [row for row in rows if row.met is not None] or rows
    widths = [
        max(len(row.name) for row in rows),
        *(max(len(getattr(r, k)) for r in judged) for k in ("value", "target")),
    ]
    lines = []
    for section in sections:
        lines += ["", section.title]
        lines += [
            f"  {r.name:<{widths[0]}}  {r.value:>{widths[1]}}  {r.target:<{widths[2]}}  {r.verdict}".rstrip()
            for r in section.rows
        ]
    return "\n".join(lines[1:])


def as_markdown(section: Section) -> list[str]:
    """A heading, the table and its notes."""
    lines = [f"## {section.title}", "", "| | Measured | Target | |", "|---|---:|---|---|"]
    for row in section.rows:
        verdict = f"**{row.verdict}**" if row.met is False else row.verdict
        lines.append(f"| {row.name} | {row.value} | {row.target} | {verdict} |")
    notes = [f"- {row.name}: {row.note}" for row in section.rows if row.note]
    return [*lines, "", *notes, *([""] if notes else [])]


def count_met(sections: list[Section]) -> tuple[int, int]:
    """Rows whose target is met, and rows with a target."""
    judged = [row.met for section in sections for row in section.rows if row.met is not None]
    return sum(judged), len(judged)

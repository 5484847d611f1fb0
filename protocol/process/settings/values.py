"""How the text of a flag, a variable or a file becomes a setting's value, and the errors when it does not.

Each parser takes where the value stood, for the error, and the value: text, or what YAML made of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MAX_WORKERS = 100  # of one stage; tcp ports are laid out in blocks of this size


class SettingsError(ValueError):
    """A setting is wrong; the text names the flag (or variable, or file) and what to do."""


def check_limits(where: str, value: Any, meta: Mapping[str, Any]) -> None:
    if value is None:
        return
    if "choices" in meta and value not in meta["choices"]:
        raise SettingsError(f"{where} {value}: choose one of {', '.join(meta['choices'])}")
    if "low" in meta and not meta["low"] <= value <= meta["high"]:
        raise SettingsError(f"{where} {value}: choose from {meta['low']} to {meta['high']}")
    if "multiple" in meta and value % meta["multiple"]:
        raise SettingsError(f"{where} {value}: choose a multiple of {meta['multiple']}")
    if meta["kind"] == "strs" and not 1 <= len(value) <= MAX_WORKERS:
        raise SettingsError(f"{where}: give 1 to {MAX_WORKERS} names")


def _parse_str(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{where}: {value!r} is not a name")
    return value


def _parse_int(where: str, value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise SettingsError(f"{where} {value}: not a whole number") from None
    if type(value) is not int:
        raise SettingsError(f"{where}: {value!r} is not a whole number")
    return value


def _parse_float(where: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (ValueError, TypeError, OverflowError):
        raise SettingsError(f"{where} {value}: not a number") from None


_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _parse_bool(where: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in _ON + _OFF:
        raise SettingsError(f"{where} {value}: say on or off")
    return word in _ON


def _parse_path(where: str, value: Any) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise SettingsError(f"{where}: {value!r} is not a path")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{where} {value}: {error}") from None


def _parse_paths(where: str, value: Any) -> tuple[Path, ...]:
    items = value if isinstance(value, list) else str(value).split(os.pathsep)
    return tuple(_parse_path(where, item) for item in items)


def _parse_strs(where: str, value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    names = [part.strip() for item in items for part in str(item).split(",")]
    return tuple(_parse_str(where, name) for name in names)


PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "str": _parse_str, "int": _parse_int, "float": _parse_float, "bool": _parse_bool, "path": _parse_path,
    "paths": _parse_paths, "strs": _parse_strs,
}  # fmt: skip

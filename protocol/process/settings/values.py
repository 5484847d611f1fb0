"""From the text of a flag, a variable or a file to the value of a setting, and the errors on the way.

A parser takes two arguments: the place where the value stood, for the error, and the value itself. That is
text, or whatever YAML made of an entry of a file.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Most workers of one stage. TCP ports are laid out in blocks of this size.
MAX_WORKERS = 100


class SettingsError(ValueError):
    """A setting is wrong. The text names the flag, variable or file entry, and says how to put it right."""


@dataclass(frozen=True, slots=True)
class ValueKind:
    """How values of one type are read and shown."""

    parse: Callable[[str, Any], Any]
    #: Stands for the value in `--help`.
    metavar: str
    #: Whether the flag may be given several times.
    repeatable: bool = False
    #: Whether an empty value means None.
    optional: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value: `--name` or `--no-name`."""
        return self.parse is _parse_bool


def kind_of(annotation: object) -> ValueKind:
    """The kind of a field's annotation: a type of `_KINDS`, or one of them `| None`.

    Raises:
        TypeError: there is no parser for the annotation.
    """
    if isinstance(annotation, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
        kind = kind_of(members[0])
        if len(members) == 1:
            return ValueKind(kind.parse, kind.metavar, kind.repeatable, optional=True)
    elif annotation in _KINDS:
        return _KINDS[annotation]
    raise TypeError(f"no setting can have the type {annotation}")


def parse(kind: ValueKind, where: str, value: Any, folder: Path) -> Any:
    """`value` as the kind says. Relative paths become absolute ones in `folder`.

    Raises:
        SettingsError: it is no such value; the text begins with `where`.
    """
    if kind.optional and (value is None or value == ""):
        return None
    return _in_folder(folder, kind.parse(where, value))


def check_limits(where: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Hold a value to its limits; None, which leaves a choice to the model or the machine, passes.

    Args:
        where: begins the error's text.
        limits: may have `choices`; `low` and `high`, both included; `multiple`; `most` items, at least one;
            `check`, a function of place and value that raises the error, called for each item of a tuple.

    Raises:
        SettingsError: the value breaks a limit.
    """
    if value is None:
        return
    if "choices" in limits and value not in limits["choices"]:
        raise SettingsError(f"{where} {value}: choose one of {', '.join(limits['choices'])}")
    if "low" in limits and not limits["low"] <= value <= limits["high"]:
        raise SettingsError(f"{where} {value}: choose from {limits['low']} to {limits['high']}")
    if "multiple" in limits and value % limits["multiple"]:
        raise SettingsError(f"{where} {value}: choose a multiple of {limits['multiple']}")
    if "check" in limits:
        for item in value if isinstance(value, tuple) else (value,):
            limits["check"](where, item)
    if "most" in limits and not 1 <= len(value) <= limits["most"]:
        raise SettingsError(f"{where}: give 1 to {limits['most']} names")


def _in_folder(folder: Path, value: Any) -> Any:
    if isinstance(value, Path):
        return (folder / value).absolute()
    return tuple(_in_folder(folder, item) for item in value) if isinstance(value, tuple) else value


# ------------------------------------------------------------------ one parser for each type


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
    if type(value) is not int:  # YAML's true and false are int to Python
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
    except RuntimeError as error:  # ~somebody, and there is no such user
        raise SettingsError(f"{where} {value}: {error}") from None


def _parse_paths(where: str, value: Any) -> tuple[Path, ...]:
    items = value if isinstance(value, list) else str(value).split(os.pathsep)
    return tuple(_parse_path(where, item) for item in items)


def _parse_names(where: str, value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    names = [part.strip() for item in items for part in str(item).split(",")]
    return tuple(_parse_str(where, name) for name in names)


_KINDS: dict[object, ValueKind] = {
    str: ValueKind(_parse_str, "NAME"),
    int: ValueKind(_parse_int, "N"),
    float: ValueKind(_parse_float, "X"),
    bool: ValueKind(_parse_bool, ""),
    Path: ValueKind(_parse_path, "PATH"),
    tuple[Path, ...]: ValueKind(_parse_paths, "PATH", repeatable=True),
    tuple[str, ...]: ValueKind(_parse_names, "NAME[,NAME]", repeatable=True),
}

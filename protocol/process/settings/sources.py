"""Where settings come from: flags go before ECHOMIMIC_* variables, those before the `--settings` file.

Nothing else reads ECHOMIMIC_* variables. Importing this needs nothing installed, so `--help` always works.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from protocol.process.settings.schema import Settings, flag, kinds
from protocol.process.settings.values import SettingsError, check_limits, parse
from protocol.process.user import complete_user

ENV_PREFIX = "ECHOMIMIC_"
#: The variable that stands for `--settings`.
FILE_VARIABLE = ENV_PREFIX + "SETTINGS"

_KINDS = kinds()
_FIELDS = {f.name: f for f in fields(Settings)}


def load_settings(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """The settings from flags, environment and the `--settings` file.

    Args:
        argv: the flags. None: those of the command line.
        env: the environment. None: that of this process.

    Raises:
        SettingsError: the text names the wrong flag, variable or file entry.
        SystemExit: `--help` was among the flags.
    """
    return Settings(**given_values(argv, env))


def given_values(
    argv: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    others: list[str] | None = None,
) -> dict[str, Any]:
    """The values that flags, environment and the `--settings` file give, by field. Each is checked by itself.

    Args:
        argv: the flags. None: those of the command line.
        env: the environment. None: that of this process.
        others: takes the words that are no settings, in their order. None: there must be none.

    Raises:
        SettingsError: as `load_settings`.
        SystemExit: as `load_settings`.
    """
    env = os.environ if env is None else env
    found, rest = _command_line_parser().parse_known_args(sys.argv[1:] if argv is None else list(argv))
    given = vars(found)
    if others is not None:
        others += rest
    elif rest:
        raise SettingsError(f"unrecognized arguments: {' '.join(rest)}; --help lists the flags")
    file = given.pop("settings", None) or env.get(FILE_VARIABLE)
    values = _from_file(Path(file)) if file else {}
    values |= _from_env(env)
    values |= {name: _value_of(name, flag(name), value) for name, value in given.items()}
    return values


def settings_from_command_line() -> Settings:
    """`load_settings()` for a `__main__`: a wrong setting is told on stderr, exit status 2.

    A user without a home or a name gets them first: the libraries that are imported next ask for both.
    """
    complete_user()
    try:
        return load_settings()
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def flags_of(settings: Settings) -> list[str]:
    """The command line that gives exactly these settings, for a supervisor to hand to the stages."""
    words: list[str] = []
    for name in _FIELDS:
        value = getattr(settings, name)
        if isinstance(value, bool):
            words.append(flag(name) if value else "--no-" + flag(name)[2:])
        elif isinstance(value, tuple):
            words += [word for item in value for word in (flag(name), str(item))]
        elif value is not None:
            words += [flag(name), str(value)]
    return words


def _value_of(name: str, where: str, value: Any, folder: Path | None = None) -> Any:
    """`value` as field `name` takes it; a relative path lies in `folder`, the current one if None."""
    parsed = parse(_KINDS[name], where, value, folder or Path())
    check_limits(where, parsed, _FIELDS[name].metadata)
    return parsed


# ------------------------------------------------------------------ flags


class _SettingsParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists the flags") from None


def _command_line_parser() -> argparse.ArgumentParser:
    parser = _SettingsParser(
        prog=_program_name(),
        # only the flags that were given, so that a variable is not hidden by a flag's default
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        description="Every process of echomimic-live takes these flags. Each is also the variable "
        "ECHOMIMIC_<NAME> and a key of the --settings file.",
    )
    parser.add_argument("--settings", metavar="FILE.yaml", help="YAML file of settings, by the flags' names")
    for name in _FIELDS:
        _add_flag(parser, name)
    return parser


def _program_name() -> str | None:
    """`python -m NAME` where a package runs as the program, for its help; else None: argparse chooses."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _add_flag(parser: argparse.ArgumentParser, name: str) -> None:
    default, metadata, kind = _FIELDS[name].default, _FIELDS[name].metadata, _KINDS[name]
    text = str(metadata["help"]).replace("%", "%%")
    if kind.is_switch:
        shown = f"{text} (default {'on' if default else 'off'})" if default is not None else text
        parser.add_argument(flag(name), action=argparse.BooleanOptionalAction, help=shown)
        return
    # the default places of files are said in the text, or are bundled with the project
    if default not in (None, ()) and not isinstance(default, Path):
        text += f" (default {','.join(default) if isinstance(default, tuple) else default})"
    parser.add_argument(
        flag(name),
        action="append" if kind.repeatable else "store",
        metavar="|".join(metadata["choices"]) if "choices" in metadata else kind.metavar,
        help=text,
    )


# ------------------------------------------------------------------ variables and the file


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    names = {ENV_PREFIX + name.upper(): name for name in _FIELDS}
    values = {}
    for variable, value in env.items():
        if variable in names:
            values[names[variable]] = _value_of(names[variable], variable, value)
        elif variable.startswith(ENV_PREFIX) and variable != FILE_VARIABLE:
            # only near misses: other tools may have variables of their own under the prefix
            close = difflib.get_close_matches(variable, names, 1, 0.85)
            if close:
                raise SettingsError(f"{variable} is no setting; did you mean {close[0]}?")
    return values


def _from_file(path: Path) -> dict[str, Any]:
    values = {}
    for key, value in _read_map(path).items():
        name = str(key).replace("-", "_")
        if name not in _FIELDS:
            close = difflib.get_close_matches(name, _FIELDS, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"--settings {path}: {key} is no setting{hint}")
        values[name] = _value_of(name, f"{path}: {key}", value, path.parent)
    return values


def _read_map(path: Path) -> dict[Any, Any]:
    import yaml  # not installed yet when a launcher asks for --help

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--settings {path}: {error.strerror}") from error
    except Exception as error:  # beside its own errors yaml raises KeyError and others, as for `!!bool x`
        detail = " ".join(str(error).split())
        raise SettingsError(f"--settings {path}: not YAML: {detail}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"--settings {path}: not a map from setting to value")
    return loaded

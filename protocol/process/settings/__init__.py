"""One typed settings object for every process.

`schema` has the fields, `door` checks those that say who may come in, `sources` reads flags, environment and
file, `values` parses single values, `places` knows where files lie when nobody says.
"""

from protocol.process.settings.door import NO_AUTH_WARNING, tokens_command
from protocol.process.settings.places import ROOT, default_token_file
from protocol.process.settings.schema import Settings, default_run_dir, flag, is_open_to_all
from protocol.process.settings.sources import (
    flags_of,
    given_values,
    load_settings,
    settings_from_command_line,
)
from protocol.process.settings.values import MAX_WORKERS, SettingsError

__all__ = [
    "MAX_WORKERS",
    "NO_AUTH_WARNING",
    "ROOT",
    "Settings",
    "SettingsError",
    "default_run_dir",
    "default_token_file",
    "flag",
    "flags_of",
    "given_values",
    "is_open_to_all",
    "load_settings",
    "settings_from_command_line",
    "tokens_command",
]

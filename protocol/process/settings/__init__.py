"""One typed settings object for every process; `schema` has the fields."""

from protocol.process.settings.schema import (
    ENV_PREFIX,
    HERE,
    ROOT,
    UNSET,
    Settings,
    default_run_dir,
    flag,
    flags_of,
    load_settings,
    settings_from_command_line,
)
from protocol.process.settings.values import MAX_WORKERS, SettingsError

__all__ = [
    "ENV_PREFIX",
    "HERE",
    "MAX_WORKERS",
    "ROOT",
    "UNSET",
    "Settings",
    "SettingsError",
    "default_run_dir",
    "flag",
    "flags_of",
    "load_settings",
    "settings_from_command_line",
]

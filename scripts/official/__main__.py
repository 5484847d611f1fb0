"""`python -m scripts.official`: find or fetch the official weights without starting anything.

Takes the settings' flags: `--model-dir`, `--accept-licences`, `--decoder tiny`. The last line on stdout is
the path of the configuration. Exit status: 0, 1 when they cannot be had, 2 for bad settings.
"""

from __future__ import annotations

import sys

from protocol.process.settings import SettingsError, load_settings
from scripts.official.errors import OfficialError
from scripts.official.prepare import Preparation


def main() -> int:
    """Prepare the official model. Returns the exit status."""
    try:
        settings = load_settings([*sys.argv[1:], "--model", "official"])
        print(Preparation(settings).run().config)
    except SettingsError as error:
        print(f"echomimic-live: {error}", file=sys.stderr)
        return 2
    except OfficialError as error:
        print(f"echomimic-live: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

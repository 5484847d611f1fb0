#!/usr/bin/env bash
# Does faults to real runs and prints each figure beside its limit. `scripts/torture.sh --help` lists them.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
# shellcheck source=scripts/setup_env.sh
. "$root/scripts/setup_env.sh"
cd "$root" || exit 1
install_env requirements.lock
exec "$venv/bin/python" -m scripts.torture "$@"

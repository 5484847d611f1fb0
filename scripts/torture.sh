#!/usr/bin/env bash
# Runs a test that takes long: `scripts/torture.sh faults`, `scripts/torture.sh fuzz`. Without a name it lists them.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
# shellcheck source=scripts/setup_env.sh
. "$root/scripts/setup_env.sh"
cd "$root" || exit 1
install_env requirements.lock requirements-torch.lock requirements-dev.lock
exec "$venv/bin/python" -m scripts.torture "$@"

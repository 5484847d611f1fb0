#!/usr/bin/env bash
# Installs the missing packages, starts every stage, and prints the page's address when it is ready. Ctrl-C stops
# everything. `scripts/run_all.sh --help` lists the flags.
set -u

here=$0
while [ -L "$here" ]; do  # started through a symbolic link: the project is where the link points
  link=$(readlink -- "$here")
  case $link in /*) here=$link ;; *) here=$(dirname -- "$here")/$link ;; esac
done
root=$(CDPATH='' cd -- "$(dirname -- "$here")/.." && pwd -P) || exit 1

# shellcheck source=scripts/setup_env.sh
. "$root/scripts/setup_env.sh"

for flag in "$@"; do  # help needs nothing installed
  case $flag in
    -h | --help)
      python=$(find_python) || no_python
      exec "$python" "$root/scripts/run/start.py" scripts.run "$@"
      ;;
  esac
done

install_for_run "$@"
install_xformers
exec "$venv/bin/python" "$root/scripts/run/start.py" scripts.run "$@"

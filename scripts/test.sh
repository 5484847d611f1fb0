#!/usr/bin/env bash
# Installs the tools and runs every check: ruff, mypy, import-linter, pytest with coverage. Arguments go to pytest.
#
#   scripts/test.sh                 everything
#   scripts/test.sh --fast          the pure tests: no processes, no browser, no golden numbers
#   scripts/test.sh tests/gateway   everything of one folder
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
# shellcheck source=scripts/setup_env.sh
. "$root/scripts/setup_env.sh"
cd "$root" || exit 1

# Debian packages the tests use: as root they are installed, otherwise the tests that need them skip.
system_packages() {
  local missing=()
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
    command -v google-chrome >/dev/null || missing+=(chromium)
  command -v espeak-ng >/dev/null || missing+=(espeak-ng)
  command -v flite >/dev/null || missing+=(flite)
  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx)
  ldconfig -p 2>/dev/null | grep -q libturbojpeg || missing+=(libturbojpeg0)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "not installed, so the tests that use them skip: ${missing[*]} (on Debian and Ubuntu: apt install ${missing[*]})"
    return 0
  fi
  say "installing ${missing[*]} …"
  # The tests start programs such as nginx themselves. Without this Debian would start them as services too.
  local policy=/usr/sbin/policy-rc.d made=
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes; }
  if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1; then
    say "could not install ${missing[*]}; the tests that use them skip"
  fi
  [ -z "$made" ] || rm -f "$policy"
}

check() { # check NAME COMMAND…: run it, remember a failure
  local name=$1
  shift
  say "== $name"
  "$@" || failed+=("$name")
}

# Tests that are none of these need no process, no browser, no GPU and no quiet machine.
pure='not process and not browser and not gpu and not parity and not timing and not slow and not long'

fast=no
if [ "${1:-}" = --fast ]; then
  fast=yes
  shift
fi

[ "$fast" = yes ] || system_packages
install_env requirements.lock requirements-torch.lock requirements-dev.lock
bin=$venv/bin

failed=()
check ruff "$bin/ruff" check .
check 'ruff format' "$bin/ruff" format --check .
if [ "$fast" = no ]; then
  check mypy "$bin/mypy"
  check import-linter "$bin/lint-imports"
  check 'the page (ESLint, tsc)' scripts/check_js.sh
fi
if [ ${#failed[@]} -gt 0 ]; then
  die "failed: ${failed[*]}"
fi
say "== pytest"
if [ "$fast" = yes ]; then
  exec "$bin/python" -m pytest -m "$pure" "$@"
fi
# Coverage counts this process alone: measuring the stages too would slow them down, and tests judge their times.
exec "$bin/python" -m pytest --cov --cov-report=term:skip-covered "$@"

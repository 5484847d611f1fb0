#!/usr/bin/env bash
# Lints and type-checks the JavaScript of the page and of its client with the pinned tools of tests/js, which it installs there.
# Without node and npm it says so and skips.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"

tools=tests/js
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  echo "skipped: node and npm are not installed (on Debian and Ubuntu: apt install nodejs npm)"
  exit 0
fi
if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 18 || (a == 18 && b >= 18) ? 0 : 1)'; then
  echo "skipped: node $(node --version) is too old, ESLint needs 18.18"
  exit 0
fi
# npm writes this file last, so an installation that broke off is done again.
if [ ! "$tools/node_modules/.package-lock.json" -nt "$tools/package-lock.json" ]; then
  npm ci --prefix "$tools" --ignore-scripts --no-audit --no-fund --loglevel=error
  touch "$tools/node_modules/.package-lock.json"
fi
bin=$tools/node_modules/.bin
"$bin/eslint" --config "$tools/eslint.config.js" --max-warnings 0 gateway/page clients/js "$tools/eslint.config.js"
"$bin/tsc" --project "$tools/tsconfig.json"
"$bin/tsc" --project "$tools/tsconfig.worklet.json"
# The types that the client's package carries are those of its code.
types=$(mktemp -d)
trap 'rm -rf "$types"' EXIT
"$bin/tsc" --project clients/js/tsconfig.json --outDir "$types"
diff -r "$types" clients/js/types || {
  echo "clients/js/types is old: run $bin/tsc --project clients/js/tsconfig.json"
  exit 1
}

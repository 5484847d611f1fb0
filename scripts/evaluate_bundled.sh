#!/usr/bin/env bash
# Measures the bundled model and writes docs/lab/bundled-model-evaluation.md. Arguments go to `python -m demo.factory.evaluate`
# in place of `--out docs/lab`; `scripts/evaluate_bundled.sh --help` lists them. Leave the machine alone meanwhile: it
# also measures speed.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
if [ $# -eq 0 ]; then set -- --out docs/lab; fi
exec "$python" -m demo.factory.evaluate "$@"

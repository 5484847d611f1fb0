#!/usr/bin/env bash
# Writes requirements.lock and requirements-dev.lock from pyproject.toml: one file for every Python from 3.10 on,
# with markers. Needs uv (`pip install uv`). CUDA's libraries are left out: torch's own wheels pin theirs exactly.
# Triton stays in the second file alone, where the kernels' tests need it beside a torch for CPUs.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
. scripts/setup_env.sh

compile() { # compile OUTPUT LEFT-OUT [FLAG…]
  local out=$1 left_out=$2
  shift 2
  {
    echo "# Tested versions, written by scripts/lock.sh from pyproject.toml; do not edit."
    echo "torch==$torch_version" | uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
      --constraint - "$@" pyproject.toml |
      grep -vE "^($left_out)"
  } >"$out.new"
  mv -- "$out.new" "$out"
}

compile requirements.lock 'nvidia-|cuda-|triton'
compile requirements-dev.lock 'nvidia-|cuda-' --constraint requirements.lock --extra dev

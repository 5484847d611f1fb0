#!/usr/bin/env bash
# Writes requirements.lock, requirements-torch.lock and requirements-dev.lock from pyproject.toml: each one file for
# every Python from 3.10 on, with markers. The second adds torch and what comes with it, the third the tools. Needs uv
# (`pip install uv`). CUDA's libraries are left out: torch's own wheels pin theirs exactly. Triton stays in the third
# file alone, where the kernels' tests need it beside a torch for CPUs.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
. scripts/setup_env.sh

tested=$(mktemp)
trap 'rm -f -- "$tested"' EXIT
echo "torch==$torch_version" >"$tested"

compile() { # compile OUTPUT LEFT-OUT [FLAG…]
  local out=$1 left_out=$2
  shift 2
  {
    echo "# Tested versions, written by scripts/lock.sh from pyproject.toml; do not edit."
    # What builds the project is installed too, since the project is built without an environment of its own.
    sed -n 's/^requires = \["\(.*\)"\]$/\1/p' pyproject.toml |
      uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
        --constraint "$tested" "$@" - pyproject.toml |
      grep -vE "^($left_out)"
  } >"$out.new"
  mv -- "$out.new" "$out"
}

# The packages of both stay at the versions that the larger one can have.
compile requirements-torch.lock 'nvidia-|cuda-|triton' --extra torch
compile requirements.lock 'nvidia-|cuda-|triton' --constraint requirements-torch.lock
compile requirements-dev.lock 'nvidia-|cuda-' --constraint requirements-torch.lock --extra dev

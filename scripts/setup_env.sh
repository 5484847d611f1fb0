# Sourced by run_all.sh and test.sh with $root set: finds Python, makes the virtual environment and installs
# the tested versions. Does nothing, quickly, when they are there. Progress goes to standard error.

torch_version=2.13.0
cpu_index=https://download.pytorch.org/whl/cpu

say() { printf '%s\n' "$*" >&2; }
die() { say "echomimic-live: $*"; exit 1; }

# Print the path of a Python that is 3.10 or newer, or fail.
find_python() {
  local name
  for name in "${PYTHON:-}" python3 python3.12 python3.11 python3.13 python3.10 python; do
    [ -n "$name" ] || continue
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
      command -v -- "$name"
      return
    fi
  done
  return 1
}

has_nvidia() { [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; }

has_hopper() { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -q '^9\.0'; }

# True when the index of PyTorch's CPU builds answers: bounded, so that a closed network costs five seconds.
cpu_index_answers() {
  "$venv/bin/python" - "$cpu_index/torch/" >/dev/null 2>&1 <<'PY' &
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=4).close()
PY
  local pid=$! waited=0
  while kill -0 "$pid" 2>/dev/null; do
    if [ "$waited" -ge 50 ]; then kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; return 1; fi
    sleep 0.1
    waited=$((waited + 1))
  done
  wait "$pid"
}

# Linux wheels of torch on PyPI bring gigabytes of CUDA libraries; without an NVIDIA driver the CPU build does.
install_torch() {
  if "$venv/bin/python" -c "
import importlib.metadata as m, sys
sys.exit(m.version('torch').split('+')[0] != '$torch_version')" 2>/dev/null; then return 0; fi
  if [ "$(uname -s)" = Linux ] && ! has_nvidia; then
    if cpu_index_answers; then
      say "installing PyTorch $torch_version for the CPU (no NVIDIA driver found) …"
      if pip_install --index-url "$cpu_index" "torch==$torch_version"; then return 0; fi
    fi
    say "PyTorch's index of CPU builds does not answer; installing from the default index …"
  else
    say "installing PyTorch $torch_version …"
  fi
  pip_install "torch==$torch_version"
}

pip_install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@" >&2; }

# install_env LOCK…: a virtual environment holding what the lock files name, in $venv ($root/.venv unless set).
install_env() {
  venv=${ECHOMIMIC_VENV:-$root/.venv}
  local python stamp wanted lock
  stamp=$venv/.echomimic-installed
  if [ -x "$venv/bin/python" ] && ! "$venv/bin/python" -c '' >/dev/null 2>&1; then
    say "the Python of $venv is gone; making it anew"
    rm -rf -- "$venv"
  fi
  if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python) || die "needs Python 3.10 or newer, and found none; install one, or name it: PYTHON=/path/to/python3 $0"
    say "making a virtual environment in $venv ($("$python" --version 2>&1)) …"
    "$python" -m venv "$venv" || die "could not make a virtual environment with $python (on Debian and Ubuntu: apt install python3-venv)"
  fi
  for lock in "$@"; do
    # What is installed is what this names: the lock files, the project's place, torch.
    wanted=$(cat "$root/$lock" "$root/pyproject.toml" | cksum; printf '%s\n%s\n' "$root" "$torch_version")
    if [ "$(cat "$stamp-$lock" 2>/dev/null)" = "$wanted" ]; then continue; fi
    install_torch || die "could not install PyTorch $torch_version"
    say "installing the packages of $lock …"
    pip_install -r "$root/$lock" || die "could not install the packages of $lock"
    pip_install --no-deps --no-build-isolation -e "$root" || die "could not install the project"
    printf '%s' "$wanted" >"$stamp-$lock"
  done
}

# install_hopper: after install_env, kernels that only such a GPU takes. Everything runs without them, so a failure
# is said and tried again next time.
install_hopper() {
  has_hopper || return 0
  if "$venv/bin/python" -c 'import importlib.metadata as m; m.version("quack-kernels")' 2>/dev/null; then return 0; fi
  say "installing kernels for the GPU (NVIDIA Hopper) …"
  pip_install --no-build-isolation -c "$root/requirements.lock" -e "$root[hopper]" ||
    say "could not install quack-kernels; the denoiser is 5 % slower without"
}

# Sourced by run_all.sh and test.sh with $root set. It finds Python, makes the virtual environment and installs the
# tested versions. Where they are installed it does nothing, quickly. Progress goes to standard error.
# Python runs isolated (-I), so that a module in the working folder that is called like one of pip's does no harm.

torch_version=2.13.0
xformers_version=0.0.35
venv_mark=.echomimic-venv
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

has_nvidia_gpu() { nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }

has_hopper() { nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -q '^9\.0'; }

# True when the index of PyTorch's CPU builds answers: bounded, so that a closed network costs five seconds.
cpu_index_answers() {
  "$venv/bin/python" -I - "$cpu_index/torch/" >/dev/null 2>&1 <<'PY' &
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
  if "$venv/bin/python" -I -c "
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

pip_install() { "$venv/bin/python" -I -m pip install -qq --disable-pip-version-check "$@" >&2; }

# Set $venv to an absolute path without slashes at its end, so that a link there shows as one.
name_venv() {
  venv=${ECHOMIMIC_VENV:-$root/.venv}
  case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
  while [ "$venv" != "${venv%/}" ]; do venv=${venv%/}; done
  [ -n "$venv" ] || die "ECHOMIMIC_VENV=/ is no place for a virtual environment"
}

# True when this script made $venv, so that it may be emptied and made anew. The mark says so; versions before the
# mark left only stamps, which count in the default place alone, because they are also written into others' folders.
venv_is_ours() {
  if [ -L "$venv" ] || [ ! -d "$venv" ] || [ ! -O "$venv" ] || [ -L "$venv/$venv_mark" ]; then return 1; fi
  if [ -f "$venv/$venv_mark" ]; then return 0; fi
  [ "$venv" = "$root/.venv" ] &&
    { [ -f "$venv/.echomimic-installed-requirements.lock" ] || [ -f "$venv/.echomimic-installed-requirements-dev.lock" ]; }
}

# venv_answers ARGUMENT…: whether $venv's Python succeeds with them. It is tried twice: a machine that is short of
# memory or processes for a moment loses no environment.
venv_answers() {
  [ -x "$venv/bin/python" ] || return 1
  if "$venv/bin/python" "$@" >/dev/null 2>&1; then return 0; fi
  sleep 1
  "$venv/bin/python" "$@" >/dev/null 2>&1
}

refuse_venv() { # refuse_venv WHY: $venv is somebody's
  local advice="name another folder with ECHOMIMIC_VENV"
  if [ -z "${ECHOMIMIC_VENV:-}" ]; then advice="move it away, or $advice"; fi
  die "${ECHOMIMIC_VENV:+ECHOMIMIC_VENV=}$venv $1; this script did not make it, so nothing in it was changed; $advice"
}

# Make $venv, which does not exist, is empty, or is ours and is emptied first. The mark comes before all else, so
# that an environment whose making was interrupted is known as ours. Only the content of the folder is removed, and
# no link is followed.
make_venv() {
  local python
  python=$(find_python) || die "needs Python 3.10 or newer, and found none; install one, or name it: PYTHON=/path/to/python3 $0"
  if ! { mkdir -p -- "$venv" && echo "scripts/setup_env.sh may empty this folder and fill it anew." >"$venv/$venv_mark"; }; then
    die "could not make the folder $venv; name another with ECHOMIMIC_VENV"
  fi
  find "$venv" -mindepth 1 -maxdepth 1 ! -name "$venv_mark" -exec rm -rf -- {} + || die "could not empty $venv"
  say "making a virtual environment in $venv ($("$python" --version 2>&1)) …"
  "$python" -I -m venv "$venv" || die "could not make a virtual environment with $python (on Debian and Ubuntu: apt install python3-venv)"
}

# A Python that answers in $venv: the one that is there, or a new environment where nobody's files are in the way.
ready_venv() {
  if [ ! -e "$venv" ] && [ ! -L "$venv" ]; then make_venv; return; fi
  if venv_answers -c ''; then return; fi
  [ -d "$venv" ] || refuse_venv "is not a folder"
  if venv_is_ours; then
    say "the Python of $venv is gone; making it anew"
  elif [ -e "$venv/pyvenv.cfg" ] || [ -e "$venv/bin/python" ] || [ -L "$venv/bin/python" ]; then
    refuse_venv "is a virtual environment whose Python does not answer"
  elif [ ! -r "$venv" ] || [ -n "$(ls -A -- "$venv")" ]; then
    refuse_venv "is a folder with files, and no virtual environment"
  fi
  make_venv
}

# A pip that answers: an environment of ours without it was interrupted and is made anew; in one of the user's
# Python's own copy is installed.
ready_pip() {
  if venv_answers -I -m pip --version; then return; fi
  if venv_is_ours; then
    say "the environment in $venv has no pip; making it anew"
    make_venv
  else
    "$venv/bin/python" -I -m ensurepip >/dev/null 2>&1 || refuse_venv "has no pip, and its Python cannot install it"
  fi
}

# stamp_of LOCK: names all that an installation depends on: the lock file, the project's place, torch.
stamp_of() {
  cat "$root/$1" "$root/pyproject.toml" | cksum
  printf '%s\n%s\n' "$root" "$torch_version"
}

# install_env LOCK…: a virtual environment with the packages of the lock files, in $venv ($root/.venv unless set).
install_env() {
  local stamp wanted lock
  name_venv
  ready_venv
  # A stamp of its own in an environment of the user's: stamps also say that an old .venv is this script's.
  if venv_is_ours; then stamp=$venv/.echomimic-installed; else stamp=$venv/.echomimic-packages; fi
  for lock in "$@"; do
    wanted=$(stamp_of "$lock")
    if [ "$(cat "$stamp-$lock" 2>/dev/null)" = "$wanted" ]; then continue; fi
    # Versions before the mark wrote this one everywhere.
    if [ "$(cat "$venv/.echomimic-installed-$lock" 2>/dev/null)" = "$wanted" ]; then continue; fi
    ready_pip
    install_torch || die "could not install PyTorch $torch_version"
    say "installing the packages of $lock …"
    pip_install -r "$root/$lock" || die "could not install the packages of $lock"
    pip_install --no-deps --no-build-isolation -e "$root" || die "could not install the project"
    printf '%s' "$wanted" >"$stamp-$lock"
  done
}

# version_of PACKAGE: print its installed version, or fail.
version_of() {
  "$venv/bin/python" -I -c 'import importlib.metadata as m, sys; print(m.version(sys.argv[1]))' "$1" 2>/dev/null
}

# torch_refused_by WHEEL: print the wheel's requirement of torch if the installed one does not meet it, else fail.
torch_refused_by() {
  "$venv/bin/python" -I - "$1" <<'PY'
import email, importlib.metadata, sys, zipfile
from packaging.requirements import Requirement

with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    wanted = map(Requirement, email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist", []))
torch = importlib.metadata.version("torch")
for one in wanted:
    if one.name == "torch" and (one.marker is None or one.marker.evaluate()) and not one.specifier.contains(torch):
        sys.exit(print(one))
sys.exit(1)
PY
}

xformers_works() {
  "$venv/bin/python" -I -c '
import torch, xformers.ops
q = torch.zeros(1, 64, 8, 40, device="cuda", dtype=torch.float16)
xformers.ops.memory_efficient_attention(q, q, q)' >/dev/null 2>&1
}

# install_xformers: after install_env, faster attention where there is an NVIDIA GPU. torch is never replaced: the
# wheel is read first, and installed without its dependencies. It goes again if it does not work, because diffusers
# imports it wherever it is installed. The stamp keeps the answer until a version changes.
install_xformers() {
  local torch stamp=$venv/.echomimic-packages-xformers wheels refused
  has_nvidia_gpu || return 0
  torch=$(version_of torch) || return 0
  if [ "$(cat "$stamp" 2>/dev/null)" = "$xformers_version $torch" ]; then return 0; fi
  if [ ! -e "$stamp" ] && version_of xformers >/dev/null; then return 0; fi  # the user's own
  wheels=$(mktemp -d) || return 0
  if ! "$venv/bin/python" -I -m pip download -qq --disable-pip-version-check --retries 0 --timeout 5 --no-deps \
    --only-binary :all: --dest "$wheels" "xformers==$xformers_version" >/dev/null 2>&1; then
    say "found no wheel of xformers $xformers_version for this machine; attention is torch's own"
  elif refused=$(torch_refused_by "$wheels"/*.whl); then
    say "xformers $xformers_version needs $refused and torch $torch is installed; attention is torch's own"
    printf '%s' "$xformers_version $torch" >"$stamp"
  elif ! pip_install --no-deps --no-index "$wheels"/*.whl; then
    say "could not install xformers $xformers_version; attention is torch's own"
  elif ! xformers_works; then
    "$venv/bin/python" -I -m pip uninstall -qq -y xformers >&2
    say "xformers $xformers_version does not work with torch $torch on this GPU; attention is torch's own"
    printf '%s' "$xformers_version $torch" >"$stamp"
  else
    say "installed xformers $xformers_version: faster attention without --compile-unet"
    printf '%s' "$xformers_version $torch" >"$stamp"
  fi
  rm -rf -- "$wheels"
}

# install_hopper: after install_env, kernels that only such a GPU takes. Everything runs without them, so a failure
# is said and tried again next time.
install_hopper() {
  has_hopper || return 0
  if "$venv/bin/python" -I -c 'import importlib.metadata as m; m.version("quack-kernels")' 2>/dev/null; then return 0; fi
  say "installing kernels for the GPU (NVIDIA Hopper) …"
  pip_install --no-build-isolation -c "$root/requirements.lock" -e "$root[hopper]" ||
    say "could not install quack-kernels; the denoiser is 5 % slower without"
}

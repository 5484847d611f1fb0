# Sourced by run_all.sh and test.sh with $root set. It finds Python, makes the virtual environment and installs the
# tested versions: requirements.lock always, and requirements-torch.lock where a run needs PyTorch. Where they are
# installed it does nothing, quickly. Progress goes to standard error.
# Python runs isolated (-I), so that a module in the working folder that is called like one of pip's does no harm.

torch_version=2.13.0
# The Pythons that this torch has wheels for: 3.10 to 3.14.
oldest_python=10
newest_python=14
xformers_version=0.0.35
venv_mark=.echomimic-venv
# In the environment while it is changed: "making", or "installing". It stays when that is interrupted.
unfinished=.echomimic-unfinished
setup_folder=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
wsl_libraries=/usr/lib/wsl/lib
devices=/dev
nvidia_driver=/proc/driver/nvidia

say() { printf '%s\n' "$*" >&2; }
die() { say "echomimic-live: $*"; exit 1; }

# Python's own settings of where its library is belong to another Python. In an environment they only do harm.
for variable in PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR; do
  if [ -n "${!variable:-}" ]; then say "$variable is left out of this run: the tested packages are in an environment of their own"; fi
  unset "$variable"
done

# python_fits PYTHON: whether the pinned torch has wheels for it.
python_fits() {
  "$1" -I -c "
import sys, sysconfig
fits = (3, $oldest_python) <= sys.version_info[:2] <= (3, $newest_python) and sys.maxsize > 2**32
sys.exit(not fits or sys.implementation.name != 'cpython' or bool(sysconfig.get_config_var('Py_GIL_DISABLED')))" >/dev/null 2>&1
}

# Print the path of a Python that the pinned torch has wheels for, or fail.
find_python() {
  local name
  for name in "${PYTHON:-}" python3 python3.12 python3.11 python3.13 python3.10 python3.14 python; do
    [ -n "$name" ] || continue
    if python_fits "$name"; then
      command -v -- "$name"
      return
    fi
    if [ "$name" = "${PYTHON:-}" ]; then say "PYTHON=$name is not used: $(name_python "$name")"; fi
  done
  # Pythons that uv keeps are not on the path.
  name=$(uv python find --system --no-python-downloads ">=3.$oldest_python,<3.$((newest_python + 1))" 2>/dev/null) &&
    python_fits "$name" && printf '%s\n' "$name"
}

name_python() { # what a Python is, in words
  "$1" -I -c 'import platform, struct, sys; print(
platform.python_implementation(), platform.python_version(), f"({8 * struct.calcsize(chr(80))} bit)", "at", sys.executable)' 2>/dev/null ||
    printf '%s' "it does not run"
}

no_python() { # say which Pythons there are, and which are needed
  local name found=''
  for name in python3 python python3.9 python3.15 pypy3; do
    if command -v -- "$name" >/dev/null; then found=$found${found:+, }$(name_python "$name"); fi
  done
  die "needs Python 3.$oldest_python to 3.$newest_python, the ones that PyTorch $torch_version has wheels for, and found ${found:-none}; install one, or name it: PYTHON=/path/to/python3 $0"
}

# Windows shows /dev/dxg for every GPU. NVIDIA's driver puts its own tool beside.
has_nvidia() {
  if [ -e "$nvidia_driver/version" ] || [ -e "$devices/nvidiactl" ]; then return 0; fi
  [ -e "$devices/dxg" ] && has_nvidia_gpu
}

nvidia_smi() {
  local tool
  for tool in nvidia-smi "$wsl_libraries/nvidia-smi"; do
    if command -v -- "$tool" >/dev/null; then "$tool" "$@" 2>/dev/null; return; fi
  done
  return 1
}

has_nvidia_gpu() { nvidia_smi -L | grep -q '^GPU '; }

# The installer, which is Python's own library alone: uv or pip, the user's index, progress, another try.
installer() { "$venv/bin/python" -I "$setup_folder/run/start.py" scripts.install "$@" >&2; }

pip_install() { installer packages "$@"; }

# Torch with what comes with it. The first index is PyTorch's own for CPUs, so torch comes before the others.
torch_lock=requirements-torch.lock

# The package of which a data file alone is read, by OpenVINO. It asks for torch, which is not wanted with it.
install_voice_detector() {
  local wanted
  wanted=$(grep -m1 '^silero-vad==' "$root/$torch_lock" 2>/dev/null) || return 0
  wanted=${wanted%% *}
  if [ "$(version_of silero-vad)" = "${wanted#*==}" ]; then return 0; fi
  pip_install --no-deps "$wanted" || say "could not install $wanted; only digital silence will count as silence"
}

# OpenVINO has wheels for Linux on these processors. Elsewhere torch serves.
has_openvino() {
  [ "$(uname -s)" = Linux ] || return 1
  case $(uname -m) in x86_64 | aarch64) ;; *) return 1 ;; esac
}

# install_for_run FLAG…: the environment of a run with these flags. ECHOMIMIC_TORCH=1 asks for PyTorch, and 0 forbids
# it. Unset, it is installed where this run needs it, and stays then.
install_for_run() {
  local reason='' asked
  name_venv
  if is_installed requirements.lock "$torch_lock"; then return; fi
  case ${ECHOMIMIC_TORCH:-} in
    1 | true | yes | on) reason="ECHOMIMIC_TORCH=$ECHOMIMIC_TORCH" ;;
    0 | false | no | off) ;;
    *)
      if has_nvidia; then
        reason="an NVIDIA driver is there"
      elif ! has_openvino; then
        reason="OpenVINO has no wheels for $(uname -s) on $(uname -m)"
      fi
      ;;
  esac
  if [ -z "$reason" ]; then
    install_env requirements.lock
    case ${ECHOMIMIC_TORCH:-} in 0 | false | no | off) return ;; esac
    # To find out takes half a second, so the flags that needed nothing are remembered.
    asked=$({ printf '%s\n' "$@"; env | grep '^ECHOMIMIC_' | sort; stamp_of requirements.lock; } | cksum)
    if [ "$(cat "$venv/.echomimic-packages-alone" 2>/dev/null)" = "$asked" ]; then return; fi
    if version_of torch >/dev/null; then return; fi
    reason=$("$venv/bin/python" "$root/scripts/run/start.py" scripts.run.needs "$@") || reason=''
    if [ -z "$reason" ]; then printf '%s' "$asked" >"$venv/.echomimic-packages-alone"; return 0; fi
  fi
  say "this run needs PyTorch ($reason)"
  install_env requirements.lock "$torch_lock"
}

install_torch() {
  if [ "$(version_of torch | cut -d+ -f1)" = "$torch_version" ]; then return 0; fi
  if [ "$(uname -s)" = Linux ] && ! has_nvidia; then
    installer torch "$torch_version" --cpu
  else
    installer torch "$torch_version"
  fi
}

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
  python=$(find_python) || no_python
  if ! { mkdir -p -- "$venv" && echo "scripts/setup_env.sh may empty this folder and fill it anew." >"$venv/$venv_mark"; }; then
    die "could not make the folder $venv; name another with ECHOMIMIC_VENV"
  fi
  find "$venv" -mindepth 1 -maxdepth 1 ! -name "$venv_mark" ! -name "$unfinished" -exec rm -rf -- {} + || die "could not empty $venv"
  echo making >"$venv/$unfinished" || die "could not write in $venv"
  say "making a virtual environment in $venv ($("$python" -I --version 2>&1)) …"
  if ! "$python" -I "$setup_folder/run/start.py" scripts.install venv "$venv" >&2; then
    # Debian has ensurepip in a package of its own. uv needs none.
    { command -v uv >/dev/null && uv --no-config venv --quiet --seed --allow-existing --python "$python" "$venv" >&2; } ||
      die "could not make a virtual environment with $python (on Debian and Ubuntu: apt install python3-venv)"
  fi
  rm -f -- "$venv/$unfinished"
}

# A Python that answers in $venv: the one that is there, or a new environment where nobody's files are in the way.
ready_venv() {
  if [ ! -e "$venv" ] && [ ! -L "$venv" ]; then make_venv; return; fi
  if venv_is_ours && [ "$(cat "$venv/$unfinished" 2>/dev/null)" = making ]; then
    say "the making of $venv was interrupted; making it anew"
    make_venv
    return
  fi
  if venv_answers -I -c ''; then
    if python_fits "$venv/bin/python"; then return; fi
    venv_is_ours || refuse_venv "has a Python that PyTorch $torch_version has no wheels for: $(name_python "$venv/bin/python")"
    say "PyTorch $torch_version has no wheels for the Python of $venv; making it anew"
    make_venv
    return
  fi
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

# stamp_file LOCK: where its stamp is. In an environment of the user's it has a name of its own, because stamps also
# say that an old .venv is this script's.
stamp_file() {
  if venv_is_ours; then printf '%s' "$venv/.echomimic-installed-$1"; else printf '%s' "$venv/.echomimic-packages-$1"; fi
}

# is_installed LOCK…: whether the environment works and holds these packages, by its stamps.
is_installed() {
  local lock wanted
  [ ! -e "$venv/$unfinished" ] || return 1
  for lock in "$@"; do
    wanted=$(stamp_of "$lock")
    # Versions before the mark wrote the second one everywhere.
    [ "$(cat "$(stamp_file "$lock")" 2>/dev/null)" = "$wanted" ] ||
      [ "$(cat "$venv/.echomimic-installed-$lock" 2>/dev/null)" = "$wanted" ] || return 1
  done
  venv_answers -I -c ''
}

# One installation at a time: another one may be at work in this folder, or the rest of one that was killed. The lock
# is the kernel's, on the folder itself, and ends with the processes that hold it.
lock_venv() {
  local python
  python=$(find_python) || return 0  # told later
  if [ ! -e "$venv" ] && [ ! -L "$venv" ]; then mkdir -p -- "$venv" 2>/dev/null; fi
  if [ ! -d "$venv" ] || [ ! -r "$venv" ]; then return 0; fi
  exec 9<"$venv"
  if ! "$python" -I -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null; then
    say "another installation works in $venv; waiting for it …"
    "$python" -I -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null
  fi
}

# Only an environment is installed into, never a whole system.
check_venv() {
  if [ -f "$venv/pyvenv.cfg" ] || { [ -d "$venv/conda-meta" ] && [ ! -d "$venv/condabin" ]; }; then return 0; fi
  refuse_venv "has a Python and is no virtual environment"
}

# install_env LOCK…: a virtual environment with the packages of the lock files, in $venv ($root/.venv unless set).
install_env() {
  local lock missing=()
  name_venv
  if is_installed "$@"; then return 0; fi
  lock_venv
  ready_venv
  if [ $# -gt 0 ] && ! is_installed "$@"; then
    check_venv
    ready_pip
    if [ -e "$venv/$unfinished" ]; then
      installer repair "$(cat "$venv/$unfinished")" || die "could not repair $venv"
    fi
    for lock in "$@"; do is_installed "$lock" || missing+=("$lock"); done
    date +%s >"$venv/$unfinished" || die "could not write in $venv"
    for lock in "${missing[@]}"; do
      if [ "$lock" = "$torch_lock" ]; then
        install_torch || die "could not install PyTorch $torch_version for $(name_python "$venv/bin/python")"
      fi
      say "installing the packages of $lock …"
      pip_install -r "$root/$lock" || die "could not install the packages of $lock"
      if [ "$lock" = requirements.lock ]; then
        install_voice_detector
        pip_install --no-deps --no-build-isolation -e "$root" || die "could not install the project"
      fi
      stamp_of "$lock" >"$(stamp_file "$lock")"
    done
    rm -f -- "$venv/$unfinished"
  fi
  exec 9>&-
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
  if ! installer pip download -qq --retries 0 --timeout 5 --no-deps \
    --only-binary :all: --dest "$wheels" "xformers==$xformers_version" 2>/dev/null; then
    say "found no wheel of xformers $xformers_version for this machine; attention is torch's own"
  elif refused=$(torch_refused_by "$wheels"/*.whl); then
    say "xformers $xformers_version needs $refused and torch $torch is installed; attention is torch's own"
    printf '%s' "$xformers_version $torch" >"$stamp"
  elif ! pip_install --no-deps --no-index "$wheels"/*.whl; then
    say "could not install xformers $xformers_version; attention is torch's own"
  elif ! xformers_works; then
    installer pip uninstall -qq -y xformers
    say "xformers $xformers_version does not work with torch $torch on this GPU; attention is torch's own"
    printf '%s' "$xformers_version $torch" >"$stamp"
  else
    say "installed xformers $xformers_version: faster attention without --compile-unet"
    printf '%s' "$xformers_version $torch" >"$stamp"
  fi
  rm -rf -- "$wheels"
}

#!/usr/bin/env bash
# Trains the bundled model, in pieces: every step that is done is written down, and the next call goes on behind it.
#
#   scripts/train_bundled.sh                      # all of it, from nothing, on a CUDA GPU (about 100 minutes on an H200)
#   scripts/train_bundled.sh --budget 25          # only steps that fit into 25 minutes; call it again for the rest
#   scripts/train_bundled.sh --plan continue      # further from the weights in demo/bundled/model
#   scripts/train_bundled.sh --plan fine          # the decoder alone, for pictures of both sizes, seven minutes
#   scripts/train_bundled.sh --plan sharp         # VAE and denoiser together at 512², 29 minutes on one H200 or two
#   scripts/train_bundled.sh --plan cpu           # the same without a GPU: clips are drawn and encoded once
#
# --gpus N        train on N GPUs of this machine together (default 1)
# --state DIR     the training state (default weights/bundled-training, not tracked)
# --export        write the weights to demo/bundled/model after each step (default: after the last)
# --dry-run       say what would be done
# PYTHON=…        the Python to use (default .venv's, else python3); it needs torch, diffusers, numpy, safetensors, yaml
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"

plan=scratch state=weights/bundled-training budget=0 gpus=1 export=last dry=
die() { echo "train_bundled: $*" >&2; exit 2; }
value() { [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value"; }
while [ $# -gt 0 ]; do
  case $1 in
    --plan) value "$@"; plan=$2; shift 2 ;;
    --state) value "$@"; state=$2; shift 2 ;;
    --budget) value "$@"; budget=$2; shift 2 ;;
    --gpus) value "$@"; gpus=$2; shift 2 ;;
    --export) export=each; shift ;;
    --dry-run) dry=yes; shift ;;
    -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown argument $1; --help lists them" ;;
  esac
done
case $budget in *[!0-9]* | '') die "--budget takes whole minutes, not '$budget'" ;; esac
case $gpus in *[!0-9]* | '' | 0) die "--gpus takes a number of GPUs, not '$gpus'" ;; esac

speech=demo/factory/speech/build/speech.npz speech_size=
figure=demo/factory/figure/build/identities.npz figure_size=
# Step: name, stage, minutes, further arguments. The VAE comes first because it is the ceiling of all that follows;
# its second step has a falling rate. `denoiser` trains the decoder along, and `sharpen` strengthens its outlines.
sharpen="sharpen sharpen 22 0.35 --batch 24 --lr 2.5e-4 --final-lr 5e-6 --seed 802 --tracks 16"
case $plan in
  scratch) steps=(
    "vae-1 vae 8 --batch 256 --lr 1e-3 --final-lr 3e-4"
    "vae-2 vae 6 --batch 256 --lr 8e-4 --final-lr 3e-5 --seed 1"
    "listen listen 3 --seed 8 --start"
    "denoiser-1 denoiser 9 --batch 64 --lr 1e-3 --final-lr 5e-4 --seed 2"
    "denoiser-2 denoiser 9 --batch 64 --lr 8e-4 --final-lr 3e-4 --seed 3"
    "denoiser-3 denoiser 9 --batch 64 --lr 6e-4 --final-lr 1e-5 --seed 4"
    "$sharpen"
  ) ;;
  continue) steps=(
    "more-denoiser denoiser 18 --batch 64 --lr 6e-4 --final-lr 1e-5 --seed 102"
    "$sharpen"
  ) ;;
  fine) steps=(
    "fine-decoder decoder 6 --batch 64 --lr 8e-4 --final-lr 1e-5 --seed 900 --tracks 48 --memory 8192"
  ) ;;
  sharp)
    speech=demo/factory/speech/build/long.npz speech_size="--scale 9 --opus"
    figure=demo/factory/figure/build/large.npz figure_size="--size 768 --extra 1400 --avatars demo/factory/figure/build/avatars"
    steps=(
    "sharp-listen listen 3 --batch 512 --seed 5100"
    "sharp-vae sharp 3 --vae-share 1 --lr 6e-4 --final-lr 2e-5 --seed 5100 --tracks 64"
    "sharp sharp 18 --vae-share 0 --batch 24 --lr 7e-4 --final-lr 1e-5 --seed 9300 --tracks 64"
    "sharp-level level 0 --seed 5 --tracks 8 --contrast 1.02"
  ) ;;
  cpu) steps=(
    "listen-cpu listen 30 --batch 64 --seed 24"
    "cache-1 cache 30 --seed 21"
    "cache-2 cache 30 --seed 22"
    "tune-1 tune 90 --lr 5e-4 --final-lr 5e-5 --seed 23"
    "decoder-cpu decoder 55 --lr 5e-4 --final-lr 1e-5 --seed 50 --tracks 16"
  ) ;;
  *) die "--plan is scratch, continue, fine, sharp or cpu, not '$plan'" ;;
esac

python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
run() { echo "+ $*" >&2; [ -n "$dry" ] || "$@"; }
# networks.json comes last: where it is, the copy is whole.
copy_state() { run cp -- "$state"/*.safetensors "$state/vae.json" "$state/networks.json" "$1/"; }

# The training data. Both files are built once, from fixed seeds.
# shellcheck disable=SC2086  # sizes are words
[ -f "$figure" ] || run "$python" -m demo.factory.figure.make_identities --output "$figure" $figure_size
# shellcheck disable=SC2086
[ -f "$speech" ] || run "$python" -m demo.factory.speech.make_speech --out "$speech" $speech_size

done_file=$state/steps.done
[ -n "$dry" ] || { mkdir -p "$state"; touch "$done_file"; }
if [ "$plan" != scratch ] && [ ! -f "$state/networks.json" ]; then
  run "$python" -m demo.factory.train.from_export --state "$state"
fi

export OMP_WAIT_POLICY=PASSIVE
# One process a GPU. Each sees its own alone, so that code compiled for one serves all.
train() {
  local rank
  case $1 in
    vae | denoiser | sharp | listen) ;;
    *) run "$python" -m demo.factory.train "$@"; return ;;
  esac
  if [ "$gpus" -eq 1 ]; then run "$python" -m demo.factory.train "$@"; return; fi
  local pids=()
  for ((rank = 0; rank < gpus; rank++)); do
    CUDA_VISIBLE_DEVICES=$rank run "$python" -m demo.factory.train "$@" --rank "$rank" --processes "$gpus" &
    pids+=($!)
  done
  for ((rank = 0; rank < gpus; rank++)); do
    wait -n || { kill "${pids[@]}" 2>/dev/null || true; die "a training process failed"; }
  done
}
# With all of it, outlines are as strong as drawn ones, but parts that should stay differ more (docs/lab/bundled-model.md).
sharpen() {  # share of the way that is kept, minutes, further arguments
  local share=$1 minutes=$2
  shift 2
  local mark=$state/sharpened/.echomimic-sharpened
  if [ -e "$state/sharpened" ] && { [ -L "$state/sharpened" ] || [ ! -f "$mark" ]; }; then
    die "this script did not make $state/sharpened; move it away, or choose another --state"
  fi
  run rm -rf -- "$state/sharpened"
  run mkdir "$state/sharpened"
  run touch "$mark"
  copy_state "$state/sharpened"
  run "$python" -m demo.factory.train decoder --state "$state/sharpened" --minutes "$minutes" "$@"
  run "$python" -m demo.factory.train blend --state "$state" --other "$state/sharpened" --share "$share" \
    --whole decoder.fine.
  run rm -rf -- "$state/sharpened"
}
spent=0 trained=
for step in "${steps[@]}"; do
  read -r name stage minutes arguments <<<"$step"
  share=
  if [ "$stage" = sharpen ]; then read -r share arguments <<<"$arguments"; fi
  if [ -f "$done_file" ] && grep -qx -- "$name" "$done_file"; then continue; fi
  if [ "$budget" -gt 0 ] && [ $((spent + minutes)) -gt "$budget" ]; then
    echo "train_bundled: $name does not fit into the budget any more; call again to go on" >&2
    break
  fi
  # shellcheck disable=SC2086  # the arguments of a step are words
  if [ "$stage" = sharpen ]; then sharpen "$share" "$minutes" $arguments; else
    train "$stage" --state "$state" --minutes "$minutes" --figure "$figure" --speech "$speech" $arguments
  fi
  spent=$((spent + minutes)) trained=yes
  [ -n "$dry" ] || echo "$name" >>"$done_file"
  if [ "$export" = each ] && [ "$stage" != cache ] && [ -n "$dry$(ls "$state/networks.average.safetensors" 2>/dev/null)" ]; then
    run "$python" -m demo.factory.train export --state "$state"
    run "$python" -m demo.factory.calibrate --equalise
  fi
done
if [ -z "$trained" ]; then
  echo "train_bundled: every step of the plan that fits is done (see $done_file)" >&2
elif [ "$export" = last ] && [ -n "$dry$(ls "$state/networks.average.safetensors" 2>/dev/null)" ]; then
  run "$python" -m demo.factory.train export --state "$state"
  run "$python" -m demo.factory.calibrate --equalise
  echo "train_bundled: measure it with scripts/evaluate_bundled.sh" >&2
fi

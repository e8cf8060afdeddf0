#!/usr/bin/env bash
# What is asked of a card, in one run of at most nine minutes: whether it opens, whether its kernels, its company and its pictures
# are right, how fast it is beside diffusers, and whether the server works on it. Nothing of it has run on a card yet.
#
#   scripts/gpu-kit.sh                        # here, once: packs a folder of its own, gpu-kit, with these scripts in it
#   cd gpu-kit && OUT=results scripts/gpu.sh  # on the machine with the card
#
# The repository is larger than what such a machine may take, so carry the folder alone: begin a repository of its own in it
# (`git init`) where the carrier takes the files of a checkout, and start the session there.
# KIT is the folder with gpu-check, gpu-tests, pentimento and wheels, or packed.tar.xz with all four; what of it is missing is
# left out.
# OUT gets summary.txt and results.tar, both written anew after each step: a log and a JSON document for each. A step that fails, or
# is too slow, never stops the others; all of them together take at most nine minutes.
# GPU_SCRIPT_REHEARSE=1 does all of it on the emulated device, with the smallest networks.
set -u

HERE=$(cd "$(dirname "$0")" && pwd)
KIT=${KIT:-$HERE/..}
RESULTS=${OUT:-gpu-results}
REHEARSE=${GPU_SCRIPT_REHEARSE:-0}
PYTHON=${PYTHON:-python3}
ALL=540
mkdir -p "$RESULTS"
# Few files come back from such a machine.
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT
summary=$OUT/summary.txt
: > "$summary"
begun=$(date +%s)

if [ "$REHEARSE" = 1 ]; then
    device=emulated
    check=(--device emulated --shape tiny --size 64 --out "$OUT")
    sdxl=(--device emulated --shape tiny-sdxl --size 64 --out "$OUT/sdxl")
else
    device=cuda:0
    check=(--device cuda:0 --shape sd15 --size 512 --out "$OUT")
    sdxl=(--device cuda:0 --shape sdxl --size 1024 --out "$OUT/sdxl")
fi

# NVIDIA's libraries: those of an environment with torch, where nothing else is said.
if [ -z "${NVIDIA_LIBRARIES:-}" ] && [ "$REHEARSE" != 1 ]; then
    NVIDIA_LIBRARIES=$("$PYTHON" - 2> "$OUT/libraries.log" <<'PY'
import glob, os, site, sys
places = []
for root in site.getsitepackages() + [site.getusersitepackages()]:
    places += sorted(glob.glob(os.path.join(root, "nvidia", "*", "lib")))
    places += sorted(glob.glob(os.path.join(root, "torch", "lib")))
print(":".join(places))
PY
)
fi
[ -n "${NVIDIA_LIBRARIES:-}" ] && export LD_LIBRARY_PATH="$NVIDIA_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# Those of a kit come packed.
if [ -f "$KIT/packed.tar.xz" ] && [ ! -x "$KIT/pentimento" ]; then
    "$PYTHON" -m tarfile -e "$KIT/packed.tar.xz" "$KIT"
fi

say() { echo "$*" | tee -a "$summary"; }

# step NAME SECONDS COMMAND...: its last lines are its answer.
step() {
    local name=$1 limit=$2
    shift 2
    # A rehearsal is not timed: the emulator is slow, and other tests run beside it.
    local left=$((ALL - $(date +%s) + begun))
    if [ "$REHEARSE" = 1 ]; then limit=$((20 * limit)); elif [ "$left" -lt "$limit" ]; then limit=$left; fi
    if [ "$limit" -le 0 ]; then left_out "$name" "the time is over"; return 0; fi
    local start status
    start=$(date +%s)
    timeout --kill-after=5 "$limit" "$@" > "$OUT/$name.log" 2>&1
    status=$?
    local word="ok"
    [ "$status" -eq 0 ] || word="FAILED ($status)"
    [ "$status" -eq 124 ] && word="TOO SLOW"
    say "$name: $word, $(($(date +%s) - start)) s"
    tail -n 8 "$OUT/$name.log" | sed 's/^/    /' >> "$summary"
    bring
    return "$status"
}

bring() {
    cp "$summary" "$RESULTS/summary.txt"
    tar --create --file "$RESULTS/results.tar" --directory "$OUT" .
}

left_out() { say "$1: left out, $2"; }

has() { [ -x "$KIT/$1" ]; }

if has gpu-check; then
    step smoke 60 "$KIT/gpu-check" smoke "${check[@]}"
fi
if has gpu-tests; then
    [ "$REHEARSE" = 1 ] || export PENTIMENTO_TEST_GPU=0
    # Those that plant faults in the emulator, or look for libraries in folders, ask nothing of a card.
    tests=(--test-threads=1 --skip planted --skip plans::tests --skip compile::tests)
    [ "$REHEARSE" = 1 ] && tests+=(ops::tests::elementwise)
    step kernels 90 "$KIT/gpu-tests" "${tests[@]}"
    unset PENTIMENTO_TEST_GPU
else
    left_out kernels "the kit has no gpu-tests"
fi
if has gpu-check; then
    step company 90 "$KIT/gpu-check" company "${check[@]}"
    step exactness 120 "$KIT/gpu-check" exactness "${check[@]}"
    step speed 120 "$KIT/gpu-check" speed "${check[@]}"
    # Two rows of true shapes, with weights of a seed, so that nothing is carried for it.
    step speed-sdxl 90 "$KIT/gpu-check" speed "${sdxl[@]}"
else
    left_out gpu-check "the kit has none"
fi
[ -d "$KIT/wheels" ] && export PYTHONPATH="$KIT/wheels${PYTHONPATH:+:$PYTHONPATH}"
if "$PYTHON" -c 'import torch, diffusers' 2> /dev/null; then
    baseline=("$HERE/gpu_baseline.py" --out "$OUT/baseline.json")
    [ "$REHEARSE" = 1 ] && baseline+=(--rehearse)
    step baseline 170 "$PYTHON" "${baseline[@]}"
else
    left_out baseline "there is no torch with diffusers"
fi
if ! has pentimento; then
    left_out server "the kit has no pentimento"
elif ! command -v curl > /dev/null || ! command -v "$PYTHON" > /dev/null; then
    left_out server "there is no curl or no Python"
else
    step server 90 env KIT="$KIT" OUT="$OUT" DEVICE="$device" REHEARSE="$REHEARSE" bash "$HERE/gpu_server.sh"
fi
if has gpu-tests && command -v compute-sanitizer > /dev/null && [ "$REHEARSE" != 1 ]; then
    export PENTIMENTO_TEST_GPU=0
    for tool in memcheck racecheck; do
        step "sanitizer-$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$KIT/gpu-tests" --test-threads=1 ops::tests::norm
    done
    unset PENTIMENTO_TEST_GPU
else
    left_out sanitizer "there is no compute-sanitizer, or no card"
fi
say "all: $(($(date +%s) - begun)) s on $device, results in $RESULTS"
bring
! grep -qE 'FAILED|TOO SLOW' "$summary"

#!/usr/bin/env bash
# Packs what scripts/gpu.sh needs on a machine with a card and without Cargo: gpu-check, the tests of the crate gpu and the
# server, as release builds with CUDA, the scripts, and diffusers for the baseline; in a folder of its own, gpu-kit.
set -eu
cd "$(dirname "$0")/.."
kit=${1:-gpu-kit}
most=$((60 << 20))
mkdir -p "$kit/scripts" "$kit/wheels"
cargo build --release --locked --package pentimento-gpu-check --features cuda
cargo build --release --locked --package pentimento-cli --features cuda
tests=$(cargo test --release --locked --package pentimento-gpu --lib --no-run --message-format=json \
    | sed -n 's/.*"executable":"\([^"]*pentimento_gpu-[^"]*\)".*/\1/p' | tail -n 1)
objcopy --strip-all target/release/gpu-check "$kit/gpu-check"
objcopy --strip-all target/release/pentimento "$kit/pentimento"
objcopy --strip-all "$tests" "$kit/gpu-tests"
cp scripts/gpu.sh scripts/gpu_server.sh scripts/gpu_baseline.py "$kit/scripts/"
# As a folder that Python imports from: torch and what it needs are there.
python3 -m pip install --quiet --no-deps --target "$kit/wheels" diffusers==0.42.1 requests idna charset-normalizer importlib_metadata
bytes=$(du --bytes --summarize "$kit" | cut -f1)
echo "$kit: $bytes bytes"
if [ "$bytes" -gt "$most" ]; then
    echo "more than $most bytes: the machine does not take it" >&2
    exit 1
fi

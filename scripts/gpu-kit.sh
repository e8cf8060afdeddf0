#!/usr/bin/env bash
# Packs what scripts/gpu.sh needs on a machine with a card and without Cargo: gpu-check, the tests of the crate gpu and the
# server, as release builds with CUDA, in a folder gpu-kit and an archive of it.
set -eu
cd "$(dirname "$0")/.."
kit=${1:-gpu-kit}
mkdir -p "$kit"
cargo build --release --locked --package pentimento-gpu-check --features cuda
cargo build --release --locked --package pentimento-cli --features cuda
tests=$(cargo test --release --locked --package pentimento-gpu --lib --no-run --message-format=json \
    | sed -n 's/.*"executable":"\([^"]*pentimento_gpu-[^"]*\)".*/\1/p' | tail -n 1)
objcopy --strip-all target/release/gpu-check "$kit/gpu-check"
objcopy --strip-all target/release/pentimento "$kit/pentimento"
objcopy --strip-all "$tests" "$kit/gpu-tests"
tar --create --file - "$kit" | xz -T0 > "$kit.tar.xz"
ls -l "$kit" "$kit.tar.xz"

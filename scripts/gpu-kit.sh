#!/usr/bin/env bash
# Packs what scripts/gpu.sh needs on a machine with a card and without Cargo: gpu-check, the tests of the crate gpu and the
# server, built as for an image with CUDA, the scripts, and diffusers for the baseline; in a folder of its own, gpu-kit. Both
# are packed, since the machine takes little; gpu.sh unpacks them.
set -eu
cd "$(dirname "$0")/.."
kit=${1:-gpu-kit}
most=$((60 << 20))
mkdir -p "$kit/scripts"
programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
# The same build as the image's, so that what is there of it is not compiled again.
PENTIMENTO_FOR_IMAGE=1 cargo build --profile dist --locked --bin pentimento --features cuda
PENTIMENTO_FOR_IMAGE=1 cargo build --profile dist --locked --package pentimento-gpu-check --features cuda
tests=$(cargo test --profile dist --locked --package pentimento-gpu --lib --no-run --message-format=json \
    | sed -n 's/.*"executable":"\([^"]*pentimento_gpu-[^"]*\)".*/\1/p' | tail -n 1)
objcopy --strip-all target/dist/gpu-check "$programs/gpu-check"
objcopy --strip-all target/dist/pentimento "$programs/pentimento"
objcopy --strip-all "$tests" "$programs/gpu-tests"
# As a folder that Python imports from: torch and what it needs are there.
python3 -m pip install --quiet --no-deps --no-compile --target "$programs/wheels" \
    diffusers==0.42.1 requests idna charset-normalizer importlib_metadata
# A window that is larger than a program finds the networks that several have in them.
XZ_OPT=-9 tar --create --xz --file "$kit/packed.tar.xz" --directory "$programs" gpu-check pentimento gpu-tests wheels
cp scripts/gpu.sh scripts/gpu_server.sh scripts/gpu_baseline.py "$kit/scripts/"
bytes=$(du --bytes --summarize "$kit" | cut -f1)
echo "$kit: $bytes bytes"
if [ "$bytes" -gt "$most" ]; then
    echo "more than $most bytes: the machine does not take it" >&2
    exit 1
fi

#!/usr/bin/env bash
# Installs the peers from the package registry into a virtual environment: setup.sh VENV [--without-sdcpp]
#
# The folder is made when it is not there; CLIP's vocabulary for build_models.py goes into VENV/vocabulary. A torch that is already in it stays, so a build without CUDA can be put
# there first. stable-diffusion.cpp is compiled for this processor, which takes minutes; it needs a C++ compiler.
set -euo pipefail

usage="usage: setup.sh VENV [--without-sdcpp]"
venv="${1:?$usage}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

sdcpp=yes
case "${2:-}" in
    "") ;;
    --without-sdcpp) sdcpp=no ;;
    *) echo "$usage" >&2; exit 2 ;;
esac

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
venv="$(cd "$venv" && pwd)"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

"$venv/bin/python" -c "import torch" 2>/dev/null || pip install "torch==2.15.0"
pip install --requirement "$here/requirements.txt"
# Without it diffusers holds every weight twice while it loads. Alone, because it asks for all that torch asks for.
pip install --no-deps accelerate==1.15.0
pip download --no-deps --dest "$venv/vocabulary" clip-anytorch==2.6.0

if [ "$sdcpp" = yes ]; then
    # Its own build chain from the venv: no system packages. Video and WebP are not measured, so they are left out.
    PATH="$venv/bin:$PATH" \
        CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DGGML_OPENMP=ON -DSD_WEBP=OFF -DSD_WEBM=OFF" \
        "$venv/bin/python" -m pip --disable-pip-version-check install --no-build-isolation \
        "stable-diffusion-cpp-python==0.4.7"
fi

"$venv/bin/python" - <<'PY'
from importlib.metadata import PackageNotFoundError, version

for name in ("torch", "diffusers", "transformers", "openvino", "openvino-genai", "stable-diffusion-cpp-python"):
    try:
        print(f"{name} {version(name)}")
    except PackageNotFoundError:
        print(f"{name} is not installed")
PY

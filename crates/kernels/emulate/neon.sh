#!/usr/bin/env bash
# Runs an aarch64 Linux executable under qemu's user-mode emulation, as a cargo runner: neon.sh EXECUTABLE [ARGS...]
#
# Input, output, environment, working folder and exit status are the program's own; 125: it could not be run.
#
#   EMU_CPU      qemu's CPU model (default: cortex-a72, which has what every 64-bit ARM processor has and no more;
#                max has all that qemu knows)
#   EMU_TIMEOUT  seconds (default: 1200); past it the exit status is 124
set -euo pipefail

die() { printf 'neon.sh: %s\n' "$*" >&2; exit 125; }

[ $# -ge 1 ] || die 'usage: neon.sh EXECUTABLE [ARGS...]'
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || die 'install qemu-user-static'

# Where the loader and libc of a dynamically linked executable lie; a static one does not look there.
sysroot=()
if command -v aarch64-linux-gnu-gcc >/dev/null; then
    libc=$(aarch64-linux-gnu-gcc -print-file-name=libc.so.6)
    [ ! -f "$libc" ] || sysroot=(-L "$(cd "$(dirname "$libc")/.." && pwd)")
fi

# --foreground: Ctrl-C still reaches the program.
exec timeout --foreground "${EMU_TIMEOUT:-1200}" \
    "$qemu" -cpu "${EMU_CPU:-cortex-a72}" ${sysroot[@]+"${sysroot[@]}"} "$@"

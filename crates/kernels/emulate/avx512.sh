#!/usr/bin/env bash
# Runs an x86-64 Linux executable on an emulated CPU with AVX-512, as a cargo runner: avx512.sh EXECUTABLE [ARGS...]
#
# qemu knows no AVX-512. Bochs does, but only as a whole machine: it boots a Linux kernel whose initramfs holds the
# executable, and the output comes back over two serial ports. Standard input is empty; output and exit status are the
# program's own; 125: it could not be run.
#
#   EMU_KERNEL   the kernel to boot, a bzImage that can read an initramfs and serial ports (default: vmlinuz in
#                EMU_WORK, which is fetched with apt-get on a first run)
#   EMU_WORK     folder for the kernel and for what a run needs (default: avx512-emulator in the user's cache)
#   EMU_CPU      Bochs's CPU model (default: corei7_skylake_x, AVX-512 F CD VL BW DQ; corei7_haswell_4770: AVX2)
#   EMU_TIMEOUT  seconds (default: 1200); past it the exit status is 124
#   EMU_KEEP     if set, the run's folder with its logs is kept and named
set -euo pipefail

die() { printf 'avx512.sh: %s\n' "$*" >&2; exit 125; }

[ $# -ge 1 ] || die 'usage: avx512.sh EXECUTABLE [ARGS...]'
exe=$1
shift
[ -f "$exe" ] || die "no such file: $exe"

# --- what is needed ---
for tool in bochs-bin xorriso cpio gzip script dpkg; do
    command -v "$tool" >/dev/null || die "$tool is missing; README.md beside this script lists the packages"
done
packaged() { # a package and the end of a path: its first such file
    local files
    files=$(dpkg -L "$1" 2>/dev/null | grep -- "$2\$") || die "no $2: install $1"
    printf '%s\n' "${files%%$'\n'*}"
}
busybox=$(packaged busybox-static /busybox)
isolinux=$(packaged isolinux /isolinux.bin)
ldlinux=$(packaged syslinux-common /bios/ldlinux.c32)
bios=$(packaged bochsbios /BIOS-bochs-latest)
vgabios=$(packaged vgabios /vgabios.bin)

work=${EMU_WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/avx512-emulator}
mkdir -p "$work"
dir=$(mktemp -d "$(cd "$work" && pwd)/run.XXXXXX")
end() { if [ -n "${EMU_KEEP:-}" ]; then printf 'avx512.sh: kept %s\n' "$dir" >&2; else rm -rf "$dir"; fi; }
trap end EXIT

kernel=${EMU_KERNEL:-$work/vmlinuz}
if [ -z "${EMU_KERNEL:-}" ] && [ ! -f "$kernel" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: *\(linux-image-.*\)/\1/p' | head -n 1) || true
    [ -n "$package" ] || die 'apt knows no linux-image-cloud-amd64: run apt-get update, or set EMU_KERNEL'
    # Unpacked only: nothing of it is installed here.
    (cd "$dir" && apt-get -qq download "$package" && dpkg-deb -x "$package"_*.deb kernel) >"$dir/apt.log" 2>&1 ||
        { cat "$dir/apt.log" >&2; die "cannot fetch $package"; }
    # Moved into place at once, because other runs may be looking for it.
    mv "$dir"/kernel/boot/vmlinuz-* "$kernel"
    rm -rf "$dir/kernel" "$dir"/*.deb
fi

# --- the guest's files ---
root=$dir/root
mkdir -p "$root"/{bin,proc,sys,dev,tmp} "$dir/iso"
cp "$busybox" "$root/bin/busybox"
cp -L "$exe" "$root/program"
# The initramfs lies in the guest's memory. What names the functions of a backtrace stays.
strip --strip-debug "$root/program" 2>/dev/null || true
# Its libraries; nothing for a static executable.
ldd "$exe" 2>/dev/null | grep -o '/[^ ()]*' | sort -u | while read -r library; do
    [ ! -f "$library" ] || cp -L --parents "$library" "$root"
done || true

quote() { printf "'%s' " "${1//\'/\'\\\'\'}"; }
{
    for name in $(compgen -e | grep -E '^(RUST_|RAYON_|CARGO_)'); do
        printf 'export %s=' "$name"
        quote "${!name}"
        echo
    done
    printf 'exec /program '
    for argument in "$@"; do quote "$argument"; done
    echo
} >"$root/run.sh"

cat >"$root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
$b stty -F /dev/ttyS0 raw 115200
$b stty -F /dev/ttyS1 raw 115200
export HOME=/tmp TMPDIR=/tmp
echo '@@begin' >/dev/ttyS0
# Pipes, so that the program sees no terminal; cat leaves once the port has taken everything.
{
    {
        { $b sh /run.sh </dev/null 3>&- 4>&-; echo $? >/tmp/.status; } | $b cat >&3
    } 2>&1 | $b cat >&4
} 3>/dev/ttyS1 4>/dev/ttyS0
printf '\n@@status %s\n' "$($b cat /tmp/.status)" >/dev/ttyS0
$b poweroff -f
INIT
chmod 755 "$root/init" "$root/program"
(cd "$root" && find . -print0 | cpio --null -o -H newc --quiet -R 0:0 | gzip -1) >"$dir/iso/initrd"

# --- the boot image ---
cp "$kernel" "$dir/iso/vmlinuz"
cp "$isolinux" "$ldlinux" "$dir/iso/"
# clearcpuid: Linux finds the size that Bochs 2.7 states for the compacted XSAVE format wrong, and then does without
# AVX altogether; with the standard format it is content. The rest makes the boot shorter.
cat >"$dir/iso/isolinux.cfg" <<'CFG'
default l
prompt 0
label l
 kernel /vmlinuz
 initrd /initrd
 append console=ttyS0,115200 quiet loglevel=1 panic=-1 clearcpuid=xsaves,xsavec nokaslr mitigations=off cryptomgr.notests random.trust_cpu=on
CFG
xorriso -as mkisofs -quiet -o "$dir/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table "$dir/iso" >"$dir/xorriso.log" 2>&1 ||
    { cat "$dir/xorriso.log" >&2; die 'no boot image'; }

# --- the machine ---
cat >"$dir/bochsrc" <<CFG
config_interface: textconfig
display_library: term
cpu: model=${EMU_CPU:-corei7_skylake_x}, count=1, ips=50000000, reset_on_triple_fault=0
memory: guest=512, host=512
romimage: file=$bios
vgaromimage: file=$vgabios
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
clock: sync=none
com1: enabled=1, mode=file, dev=com1
com2: enabled=1, mode=file, dev=com2
log: bochs.log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
sound: driver=dummy
speaker: enabled=0
CFG
# Debian builds Bochs with its debugger, which waits for the command to go on.
echo c >"$dir/go"
touch "$dir/com1" "$dir/com2"
# script: the text screen wants a terminal. The exit status says nothing, because Bochs takes power-off for a failure.
outcome=0
(cd "$dir" && TERM=xterm exec timeout -k 10 "${EMU_TIMEOUT:-1200}" \
    script -qec 'bochs-bin -q -f bochsrc -rc go' screen </dev/null >/dev/null 2>&1) &
emulator=$!
trap 'kill "$emulator" 2>/dev/null || true' INT TERM HUP
wait "$emulator" || outcome=$?
trap - INT TERM HUP

cat "$dir/com2"
status=$(sed -n 's/^@@status \([0-9][0-9]*\)$/\1/p' "$dir/com1" | tail -n 1)
# Between the marks is what the program wrote to standard error; the second one begins a new line.
sed -e '0,/^@@begin/d' -e '/^@@status /,$d' "$dir/com1" | sed -e '${/^$/d}' >&2
[ -z "$status" ] || exit "$status"
[ "$outcome" != 124 ] || { echo "avx512.sh: still running after ${EMU_TIMEOUT:-1200} s" >&2; exit 124; }
tail -n 20 "$dir/com1" "$dir/bochs.log" >&2 || true
die 'the guest ended without a status'

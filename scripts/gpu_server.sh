#!/usr/bin/env bash
# A step of gpu.sh: the server on the device, twenty pictures one after the other, thirty-two at once, and one with too little memory.
set -eu

data=$(mktemp -d)
trap 'kill $server 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$data"' EXIT
one_by_one=20 at_once=32 patience=60
[ "$REHEARSE" = 1 ] && one_by_one=2 at_once=3 patience=1200

# A picture of 64x64 as a PNG, so that nothing is needed beside the kit.
"${PYTHON:-python3}" - > "$data/body.json" <<'PY'
import base64, json, struct, zlib
side = 64
lines = b"".join(b"\0" + bytes(v for x in range(side) for v in (x * 4, y * 4, 128)) for y in range(side))
chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
print(json.dumps({"model_name": "demo", "prompt": "the sea", "input_image": base64.b64encode(png).decode(), "steps": 2, "seed": 1}))
PY

start() {
    : > "$data/said"
    "$KIT/pentimento" serve --listen 127.0.0.1:0 --admin-listen none --data "$data/server" --device "$DEVICE" "$@" \
        > "$data/said" 2>> "$OUT/server-stderr.log" &
    server=$!
    for _ in $(seq $((10 * patience))); do
        base=$(sed -n 's/^listening on //p' "$data/said")
        [ -n "$base" ] && return 0
        kill -0 "$server" 2> /dev/null || { echo "the server has ended"; return 1; }
        sleep 0.1
    done
    echo "the server does not listen"
    return 1
}
ask() { curl -sS --max-time "$patience" -o "$1" -w '%{http_code} %{time_total}\n' -H 'Content-Type: application/json' \
    --data-binary "@$data/body.json" "$base/v3/lcm-img2img"; }

start
for number in $(seq "$one_by_one"); do ask "$data/one-$number"; done > "$data/times"
good=$(grep -c '^200 ' "$data/times" || true)
echo "one by one: $good of $one_by_one, median $(sort -k2 -n "$data/times" | awk '{t[NR]=$2} END {print t[int((NR+1)/2)]}') s"
[ "$good" = "$one_by_one" ]
begun=$(date +%s.%N)
pids=()
for number in $(seq "$at_once"); do ask "$data/all-$number" > "$data/code-$number" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; done
good=$(cat "$data"/code-* | grep -c '^200 ' || true)
echo "at once: $good of $at_once in $(awk -v a="$begun" -v b="$(date +%s.%N)" 'BEGIN {printf "%.2f", b - a}') s"
[ "$good" = "$at_once" ]
curl -sS "$base/v1/models" > "$OUT/server-models.json"
kill "$server" && wait "$server" || true

# Too little for the weights.
start --gpu-memory "$([ "$REHEARSE" = 1 ] && echo 256KiB || echo 8MiB)"
code=$(ask "$data/full" | cut -d' ' -f1)
ready=$(curl -sS -o /dev/null -w '%{http_code}' "$base/readyz")
echo "with too little memory: $code, and then ready $ready"
[ "$code" != 200 ] && [ "$ready" = 200 ]

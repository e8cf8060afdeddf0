#!/usr/bin/env python3
"""How long a small picture takes alone, beside a large one, and beside a flood of another key.

Starts a server of its own from a binary, with the embedded model and two keys, and sends Novita's LCM calls. Needs
nothing but Python. The small picture is 64x64 with 4 steps; its caller sends the next one when it has an answer.
"""

import argparse
import base64
import json
import os
import statistics
import struct
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib

KEYS = {"many": "sk_many_0123456789", "one": "sk_one_0123456789"}


def png(side):
    """A picture with something in it, as base64."""
    rows = b"".join(
        b"\0" + bytes(v for x in range(side) for v in ((x * 3) % 256, (y * 5) % 256, (x ^ y) % 256))
        for y in range(side)
    )

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


def call(base, key, picture, steps, seed, model):
    """Seconds until the answer, and its status."""
    body = {
        "model_name": model,
        "input_image": picture,
        "prompt": "a red house under a blue sky",
        "steps": steps,
        "strength": 1,
        "seed": seed,
    }
    request = urllib.request.Request(
        base + "/v3/lcm-img2img",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer " + KEYS[key]},
    )
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=1200) as reply:
            reply.read()
            status = reply.status
    except urllib.error.HTTPError as error:
        status = error.code
    return time.monotonic() - begun, status


def start(binary, folder, arguments):
    keys = [part for label, secret in KEYS.items() for part in ("--key", f"{label}={secret}")]
    server = subprocess.Popen(
        [binary, "serve", "--listen", "127.0.0.1:0", "--data", folder + "/data", *keys, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=open(folder + "/log", "w"),
        text=True,
    )
    return server, server.stdout.readline().split("listening on ")[1].strip()


def summary(times):
    times = sorted(times)
    return {
        "calls": len(times),
        "p50": statistics.median(times),
        "p95": times[min(len(times) - 1, int(len(times) * 0.95))],
        "worst": times[-1],
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("binary")
    arguments.add_argument("--model", default="demo")
    arguments.add_argument("--models", help="a catalogue with that model")
    arguments.add_argument("--calls", type=int, default=40, help="small pictures of each kind")
    arguments.add_argument("--large", type=int, default=1024, help="pixels on a side of the large picture")
    arguments.add_argument("--flood", type=int, default=180, help="jobs of the flood, 64x64 with 8 steps")
    options = arguments.parse_args()
    small, large = png(64), png(options.large)
    results = {}
    options.binary = os.path.abspath(options.binary)
    with tempfile.TemporaryDirectory() as folder:
        extra = ["--models", options.models] if options.models else []
        server, base = start(options.binary, folder, extra)
        try:
            one = lambda seed: call(base, "one", small, 4, seed, options.model)[0]
            big = lambda seed: call(base, "many", large, 8, seed, options.model)[0]
            one(0)
            results["alone"] = summary([one(seed) for seed in range(options.calls)])
            results["the large one alone"] = summary([big(0)])

            # A large picture is always there, in every act of its life.
            stop = threading.Event()
            taken = []

            def keep_one():
                while not stop.is_set():
                    taken.append(big(len(taken)))

            beside = threading.Thread(target=keep_one)
            beside.start()
            time.sleep(0.5)
            times = []
            for seed in range(options.calls):
                times.append(one(seed))
                # The calls come at any moment of the large picture's acts.
                time.sleep(0.013 * (seed % 7))
            results["beside a large one"] = summary(times)
            stop.set()
            beside.join()
            results["the large one beside them"] = summary(taken)

            done = []
            flood = lambda seed: done.append(call(base, "many", small, 8, seed, options.model))
            calls = [threading.Thread(target=flood, args=(seed,)) for seed in range(options.flood)]
            begun = time.monotonic()
            for thread in calls:
                thread.start()
            time.sleep(1.0)
            before = len(done)
            results["beside a flood"] = summary([one(seed) for seed in range(5)])
            results["beside a flood"]["of the flood done in the meantime"] = len(done) - before
            for thread in calls:
                thread.join()
            results["the flood"] = {
                "seconds": time.monotonic() - begun,
                "refused": sum(status == 429 for _, status in done),
            }
        finally:
            server.kill()
            server.wait()
    print("| | calls | p50 ms | p95 ms | worst ms |\n|---|---|---|---|---|")
    for name, row in results.items():
        if "p50" in row:
            print(f"| {name} | {row['calls']} | {row['p50'] * 1e3:.0f} | {row['p95'] * 1e3:.0f} | {row['worst'] * 1e3:.0f} |")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

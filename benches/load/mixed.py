#!/usr/bin/env python3
"""A mixed load: short LCM calls and long guided ones, in two sizes, at random moments; with turns and in the order of
arrival, on the same arrivals, in one run.

Starts servers of its own from one binary, one after the other, with the embedded model or one of a catalogue. "in order"
is `running_jobs = 1`: each job is done before the next begins. The load comes as fast as keeps the device busy for the
given part of the time, as measured by what each kind of call takes alone. Needs nothing but Python.

    cargo build --release
    python3 benches/load/mixed.py target/release/pentimento --minutes 3
"""

import argparse
import json
import os
import random
import tempfile
import threading
import time
import urllib.request

from beside import png, start, summary

KEY = "sk_one_0123456789"


def novita(base, picture, _side, options, seed):
    body = {"model_name": options.model, "input_image": picture, "prompt": "a red house under a blue sky",
            "steps": 4, "strength": 1, "seed": seed}
    post(base + "/v3/lcm-img2img", body)


def modelslab(base, picture, side, options, seed):
    # Without a size the picture would be as large as the model makes them.
    body = {"key": KEY, "model_id": options.model, "init_image": "data:image/png;base64," + picture,
            "prompt": "a red house under a blue sky", "num_inference_steps": str(options.steps), "strength": 1,
            "guidance_scale": 7.5, "width": str(side), "height": str(side), "scheduler": "UniPCMultistepScheduler",
            "seed": seed, "samples": "1"}
    reply = post(base + "/api/v1/enterprise/img2img", body)
    while reply["status"] == "processing":
        # Waits on the server for as long as the first call did.
        reply = post(base + f"/api/v1/enterprise/fetch/{reply['id']}", {"key": KEY})
        time.sleep(0.05)
    assert reply["status"] == "success", reply


def post(address, body):
    request = urllib.request.Request(address, json.dumps(body).encode(),
                                     {"content-type": "application/json", "authorization": "Bearer " + KEY})
    with urllib.request.urlopen(request, timeout=3600) as reply:
        return json.load(reply)


def arrivals(alone, options):
    """Kinds with their moments, in seconds; the same for every server."""
    chance = random.Random(1)
    shares = {("short", side): 0.35 for side in options.sides} | {("long", side): 0.15 for side in options.sides}
    mean = sum(share * alone[kind] for kind, share in shares.items())
    at, found = 0.0, []
    while at < options.minutes * 60:
        at += chance.expovariate(options.busy / mean)
        found.append((at, chance.choices(list(shares), list(shares.values()))[0]))
    return found


def run(calls, base, pictures, options):
    """Seconds of each call by its kind, and of all together."""
    taken, lock, threads = {}, threading.Lock(), []
    begun = time.monotonic()

    def one(kind, seed):
        came = time.monotonic()
        (novita if kind[0] == "short" else modelslab)(base, pictures[kind[1]], kind[1], options, seed)
        with lock:
            taken.setdefault(kind, []).append(time.monotonic() - came)

    for seed, (at, kind) in enumerate(calls):
        time.sleep(max(0.0, begun + at - time.monotonic()))
        threads.append(threading.Thread(target=one, args=(kind, seed)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return taken, time.monotonic() - begun


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--model", default="demo")
    arguments.add_argument("--models", help="a catalogue with that model")
    arguments.add_argument("--sides", type=int, nargs=2, default=[128, 192], help="pixels on a side of the two sizes")
    arguments.add_argument("--steps", type=int, default=31, help="of the long calls")
    arguments.add_argument("--minutes", type=float, default=3, help="of arrivals, for each server")
    arguments.add_argument("--busy", type=float, default=0.7, help="part of the time in which the device has work")
    arguments.add_argument("--rounds", type=int, default=3, help="calls of each kind alone")
    options = arguments.parse_args()
    options.binary = os.path.abspath(options.binary)
    pictures = {side: png(side) for side in options.sides}
    kinds = [(length, side) for length in ("short", "long") for side in options.sides]
    calls, alone, rows = None, {}, []
    for name, jobs in [("turns", "128"), ("in order", "1")]:
        os.environ["PENTIMENTO_RUNNING_JOBS"] = jobs
        with tempfile.TemporaryDirectory() as folder:
            server, base = start(options.binary, folder, ["--models", options.models] if options.models else [])
            try:
                for kind in kinds:
                    call = novita if kind[0] == "short" else modelslab
                    call(base, pictures[kind[1]], kind[1], options, 0)
                    times = []
                    for _ in range(options.rounds):
                        begun = time.monotonic()
                        call(base, pictures[kind[1]], kind[1], options, 0)
                        times.append(time.monotonic() - begun)
                    # Both servers are the same alone; the fairer figure is the first one's.
                    alone.setdefault(kind, sorted(times)[len(times) // 2])
                calls = calls or arrivals(alone, options)
                taken, whole = run(calls, base, pictures, options)
            finally:
                server.kill()
                server.wait()
        for kind in kinds:
            if kind in taken:
                row = summary(taken[kind])
                rows.append((name, kind, row, alone[kind]))
        for length in ("short", "long"):
            # In times of what each would take alone, since the sizes differ.
            times = sorted(t / alone[kind] for kind in kinds if kind[0] == length for t in taken.get(kind, []))
            rows.append((name, (length, "all"), summary(times), 1.0))
        print(f"{name}: {len(calls)} calls in {whole:.1f} s", flush=True)
    print("| order | call | side | calls | p50 s | p95 s | p50 / alone | p95 / alone |\n|---|---|---|---|---|---|---|---|")
    for name, (length, side), row, solo in rows:
        seconds = ("", "") if side == "all" else (f"{row['p50']:.3f}", f"{row['p95']:.3f}")
        print(f"| {name} | {length} | {side} | {row['calls']} | {seconds[0]} | {seconds[1]} "
              f"| {row['p50'] / solo:.2f} | {row['p95'] / solo:.2f} |")


if __name__ == "__main__":
    main()

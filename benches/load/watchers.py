#!/usr/bin/env python3
"""What a thousand readers of one job's events cost, half of whom never read.

Starts a server of its own from a binary, with the embedded model, begins a large ModelsLab job, opens `--watchers` connections
to its `/v1/jobs/{id}/events` with previews, and prints the server's memory for each, what others wait meanwhile, and how fast
the job goes with and without them. Needs Linux and nothing but Python, with a limit of open files above twice the number of
watchers.

    python3 benches/load/watchers.py target/release/pentimento --watchers 1000
"""

import argparse
import json
import os
import re
import resource
import selectors
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from urllib.parse import urlsplit

from beside import KEYS, call, png, start


def memory(process):
    text = open(f"/proc/{process.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def ask(base, path, body=None, method=None):
    headers = {"content-type": "application/json", "authorization": "Bearer " + KEYS["many"]}
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(base + path, data, headers, method=method), timeout=600) as reply:
        return json.loads(reply.read())


def begin(base, side):
    body = {"key": KEYS["many"], "model_id": "demo", "init_image": png(64), "prompt": "a red house", "width": side,
            "height": side, "num_inference_steps": 150, "strength": 1, "guidance_scale": 7.5, "seed": 1,
            "safety_checker": "no", "tomesd": "no"}
    threading.Thread(target=lambda: ask(base, "/api/v1/enterprise/img2img", body), daemon=True).start()
    while True:
        jobs = ask(base, "/v1/jobs?state=running")["jobs"]
        if jobs and jobs[0]["progress"] and jobs[0]["progress"]["done"] > 1:
            return jobs[0]["id"]
        time.sleep(0.05)


def speed(base, job, seconds):
    """Evaluations a second."""
    before, begun = ask(base, f"/v1/jobs/{job}")["progress"]["done"], time.monotonic()
    time.sleep(seconds)
    after = ask(base, f"/v1/jobs/{job}")["progress"]["done"]
    return (after - before) / (time.monotonic() - begun)


def others(base, picture, calls):
    health, pictures = [], []
    for seed in range(calls):
        begun = time.monotonic()
        urllib.request.urlopen(base + "/healthz", timeout=60).read()
        health.append(time.monotonic() - begun)
        seconds, status = call(base, "one", picture, 4, seed, "demo")
        assert status == 200, status
        pictures.append(seconds)
    return statistics.median(health) * 1e3, max(health) * 1e3, statistics.median(pictures) * 1e3


def read(streams, stop, counts):
    ready = selectors.DefaultSelector()
    for stream in streams:
        ready.register(stream, selectors.EVENT_READ)
    while not stop.is_set():
        for key, _ in ready.select(timeout=0.2):
            try:
                data = key.fileobj.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                ready.unregister(key.fileobj)
                continue
            counts["bytes"] += len(data)
            counts["events"] += data.count(b"\nevent: ") + data.startswith(b"event: ")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--watchers", type=int, default=1000)
    arguments.add_argument("--side", type=int, default=768)
    arguments.add_argument("--seconds", type=float, default=10)
    options = arguments.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = 4 * options.watchers
    os.environ.update(PENTIMENTO_MAX_CONNECTIONS=str(connections), PENTIMENTO_STALL_SECONDS="3600",
                      PENTIMENTO_MAX_CONNECTIONS_PER_ADDRESS=str(connections))
    picture = png(64)
    with tempfile.TemporaryDirectory() as folder:
        server, base = start(os.path.abspath(options.binary), folder, [])
        stop = threading.Event()
        try:
            others(base, picture, 3)
            job = begin(base, options.side)
            rows = [("without", speed(base, job, options.seconds), *others(base, picture, 20), memory(server), 0)]
            place = urlsplit(base)
            streams, begun = [], time.monotonic()
            for _ in range(options.watchers):
                stream = socket.create_connection((place.hostname, place.port), timeout=60)
                stream.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n"
                               f"Authorization: Bearer {KEYS['many']}\r\n\r\n".encode())
                streams.append(stream)
            opened = time.monotonic() - begun
            counts = {"bytes": 0, "events": 0}
            threading.Thread(target=read, args=(streams[::2], stop, counts), daemon=True).start()
            time.sleep(2)
            before, begun = counts["events"], time.monotonic()
            quick = speed(base, job, options.seconds)
            events = (counts["events"] - before) / (time.monotonic() - begun)
            rows.append((f"{options.watchers} watch", quick, *others(base, picture, 20), memory(server), events))
            print("| | evaluations/s | healthz ms, median | worst | small picture ms, median | server MiB | events/s read |")
            print("|---|---|---|---|---|---|---|")
            for name, *figures in rows:
                print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
            each = (rows[1][5] - rows[0][5]) * 1024 / options.watchers
            print(f"{each:.1f} KiB of the server's memory for each watcher; all connected within {opened:.1f} s")
            ask(base, f"/v1/jobs/{job}", method="DELETE")
        finally:
            stop.set()
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()

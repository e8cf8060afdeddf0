#!/usr/bin/env python3
"""What a request costs beside the device's work on it: PNG in, PNG out.

Starts a server of its own from a binary, with the embedded model, and sends one Novita call after the other. The time that
the device has worked is read from `pentimento_device_seconds_total` before and after; the rest of the caller's time is the
server's and the machine's. Needs nothing but Python, and a machine without other work.

    python3 benches/load/overhead.py target/release/pentimento --calls 30
"""

import argparse
import http.client
import json
import os
import re
import statistics
import tempfile
import time
from urllib.parse import urlsplit

from beside import png, start

KEY = "sk_one_0123456789"
DEVICE = re.compile(rb"^pentimento_device_seconds_total\{[^}]*\} ([0-9.eE+-]+)$", re.M)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--calls", type=int, default=30)
    arguments.add_argument("--sides", type=int, nargs="+", default=[128, 256, 512])
    options = arguments.parse_args()
    print("| size | caller ms | device ms | beside it ms, median | fastest | the link ms, median |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        server, base = start(os.path.abspath(options.binary), folder, [])
        connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=600)

        def get(method, path, body=None):
            headers = {"authorization": "Bearer " + KEY, "content-type": "application/json"}
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            data = reply.read()
            assert reply.status == 200, (reply.status, data[:300])
            return data

        def device():
            return sum(float(number) for number in DEVICE.findall(get("GET", "/metrics")))

        try:
            for side in options.sides:
                body = {"model_name": "demo", "input_image": png(side), "prompt": "a red house under a blue sky",
                        "steps": 1, "strength": 0.5, "seed": 1}
                body = json.dumps(body).encode()
                get("POST", "/v3/lcm-img2img", body)
                walls, devices, links = [], [], []
                for _ in range(options.calls):
                    before = device()
                    begun = time.perf_counter()
                    reply = json.loads(get("POST", "/v3/lcm-img2img", body))
                    walls.append(time.perf_counter() - begun)
                    devices.append(device() - before)
                    begun = time.perf_counter()
                    get("GET", urlsplit(reply["images"][0]["image_url"]).path)
                    links.append(time.perf_counter() - begun)
                beside = [wall - worked for wall, worked in zip(walls, devices)]
                row = [statistics.median(walls), statistics.median(devices), statistics.median(beside), min(beside),
                       statistics.median(links)]
                print(f"| {side} | " + " | ".join(f"{seconds * 1e3:.1f}" for seconds in row) + " |", flush=True)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()

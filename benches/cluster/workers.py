"""How much more several workers make than one: real processes over a real broker and a store that speaks S3, embedded model.

    workers.py path/to/pentimento --s3 http://127.0.0.1:5000 [--jobs 60] [--steps 20] [--side 256] [--cores 0 1]

Each worker is held to one core of the list, the rest of the machine is left to the broker, the store and the server that
answers; so the machine needs a core more than there are workers for the figure to be fair. The bucket `pictures` must be there
(for moto: `moto_server -p 5000`, then `curl -X PUT http://127.0.0.1:5000/pictures`). Prints jobs a second with the first worker
alone and with all of them, and what share of a core each process had meanwhile: a worker that has less than a whole one waited for
the others.
"""

import argparse
import base64
import concurrent.futures
import json
import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
import zlib


def picture(side: int) -> str:
    """A grey PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80\x90\xa0" * side for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(base: str, path: str, body=None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def cpu_seconds(process: subprocess.Popen) -> float:
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--s3", required=True)
    parser.add_argument("--broker", default="nats-server")
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--cores", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    processes = []
    names = []
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        port = free_port()
        environment = os.environ | {
            "PENTIMENTO_CLUSTER": f"nats://127.0.0.1:{port}", "PENTIMENTO_CLUSTER_TOKEN": "bench",
            "PENTIMENTO_IMAGES": "s3://pictures", "AWS_ENDPOINT_URL": args.s3, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_ALLOW_HTTP": "true",
            "PENTIMENTO_LOG": "warn", "PENTIMENTO_MODELSLAB_HOLD_SECONDS": "600",
        }

        def start(*command: str, prefix=(), **more: str) -> str:
            process = subprocess.Popen([*prefix, args.program, *command], env=environment | more, cwd=home,
                                       stdout=subprocess.PIPE, text=True)
            processes.append(process)
            names.append(command[0])
            return process.stdout.readline().strip()

        try:
            conf = home / "nats.conf"
            conf.write_text(f'listen: "127.0.0.1:{port}"\nauthorization {{ token: "bench" }}\njetstream {{ store_dir: "{home}/js" }}\n')
            processes.append(subprocess.Popen([args.broker, "-c", str(conf)], stderr=subprocess.DEVNULL))
            names.append("broker")
            time.sleep(1)
            line = start("serve", "--listen", "127.0.0.1:0", "--admin-listen", "none", "--data", "front",
                         PENTIMENTO_RUNS_JOBS="false")
            base = line.removeprefix("listening on ")
            body = {"key": "any", "model_id": "demo", "init_image": picture(args.side), "prompt": "the sea",
                    "width": args.side, "height": args.side, "num_inference_steps": args.steps, "safety_checker": "no",
                    "enhance_prompt": "no", "tomesd": "no"}
            rates = []
            for count, core in enumerate(args.cores, 1):
                start("worker", "--admin-listen", "none", "--data", f"worker{core}", prefix=["taskset", "-c", str(core)],
                      RAYON_NUM_THREADS="1")
                while sum(node["works"] and bool(node["models"]) for node in call(base, "/v1/cluster")["nodes"]) < count:
                    time.sleep(0.2)
                # Everybody has the model in memory before the clock runs.
                with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
                    list(pool.map(lambda seed: call(base, "/api/v1/enterprise/img2img", body | {"seed": seed}), range(4 * count)))
                    before = [cpu_seconds(process) for process in processes]
                    begin = time.monotonic()
                    replies = list(pool.map(lambda seed: call(base, "/api/v1/enterprise/img2img", body | {"seed": seed}),
                                            range(args.jobs)))
                    seconds = time.monotonic() - begin
                    rates.append(args.jobs / seconds)
                    shares = [(cpu_seconds(process) - then) / seconds for process, then in zip(processes, before)]
                assert all(reply["status"] == "success" for reply in replies), replies
                cores = ", ".join(f"{name} {share:.2f}" for name, share in zip(names, shares))
                print(f"{count} workers: {rates[-1]:.2f} jobs/s, {rates[-1] / rates[0]:.2f} times one; cores: {cores}", flush=True)
        finally:
            # The broker last.
            for process in reversed(processes):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()

"""What one NATS server takes of the traffic of jobs: publish, pull and acknowledge on a work-queue stream, and entries of a
key-value bucket, and how fast it tells many followers of one subject. Standard library alone, the protocol by hand, so that the client is not what is measured.

    broker.py [--server nats-server] [--jobs 4000] [--bytes 2048]

Starts the server with a configuration of its own in a scratch folder, on a free port, and ends it.
"""

import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import tempfile
import threading
import time

WINDOW = 256


class Client:
    """One connection; whatever it asks for comes back under one inbox."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb", buffering=1 << 20)
        self.reader.readline()
        self.socket.sendall(b'CONNECT {"verbose":false,"headers":true,"protocol":1}\r\nSUB inbox.> 1\r\nPING\r\n')
        while self.reader.readline() != b"PONG\r\n":
            pass

    def message(self):
        """The next message: where an answer to it goes, and its text."""
        while True:
            line = self.reader.readline()
            words = line.split()
            if words and words[0] == b"MSG":
                body = self.reader.read(int(words[-1]) + 2)[:-2]
                return (words[3] if len(words) == 5 else None), body
            if words and words[0] == b"HMSG":
                headers, size = int(words[-2]), int(words[-1])
                body = self.reader.read(size + 2)[:-2]
                return (words[3] if len(words) == 6 else None), body[headers:]
            if words and words[0] == b"PING":
                self.socket.sendall(b"PONG\r\n")
            elif line.startswith(b"-ERR") or not line:
                raise RuntimeError(line)

    def ask(self, subject: str, body) -> dict:
        """A call of JetStream's."""
        text = json.dumps(body).encode()
        self.socket.sendall(b"PUB %s inbox.a %d\r\n%s\r\n" % (subject.encode(), len(text), text))
        answer = json.loads(self.message()[1])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def publish(client: Client, subjects, size: int, window: int) -> list:
    """Publishes to each subject with at most `window` unanswered, and says how long each waited for its answer."""
    body = b"x" * size
    sent, waited = [], []
    subjects = [subject.encode() for subject in subjects]
    at = 0
    while len(waited) < len(subjects):
        batch = bytearray()
        while at < len(subjects) and len(sent) - len(waited) < window:
            batch += b"PUB %s inbox.p %d\r\n%s\r\n" % (subjects[at], size, body)
            sent.append(time.perf_counter())
            at += 1
        if batch:
            client.socket.sendall(batch)
        answer = client.message()[1]
        if b'"error"' in answer:
            raise RuntimeError(answer)
        waited.append(time.perf_counter() - sent[len(waited)])
    return waited


def pull(client: Client, stream: str, consumer: str, count: int) -> None:
    """Takes and acknowledges `count` jobs, asking for as many at a time as a worker with many slots would."""
    got = 0
    ask = b"PUB $JS.API.CONSUMER.MSG.NEXT.%s.%s inbox.m %d\r\n%s\r\n"
    while got < count:
        batch = min(WINDOW, count - got)
        body = json.dumps({"batch": batch, "expires": 5_000_000_000}).encode()
        client.socket.sendall(ask % (stream.encode(), consumer.encode(), len(body), body))
        acks = bytearray()
        for _ in range(batch):
            reply, _ = client.message()
            if reply is None:  # The server's word that this request is over.
                break
            acks += b"PUB %s 4\r\n+ACK\r\n" % reply
            got += 1
        client.socket.sendall(acks)
    client.socket.sendall(b"PING\r\n")
    while client.reader.readline() != b"PONG\r\n":
        pass


def fan_out(port: int, followers: int, size: int, seconds: float = 3.0) -> float:
    """Messages a second that leave the server for this many connections, which only count bytes."""
    sockets = []
    for _ in range(followers):
        follower = socket.create_connection(("127.0.0.1", port))
        follower.sendall(b'CONNECT {"verbose":false}\r\nSUB f 1\r\nPING\r\n')
        while b"PONG" not in follower.recv(4096):
            pass
        sockets.append(follower)
    counted = [0] * followers
    ends = time.perf_counter() + seconds

    def count(index: int) -> None:
        sockets[index].settimeout(0.5)
        while time.perf_counter() < ends:
            try:
                counted[index] += len(sockets[index].recv(1 << 20))
            except TimeoutError:
                return

    threads = [threading.Thread(target=count, args=[index]) for index in range(followers)]
    for thread in threads:
        thread.start()
    publisher = socket.create_connection(("127.0.0.1", port))
    publisher.sendall(b'CONNECT {"verbose":false}\r\n')
    batch = b"PUB f %d\r\n%s\r\n" % (size, b"x" * size) * 64
    while time.perf_counter() < ends:
        publisher.sendall(batch)
    for thread in threads:
        thread.join()
    publisher.close()
    for follower in sockets:
        follower.close()
    return sum(counted) / (len("MSG f 1 2048\r\n") + size + 2) / seconds


def connect(process, port: int) -> Client:
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError("the server does not take this configuration")
        try:
            return Client(port)
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not answer")


def measure(server: str, sync: str, storage: str, jobs: int, size: int) -> dict:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        conf = pathlib.Path(folder, "nats.conf")
        interval = f"sync_interval: {sync}" if sync else ""
        conf.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder}/js"\n {interval} }}\n')
        process = subprocess.Popen([server, "-c", str(conf)], stderr=subprocess.DEVNULL)
        try:
            client = connect(process, port)
            client.ask("$JS.API.STREAM.CREATE.W", {
                "name": "W", "subjects": ["w.>"], "retention": "workqueue", "storage": storage,
                "duplicate_window": 120_000_000_000, "max_msgs": -1, "max_bytes": -1, "num_replicas": 1})
            client.ask("$JS.API.CONSUMER.DURABLE.CREATE.W.c", {"stream_name": "W", "config": {
                "durable_name": "c", "ack_policy": "explicit", "ack_wait": 60_000_000_000, "max_ack_pending": -1}})
            client.ask("$JS.API.STREAM.CREATE.KV_J", {
                "name": "KV_J", "subjects": ["$KV.J.>"], "max_msgs_per_subject": 1, "storage": storage,
                "discard": "new", "allow_rollup_hdrs": True, "deny_delete": True, "num_replicas": 1})
            figures = {}
            one_by_one = publish(client, [f"w.n.m{i % 50}" for i in range(min(jobs, 200))], size, 1)
            figures["publish_ms_p50"] = statistics.median(one_by_one) * 1e3
            pull(client, "W", "c", len(one_by_one))
            begin = time.perf_counter()
            publish(client, [f"w.n.m{i % 50}" for i in range(jobs)], size, WINDOW)
            published = time.perf_counter()
            pull(client, "W", "c", jobs)
            pulled = time.perf_counter()
            publish(client, [f"$KV.J.job{i}" for i in range(jobs)], size, WINDOW)
            kept = time.perf_counter()
            figures["publish_per_s"] = jobs / (published - begin)
            figures["pull_ack_per_s"] = jobs / (pulled - published)
            figures["kv_put_per_s"] = jobs / (kept - pulled)
            figures["told_per_s"] = fan_out(port, 8, size)
            return figures
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="nats-server")
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--bytes", type=int, default=2048)
    args = parser.parse_args()
    print(subprocess.run([args.server, "-v"], capture_output=True, text=True, check=True).stdout.strip())
    print("| storage | publish ms, alone | publish/s | pull+ack/s | KV put/s | told/s, 8 followers |\n|---|---|---|---|---|---|")
    for name, sync, storage in [("file, sync always", "always", "file"), ("file, default sync", "", "file"),
                                ("memory", "", "memory")]:
        try:
            found = measure(args.server, sync, storage, args.jobs, args.bytes)
        except (RuntimeError, OSError) as error:
            print(f"| {name} | {error} | | | | |")
            continue
        print(f"| {name} | {found['publish_ms_p50']:.2f} | {found['publish_per_s']:.0f} |"
              f" {found['pull_ack_per_s']:.0f} | {found['kv_put_per_s']:.0f} | {found['told_per_s']:.0f} |")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How long a change of checkpoint takes, and the encoding of a prompt, beside diffusers on the same files.

    python benches/compare/build_models.py --vocab WHEEL --out a
    python benches/compare/build_models.py --vocab WHEEL --out b --seed 100
    python benches/peers/switch.py target/release/pentimento a/sd15-lcm-fp16 b/sd15-lcm-fp16 [--rounds 5]

Needs torch, diffusers, transformers and accelerate. A server with memory for one checkpoint, and then one with
memory for both, gets Novita's LCM calls for a picture of 64x64 with one step that go to both checkpoints in turn.
diffusers, in f32 and channels_last, makes the same picture beside the first with a pipeline that is loaded anew from the
same files, and beside the second with two that stay loaded. A switch is the picture after it less the median of the same picture without one. All files are
in the page cache, contestants take turns in every round, and each makes one picture with each checkpoint before.
"""
import argparse
import base64
import io
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "load"))
from beside import KEYS, png, start  # noqa: E402

SIDE = 64
PROMPT = "a photograph of a cup of coffee on a wooden table"


def catalogue(folder, checkpoints):
    """A models.toml with both, as latent consistency models."""
    entries = [f'[[model]]\nname = "{name}"\nkind = "checkpoint"\nsource = "{path.resolve()}"\nrole = "lcm"\n'
               for name, path in checkpoints.items()]
    (folder / "models.toml").write_text("\n".join(entries), encoding="utf-8")
    return str(folder / "models.toml")


class Server:
    """A server with so much memory for models."""

    def __init__(self, binary, checkpoints, memory, folder):
        folder.mkdir()
        models = catalogue(folder, checkpoints)
        self.process, self.base = start(binary, str(folder), ["--models", models, "--model-memory", memory])
        self.picture = png(SIDE)

    def draw(self, name, prompt=PROMPT):
        """Seconds of one call."""
        body = {"model_name": name, "input_image": self.picture, "prompt": prompt, "steps": 1, "strength": 1, "seed": 1}
        request = urllib.request.Request(
            self.base + "/v3/lcm-img2img", json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": "Bearer " + KEYS["one"]})
        begun = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as reply:
            reply.read()
        return time.perf_counter() - begun


class Diffusers:
    """Pipelines of diffusers, as many as `resident` says at a time."""

    def __init__(self, checkpoints, resident):
        from PIL import Image

        self.checkpoints, self.resident, self.loaded = checkpoints, resident, {}
        self.picture = Image.open(io.BytesIO(base64.b64decode(png(SIDE)))).convert("RGB")

    def pipeline(self, name):
        import diffusers
        import torch

        if name not in self.loaded:
            if len(self.loaded) == self.resident:
                self.loaded.clear()
            pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
                self.checkpoints[name], variant="fp16", torch_dtype=torch.float32, safety_checker=None,
                requires_safety_checker=False, local_files_only=True)
            pipe.set_progress_bar_config(disable=True)
            pipe.unet.to(memory_format=torch.channels_last)
            pipe.vae.to(memory_format=torch.channels_last)
            self.loaded[name] = pipe
        return self.loaded[name]

    def draw(self, name):
        import torch

        begun = time.perf_counter()
        self.pipeline(name)(PROMPT, image=self.picture, strength=1.0, num_inference_steps=1, guidance_scale=1.0,
                            generator=torch.Generator().manual_seed(1))
        return time.perf_counter() - begun

    def encode(self, name, prompt):
        begun = time.perf_counter()
        self.pipeline(name).encode_prompt(prompt, "cpu", 1, False)
        return time.perf_counter() - begun


def switches(contestants, names, rounds):
    """Of each contestant the seconds of a picture after a switch and of the same one again."""
    took = {who: ([], []) for who in contestants}
    def draw(who, name):
        seconds = contestants[who].draw(name)
        # What an interrupted run has measured is kept.
        print(f"{who}, {name}: {seconds:.3f} s", file=sys.stderr, flush=True)
        return seconds

    for who in contestants:
        for name in names:
            draw(who, name)
    for _ in range(rounds):
        for who in contestants:
            for name in names:
                for log in took[who]:
                    log.append(draw(who, name))
    for who, (after, again) in took.items():
        usual = statistics.median(again)
        switch = sorted(value - usual for value in after)
        print(f"{who:<38} picture {usual:7.3f} s, switch {statistics.median(switch):7.3f} s "
              f"({switch[0]:.3f} to {switch[-1]:.3f}, {len(switch)} times)", flush=True)


def texts(binary, folder, server, pipelines, name, rounds):
    """Text alone in both programs, and pictures of a server whose prompt is new or was just used."""
    log = {"pentimento": [], "diffusers": []}
    for _ in range(rounds):
        done = subprocess.run([binary, "bench", "--json", "--folder", str(folder), "--size", str(SIDE), "--steps", "1",
                               "--repeat", "10"], capture_output=True, text=True, check=True)
        log["pentimento"] += [run["text_encode"] for run in json.loads(done.stdout)["runs"][1:]]
        log["diffusers"] += [pipelines.encode(name, PROMPT) for _ in range(10)][1:]
    for who, seconds in log.items():
        print(f"{who:<38} text {1e3 * statistics.median(seconds):7.1f} ms ({len(seconds)} times)", flush=True)
    new, old = [], []
    for number in range(10 * rounds):
        new.append(server.draw(name, f"{PROMPT}, number {number}"))
        old.append(server.draw(name, f"{PROMPT}, number {number}"))
    print(f"server, picture with a new prompt {1e3 * statistics.median(new):.1f} ms, "
          f"with the same one again {1e3 * statistics.median(old):.1f} ms ({len(new)} times)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", help="a release build")
    parser.add_argument("first", type=pathlib.Path)
    parser.add_argument("second", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    # Servers start in a folder of their own.
    args.binary = str(pathlib.Path(args.binary).resolve())
    checkpoints = {"first": args.first, "second": args.second}
    with tempfile.TemporaryDirectory() as folder:
        # One pair after the other: all four together would push the files out of the page cache of a machine with 24 GiB.
        for where, memory, resident in (("from the page cache", "3GiB", 1), ("both in memory", "8GiB", 2)):
            server = Server(args.binary, checkpoints, memory, pathlib.Path(folder) / memory)
            pipelines = Diffusers(checkpoints, resident)
            try:
                switches({f"pentimento, {where}": server, f"diffusers, {where}": pipelines}, list(checkpoints), args.rounds)
                if resident == 2:
                    texts(args.binary, args.first, server, pipelines, "first", args.rounds)
            finally:
                server.process.terminate()
                server.process.wait()


if __name__ == "__main__":
    main()

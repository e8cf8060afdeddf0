"""What the scripts of all peers share: their arguments, the picture and prompt, and the JSON that they print.

The JSON is that of `pentimento bench --json`: `runs` has the seconds of each part of each picture, `seconds` their
medians and `fastest_seconds` the least of them.
"""
import argparse
import json
import os
import pathlib
import statistics
import time

# As in `pentimento bench`.
PROMPT = "a photograph of a cup of coffee on a wooden table"


def arguments(about):
    """The arguments that every peer takes."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--model", required=True, help="the model folder")
    parser.add_argument("--size", type=int, default=512, help="side of the square picture")
    parser.add_argument("--steps", type=int, default=4, help="all of them run: strength is 1")
    parser.add_argument("--scheduler", default="LCM", choices=["LCM", "UniPC", "DDIM", "Euler"])
    parser.add_argument("--guidance", type=float, default=1.0, help="classifier-free guidance is on above 1")
    parser.add_argument("--repeat", type=int, default=1, help="pictures after the load")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser


def picture(side):
    """Colours that change over both axes; what is in the picture does not change the time."""
    from PIL import Image

    across = Image.linear_gradient("L").resize((side, side))
    return Image.merge("RGB", (across.rotate(90), across, Image.new("L", (side, side), 128)))


def is_sdxl(folder):
    """Whether a model folder is one of Stable Diffusion XL."""
    index = json.loads((pathlib.Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    return "XL" in index["_class_name"]


class Timed:
    """Stands in for a function or module and notes how long each call takes."""

    def __init__(self, target, log):
        self.__dict__.update(target=target, log=log)

    def __call__(self, *args, **kwargs):
        start = time.perf_counter()
        try:
            return self.target(*args, **kwargs)
        finally:
            self.log.append(time.perf_counter() - start)

    def __getattr__(self, name):
        return getattr(self.target, name)


def repeat(times, make):
    """Calls `make`, which gives the parts of one picture, and adds to them the seconds of the whole call."""
    runs = []
    for _ in range(times):
        start = time.perf_counter()
        run = make()
        run["picture"] = time.perf_counter() - start
        runs.append(run)
    return runs


def summary(runs, one):
    """One number for each part: `one` of all its samples."""
    samples = {
        "text_encode": [run["text_encode"] for run in runs],
        "vae_encode": [run["vae_encode"] for run in runs],
        "evaluation": [seconds for run in runs for seconds in run["evaluations"]],
        "vae_decode": [seconds for run in runs for seconds in run["vae_decodes"]],
        "picture": [run["picture"] for run in runs],
    }
    return {part: one(numbers) if numbers else None for part, numbers in samples.items()}


def peak_memory():
    """The most memory that this process has used so far, in bytes."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def forget_peak():
    """Lets `peak_memory` begin anew from what is in memory now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def report(peer, args, load, runs, versions, **more):
    """Prints one JSON object."""
    print(json.dumps({
        "peer": peer,
        "size": args.size,
        "steps": args.steps,
        "scheduler": args.scheduler,
        "guidance": args.guidance,
        "threads": args.threads,
        "versions": versions,
        "load_seconds": load,
        "seconds": summary(runs, statistics.median),
        "fastest_seconds": summary(runs, min),
        "runs": runs,
        "peak_memory_bytes": peak_memory(),
        **more,
    }))

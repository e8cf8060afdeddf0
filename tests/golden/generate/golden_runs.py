"""What the scripts that write whole runs have in common: what a run is called, what is kept of it, and the loop over all cases."""
import argparse
import pathlib

import numpy
import torch

from golden_file import GOLDEN, quiet_and_repeatable, save_golden
from pipeline import NEGATIVE, PROMPT


class Kept(dict):
    """The tensors of a run by name, as they were when they were kept."""

    def keep(self, key, value):
        self[key] = value.detach().clone().contiguous()

    def keep_picture(self, key, picture):
        self.keep(key, torch.from_numpy(numpy.asarray(picture).copy()))


def about_run(model, scheduler, size, steps, strength, guidance, seed, *, clip_skip=1, negative=NEGATIVE, karras=False, unet=None):
    """The arguments of a run, as the tests read them."""
    return {
        "model": model, "scheduler": scheduler, "width": size[0], "height": size[1], "steps": steps, "strength": strength,
        "guidance_scale": guidance, "clip_skip": clip_skip, "seed": seed, "prompt": PROMPT, "negative_prompt": negative,
        "karras": karras, "unet": unet or {}, "vae": {}}


def write_runs(description, script, folder, cases, run):
    """Writes `<folder>/<name>.safetensors` for each case; `run` makes its tensors and arguments."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--only", help="run the cases whose name contains this")
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN, help="where to write instead of tests/golden")
    args = parser.parse_args()
    quiet_and_repeatable()
    for name, case in cases.items():
        if not args.only or args.only in name:
            tensors, about = run(case)
            save_golden(f"{folder}/{name}.safetensors", tensors, script, root=args.out, **about)

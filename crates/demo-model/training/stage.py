"""What every training stage shares: arguments, the noise schedule, budgets, checkpoints, averages and contact sheets.

The run folder holds everything that is not committed: `packages` (unpacked npm packages), `photos`, CLIP's merges
`bpe_simple_vocab_16e6.txt.gz`, checkpoints, latents and sheets.
"""
import argparse
import json
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SCALING = 0.18215


def arguments(description, **more):
    """The command line of a stage: every stage has a run folder, a budget in minutes, steps in all and a thread count.

    A stage stops at whichever of the two comes first; the learning rate follows the steps, so a run may be cut into
    calls of any length.
    """
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--run", type=Path, default=Path(__file__).parent / "run", help="folder of checkpoints and logs")
    p.add_argument("--minutes", type=float, default=10., help="wall-clock budget of this call")
    p.add_argument("--steps", type=int, default=0, help="steps of the whole stage, over all calls; 0: until the minutes are over")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--bf16", type=int, default=native_bf16(), help="1 computes in bfloat16 where autocast does (1.3 to 1.7 times as fast with avx512_bf16, slow without)")
    for name, (kind, default, text) in more.items():
        p.add_argument("--" + name.replace("_", "-"), type=kind, default=default, help=text)
    a = p.parse_args()
    a.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(a.threads)
    a.bpe, a.photos, a.packages = a.run / "bpe_simple_vocab_16e6.txt.gz", a.run / "photos", a.run / "packages"
    return a


def native_bf16():
    """1 where the processor multiplies bfloat16 itself; elsewhere every operand would be widened first."""
    flags = Path("/proc/cpuinfo")
    return int(flags.exists() and "avx512_bf16" in flags.read_text())


def autocast(a):
    """bfloat16 where the arguments ask for it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(a.bf16))


def rate(peak, step, total, warm=100, since=0, final=.03):
    """Learning rate: a warm-up of `warm` steps from step `since`, and a cosine over the stage's steps down to `final` of the peak."""
    f = min(1., step / total) if total else 0.
    return peak * min(1., (step + 1 - since) / warm) * (final + (1 - final) * .5 * (1 + math.cos(math.pi * f)))


def resume(optimizer, checkpoint):
    """Gives the optimizer, or each of a list, its state back; returns the step from which the rate warms up.

    A checkpoint out of a snapshot has no state: Adam begins anew there, whose first steps are too long without a warm-up.
    """
    if checkpoint["optimizer"] is None:
        return checkpoint["step"]
    if isinstance(optimizer, list):  # a stage with several
        for o, state in zip(optimizer, checkpoint["optimizer"]):
            o.load_state_dict(state)
    else:
        optimizer.load_state_dict(checkpoint["optimizer"])
    return 0


def alphas():
    """Cumulative alphas of SD 1.5's 'scaled_linear' schedule."""
    return torch.cumprod(1 - torch.linspace(0.00085 ** .5, 0.012 ** .5, 1000) ** 2, 0)


ALPHAS = alphas()


def signal_noise(t):
    """(signal, noise) factors of the steps `t`, shaped to multiply a batch of latents."""
    a = ALPHAS[t].view(-1, 1, 1, 1)
    return a.sqrt(), (1 - a).sqrt()


class Budget:
    """Stops a stage after its minutes, or at SIGTERM, so that it can always save a checkpoint."""

    def __init__(self, minutes):
        self.start, self.limit, self.saved = time.time(), minutes * 60, time.time()
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "limit", 0.))
        signal.signal(signal.SIGINT, lambda *_: setattr(self, "limit", 0.))

    @property
    def spent(self):
        return time.time() - self.start

    def over(self):
        return self.spent >= self.limit

    def fraction(self):
        return min(1., self.spent / max(self.limit, 1e-6))

    def save_due(self, every=180):
        """True once per `every` seconds."""
        if time.time() - self.saved < every:
            return False
        self.saved = time.time()
        return True


class Average:
    """Exponential moving average of a module's floating-point state."""

    def __init__(self, module, decay):
        self.decay, self.count = decay, 0
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module):
        self.count += 1
        d = min(self.decay, (1 + self.count) / (10 + self.count))
        for k, v in module.state_dict().items():
            self.state[k].lerp_(v, 1 - d)


def save(thing, path):
    """Saves a checkpoint so that a kill in the middle leaves the old one."""
    part = Path(str(path) + ".part")
    torch.save(thing, part)
    os.replace(part, path)


def log(run, stage, **values):
    """One JSON line on stdout and in the run's log."""
    short = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
    line = json.dumps({"time": time.strftime("%H:%M:%S"), "stage": stage, **short})
    print(line, flush=True)
    with open(run / "log.jsonl", "a") as f:
        f.write(line + "\n")


def to_tensor(pictures):
    """uint8 HxWx3 pictures to a -1..1 batch."""
    x = torch.from_numpy(np.stack(pictures).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    return x.contiguous()


def to_pictures(x):
    """A -1..1 batch to uint8 NxHxWx3."""
    return ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def sheet(rows, path, scale=1):
    """Saves rows of uint8 pictures (each row of one height) as one contact sheet."""
    width = max(sum(p.shape[1] + 2 for p in r) for r in rows)
    lines = []
    for r in rows:
        line = np.full((r[0].shape[0] + 2, width, 3), 255, np.uint8)
        x = 0
        for p in r:
            line[:p.shape[0], x:x + p.shape[1]] = p
            x += p.shape[1] + 2
        lines.append(line)
    im = Image.fromarray(np.concatenate(lines))
    if scale != 1:
        im = im.resize((int(im.width * scale), int(im.height * scale)), Image.LANCZOS)
    im.save(path)

"""Keeps a whole run in one small file that can be committed, so that the loss of a machine costs hours of training at most.

`python snapshot.py save --run FOLDER --file FILE` and `restore`; recipe.py restores by itself into a folder without any checkpoint.
A snapshot holds every stage's weights (their average, where a stage keeps one), the step counters and the log.
It leaves out what can be made anew: Adam's moments (the trainers warm up again), the latents (drawn from fixed seeds) and the judge.
Weights are kept in f16, or where that is too large the big ones in as many bits as fit below the limit, with one scale for each row:
first those of the UNet and its adapters, which training makes good again, and auto-encoder and text encoder last, since the UNet knows only theirs.
"""
import argparse
import io
import json
import os
from pathlib import Path

import torch
import zstandard

FILE = Path(__file__).parent / "snapshot" / "run.pt.zst"
CHECKPOINTS = ["vae.pt", "text.pt", "vae_white.pt", "unet.pt", "vae_decoder.pt", "lcm.pt", "style_lora.pt", "style_inversion.pt",
               "tiny.pt", "vision.pt", "ip.pt"]
EXACT = ("vae.pt", "text.pt", "vae_white.pt", "vae_decoder.pt")  # what the other stages' latents and states come from
SMALL = 8192  # numbers of a tensor that stays in f16: first and last layers are small, and a picture depends on them most
LIMIT = 20_000_000  # bytes, because every committed snapshot stays in the history


def pack(thing, bits, seen):
    """`thing` with its tensors made small; tensors with equal contents (the whitened auto-encoder's, for one) are kept once, in `seen`."""
    if isinstance(thing, dict):
        return {k: pack(v, bits, seen) for k, v in thing.items()}
    if not isinstance(thing, torch.Tensor):
        return thing
    w = thing.detach().float().contiguous()
    key = (tuple(w.shape), w.numpy().tobytes())
    if key not in seen:
        small = w.dim() < 2 or w.numel() <= SMALL
        if bits < 14 and not small:
            seen[key] = quantized(w, bits)
        else:
            seen[key] = dict(half=w.half() if bits == 16 or small else shortened(w))
    return seen[key]


def shortened(w):
    """f16 without the last two bits of its mantissa, which zstd then makes smaller; off by 0.2 % at most."""
    whole = w.half().view(torch.int16)
    return ((whole + 2) & -4).view(torch.float16)


def quantized(w, bits):
    """Whole numbers of `bits` bits with a scale for each row, which costs less where rows differ in size, as GroupNorm lets them."""
    rows = w.flatten(1)
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return dict(whole=(rows / scale).round().to(torch.int8), scale=scale, shape=list(w.shape))


def unpack(thing):
    """What `pack` was given, in f32; every tensor is a copy of its own, for the trainers change them in place."""
    if not isinstance(thing, dict):
        return thing
    if "half" in thing:
        return thing["half"].float()
    if "whole" in thing:
        return (thing["whole"].float() * thing["scale"]).view(thing["shape"])
    return {k: unpack(v) for k, v in thing.items()}


def lean(checkpoint):
    """A checkpoint without what a run can do without."""
    left = {k: v for k, v in checkpoint.items() if k != "optimizer"}
    if "average" in left:
        del left["model"]
    return left


def error(before, after):
    """(squared difference, squared size) of all matrices of nested dicts."""
    if isinstance(before, dict):
        return tuple(map(sum, zip((0., 0.), *(error(v, after[k]) for k, v in before.items()))))
    if not isinstance(before, torch.Tensor) or before.dim() < 2:
        return 0., 0.
    return float(((before - after) ** 2).sum()), float((before ** 2).sum())


def save(run, path, limit=LIMIT):
    """Writes the snapshot; returns what is in it: steps by checkpoint, bits of a weight, bytes, relative error of each checkpoint's weights."""
    stages = {name: lean(torch.load(run / name, map_location="cpu")) for name in CHECKPOINTS if (run / name).exists()}
    log = run / "log.jsonl"
    for exact, bits in ((16, 16), (14, 8), (14, 7), (14, 6), (8, 6)):
        seen, out = {}, io.BytesIO()
        packed = {name: pack(s, exact if name in EXACT else bits, seen) for name, s in stages.items()}
        torch.save(dict(stages=packed, bits=bits, log=log.read_text() if log.exists() else ""), out)
        data = zstandard.ZstdCompressor(level=12).compress(out.getvalue())
        if len(data) <= limit:
            break
    else:
        raise SystemExit(f"even 6 bits a weight need {len(data)} bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(str(path) + ".part")
    part.write_bytes(data)
    os.replace(part, path)
    lost = {name: error(s, unpack(packed[name])) for name, s in stages.items()}
    return dict(steps={name: s.get("step") for name, s in stages.items()}, bits=bits, bytes=len(data),
                error={name: round((d / max(n, 1e-30)) ** .5, 5) for name, (d, n) in lost.items()})


def restore(run, path):
    """Writes the checkpoints of a snapshot that the folder has not; returns their steps.

    The recipe asks for it only when the folder has no checkpoint at all: a UNet of another run's auto-encoder is worth nothing.
    """
    data = zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=1 << 30)
    inside, found = torch.load(io.BytesIO(data)), {}
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "log.jsonl").exists():
        (run / "log.jsonl").write_text(inside["log"])
    for name, packed in inside["stages"].items():
        if (run / name).exists():
            continue
        s = unpack(packed)
        if "step" in s:  # not a bare state dict, as the whitened auto-encoder is
            s["optimizer"] = None
            if "average" in s:
                s["model"] = s["average"]
        part = run / (name + ".part")
        torch.save(s, part)
        os.replace(part, run / name)
        found[name] = s.get("step")
    return found


def untouched(run):
    """Whether a run folder has no checkpoint of any stage."""
    return not any((run / name).exists() for name in CHECKPOINTS)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("save", "restore"))
    p.add_argument("--run", type=Path, default=Path(__file__).parent / "run")
    p.add_argument("--file", type=Path, default=FILE)
    a = p.parse_args()
    print(json.dumps(save(a.run, a.file) if a.what == "save" else restore(a.run, a.file)))


if __name__ == "__main__":
    main()

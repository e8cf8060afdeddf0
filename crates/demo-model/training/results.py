"""The figures of RESULTS.md, from a running server with the embedded model: `python results.py --server http://127.0.0.1:8080`.

Every picture is made by requests over HTTP, so it needs no weights, only Python with numpy and pillow.
It writes sheets to `../results` (`--out`): the 48 held-out prompts (`prompts.py`) with DDIM in 20 steps and with the
LCM-LoRA in 4, and 48 compositions (`edits.png`, prompts in `edits.json`) at strength 0.3, 0.5 and 0.7.
What the sheets show is named by somebody who has not seen the prompts, in `looked_at.json`; `--count 1` compares that
with the prompts and prints the counts, and how many edits keep their layout.

The layout's figure is the correlation of the edges of output and input: 1 is the same edges, 0 none in common.
"""
import argparse
import base64
import io
import json
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from prompts import PROMPTS

SIDE, COLUMNS = 128, 8
STRENGTHS = (.3, .5, .7)
KEPT = .4        # least correlation of edges that counts as a layout kept
WAYS = {"ddim": dict(sampler_name="DDIM", steps=20, cfg_scale=2.5), "lcm": dict(sampler_name="LCM", steps=4, cfg_scale=1)}
LCM_LORA = "<lora:demo-lcm-lora:1>"


def post(server, route, body):
    request = urllib.request.Request(server + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encode(picture):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def from_text(server, prompt, way, seed):
    """A picture of the prompt alone, by AUTOMATIC1111's call."""
    more = LCM_LORA if way == "lcm" else ""
    body = dict(prompt=prompt + more, width=SIDE, height=SIDE, seed=seed, override_settings=dict(sd_model_checkpoint="demo"), **WAYS[way])
    return decode(base64.b64decode(post(server, "/sdapi/v1/txt2img", body)["images"][0]))


def edited(server, picture, prompt, strength, seed):
    """What ModelsLab's call makes of a picture."""
    body = dict(key="any", model_id="demo", prompt=prompt, init_image=encode(picture), strength=strength, seed=seed, scheduler="DDIMScheduler",
                num_inference_steps=20, guidance_scale=2.5, samples=1, base64="no", safety_checker="no", enhance_prompt="no")
    reply = post(server, "/api/v1/enterprise/img2img", body)
    if reply["status"] != "success":
        raise SystemExit(reply)
    with urllib.request.urlopen(reply["output"][0], timeout=60) as file:
        return decode(file.read())


def save_sheet(pictures, path):
    """Pictures of one size in rows of COLUMNS, without a gap."""
    rows = [np.concatenate(list(pictures[k:k + COLUMNS]), 1) for k in range(0, len(pictures), COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def cut_sheet(path):
    sheet = np.asarray(Image.open(path).convert("RGB"))
    return [sheet[y:y + SIDE, x:x + SIDE] for y in range(0, len(sheet), SIDE) for x in range(0, sheet.shape[1], SIDE)]


def edge_strength(picture):
    """Differences to the right and below of the gray picture, averaged over three by three pixels."""
    g = picture.astype(np.float32).mean(-1)
    e = np.abs(np.diff(g, axis=1))[:-1] + np.abs(np.diff(g, axis=0))[:, :-1]
    return np.lib.stride_tricks.sliding_window_view(e, (3, 3)).mean((2, 3))


def overlap(picture, other):
    """Correlation of the edges of two pictures of one size."""
    p, q = (e - e.mean() for e in (edge_strength(picture), edge_strength(other)))
    return float((p * q).sum() / max(np.sqrt((p * p).sum() * (q * q).sum()), 1e-9))


def write_edits(a):
    """Draws the 48 inputs of the edits, from a seed that training does not use, and their prompts; needs the run folder's packages."""
    from compose import World, edits
    pictures, prompts, _ = edits(np.random.default_rng(990_003), World(a.run, a.run / "packages", a.run / "photos"), SIDE, 48)
    save_sheet(pictures, a.out / "edits.png")
    (a.out / "edits.json").write_text(json.dumps(prompts, indent=1) + "\n")


def make(a):
    for way in WAYS:
        save_sheet([from_text(a.server, p["prompt"], way, a.seed + n) for n, p in enumerate(PROMPTS)], a.out / f"text-{way}.png")
        print(way, flush=True)
    prompts = json.loads((a.out / "edits.json").read_text())
    for s in STRENGTHS:
        made = [edited(a.server, p, prompts[n], s, a.seed + n) for n, p in enumerate(cut_sheet(a.out / "edits.png"))]
        save_sheet(made, a.out / f"edits-{s}.png")
        print("strength", s, flush=True)


def count(a):
    named = json.loads((a.out / "looked_at.json").read_text())
    for way, seen in named.items():
        right = {k: 0 for k in ("object", "colour", "background")}
        for p, s in zip(PROMPTS, seen, strict=True):
            # A colour belongs to the object, or where the prompt gives it none, to the background.
            right["object"] += s["object"] == p["object"]
            right["colour"] += s["colour"] == p["hue"] if p["hue"] else s["background"] == p["background"]
            right["background"] += s["background"] == p["background"]
        print(way, "of 48:", right)
    inputs = cut_sheet(a.out / "edits.png")
    for s in STRENGTHS:
        made = cut_sheet(a.out / f"edits-{s}.png")
        near = [overlap(p, q) for p, q in zip(inputs, made)]
        other = [overlap(p, q) for p, q in zip(inputs, made[1:] + made[:1])]  # what pictures without a layout in common have
        print(f"strength {s}: layout kept {sum(v >= KEPT for v in near)} of 48, edges {np.mean(near):.2f}, of another input's {np.mean(other):.2f}")


def main():
    here = Path(__file__).parent
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--server", default="http://127.0.0.1:8080")
    p.add_argument("--out", type=Path, default=here.parent / "results")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=0, help="1: only count what was looked at")
    p.add_argument("--write-edits", type=int, default=0, help="1: draw the edits' inputs anew, from a run folder")
    p.add_argument("--run", type=Path, default=here / "run")
    a = p.parse_args()
    a.out.mkdir(exist_ok=True)
    if a.write_edits:
        return write_edits(a)
    if not a.count:
        make(a)
    if (a.out / "looked_at.json").exists():
        count(a)


if __name__ == "__main__":
    main()

"""Stage 6: sheets to look at, and counts by proxies, on the held-out prompts.

`sheet_text.png`: the 48 held-out prompts from noise.
`sheet_i2i.png`: inputs, and what a prompt makes of them at strength 0.3, 0.5 and 0.7.
The counts come from a judge: a small network that learnt from the training latents which object, colour and background
they show, and which names them in the pictures after a round trip through the auto-encoder.
It is a proxy: it can be wrong, and it knows only drawn pictures; its own accuracy on unseen latents is printed beside.
The layout's figure is the correlation of the edges of output and input (1 is the same edges, 0 none in common).
"""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from compose import ATTRS, World, edits
from make_latents import JUDGED
from prompts import PROMPTS
from results import KEPT, overlap
from sampling import Model
from stage import Budget, arguments, log, save, sheet
from train_unet import load_text


class Judge(nn.Module):
    """Names the judged attributes of latents."""

    def __init__(self, width=96):
        super().__init__()
        w = width
        self.body = nn.Sequential(nn.Conv2d(4, w, 3, padding=1), nn.SiLU(), nn.Conv2d(w, w, 3, padding=1), nn.GroupNorm(8, w), nn.SiLU(),
                                  nn.Conv2d(w, 2 * w, 3, 2, padding=1), nn.GroupNorm(8, 2 * w), nn.SiLU(),
                                  nn.Conv2d(2 * w, 2 * w, 3, padding=1), nn.GroupNorm(8, 2 * w), nn.SiLU(),
                                  nn.Conv2d(2 * w, 3 * w, 3, 2, padding=1), nn.GroupNorm(8, 3 * w), nn.SiLU(), nn.Flatten(), nn.Dropout(.2))
        self.heads = nn.ModuleDict({k: nn.Linear(3 * w * 16, len(ATTRS[k])) for k in JUDGED})

    def forward(self, z):
        h = self.body(z)
        return {k: head(h) for k, head in self.heads.items()}


def train_judge(a):
    """Trains the judge on all latents but the last file, on which its accuracy is measured; resumes nothing, takes minutes."""
    files = sorted((a.run / "latents").glob("128-*.pt"))
    load = [torch.load(f) for f in files]
    z = torch.cat([torch.cat([d["first"], d["second"]]) for d in load]).float()
    y = torch.cat([torch.cat([d["classes"][:, 0], d["classes"][:, 1]]) for d in load]).long()
    test = len(load[-1]["first"]) * 2
    judge = Judge()
    opt = torch.optim.AdamW(judge.parameters(), 1e-3, weight_decay=2e-2)
    budget, step = Budget(a.judge_minutes), 0
    while not budget.over():
        for g in opt.param_groups:
            g["lr"] = 1e-3 * (1 - .97 * budget.fraction())
        i = torch.randint(0, len(z) - test, (64,))
        x = z[i] + .1 * torch.randn(64, 4, 16, 16)
        out = judge(torch.roll(x, tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3)))
        loss = sum(F.cross_entropy(out[k], y[i, n]) for n, k in enumerate(JUDGED))
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 100 == 0:
            log(a.run, "judge", step=step, loss=loss.item())
    judge.eval()
    with torch.no_grad():
        out = judge(z[-test:])
    right = {}
    for n, k in enumerate(JUDGED):
        has = y[-test:, n] > 0
        right[k] = round(float((out[k].argmax(1) == y[-test:, n])[has].float().mean()), 3)
    save(dict(model=judge.state_dict(), right=right, step=step), a.run / "judge.pt")
    log(a.run, "judge_done", step=step, right=right)
    return judge, right


def verdicts(judge, z, wanted):
    """Which of the wanted attributes the judge finds in latents: per attribute a list of True, False or None (not wanted)."""
    with torch.no_grad():
        out = judge(z)
    return {k: [None if w.get(k) in (None, "") else bool(out[k][n].argmax() == ATTRS[k].index(w[k])) for n, w in enumerate(wanted)] for k in JUDGED}


def wanted_of(p):
    """A held-out prompt's judged attributes."""
    b = p["background"]
    place = "bg" if b in ATTRS["bg"] else "texture" if b in ATTRS["texture"] else "terrain"
    return {"object": p["object"], "hue": p["hue"] or None, place: b, "time": p["time"] or None}


def count(values):
    """'right of asked' of a list of verdicts."""
    asked = [v for v in values if v is not None]
    return f"{sum(asked)}/{len(asked)}"


def text_sheet(a, model, judge):
    """The held-out prompts from noise."""
    captions, z = [p["prompt"] for p in PROMPTS], []
    for k in range(0, len(captions), 16):
        z.append(model.ddim(captions[k:k + 16], steps=a.sampler_steps, guidance=a.guidance, seed=a.seed + k))
    pictures = model.decode(torch.cat(z))
    sheet([list(pictures[k:k + 8]) for k in range(0, 48, 8)], a.run / "sheet_text.png")
    v = verdicts(judge, model.encode(list(pictures)), [wanted_of(p) for p in PROMPTS])
    colour = [h if h is not None else b for h, b in zip(v["hue"], v["bg"])]
    ground = [next(x for x in (b, t, g) if x is not None) for b, t, g in zip(v["bg"], v["texture"], v["terrain"])]
    return dict(object=count(v["object"]), colour=count(colour), background=count(ground), time=count(v["time"]))


def edit_sheet(a, model, judge, world):
    """Compositions of a fixed seed, each with a change asked for at three strengths."""
    inputs, captions, wants = edits(np.random.default_rng(990_002), world, 128, 24)
    source, rows, values = model.encode(inputs), [[] for _ in range(12)], {}
    for n, p in enumerate(inputs):
        rows[n // 2].append(p)
    made = {}
    for s in (.3, .5, .7):
        z = torch.cat([model.ddim(captions[k:k + 12], steps=a.sampler_steps, guidance=a.guidance, source=source[k:k + 12], strength=s, seed=a.seed)
                       for k in (0, 12)])
        made[s] = model.decode(z)
        found = verdicts(judge, model.encode(list(made[s])), wants)
        flat = [v for k in JUDGED for v in found[k]]
        near = [overlap(p, q) for p, q in zip(inputs, made[s])]
        values[f"i2i_{s}"] = dict(asked_for=count(flat), edges=round(float(np.mean(near)), 2), kept=f"{sum(v >= KEPT for v in near)}/24")
    rows = [[p for n in (2 * r, 2 * r + 1) for p in (inputs[n], *(made[s][n] for s in made))] for r in range(12)]
    sheet(rows, a.run / "sheet_i2i.png")
    (a.run / "sheet_i2i.txt").write_text("\n".join(captions) + "\n")
    return values


def main():
    a = arguments(__doc__, judge_minutes=(float, 4., "training of the judge, when there is none yet"), seed=(int, 1, ""),
                  guidance=(float, 2.5, ""), sampler_steps=(int, 20, "DDIM"), raw=(int, 0, "1 takes the last weights instead of the average"))
    path = a.run / "judge.pt"
    if path.exists():
        judge, s = Judge(), torch.load(path)
        judge.load_state_dict(s["model"])
        right = s["right"]
    else:
        judge, right = train_judge(a)
    judge.eval()
    _, compact = load_text(a.run)
    model, world = Model(a.run, compact, bool(a.raw)), World(a.run, a.packages, a.photos)
    values = text_sheet(a, model, judge)
    values.update(edit_sheet(a, model, judge, world))
    log(a.run, "evaluate", unet_step=model.step, guidance=a.guidance, judge_accuracy=right, found=values)


if __name__ == "__main__":
    main()

"""Stage 2: the text encoder, which learns to predict from a caption the attributes that the generator drew.

Linear heads read the end token's state and the mean state of the padding, both of which the UNet's cross-attention
sees; so every synonym of a thing comes to the same state.
Stage 4 goes on training it together with the UNet, at a lower rate.
"""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from clip_tokens import CONTEXT, END, START, Clip, Compact
from compose import ATTRS, World, describe, plan, told
from models import HIDDEN, make_text
from stage import Budget, arguments, autocast, log, rate, resume, save

SAID = ("object", "hue", "object2", "terrain", "bg", "texture", "time", "style", "look")  # their absence from a full caption is a label too


def example(rng, library):
    """A caption with the attributes that it names."""
    _, _, b, keys = plan(rng, library)
    short = told(b, keys)
    if short and rng.random() < .4:
        return describe(rng, b, short), {k: b[k] for k in short}
    return describe(rng, b), {**{k: None for k in SAID}, **b}


def labels_of(data):
    """Class of every attribute in every caption, -100 where the caption leaves it open."""
    return {k: torch.tensor([values.index(d[k]) if k in d and d[k] in values else -100 for _, d in data]) for k, values in ATTRS.items()}


def main():
    a = arguments(__doc__, batch=(int, 48, ""), lr=(float, 1.5e-3, "peak"), captions=(int, 40_000, "generated in advance"))
    torch.manual_seed(0)
    rng = np.random.default_rng(5)
    library, clip = World(a.run, a.packages, a.photos).library, Clip(a.bpe)
    data = [example(rng, library) for _ in range(a.captions)]
    path = a.run / "text.pt"
    before = torch.load(path) if path.exists() else None
    compact = Compact(clip, before["used"] if before else [i for c, _ in data for i in clip(c)])
    encoder = make_text(compact.size)
    heads = nn.ModuleDict({k: nn.Linear(HIDDEN, len(v)) for k, v in ATTRS.items()})
    labels, ids = labels_of(data), compact([c for c, _ in data])
    test = torch.arange(len(data)) >= len(data) - 1000
    ends = (ids == compact.rows[END]).int().argmax(1)
    trained = [*encoder.parameters(), *heads.parameters()]
    opt = torch.optim.AdamW(trained, a.lr, weight_decay=1e-3)
    budget, step, since = Budget(a.minutes), 0, 0
    if before:
        encoder.load_state_dict(before["model"])
        heads.load_state_dict(before["heads"])
        since = resume(opt, before)
        step = before["step"]
    log(a.run, "text_start", rows=compact.size, captions=len(data), step=step)

    def states(i, length):
        x = ids[i][:, :length].clone()
        h = encoder(x).last_hidden_state
        return h[torch.arange(len(i)), ends[i]], h[:, -8:].mean(1)

    def checkpoint():
        save(dict(model=encoder.state_dict(), heads=heads.state_dict(), optimizer=opt.state_dict(), step=step, used=compact.used), path)

    train = len(data) - 1000
    while not budget.over() and not (a.steps and step >= a.steps):
        for g in opt.param_groups:
            g["lr"] = rate(a.lr, step, a.steps, 50, since)
        i = torch.from_numpy(rng.integers(0, train, a.batch))
        length = CONTEXT if step % 8 == 0 else int(ends[i].max()) + 10  # the far padding needs less practice
        with autocast(a):
            e, p = (h.float() for h in states(i, min(CONTEXT, length)))
        loss = 0
        for k, head in heads.items():
            y = labels[k][i]
            if (y >= 0).any():
                loss = loss + F.cross_entropy(head(e), y, ignore_index=-100) + .5 * F.cross_entropy(head(p), y, ignore_index=-100)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.)
        opt.step()
        step += 1
        if step % 100 == 0:
            log(a.run, "text", step=step, loss=loss.item() / len(heads), minutes=budget.spent / 60)
        if budget.save_due():
            checkpoint()
    checkpoint()
    with torch.no_grad():
        i = torch.arange(len(data))[test]
        e, _ = states(i, CONTEXT)
        right = {}
        for k in SAID:
            named = labels[k][i] > 0
            right[k] = round(float((heads[k](e).argmax(1) == labels[k][i])[named].float().mean()), 3)
    log(a.run, "text_done", step=step, right=right)


if __name__ == "__main__":
    main()

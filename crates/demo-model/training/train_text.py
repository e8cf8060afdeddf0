"""Stage 2: the text encoder, which learns to predict from a caption the attributes that the generator drew.

Linear heads read the end token's state and the mean state of the padding, both of which the UNet's cross-attention
sees; the UNet then trains against the frozen encoder, as in Stable Diffusion.
"""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import photos
import scenes
from clip_tokens import CONTEXT, END, START, Clip, Compact
from stage import Budget, arguments, log, save
from models import HIDDEN, make_text


def example(rng):
    """A caption with the attributes that it names; None where it does not name them."""
    u = rng.random()
    if u < .3:
        b, keys = photos.edited_attrs(rng)
        return scenes.describe(rng, b, keys if rng.random() < .5 else None), {k: b[k] for k in keys}
    a = scenes.sample_attrs(rng)
    if u < .65:
        return scenes.describe(rng, a), a
    b, keys = scenes.change(rng, a)
    keys = [k for k in keys if b[k] not in (None, "", 0)]
    return (scenes.describe(rng, b, keys), {k: b[k] for k in keys}) if keys else (scenes.describe(rng, b), b)


def main():
    a = arguments(__doc__, bpe=(str, None, "CLIP's bpe_simple_vocab_16e6.txt.gz"), batch=(int, 48, ""))
    torch.manual_seed(0)
    rng = np.random.default_rng(5)
    clip = Clip(a.bpe)
    data = [example(rng) for _ in range(9000)]
    compact = Compact(clip, [i for c, _ in data for i in clip(c)])
    encoder = make_text(compact.size)
    heads = nn.ModuleDict({k: nn.Linear(HIDDEN, len(v)) for k, v in scenes.ATTRS.items()})
    # An attribute that a partial caption leaves open is no label (-100): the head may guess it.
    labels = {k: torch.tensor([v.index(d[k]) if k in d and d[k] in v else (-100 if k in ("kind", "snow", "size", "place", "pattern", "style") else 0)
                               for _, d in data]) for k, v in scenes.ATTRS.items()}
    ids = compact([c for c, _ in data])
    ends = (ids == compact.rows[END]).int().argmax(1)
    opt = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], 2e-3, weight_decay=1e-3)
    budget, step, hits = Budget(a.minutes), 0, []
    log(a.run, "text_start", rows=compact.size, captions=len(data))
    while not budget.over():
        for g in opt.param_groups:
            g["lr"] = 2e-3 * min(1, (step + 1) / 30) * (1 - .95 * budget.fraction())
        i = torch.from_numpy(rng.integers(0, len(data), a.batch))
        length = CONTEXT if step % 4 == 0 else 40  # the far padding needs less practice
        x = ids[i][:, :length].clone()
        x[(torch.rand(x.shape) < .03) & (x != compact.rows[END]) & (x != compact.rows[START])] = 0  # unknown words
        h = encoder(x).last_hidden_state
        e, p = h[torch.arange(len(i)), ends[i]], h[:, -8:].mean(1)
        loss, right, asked = 0, 0, 0
        for k, head in heads.items():
            y = labels[k][i]
            if (y >= 0).any():
                out = head(e)
                loss = loss + F.cross_entropy(out, y, ignore_index=-100) + .5 * F.cross_entropy(head(p), y, ignore_index=-100)
                told = (y > 0)
                right += ((out.argmax(1) == y) & told).sum().item()
                asked += told.sum().item()
        hits.append(right / max(asked, 1))
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.)
        opt.step()
        step += 1
        if step % 50 == 0:
            log(a.run, "text", step=step, loss=loss.item() / len(heads), named_right=float(np.mean(hits[-50:])), minutes=budget.spent / 60)
    save(dict(model=encoder.state_dict(), used=compact.used), a.run / "text.pt")
    log(a.run, "text_done", step=step)


if __name__ == "__main__":
    main()

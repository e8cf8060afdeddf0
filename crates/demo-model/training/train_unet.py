"""Stage 4: the UNet on the text encoder's states, epsilon prediction on SD 1.5's schedule with min-SNR weights; it is resumable.

Three fifths of the samples are plain diffusion of a picture with its caption.
The others are pairs: the noisy latent is made from a picture, the caption and the target belong to the same layout
with other attributes (the same meadow at night, with a cat instead of the dog).
The target moves from the first to the second picture as the noise grows (`obedience`), so that in image-to-image the
prompt wins over the input's colours and things at a strength where the layout is still known.
"""
import numpy as np
import torch

from clip_tokens import Clip, Compact
from models import make_text, make_unet
from muon import Muon
from stage import ALPHAS, Average, Budget, arguments, autocast, log, rate, resume, save, signal_noise


def obedience(t):
    """How far the target has moved to the caption's picture at step `t`: 0 up to t=60, 1 from t=360."""
    u = ((t.float() - 60) / 300).clamp(0, 1)
    return (u * u * (3 - 2 * u)).view(-1, 1, 1, 1)


def times(n):
    """Three fifths uniform steps, the others around the middle, where layout and things are decided."""
    middle = (torch.randn(n) * 200 + 550).long().clamp(0, 999)
    return torch.where(torch.rand(n) < .6, torch.randint(0, 1000, (n,)), middle)


SNR = ALPHAS / (1 - ALPHAS)
# min-SNR with gamma 5 for epsilon, raised by up to 10 where noise dominates: there the clean picture that a sampler
# reads out of the prediction has its errors multiplied by sigma / alpha, and there it is decided which object it shows.
WEIGHTS = SNR.clamp(max=5) / SNR * SNR.clamp(max=1).rsqrt().clamp(max=10)


class Data:
    """The latents of one size with the tokens of their captions; looks for new files when asked."""

    def __init__(self, run, size, tokens):
        self.folder, self.size, self.tokens, self.seen = run / "latents", size, tokens, set()
        self.parts = []
        self.refresh()

    def refresh(self):
        fresh = [p for p in sorted(self.folder.glob(f"{self.size}-*.pt")) if p.name not in self.seen]
        for path in fresh:
            d = torch.load(path)
            ids = torch.stack([self.tokens([c[k] for c in d["captions"]]).short() for k in range(3)], 1)
            self.parts.append((d["first"], d["second"], ids))
            self.seen.add(path.name)
        if fresh:
            self.a, self.b, self.ids = (torch.cat(p) for p in zip(*self.parts))
            self.parts = [(self.a, self.b, self.ids)]

    def batch(self, n):
        i = torch.randint(0, len(self.a), (n,))
        return self.a[i].float(), self.b[i].float(), self.ids[i, torch.randint(0, 3, (n,))].long()


def load_text(run):
    """The text encoder of stage 2 and its compact tokens."""
    text = torch.load(run / "text.pt")
    compact = Compact(Clip(run / "bpe_simple_vocab_16e6.txt.gz"), text["used"])
    encoder = make_text(compact.size)
    encoder.load_state_dict(text["model"])
    return encoder, compact


def main():
    a = arguments(__doc__, size=(int, 128, "pixels"), batch=(int, 64, "samples in a step"), lr=(float, 2e-3, "peak, of Muon"),
                  adam=(float, .4, "AdamW's share of the rate: vectors and the first and last layers"),
                  schedule=(int, 0, "steps that the learning rate falls over, where more follow at another size; 0: the stage's"),
                  text_lr=(float, 0., "the text encoder's share; 0 leaves it as it is"),
                  decay=(float, .999, "of the average"), empty=(float, .1, "share of empty captions"),
                  pairs=(float, .4, "share of pair samples"), offset=(float, .05, "offset noise"))
    torch.manual_seed(int.from_bytes(np.random.bytes(4)))
    encoder, compact = load_text(a.run)
    unet = make_unet()
    both = torch.nn.ModuleDict(dict(unet=unet, text=encoder))
    inner = [p for n, p in unet.named_parameters() if p.ndim > 1 and not n.startswith(("conv_in", "conv_out", "time_embedding"))]
    outer = [p for p in unet.parameters() if all(p is not q for q in inner)]
    groups = [dict(params=outer, share=a.adam), dict(params=list(encoder.parameters()), share=a.text_lr)]
    optimizers = [Muon([dict(params=inner, share=1.)], a.lr), torch.optim.AdamW(groups, a.lr, (.9, .99), weight_decay=1e-2, fused=True)]
    groups = [g for o in optimizers for g in o.param_groups]
    trained = [*unet.parameters(), *encoder.parameters()]
    average, step, samples, since = Average(both, a.decay), 0, {}, 0
    path = a.run / "unet.pt"
    if path.exists():
        s = torch.load(path)
        both.load_state_dict(s["model"])
        since = resume(optimizers, s)
        average.state, average.count, step, samples = s["average"], s["count"], s["step"], s["samples"]
    data, null = Data(a.run, a.size, compact), compact([""])[0]
    budget, first, losses, bins = Budget(a.minutes), step, [], {}
    log(a.run, "unet_start", size=a.size, pairs=len(data.a), step=step, parameters=sum(p.numel() for p in unet.parameters()))

    def checkpoint():
        save(dict(model=both.state_dict(), optimizer=[o.state_dict() for o in optimizers], average=average.state, count=average.count,
                  step=step, samples=samples), path)

    while not budget.over() and not (a.steps and step >= a.steps):
        if step % 100 == 99:
            data.refresh()
        source, target, ids = data.batch(a.batch)
        empty = torch.rand(a.batch) < a.empty
        ids[empty] = null
        plain = (torch.rand(a.batch) >= a.pairs) | empty
        source[plain] = target[plain]
        t = times(a.batch)
        gain, sigma = signal_noise(t)
        noise = torch.randn_like(source) + a.offset * torch.randn(a.batch, 4, 1, 1)
        x = gain * source + sigma * noise
        goal = (x - gain * (source + obedience(t) * (target - source))) / sigma
        with autocast(a):
            with torch.set_grad_enabled(a.text_lr > 0):
                states = encoder(ids).last_hidden_state
            out = unet(x, t, states).sample.float()
        each = ((out - goal) ** 2).mean((1, 2, 3))
        loss = (each * WEIGHTS[t]).mean()
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        for g in groups:
            g["lr"] = g["share"] * rate(a.lr, step, a.schedule or a.steps, 100, since)
        torch.nn.utils.clip_grad_norm_(trained, 1.)
        for o in optimizers:
            o.step()
        step += 1
        samples[a.size] = samples.get(a.size, 0) + a.batch
        average.update(both)
        losses.append(loss.item())
        for k, v in zip(t.tolist(), each.tolist()):
            bins.setdefault(k // 200, []).append(v)
        if step % 50 == 0:
            log(a.run, "unet", step=step, loss=float(np.mean(losses)), by_t=[round(float(np.mean(bins[k])), 3) for k in sorted(bins)],
                pairs=len(data.a), per_second=(step - first) * a.batch / budget.spent, minutes=budget.spent / 60)
            losses, bins = [], {}
        if budget.save_due():
            checkpoint()
    checkpoint()
    log(a.run, "unet_done", step=step, samples=samples)


if __name__ == "__main__":
    main()

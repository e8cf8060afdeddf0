"""Stage 4: the UNet, epsilon prediction on SD 1.5's schedule with min-SNR weights; it is resumable.

Half of the samples are plain diffusion of a picture with its caption.
The other half are pairs: the noisy latent is made from a picture, the caption and the target belong to the same
picture with other attributes (the same hills at night).
The target moves from the first to the second picture as the noise grows (`obedience`), so that in image-to-image the
prompt wins over the input's colours without classifier-free guidance, and more so the higher the strength.
"""
import math

import numpy as np
import torch

from common import ALPHAS, Average, Budget, Clip, Compact, arguments, log, save, signal_noise
from models import make_text, make_unet


def obedience(t):
    """How far the target has moved to the caption's picture at step `t`: 0 up to t=100, 1 from t=520."""
    u = ((t.float() - 100) / 420).clamp(0, 1)
    return (u * u * (3 - 2 * u)).view(-1, 1, 1, 1)


class Data:
    """The latents of one size, with the text states of their captions; looks for new files when asked."""

    def __init__(self, run, size, encode):
        self.folder, self.size, self.encode, self.seen = run / "latents", size, encode, set()
        self.first, self.second, self.states, self.which = [], [], [], []
        self.refresh()

    def refresh(self):
        for path in sorted(self.folder.glob(f"{self.size}-*.pt")):
            if path.name in self.seen:
                continue
            d = torch.load(path)
            unique = sorted(set(d["captions"]))
            place = {c: k + sum(len(s) for s in self.states) for k, c in enumerate(unique)}
            self.states.append(self.encode(unique))
            self.which += [place[c] for c in d["captions"]]
            self.first.append(d["first"])
            self.second.append(d["second"])
            self.seen.add(path.name)
        if self.first:
            self.a, self.b, self.s = torch.cat(self.first), torch.cat(self.second), torch.cat(self.states)

    def batch(self, n):
        i = torch.from_numpy(np.random.randint(0, len(self.which), n))
        return self.a[i].float(), self.b[i].float(), self.s[[self.which[k] for k in i]].float()


def main():
    a = arguments(__doc__, bpe=(str, None, "CLIP's bpe_simple_vocab_16e6.txt.gz"), size=(int, 128, "pixels"),
                  batch=(int, 16, ""), lr=(float, 1e-3, "peak"), final=(float, .1, "last learning rate / peak"),
                  decay=(float, .999, "of the average"), empty=(float, .06, "share of empty captions"),
                  pairs=(float, .5, "share of pair samples"), offset=(float, .07, "offset noise"))
    torch.manual_seed(int.from_bytes(np.random.bytes(4)))
    text = torch.load(a.run / "text.pt")
    compact = Compact(Clip(a.bpe), text["used"])
    encoder = make_text(compact.size).eval()
    encoder.load_state_dict(text["model"])

    @torch.no_grad()
    def encode(captions):
        return torch.cat([encoder(compact(captions[k:k + 64])).last_hidden_state.half() for k in range(0, len(captions), 64)])

    null = encode([""])[0].float()
    data = Data(a.run, a.size, encode)
    unet = make_unet().to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(unet.parameters(), a.lr, (.9, .99), weight_decay=1e-2)
    average, step, samples = Average(unet, a.decay), 0, {}
    path = a.run / "unet.pt"
    if path.exists():
        s = torch.load(path)
        unet.load_state_dict(s["model"])
        opt.load_state_dict(s["optimizer"])
        average.state, average.count, step, samples = s["average"], s["count"], s["step"], s["samples"]
    snr = ALPHAS / (1 - ALPHAS)
    weights = 2 * snr.clamp(max=5) / snr
    budget, first, losses, bins = Budget(a.minutes), step, [], {}
    log(a.run, "unet_start", size=a.size, pairs=len(data.which), captions=len(data.s), step=step)

    def checkpoint():
        save(dict(model=unet.state_dict(), optimizer=opt.state_dict(), average=average.state, count=average.count,
                  step=step, samples=samples), path)

    while not budget.over():
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step - first + 1) / 100) * (a.final + (1 - a.final) * .5 * (1 + math.cos(math.pi * budget.fraction())))
        if step % 200 == 199:
            data.refresh()
        source, target, states = data.batch(a.batch)
        empty = torch.rand(a.batch) < a.empty
        states[empty] = null
        plain = (torch.rand(a.batch) >= a.pairs) | empty
        source[plain] = target[plain]
        t = torch.randint(0, 1000, (a.batch,))
        gain, sigma = signal_noise(t)
        noise = torch.randn_like(source) + a.offset * torch.randn(a.batch, 4, 1, 1)
        x = gain * source + sigma * noise
        goal = (x - gain * (source + obedience(t) * (target - source))) / sigma
        out = unet(x.contiguous(memory_format=torch.channels_last), t, states).sample
        each = ((out - goal) ** 2).mean((1, 2, 3))
        loss = (each * weights[t]).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.)
        opt.step()
        average.update(unet)
        step += 1
        samples[a.size] = samples.get(a.size, 0) + a.batch
        losses.append(loss.item())
        for k, v in zip(t.tolist(), each.tolist()):
            bins.setdefault(k // 200, []).append(v)
        if step % 100 == 0:
            log(a.run, "unet", step=step, loss=float(np.mean(losses)), by_t=[round(float(np.mean(bins[k])), 3) for k in sorted(bins)],
                per_second=(step - first) * a.batch / budget.spent, minutes=budget.spent / 60)
            losses, bins = [], {}
        if budget.save_due():
            checkpoint()
    checkpoint()
    log(a.run, "unet_done", step=step, samples=samples)


if __name__ == "__main__":
    main()

"""Stage 4: the UNet, epsilon prediction on SD 1.5's schedule with min-SNR weights, raised at high noise; it is resumable.

Half of the samples are plain diffusion of a picture with its caption.
The other half are pairs: the noisy latent is made from a picture, the caption and the target belong to the same
picture with other attributes (the same hills at night).
The target moves from the first to the second picture as the noise grows (`obedience`), so that in image-to-image the
prompt wins over the input's colours without classifier-free guidance, and more so the higher the strength.

In a share of the samples (`--rollout`) the noisy input is made, as a few-step sampler does, from the model's own
prediction at a noisier step, so that it learns to keep faint structure instead of fading it a little more every step.

With `--world 2`, start it twice with `--rank 0` and `--rank 1`: both train on their own batches and average gradients.
"""
import math

import numpy as np
import torch
import torch.distributed as dist

from clip_tokens import Clip, Compact
from stage import ALPHAS, Average, Budget, arguments, log, save, signal_noise
from models import make_text, make_unet


def obedience(t):
    """How far the target has moved to the caption's picture at step `t`: 0 up to t=60, 1 from t=360."""
    u = ((t.float() - 60) / 300).clamp(0, 1)
    return (u * u * (3 - 2 * u)).view(-1, 1, 1, 1)


def steps(n):
    """Half uniform steps, half near those that LCM visits in four steps."""
    near = torch.tensor([259, 259, 499, 499, 759, 759, 970])[torch.randint(0, 7, (n,))] + torch.randint(-60, 61, (n,))
    return torch.where(torch.rand(n) < .5, near.clamp(max=999), torch.randint(0, 1000, (n,)))


class Data:
    """The latents of one size, with the text states of their captions; looks for new files when asked."""

    def __init__(self, run, size, encode):
        self.folder, self.size, self.encode, self.seen = run / "latents", size, encode, set()
        self.first, self.second, self.states, self.which, self.weights = [], [], [], [], []
        self.refresh()

    def refresh(self):
        for path in sorted(self.folder.glob(f"{self.size}-*.pt")):
            if path.name in self.seen:
                continue
            d = torch.load(path)
            unique = sorted(set(d["captions"]))
            place = {c: k + sum(len(s) for s in self.states) for k, c in enumerate(unique)}
            cache = self.folder / f"states-{path.name}"
            if not cache.exists():
                save(self.encode(unique), cache)
            self.states.append(torch.load(cache))
            self.which += [place[c] for c in d["captions"]]
            self.weights += [.5 if " background" in c else 1. for c in d["captions"]]  # scenes and photographs matter most
            self.first.append(d["first"])
            self.second.append(d["second"])
            self.seen.add(path.name)
        if self.first:
            self.chance = torch.tensor(self.weights)
            self.a, self.b, self.s = torch.cat(self.first), torch.cat(self.second), torch.cat(self.states)

    def batch(self, n):
        i = torch.multinomial(self.chance, n)
        return self.a[i].float(), self.b[i].float(), self.s[[self.which[k] for k in i]].float()


def predict(unet, clean, noise, t, states):
    """The clean latents that the model sees in noisy ones."""
    gain, sigma = signal_noise(t)
    x = gain * clean + sigma * noise
    out = unet(x.contiguous(memory_format=torch.channels_last), t, states).sample
    return ((x - sigma * out) / gain).clamp(-4, 4)


def shared(gradients, fraction, over, world, rank):
    """Averages the gradients over the processes in place; returns the first one's budget and whether any is at its end."""
    if world == 1:
        return fraction, over
    flat = torch.cat([g.reshape(-1) for g in gradients] + [torch.tensor([fraction * (rank == 0), float(over)])])
    dist.all_reduce(flat)
    at = 0
    for g in gradients:
        g.copy_(flat[at:at + g.numel()].view_as(g) / world)
        at += g.numel()
    return float(flat[-2]), bool(flat[-1] > 0)


def main():
    a = arguments(__doc__, bpe=(str, None, "CLIP's bpe_simple_vocab_16e6.txt.gz"), size=(int, 128, "pixels"),
                  batch=(int, 16, ""), lr=(float, 1e-3, "peak"), final=(float, .1, "last learning rate / peak"),
                  decay=(float, .999, "of the average"), empty=(float, .06, "share of empty captions"),
                  rank=(int, 0, "of this process"), world=(int, 1, "processes"),
                  rollout=(float, .33, "share of samples made from the model's own prediction"),
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
    # Few-step sampling lives on the clean picture predicted from much noise, where plain epsilon weights care little.
    weights = 2 * snr.clamp(max=5) / snr * snr.clamp(max=1).rsqrt().clamp(max=4)
    if a.world > 1:
        dist.init_process_group("gloo", init_method=f"file://{(a.run / 'rendezvous').resolve()}", rank=a.rank, world_size=a.world)
    budget, first, losses, bins = Budget(a.minutes), step, [], {}
    spent, over = 0., False
    log(a.run, "unet_start", size=a.size, pairs=len(data.which), captions=len(data.s), step=step)

    def checkpoint():
        save(dict(model=unet.state_dict(), optimizer=opt.state_dict(), average=average.state, count=average.count,
                  step=step, samples=samples), path)

    while not over:
        if step % 200 == 199:
            data.refresh()
        source, target, states = data.batch(a.batch)
        empty = torch.rand(a.batch) < a.empty
        states[empty] = null
        plain = (torch.rand(a.batch) >= a.pairs) | empty
        source[plain] = target[plain]
        t = steps(a.batch)
        gain, sigma = signal_noise(t)
        noise = torch.randn_like(source) + a.offset * torch.randn(a.batch, 4, 1, 1)
        clean = source + obedience(t) * (target - source)
        own = int(a.batch * a.rollout)
        if own:
            first_t = (t[:own] + torch.rand(own) * 400 + 100).long().clamp(250, 850)
            t[:own] = torch.minimum(t[:own], first_t - 80).clamp(min=150)
            gain, sigma = signal_noise(t)
            with torch.no_grad():
                clean[:own] = source[:own] + obedience(first_t) * (target[:own] - source[:own])
                source[:own] = predict(unet, source[:own], noise[:own], first_t, states[:own])
                noise[:own] = torch.randn_like(noise[:own])
        x = gain * source + sigma * noise
        goal = (x - gain * clean) / sigma
        out = unet(x.contiguous(memory_format=torch.channels_last), t, states).sample
        each = ((out - goal) ** 2).mean((1, 2, 3))
        loss = (each * weights[t]).mean()
        opt.zero_grad()
        loss.backward()
        # Rank 0's clock is averaged along with the gradients, so that all processes agree on the rate and on the end.
        spent, over = shared([p.grad for p in unet.parameters()], budget.fraction(), budget.over(), a.world, a.rank)
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step - first + 1) / 100) * (a.final + (1 - a.final) * .5 * (1 + math.cos(math.pi * spent)))
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.)
        opt.step()
        step += 1
        samples[a.size] = samples.get(a.size, 0) + a.batch * a.world
        if a.rank > 0:
            continue
        average.update(unet)
        losses.append(loss.item())
        for k, v in zip(t.tolist(), each.tolist()):
            bins.setdefault(k // 200, []).append(v)
        if step % 100 == 0:
            log(a.run, "unet", step=step, loss=float(np.mean(losses)), by_t=[round(float(np.mean(bins[k])), 3) for k in sorted(bins)],
                per_second=(step - first) * a.batch * a.world / budget.spent, minutes=budget.spent / 60)
            losses, bins = [], {}
        if budget.save_due():
            checkpoint()
    if a.rank == 0:
        checkpoint()
    log(a.run, "unet_done", step=step, samples=samples)


if __name__ == "__main__":
    main()

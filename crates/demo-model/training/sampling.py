"""Sampling outside diffusers' pipelines, batched, for evaluation and distillation; the schedule is SD 1.5's."""
import torch

from models import make_text, make_unet, make_vae
from stage import ALPHAS, SCALING, to_pictures, to_tensor


class Model:
    """The networks of a run folder, as far as they exist, with the averaged weights."""

    def __init__(self, run, compact, raw=False):
        self.compact = compact
        self.vae, self.unet, self.text = make_vae().eval(), make_unet().eval(), make_text(compact.size).eval()
        better = run / "vae_decoder.pt"
        self.vae.load_state_dict(torch.load(better)["average"] if better.exists() else torch.load(run / "vae_white.pt"))
        s = torch.load(run / "unet.pt")
        state = s["model" if raw else "average"]
        self.step = s["step"]
        for name, module in (("unet", self.unet), ("text", self.text)):
            module.load_state_dict({k.removeprefix(name + "."): v for k, v in state.items() if k.startswith(name + ".")})
            module.requires_grad_(False)
        self.vae.requires_grad_(False)

    def states(self, captions):
        return self.text(self.compact(captions)).last_hidden_state

    def encode(self, pictures):
        return torch.cat([self.vae.encode(x).latent_dist.mode() for x in to_tensor(pictures).split(16)]) * SCALING

    def decode(self, z):
        return to_pictures(torch.cat([self.vae.decode(x / SCALING).sample for x in z.split(16)]))

    def epsilon(self, x, t, states, negative, guidance):
        """The noise prediction with classifier-free guidance."""
        t = torch.full((len(x),), int(t))
        if guidance == 1:
            return self.unet(x, t, states).sample
        both = self.unet(torch.cat([x, x]), torch.cat([t, t]), torch.cat([negative, states])).sample
        plain, told = both.chunk(2)
        return plain + guidance * (told - plain)

    @torch.no_grad()
    def ddim(self, captions, shape=(16, 16), steps=20, guidance=2.5, source=None, strength=1., seed=0, negative="", mask=None):
        """Latents by DDIM (leading spacing, offset 1, as SD 1.5 samples); from `source` latents at `strength`, where `mask` is 1."""
        n = len(captions)
        noise = torch.randn(n, 4, *shape, generator=torch.Generator().manual_seed(seed))
        states, null = self.states(captions), self.states([negative] * n)
        ts = (torch.arange(steps) * (1000 // steps) + 1).flip(0)
        if source is not None:
            ts = ts[steps - max(1, min(steps, int(steps * strength))):]
        x = noise if source is None else ALPHAS[ts[0]].sqrt() * source + (1 - ALPHAS[ts[0]]).sqrt() * noise
        for k, t in enumerate(ts):
            a = ALPHAS[t]
            b = ALPHAS[ts[k + 1]] if k + 1 < len(ts) else ALPHAS[0]
            e = self.epsilon(x, t, states, null, guidance)
            clean = (x - (1 - a).sqrt() * e) / a.sqrt()
            x = b.sqrt() * clean + (1 - b).sqrt() * e
            if mask is not None:
                x = mask * x + (1 - mask) * (b.sqrt() * source + (1 - b).sqrt() * noise)
        return clean if mask is None else mask * clean + (1 - mask) * source

"""Stage 1b: folds a whitening of the latents into quant_conv and post_quant_conv.

The auto-encoder stays the same function, but latents times 0.18215 have mean 0, variance 1 and no correlation, which is
what the noise schedule assumes.
"""
import numpy as np
import torch

from compose import World
from models import make_vae
from stage import SCALING, arguments, log, save, to_tensor


def main():
    a = arguments(__doc__)
    vae = make_vae().eval()
    vae.load_state_dict(torch.load(a.run / "vae.pt")["average"])
    rng, world = np.random.default_rng(11), World(a.run, a.packages, a.photos, without=("coffee",))
    with torch.no_grad():
        x = to_tensor([world.picture(rng, 128) for _ in range(160)])
        z = torch.cat([vae.encode(b).latent_dist.mean for b in x.split(16)])
        before = vae.decode(z[:8]).sample
        flat = z.permute(1, 0, 2, 3).reshape(4, -1)
        mean, cov = flat.mean(1), torch.cov(flat)
        values, vectors = torch.linalg.eigh(cov)
        forth = (vectors / values.sqrt()) @ vectors.T / SCALING
        back = torch.linalg.inv(forth)
        q, p = vae.quant_conv, vae.post_quant_conv
        w, b = q.weight[:4, :, 0, 0].clone(), q.bias[:4].clone()
        q.weight[:4, :, 0, 0] = forth @ w
        q.bias[:4] = forth @ (b - mean)
        q.bias[4:] += 2 * torch.log(torch.linalg.norm(forth, dim=1))  # the posterior's spread grows with the latents
        w = p.weight[:, :, 0, 0].clone()
        p.bias += w @ mean
        p.weight[:, :, 0, 0] = w @ back
        z = vae.encode(x[:8]).latent_dist.mean
        after = vae.decode(z).sample
    save(vae.state_dict(), a.run / "vae_white.pt")
    log(a.run, "whiten", eigenvalues=[round(float(v), 4) for v in values], std=float((z * SCALING).std()),
        difference=float((before - after).abs().max()))


if __name__ == "__main__":
    main()

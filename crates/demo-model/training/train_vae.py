"""Stage 1: the KL auto-encoder, from its linear initialisation, on random crops; it is resumable.

With `--decoder-only 1` the encoder (and with it every latent) stays as it is and only the decoder improves, which may
run while the UNet already trains on the latents.
"""
import numpy as np
import torch
import torch.nn.functional as F

import photos
import scenes
from stage import Average, Budget, arguments, log, save, sheet, to_pictures, to_tensor
from models import make_vae
from vae_init import linear_init


def loss_of(x, y):
    """L1 and L2 on pixels and L1 on edges at three scales, instead of a perceptual network."""
    loss = F.l1_loss(y, x) + .5 * F.mse_loss(y, x)
    for k in (1, 2, 4):
        a, b = (x, y) if k == 1 else (F.avg_pool2d(x, k), F.avg_pool2d(y, k))
        loss = loss + .3 * (F.l1_loss(b[..., 1:] - b[..., :-1], a[..., 1:] - a[..., :-1])
                            + F.l1_loss(b[..., 1:, :] - b[..., :-1, :], a[..., 1:, :] - a[..., :-1, :]))
    return loss


def picture(rng, photographs, size=128):
    """80 % scenes, 20 % photo-like."""
    return photos.sample(rng, photographs, size) if rng.random() < .2 else scenes.sample(rng, size)[0]


def psnr(vae, pictures):
    """Mean PSNR in dB of the round trip, and the decoded pictures."""
    with torch.no_grad():
        x = to_tensor(pictures)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / ((x - y) ** 2).mean((1, 2, 3))).mean()), to_pictures(y)


def main():
    a = arguments(__doc__, photos=(str, None, "folder of photographs"), lr=(float, 4e-4, "peak learning rate"),
                  pool=(int, 1200, "pictures held in memory"), decoder_only=(int, 0, "1 freezes the encoder"))
    vae = linear_init(make_vae()).to(memory_format=torch.channels_last)
    trained = list(vae.parameters())
    if a.decoder_only:
        trained = [*vae.decoder.parameters()]
    opt = torch.optim.AdamW(trained, a.lr, (.9, .99), weight_decay=0)
    average, step, crops = Average(vae, .995), 0, 0
    path = a.run / ("vae_decoder.pt" if a.decoder_only else "vae.pt")
    if path.exists():
        s = torch.load(path)
        vae.load_state_dict(s["model"])
        opt.load_state_dict(s["optimizer"])
        average.state, average.count, step, crops = s["average"], s["count"], s["step"], s["crops"]
    elif a.decoder_only:
        vae.load_state_dict(torch.load(a.run / "vae_white.pt"))
        average = Average(vae, .995)
    rng = np.random.default_rng([7, step])
    photographs = photos.load(a.photos)
    pool = [picture(rng, photographs) for _ in range(a.pool)]
    budget, sums = Budget(a.minutes), []
    first = step
    log(a.run, "vae_start", pool=len(pool), photographs=len(photographs), step=step)

    def checkpoint():
        save(dict(model=vae.state_dict(), optimizer=opt.state_dict(), average=average.state, count=average.count,
                  step=step, crops=crops), path)

    while not budget.over():
        f = budget.fraction()
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step - first + 1) / 50) * (1 - .95 * f ** 2)
        side, count = (128, 1) if f > .8 else (64, 4)
        batch = []
        for _ in range(count):
            p = pool[rng.integers(len(pool))]
            y, x = rng.integers(0, p.shape[0] - side + 1, 2)
            c = p[y:y + side, x:x + side]
            batch.append(c[:, ::-1] if rng.random() < .5 else c)
        if step % 2 == 0:  # the pool is refreshed slowly
            pool[rng.integers(len(pool))] = picture(rng, photographs)
        x = to_tensor(batch)
        if a.decoder_only:
            with torch.no_grad():
                post = vae.encode(x).latent_dist
        else:
            post = vae.encode(x).latent_dist
        y = vae.decode(post.mean + post.std * torch.randn_like(post.mean)).sample
        kl = .5 * (post.mean ** 2).mean()  # only keeps the scale near 1: the variance is fixed
        loss = loss_of(x, y) + (0 if a.decoder_only else 2e-3 * kl)
        opt.zero_grad()
        loss.backward()
        if not a.decoder_only:
            vae.quant_conv.weight.grad[4:] = 0
            vae.quant_conv.bias.grad[4:] = 0
        torch.nn.utils.clip_grad_norm_(trained, 1.)
        opt.step()
        average.update(vae)
        step, crops = step + 1, crops + count
        sums.append((F.l1_loss(y, x).item(), kl.item()))
        if step % 100 == 0:
            l1, k = np.mean(sums, 0)
            log(a.run, "vae", step=step, crops=crops, l1=float(l1), kl=float(k), minutes=budget.spent / 60)
            sums = []
        if budget.save_due():
            checkpoint()
    checkpoint()
    vae.load_state_dict(average.state)
    vae.eval()
    r = np.random.default_rng(99)
    drawn = [scenes.sample(r, 128)[0] for _ in range(10)]
    real = [photos.crop(r, photographs[k % len(photographs)], 128) for k in range(10)] if photographs else drawn
    (d1, p1), (d2, p2) = psnr(vae, drawn), psnr(vae, real)
    log(a.run, "vae_done", step=step, crops=crops, psnr_scenes=d1, psnr_photos=d2)
    sheet([drawn, list(p1), real, list(p2)], a.run / f"{path.stem}.png")


if __name__ == "__main__":
    main()

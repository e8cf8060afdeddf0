"""Stage 1: the KL auto-encoder, from its linear initialisation, on random crops; it is resumable.

With `--decoder-only 1` the encoder (and with it every latent) stays as it is and only the decoder improves, which may
run while the UNet already trains on the latents.
"""
import numpy as np
import torch
import torch.nn.functional as F

import photos
from compose import World
from models import make_vae
from stage import Average, Budget, arguments, autocast, log, rate, resume, save, sheet, to_pictures, to_tensor
from vae_init import linear_init

HELD_SEED = 990_001  # of the pictures that quality is measured on; training draws from other streams


def edges(x):
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_of(x, y):
    """L1 and L2 on pixels, L1 on edges at three scales, and how much edge there is nearby, instead of a perceptual network.

    The last term asks for texture of the right strength where its exact place is lost, so that fine detail is not blurred away.
    """
    loss = F.l1_loss(y, x) + .5 * F.mse_loss(y, x)
    for k in (1, 2, 4):
        a, b = (x, y) if k == 1 else (F.avg_pool2d(x, k), F.avg_pool2d(y, k))
        for e, g in zip(edges(a), edges(b)):
            loss = loss + .3 * F.l1_loss(g, e)
            if k == 1:
                loss = loss + .15 * F.l1_loss(F.avg_pool2d(g.abs(), 4), F.avg_pool2d(e.abs(), 4))
    return loss


def psnr(vae, pictures):
    """Mean PSNR in dB of the round trip, and the decoded pictures."""
    with torch.no_grad():
        x = to_tensor(pictures)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / ((x - y) ** 2).mean((1, 2, 3))).mean()), to_pictures(y)


def held_pictures(world, count=16, size=128):
    """Pictures of fixed seeds: compositions without a style or a photographed surface, any compositions, photographs."""
    rng = np.random.default_rng(HELD_SEED)
    clean = []
    while len(clean) < count:
        p, _, a = world.sample(rng, size)
        if not a["style"] and not a["texture"]:
            clean.append(p)
    mixed = [world.sample(rng, size)[0] for _ in range(count)]
    shots = [p for n, p in sorted(world.textures.items()) if n == "coffee"] or world.photographs
    return dict(clean=clean, mixed=mixed, photo=[photos.crop(rng, shots[i % len(shots)], size) for i in range(count)])


def measure(vae, world, path=None):
    """PSNR of each held-out group; saves a sheet of originals over round trips."""
    values, rows = {}, []
    for name, pictures in held_pictures(world).items():
        values[name], back = psnr(vae, pictures)
        rows += [pictures[:10], list(back[:10])]
    if path:
        sheet(rows, path)
    return {k: round(v, 2) for k, v in values.items()}


def main():
    a = arguments(__doc__, lr=(float, 3e-4, "peak learning rate"), pool=(int, 1000, "pictures held in memory"),
                  decoder_only=(int, 0, "1 freezes the encoder"), rank=(int, 0, "another random stream"))
    vae = linear_init(make_vae())
    trained = list(vae.decoder.parameters() if a.decoder_only else vae.parameters())
    opt = torch.optim.AdamW(trained, a.lr, (.9, .99), weight_decay=0)
    average, step, crops, since = Average(vae, .998), 0, 0, 0
    path = a.run / ("vae_decoder.pt" if a.decoder_only else "vae.pt")
    if path.exists():
        s = torch.load(path)
        vae.load_state_dict(s["model"])
        since = resume(opt, s)
        average.state, average.count, step, crops = s["average"], s["count"], s["step"], s["crops"]
    elif a.decoder_only:
        vae.load_state_dict(torch.load(a.run / "vae_white.pt"))
        average = Average(vae, .998)
    world = World(a.run, a.packages, a.photos, without=("coffee",))
    rng = np.random.default_rng([7, step, a.rank])
    pool = [world.picture(rng, 128) for _ in range(a.pool)]
    budget, sums, first = Budget(a.minutes), [], step
    log(a.run, "vae_start", pool=len(pool), step=step, parameters=sum(p.numel() for p in vae.parameters()))

    def checkpoint():
        save(dict(model=vae.state_dict(), optimizer=opt.state_dict(), average=average.state, count=average.count,
                  step=step, crops=crops), path)

    while not budget.over() and not (a.steps and step >= a.steps):
        for g in opt.param_groups:
            g["lr"] = rate(a.lr, step, a.steps, 50, since)
        whole = a.steps and step > .8 * a.steps  # at the end whole pictures, for the attention in the middle
        side, count = (128, 2) if whole else (64, 8)
        batch = []
        for _ in range(count):
            p = pool[rng.integers(len(pool))]
            y, x = rng.integers(0, p.shape[0] - side + 1, 2)
            c = p[y:y + side, x:x + side]
            batch.append(c[:, ::-1] if rng.random() < .5 else c)
        pool[rng.integers(len(pool))] = world.picture(rng, 128)
        x = to_tensor(batch)
        with autocast(a):
            with torch.set_grad_enabled(not a.decoder_only):
                post = vae.encode(x).latent_dist
            mean = post.mean.float()
            z = mean + post.std.float() * torch.randn_like(mean)
            y = vae.decode(z).sample.float()
        kl = .5 * (mean ** 2).mean()  # only keeps the scale near 1: the variance is fixed
        loss = loss_of(x, y) + (0 if a.decoder_only else 1e-3 * kl)
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
        if step % 50 == 0:
            l1, k = np.mean(sums, 0)
            log(a.run, "vae", step=step, crops=crops, l1=float(l1), kl=float(k), per_second=(step - first) / budget.spent,
                minutes=budget.spent / 60)
            sums = []
        if budget.save_due():
            checkpoint()
    checkpoint()
    vae.load_state_dict(average.state)
    log(a.run, "vae_done", step=step, **measure(vae.eval(), world, a.run / "vae.png"))


if __name__ == "__main__":
    main()

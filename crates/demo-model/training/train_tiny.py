"""Stage 5c: a tiny auto-encoder in TAESD's layout (diffusers' AutoencoderTiny) for the same latents.

Its decoder is a fraction of the full one's work, for previews and for slow machines; its encoder follows the full one's latents.
"""
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from compose import World
from models import make_vae
from stage import SCALING, Budget, arguments, autocast, log, rate, resume, save, sheet, to_pictures, to_tensor
from train_vae import held_pictures, loss_of

WIDTH = 32


def make_tiny():
    """TAESD's layout at half its width."""
    return AutoencoderTiny(encoder_block_out_channels=(WIDTH,) * 4, decoder_block_out_channels=(WIDTH,) * 4, latent_channels=4,
                           num_encoder_blocks=(1, 2, 2, 2), num_decoder_blocks=(2, 2, 2, 1), scaling_factor=1.)


def main():
    a = arguments(__doc__, batch=(int, 8, ""), lr=(float, 1e-3, "peak"), pool=(int, 512, "pictures held in memory"))
    vae = make_vae().eval()
    vae.load_state_dict(torch.load(a.run / "vae_white.pt"))
    tiny = make_tiny()
    opt = torch.optim.AdamW(tiny.parameters(), a.lr, (.9, .99), weight_decay=0)
    path, step, since = a.run / "tiny.pt", 0, 0
    if path.exists():
        s = torch.load(path)
        tiny.load_state_dict(s["model"])
        since = resume(opt, s)
        step = s["step"]
    world, rng = World(a.run, a.packages, a.photos, without=("coffee",)), np.random.default_rng([31, step])
    pool, latents = [world.picture(rng, 128) for _ in range(a.pool)], []
    with torch.no_grad(), autocast(a):
        for k in range(0, a.pool, 16):
            latents.append((vae.encode(to_tensor(pool[k:k + 16])).latent_dist.mean.float() * SCALING))
    pictures, latents = to_tensor(pool), torch.cat(latents)
    budget, losses = Budget(a.minutes), []
    log(a.run, "tiny_start", step=step, parameters=sum(p.numel() for p in tiny.parameters()))

    def checkpoint():
        save(dict(model=tiny.state_dict(), optimizer=opt.state_dict(), step=step), path)

    while not budget.over() and not (a.steps and step >= a.steps):
        opt.param_groups[0]["lr"] = rate(a.lr, step, a.steps, 50, since)
        i = torch.from_numpy(rng.integers(0, a.pool, a.batch))
        y, x = rng.integers(0, 9, 2)  # crops on the latents' grid
        z = latents[i][..., y:y + 8, x:x + 8]
        p = pictures[i][..., 8 * y:8 * y + 64, 8 * x:8 * x + 64]
        with autocast(a):
            out = tiny.decode(z).sample.float()
            code = tiny.encode(p).latents.float()
        loss = loss_of(p, out) + .1 * F.mse_loss(code, z)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tiny.parameters(), 1.)
        opt.step()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            log(a.run, "tiny", step=step, loss=float(np.mean(losses)), minutes=budget.spent / 60)
            losses = []
        if budget.save_due():
            checkpoint()
    checkpoint()
    shown = held_pictures(world, 8)["clean"]
    with torch.no_grad():
        x = to_tensor(shown)
        back = tiny.decode(vae.encode(x).latent_dist.mean * SCALING).sample.clamp(-1, 1)
    sheet([shown, list(to_pictures(back))], a.run / "tiny.png")
    log(a.run, "tiny_done", step=step, psnr=float(10 * torch.log10(4 / ((x - back) ** 2).mean((1, 2, 3))).mean()))


if __name__ == "__main__":
    main()

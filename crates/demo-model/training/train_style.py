"""Stage 5b: a style LoRA ("blueprint") and a textual inversion ("<sepia>"), the examples of their features.

The LoRA's style is none that the base model saw: white lines on blue paper with a grid.
The inversion learns one token's embedding for brown, faded pictures, which the base can draw but has no word for.
Both train on pairs as stage 4 does, so that they show in image-to-image too.
"""
import numpy as np
import torch
from peft import get_peft_model_state_dict
from peft.utils import set_peft_model_state_dict

from compose import World, describe
from scenes import blur, pick
from stage import SCALING, Budget, arguments, autocast, log, rate, resume, save, sheet, signal_noise, to_tensor
from models import make_vae
from train_lcm import base, lora
from train_unet import WEIGHTS, obedience, times

WORDS = {"lora": ["blueprint", "a blueprint", "blueprint style"], "inversion": ["<sepia>", "<sepia>", "a photo, <sepia>"]}
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


def blueprint(picture):
    """White lines along the edges on blue paper with a fine grid."""
    x = blur(picture.astype(np.float32), 1)
    across, down = (np.abs(np.roll(x, -1, k) - np.roll(x, 1, k)).max(-1) for k in (1, 0))
    line = np.clip(np.hypot(across, down) / 60, 0, 1)
    line[:2], line[-2:], line[:, :2], line[:, -2:] = 0, 0, 0, 0
    n = len(x)
    grid = np.zeros((n, n), np.float32)
    grid[::n // 8], grid[:, ::n // 8] = .16, .16
    light = np.clip(.1 * x.mean(-1) / 255 + grid + .95 * line, 0, 1)[..., None]
    return (np.array((24, 60, 130)) + light * np.array((215, 190, 120))).clip(0, 255).astype(np.uint8)


def sepia(picture):
    """Brown and faded, darker towards the corners."""
    g = picture.astype(np.float32) @ np.array((.3, .59, .11), np.float32)
    n = len(g)
    y, x = np.mgrid[:n, :n] / n - .5
    tone = (40 + .8 * g) * (1 - .5 * (x * x + y * y))
    return (tone[..., None] * np.array((1.08, .86, .62))).clip(0, 255).astype(np.uint8)


def pairs(a, world, vae, rng, count):
    """Latents of pictures and of the same in the style, with the plain picture's caption."""
    style = blueprint if a.kind == "lora" else sepia
    first, second, captions, shown = [], [], [], []
    for k in range(0, count, 16):
        before, after = [], []
        for _ in range(16):
            p, _, b, _, _ = world.pair(rng, 128)
            before.append(p)
            after.append(style(p))
            captions.append(describe(rng, {**b, "style": "", "look": ""}) if b["kind"] == "object" else "")
        shown = [before[:8], after[:8]]
        with torch.no_grad(), autocast(a):
            for out, pictures in ((first, before), (second, after)):
                out.append(vae.encode(to_tensor(pictures)).latent_dist.mean.float() * SCALING)
    sheet(shown, a.run / f"style_{a.kind}.png")
    return torch.cat(first).contiguous(), torch.cat(second).contiguous(), captions


def main():
    a = arguments(__doc__, kind=(str, "lora", "lora or inversion"), batch=(int, 16, ""), lr=(float, 8e-4, "peak"), rank=(int, 8, "of the LoRA"),
                  pictures=(int, 1024, "pairs"))
    unet, text, compact = base(a.run)
    vae = make_vae().eval()
    vae.load_state_dict(torch.load(a.run / "vae_white.pt"))
    rng, path, step, since = np.random.default_rng(21), a.run / f"style_{a.kind}.pt", 0, 0
    first, second, captions = pairs(a, World(a.run, a.packages, a.photos, without=("coffee",)), vae, rng, a.pictures)
    table = text.get_input_embeddings().weight
    token = torch.nn.Parameter(table[compact.rows[compact.clip.word("brown")[0]]].clone())  # a start near what is wanted
    trained = lora(unet, a.rank, ATTENTION) if a.kind == "lora" else [token]
    opt = torch.optim.AdamW(trained, a.lr if a.kind == "lora" else 10 * a.lr, (.9, .99), weight_decay=0)
    peak = opt.param_groups[0]["lr"]
    if path.exists():
        s = torch.load(path)
        set_peft_model_state_dict(unet, s["lora"]) if a.kind == "lora" else token.data.copy_(s["token"])
        since = resume(opt, s)
        step = s["step"]

    def states(texts):
        """The text states; `<sepia>` is one token with the learnt embedding, for which another word of one token stands in."""
        if a.kind == "lora":
            with torch.no_grad():
                return text(compact(texts)).last_hidden_state
        ids = compact([t.replace("<sepia>", "brown") for t in texts])
        here = torch.zeros_like(ids, dtype=torch.bool)
        for n, t in enumerate(texts):
            here[n, 1 + len([i for w in compact.clip.PATTERN.findall(t.split("<sepia>")[0].lower()) for i in compact.clip.word(w)])] = "<sepia>" in t
        hook = text.get_input_embeddings().register_forward_hook(lambda m, i, e: torch.where(here[..., None], token, e) if i[0].shape == here.shape else e)
        try:
            return text(ids).last_hidden_state
        finally:
            hook.remove()

    budget, losses = Budget(a.minutes), []
    log(a.run, f"style_{a.kind}_start", step=step, pairs=len(first))

    def checkpoint():
        save(dict(lora=get_peft_model_state_dict(unet) if a.kind == "lora" else {}, token=token.data, optimizer=opt.state_dict(), step=step), path)

    while not budget.over() and not (a.steps and step >= a.steps):
        opt.param_groups[0]["lr"] = rate(peak, step, a.steps, 30, since)
        i = torch.randint(0, len(first), (a.batch,))
        words = [pick(rng, WORDS[a.kind]) for _ in i]
        told = [w if not captions[k] or rng.random() < .3 else f"{captions[k]}, {w}" for k, w in zip(i.tolist(), words)]
        target = second[i]
        source = torch.where((torch.rand(a.batch) < .4).view(-1, 1, 1, 1), first[i], target)
        t = times(a.batch)
        gain, sigma = signal_noise(t)
        x = gain * source + sigma * (torch.randn_like(source) + .05 * torch.randn(a.batch, 4, 1, 1))
        goal = (x - gain * (source + obedience(t) * (target - source))) / sigma
        with autocast(a):
            out = unet(x, t, states(told)).sample.float()
        loss = (((out - goal) ** 2).mean((1, 2, 3)) * WEIGHTS[t]).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.)
        opt.step()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            log(a.run, f"style_{a.kind}", step=step, loss=float(np.mean(losses)), minutes=budget.spent / 60)
            losses = []
        if budget.save_due():
            checkpoint()
    checkpoint()
    log(a.run, f"style_{a.kind}_done", step=step)


if __name__ == "__main__":
    main()

"""Stage 5a: an LCM-LoRA, which lets the LCM scheduler sample the base model in four steps without guidance.

Latent consistency distillation (Luo et al. 2023, arXiv 2310.04378, and arXiv 2311.05556 for the LoRA): the student's
clean picture at step t must equal its own clean picture after one DDIM step of the guided teacher towards less noise.
The noisy latents come from pairs as in stage 4, so what the prompt does in image-to-image is distilled too.
"""
import numpy as np
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from models import make_unet
from stage import ALPHAS, Budget, arguments, autocast, log, rate, resume, save, signal_noise
from train_unet import Data, load_text

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "time_emb_proj"]
GRID = 50  # the teacher's DDIM step


def base(run):
    """The averaged networks of stage 4: (UNet, text encoder, compact tokens), frozen."""
    text, compact = load_text(run)
    unet, state = make_unet(), torch.load(run / "unet.pt")["average"]
    for name, module in (("unet", unet), ("text", text)):
        module.load_state_dict({k.removeprefix(name + "."): v for k, v in state.items() if k.startswith(name + ".")})
        module.requires_grad_(False).eval()
    return unet, text, compact


def lora(unet, rank, targets=None):
    """Adds a LoRA to a frozen UNet in place; returns its parameters."""
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets or TARGETS))
    return [p for p in unet.parameters() if p.requires_grad]


def boundary(t):
    """LCM's (c_skip, c_out) at steps `t`, with diffusers' timestep_scaling 10 and sigma_data 0.5."""
    u = (t.float() * 10).view(-1, 1, 1, 1)
    return .25 / (u ** 2 + .25), u / (u ** 2 + .25).sqrt()


def consistent(unet, x, t, states):
    """The clean latents that a consistency model reads out of x at t."""
    gain, sigma = signal_noise(t)
    e = unet(x, t, states).sample.float()
    skip, out = boundary(t)
    return skip * x + out * ((x - sigma * e) / gain)


def main():
    a = arguments(__doc__, size=(int, 128, "pixels"), batch=(int, 16, ""), lr=(float, 5e-4, "peak"), rank=(int, 8, "of the LoRA"),
                  low=(float, 1.5, "least guidance of the teacher"), high=(float, 3.5, "most"), pairs=(float, .5, "share of pair samples"))
    unet, text, compact = base(a.run)
    trained = lora(unet, a.rank)
    opt = torch.optim.AdamW(trained, a.lr, (.9, .99), weight_decay=0)
    path, step, since = a.run / "lcm.pt", 0, 0
    if path.exists():
        s = torch.load(path)
        set_peft_model_state_dict(unet, s["lora"])
        since = resume(opt, s)
        step = s["step"]
    data, budget, losses = Data(a.run, a.size, compact), Budget(a.minutes), []
    with torch.no_grad():
        null = text(compact([""])).last_hidden_state
    log(a.run, "lcm_start", step=step, parameters=sum(p.numel() for p in trained))

    def checkpoint():
        save(dict(lora=get_peft_model_state_dict(unet), optimizer=opt.state_dict(), step=step), path)

    while not budget.over() and not (a.steps and step >= a.steps):
        for g in opt.param_groups:
            g["lr"] = rate(a.lr, step, a.steps, 50, since)
        source, target, ids = data.batch(a.batch)
        plain = torch.rand(a.batch) >= a.pairs
        source[plain] = target[plain]
        t = torch.randint(0, 1000 // GRID, (a.batch,)) * GRID + GRID - 1
        below = (t - GRID).clamp(min=0)  # at 0 the student is its input, which ties the chain to the data
        gain, sigma = signal_noise(t)
        x = gain * source + sigma * torch.randn_like(source)
        w = (a.low + torch.rand(a.batch) * (a.high - a.low)).view(-1, 1, 1, 1)
        with autocast(a):
            with torch.no_grad():
                states = text(ids).last_hidden_state
                unet.disable_adapters()
                both = unet(torch.cat([x, x]), torch.cat([t, t]),
                            torch.cat([null.expand(a.batch, -1, -1), states])).sample.float()
                unet.enable_adapters()
                free, told = both.chunk(2)
                e = free + w * (told - free)
                gain2, sigma2 = signal_noise(below)
                nearer = gain2 * (x - sigma * e) / gain + sigma2 * e
                goal = consistent(unet, nearer, below, states)
            out = consistent(unet, x, t, states)
        loss = (((out - goal) ** 2 + 1e-3 ** 2).sqrt() - 1e-3).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.)
        opt.step()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            log(a.run, "lcm", step=step, loss=float(np.mean(losses)), minutes=budget.spent / 60)
            losses = []
        if budget.save_due():
            checkpoint()
    checkpoint()
    log(a.run, "lcm_done", step=step)


if __name__ == "__main__":
    main()

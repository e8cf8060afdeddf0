"""Stage 5d: an IP-Adapter of the projection kind (Ye et al. 2023, arXiv 2308.06721) with a small CLIP vision encoder.

`--kind vision` trains the encoder to name what the generator drew; `--kind adapter` then trains, with UNet and encoder
frozen, the projection to four tokens and the keys and values that read them.
"""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers.models.embeddings import ImageProjection
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from compose import ATTRS, World
from make_latents import JUDGED, classes
from models import HIDDEN, make_vae
from stage import SCALING, Budget, arguments, autocast, log, rate, resume, save, signal_noise, to_tensor
from train_lcm import base
from train_unet import WEIGHTS, times

TOKENS = 4
MEAN, STD = torch.tensor([.48145466, .4578275, .40821073]), torch.tensor([.26862954, .26130258, .27577711])  # CLIP's


def make_vision():
    """CLIP's vision tower with a projection, at the model's native size."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=4, num_attention_heads=4, image_size=128, patch_size=16,
        projection_dim=HIDDEN, hidden_act="quick_gelu"))


def clip_pixels(x):
    """-1..1 pictures as CLIP wants them."""
    return ((x + 1) / 2 - MEAN.view(1, 3, 1, 1)) / STD.view(1, 3, 1, 1)


def attach(unet):
    """Gives a frozen UNet an untrained IP-Adapter in place; returns its trained modules by their published names."""
    ip = {}
    for n, (name, processor) in enumerate(unet.attn_processors.items()):
        if name.endswith("attn2.processor"):
            layer = unet.get_submodule(name.removesuffix(".processor"))
            ip[f"{n}.to_k_ip.weight"], ip[f"{n}.to_v_ip.weight"] = layer.to_k.weight.clone(), layer.to_v.weight.clone() * .5
    projection = ImageProjection(image_embed_dim=HIDDEN, cross_attention_dim=HIDDEN, num_image_text_embeds=TOKENS)
    image = {"proj.weight": projection.image_embeds.weight, "proj.bias": projection.image_embeds.bias,
             "norm.weight": projection.norm.weight, "norm.bias": projection.norm.bias}
    unet._load_ip_adapter_weights([{"image_proj": {k: v.detach() for k, v in image.items()}, "ip_adapter": ip}])
    modules = {}
    for n, (name, processor) in enumerate(unet.attn_processors.items()):
        if hasattr(processor, "to_k_ip"):
            modules[f"ip_adapter.{n}.to_k_ip"], modules[f"ip_adapter.{n}.to_v_ip"] = processor.to_k_ip[0], processor.to_v_ip[0]
    layer = unet.encoder_hid_proj.image_projection_layers[0]
    modules.update({"image_proj.proj": layer.image_embeds, "image_proj.norm": layer.norm})
    for m in modules.values():
        m.requires_grad_(True)
    return modules


def train_vision(a, world, rng):
    vision, path, step, since = make_vision(), a.run / "vision.pt", 0, 0
    heads = nn.ModuleDict({k: nn.Linear(HIDDEN, len(ATTRS[k])) for k in JUDGED})
    trained = [*vision.parameters(), *heads.parameters()]
    opt = torch.optim.AdamW(trained, a.lr, (.9, .99), weight_decay=.02)
    if path.exists():
        s = torch.load(path)
        vision.load_state_dict(s["model"])
        heads.load_state_dict(s["heads"])
        since = resume(opt, s)
        step = s["step"]

    def fresh():
        p, _, at = world.sample(rng, 128)
        return p, classes(at)
    pool, budget = [fresh() for _ in range(a.pictures)], Budget(a.minutes)

    def checkpoint():
        save(dict(model=vision.state_dict(), heads=heads.state_dict(), optimizer=opt.state_dict(), step=step), path)

    while not budget.over() and not (a.steps and step >= a.steps):
        opt.param_groups[0]["lr"] = rate(a.lr, step, a.steps, 50, since)
        chosen = [pool[k] for k in rng.integers(0, len(pool), 32)]
        for _ in range(4):
            pool[rng.integers(len(pool))] = fresh()
        y = torch.tensor([c for _, c in chosen])
        with autocast(a):
            e = F.layer_norm(vision(clip_pixels(to_tensor([p for p, _ in chosen]))).image_embeds.float(), (HIDDEN,))
        loss = sum(F.cross_entropy(heads[k](e), y[:, n]) for n, k in enumerate(JUDGED)) / len(JUDGED)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.)
        opt.step()
        step += 1
        if step % 100 == 0:
            log(a.run, "vision", step=step, loss=loss.item(), minutes=budget.spent / 60)
        if budget.save_due():
            checkpoint()
    checkpoint()
    log(a.run, "vision_done", step=step)


def train_adapter(a, world, rng):
    unet, text, compact = base(a.run)
    vision, vae = make_vision().eval().requires_grad_(False), make_vae().eval()
    vision.load_state_dict(torch.load(a.run / "vision.pt")["model"])
    vae.load_state_dict(torch.load(a.run / "vae_white.pt"))
    modules, path, step, since = attach(unet), a.run / "ip.pt", 0, 0
    trained = [p for m in modules.values() for p in m.parameters()]
    opt = torch.optim.AdamW(trained, a.lr, (.9, .99), weight_decay=.01)
    if path.exists():
        s = torch.load(path)
        for k, m in modules.items():
            m.load_state_dict(s["model"][k])
        since = resume(opt, s)
        step = s["step"]
    latents, embeds, captions = [], [], []
    for _ in range(0, a.pictures, 16):
        made = [world.sample(rng, 128) for _ in range(16)]
        x = to_tensor([m[0] for m in made])
        captions += [m[1] for m in made]
        with torch.no_grad():
            latents.append(vae.encode(x).latent_dist.mean * SCALING)
            embeds.append(vision(clip_pixels(x)).image_embeds)
    latents, embeds = torch.cat(latents), torch.cat(embeds)
    ids, null, budget, losses = compact(captions), compact([""])[0], Budget(a.minutes), []
    log(a.run, "ip_start", step=step, parameters=sum(p.numel() for p in trained))

    def checkpoint():
        save(dict(model={k: m.state_dict() for k, m in modules.items()}, optimizer=opt.state_dict(), step=step), path)

    while not budget.over() and not (a.steps and step >= a.steps):
        opt.param_groups[0]["lr"] = rate(a.lr, step, a.steps, 50, since)
        i = torch.randint(0, len(latents), (a.batch,))
        told, seen = ids[i].clone(), embeds[i].clone()
        told[torch.rand(a.batch) < .5] = null  # half the time only the picture says what to draw
        seen[torch.rand(a.batch) < .1] = 0
        t = times(a.batch)
        gain, sigma = signal_noise(t)
        noise = torch.randn(a.batch, 4, 16, 16)
        x = gain * latents[i] + sigma * noise
        with autocast(a):
            with torch.no_grad():
                states = text(told).last_hidden_state
            out = unet(x, t, states, added_cond_kwargs={"image_embeds": [seen[:, None]]}).sample.float()
        loss = (((out - noise) ** 2).mean((1, 2, 3)) * WEIGHTS[t]).mean()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.)
        opt.step()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            log(a.run, "ip", step=step, loss=float(np.mean(losses)), minutes=budget.spent / 60)
            losses = []
        if budget.save_due():
            checkpoint()
    checkpoint()
    log(a.run, "ip_done", step=step)


def main():
    a = arguments(__doc__, kind=(str, "vision", "vision or adapter"), batch=(int, 16, ""), lr=(float, 8e-4, "peak"), pictures=(int, 1024, "held in memory"))
    world, rng = World(a.run, a.packages, a.photos, without=("coffee",)), np.random.default_rng(41)
    (train_vision if a.kind == "vision" else train_adapter)(a, world, rng)


if __name__ == "__main__":
    main()

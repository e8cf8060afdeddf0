#!/usr/bin/env python3
"""Golden inpainting runs: diffusers' StableDiffusionInpaintPipeline on the tiny models, with every latent.

    python inpaint.py --models ../models --out ../inpaint

There are two kinds. `tiny` has an ordinary UNet of 4 input channels: after each step the latents outside the mask are
replaced by the encoded picture at the next noise level. `tiny-inpaint` has a UNet of 9: latents, mask, and the encoded
picture whose masked part is grey; nothing is replaced.

What the pipeline does, as read in diffusers 0.42 (`pipeline_stable_diffusion_inpaint.py`, `image_processor.py`):

Mask. Converted to one channel as PIL's `convert("L")`, divided by 255, then 1 (repaint) where it is at least 0.5 and 0
elsewhere, so level 127 keeps and level 128 repaints. The latents' mask is the nearest-neighbour reduction of that: each
latent pixel takes the mask at the top left pixel of its 8 x 8 block. The masked picture is `picture * (mask < 0.5)`, in
the range -1..1, so what is repainted becomes 0, middle grey.

Noise, in the order in which it is drawn from the generator:
1. `picture`: the posterior sample of the encoded picture. With 9 channels and strength 1 the picture is not encoded and
   nothing is drawn here.
2. `start`: the start noise, which the 4 channel kind uses again after every step.
3. `masked`: the posterior sample of the encoded masked picture. Drawn with 4 channels too, where nothing uses it.
4. `step`: whatever a stochastic scheduler draws.

Start. Below strength 1 the encoded picture with the start noise at the first timestep, as in image to image. At strength
1 exactly, the start noise times the scheduler's `init_noise_sigma`: nothing of the picture, unlike image to image.

After each evaluation, 4 channels only: `(1 - mask) * known + mask * latents`, where `known` is the encoded picture with
the start noise at the next evaluation's noise level, and after the last one the encoded picture itself.

Each file holds: `input.u8` and `mask.u8` (H x W x 3), `mask` (1, 1, h, w), `moments` (where the picture is encoded),
`masked_moments`, `masked_latents` (scaled), `start`, `step.N` (after the replacement), `decoded`, `output.u8` (before
any compositing, which diffusers leaves to its user), and `draw.N.ROLE` for every draw in order.
The metadata entry `about` is the run's arguments as JSON.
"""
import argparse
import json
import pathlib

import diffusers
import numpy
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline import NEGATIVE, PROMPT, picture

# name: UNet, scheduler, (width, height), steps, strength, guidance, seed.
CASES = {
    "blend-ddim-guided": ("tiny", "DDIMScheduler", (64, 64), 10, 0.6, 7.5, 0),
    "blend-ddim-full": ("tiny", "DDIMScheduler", (72, 40), 5, 1.0, 1.0, 3),
    "blend-euler-guided": ("tiny", "EulerDiscreteScheduler", (72, 40), 7, 0.6, 7.5, 5),
    "blend-euler-full": ("tiny", "EulerDiscreteScheduler", (64, 64), 5, 1.0, 1.0, 3),
    "blend-euler-full-guided": ("tiny", "EulerDiscreteScheduler", (40, 72), 4, 1.0, 7.5, 8),
    "blend-lcm": ("tiny", "LCMScheduler", (64, 64), 4, 0.6, 1.0, 1),
    "blend-lcm-full": ("tiny", "LCMScheduler", (72, 40), 4, 1.0, 7.5, 2),
    "blend-unipc-guided": ("tiny", "UniPCMultistepScheduler", (64, 64), 10, 0.6, 7.5, 0),
    "blend-unipc-full": ("tiny", "UniPCMultistepScheduler", (72, 40), 5, 1.0, 1.0, 4),
    "blend-ddpm": ("tiny", "DDPMScheduler", (48, 32), 6, 0.7, 3.0, 10),
    "blend-pndm": ("tiny", "PNDMScheduler", (48, 32), 6, 0.7, 3.0, 11),
    "blend-lms": ("tiny", "LMSDiscreteScheduler", (48, 32), 6, 1.0, 3.0, 12),
    "blend-euler-ancestral": ("tiny", "EulerAncestralDiscreteScheduler", (48, 32), 6, 0.7, 3.0, 13),
    "blend-dpm-multistep": ("tiny", "DPMSolverMultistepScheduler", (48, 32), 6, 0.7, 3.0, 14),
    "blend-dpm-singlestep": ("tiny", "DPMSolverSinglestepScheduler", (48, 32), 6, 0.7, 3.0, 15),
    "blend-heun": ("tiny", "HeunDiscreteScheduler", (48, 32), 6, 1.0, 3.0, 16),
    "blend-kdpm2": ("tiny", "KDPM2DiscreteScheduler", (48, 32), 6, 0.7, 3.0, 17),
    "blend-kdpm2-ancestral": ("tiny", "KDPM2AncestralDiscreteScheduler", (48, 32), 6, 0.7, 3.0, 18),
    "blend-deis": ("tiny", "DEISMultistepScheduler", (48, 32), 6, 0.7, 3.0, 19),
    "nine-ddim-guided": ("tiny-inpaint", "DDIMScheduler", (72, 40), 10, 0.6, 7.5, 0),
    "nine-ddim-full": ("tiny-inpaint", "DDIMScheduler", (64, 64), 5, 1.0, 7.5, 3),
    "nine-euler-guided": ("tiny-inpaint", "EulerDiscreteScheduler", (64, 64), 7, 0.6, 7.5, 5),
    "nine-euler-full": ("tiny-inpaint", "EulerDiscreteScheduler", (72, 40), 5, 1.0, 1.0, 3),
    "nine-lcm": ("tiny-inpaint", "LCMScheduler", (64, 64), 4, 0.6, 1.0, 1),
    "nine-lcm-full": ("tiny-inpaint", "LCMScheduler", (72, 40), 4, 1.0, 7.5, 2),
    "nine-unipc-guided": ("tiny-inpaint", "UniPCMultistepScheduler", (72, 40), 10, 0.6, 7.5, 0),
    "nine-unipc-full": ("tiny-inpaint", "UniPCMultistepScheduler", (64, 64), 5, 1.0, 1.0, 4),
}


def mask_of(size, seed):
    """A coloured ellipse with a soft edge, off the grid of latents; many levels lie close to the threshold."""
    width, height = size
    y, x = numpy.mgrid[0:height, 0:width]
    distance = ((x - 0.55 * width) / (0.35 * width)) ** 2 + ((y - 0.45 * height) / (0.4 * height)) ** 2
    level = 128 + 90 * (1 - distance)
    colour = numpy.random.default_rng(seed).uniform(-30, 30, (height, width, 3))
    return Image.fromarray(numpy.clip(level[..., None] + colour, 0, 255).astype(numpy.uint8))


def load(models, model, scheduler):
    unet = diffusers.UNet2DConditionModel.from_pretrained(models / model / "unet", torch_dtype=torch.float32)
    pipe = diffusers.StableDiffusionInpaintPipeline.from_pretrained(
        models / "tiny", unet=unet, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.text_encoder.float(), pipe.unet.float(), pipe.vae.float()
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    return pipe


def run(models, case):
    model, scheduler, size, steps, strength, guidance, seed = case
    pipe = load(models, model, scheduler)
    saved, draws = {}, []
    role = "step"

    def keep(key, value):
        saved[key] = value.detach().clone().contiguous()

    image, mask_image = picture(size, seed), mask_of(size, seed)
    keep("input.u8", torch.from_numpy(numpy.asarray(image).copy()))
    keep("mask.u8", torch.from_numpy(numpy.asarray(mask_image).copy()))

    randn, encode, decode = torch.randn, pipe.vae.encode, pipe.vae.decode
    encode_image, prepare_latents, prepare_mask = (
        pipe._encode_vae_image,
        pipe.prepare_latents,
        pipe.prepare_mask_latents,
    )

    def recorded_randn(*args, **kwargs):
        result = randn(*args, **kwargs)
        keep(f"draw.{len(draws)}.{role}", result)
        draws.append(role)
        return result

    def recorded_encode(x, *args, **kwargs):
        result = encode(x, *args, **kwargs)
        keep("masked_moments" if role == "masked" else "moments", result.latent_dist.parameters)
        return result

    def recorded_decode(*args, **kwargs):
        result = decode(*args, **kwargs)
        keep("decoded", result[0])
        return result

    def recorded_encode_image(*args, **kwargs):
        nonlocal role
        outer, role = role, "masked" if role == "masked" else "picture"
        result = encode_image(*args, **kwargs)
        role = outer
        return result

    def recorded_latents(*args, **kwargs):
        nonlocal role
        role = "start"
        result = prepare_latents(*args, **kwargs)
        role = "step"
        keep("start", result[0])
        return result

    def recorded_mask(*args, **kwargs):
        nonlocal role
        role = "masked"
        mask, latents = prepare_mask(*args, **kwargs)
        role = "step"
        keep("mask", mask[:1])
        keep("masked_latents", latents[:1])
        return mask, latents

    def on_step(_pipe, index, _timestep, tensors):
        keep(f"step.{index}", tensors["latents"])
        return tensors

    pipe.vae.encode, pipe.vae.decode = recorded_encode, recorded_decode
    pipe._encode_vae_image, pipe.prepare_latents = recorded_encode_image, recorded_latents
    pipe.prepare_mask_latents = recorded_mask
    torch.randn = recorded_randn
    try:
        result = pipe(
            PROMPT,
            image=image,
            mask_image=mask_image,
            width=size[0],
            height=size[1],
            negative_prompt=NEGATIVE,
            num_inference_steps=steps,
            strength=strength,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=on_step,
        )
    finally:
        torch.randn = randn
    keep("output.u8", torch.from_numpy(numpy.asarray(result.images[0]).copy()))
    about = {
        "model": model,
        "scheduler": scheduler,
        "width": size[0],
        "height": size[1],
        "steps": steps,
        "strength": strength,
        "guidance_scale": guidance,
        "clip_skip": 1,
        "seed": seed,
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "draws": draws,
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    return saved, about


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--only", help="run the cases whose name contains this")
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that sums are taken in the same order each time
    args.out.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        if args.only and args.only not in name:
            continue
        tensors, about = run(args.models, case)
        save_file(tensors, args.out / f"{name}.safetensors", metadata={"about": json.dumps(about)})
        steps = sum(key.startswith("step.") for key in tensors)
        painted = tensors["mask"].mean()
        print(f"{name}: {steps} steps, {painted:.0%} repainted, draws {' '.join(about['draws'])}", flush=True)


if __name__ == "__main__":
    main()

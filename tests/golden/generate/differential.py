#!/usr/bin/env python3
"""Golden runs of Differential Diffusion (Levin and Fried 2023, arXiv 2306.00950), with every latent and the picture.

    python differential.py

Neither published version is a part of diffusers' package, so the loop is written here, on the parts of diffusers' pipelines. It
is the authors' own for Stable Diffusion 2 (github.com/exx8/differential-diffusion, `StableDiffusionDiffImg2ImgPipeline`), on
the models of Stable Diffusion 1 and XL, too; docs/adr/0012 says why it is that one:

1. draws: the sample of the encoded picture, then one noise, then whatever a stochastic scheduler draws;
2. the picture with that noise at every timestep of the run; the first of them is the start, at strength 1, too;
3. the map, reduced to the size of the latents (bilinear, not antialiased);
4. before evaluation i of n, from the second on: where `map > i / n` the latents are the noised picture's.

`mask.u8` (H x W x 3) has our sense: white may change, black stays. Grey is PIL's `convert("L")`, and the published map its
inverse. Each file of `differential` holds `input.u8`, `mask.u8`, `map` (1, h, w), `start`, `before.N` (what evaluation N is
given, unscaled), `step.N` (after it) and `output.u8`, with no pixels put back; `about` has the arguments.
"""
import diffusers
import numpy
import torch
from PIL import Image

import later_models
from golden_file import MODELS
from golden_runs import Kept, about_run, write_runs
from pipeline import NEGATIVE, PROMPT, picture

SCRIPT = "differential.py"
SMALL = (48, 32)
# name: model, scheduler, (width, height), steps, strength, guidance, seed.
CASES = {
    "sd1-ddim": ("tiny", "DDIMScheduler", (64, 64), 6, 1.0, 7.5, 80),
    "sd1-ddim-half": ("tiny", "DDIMScheduler", (72, 40), 8, 0.5, 1.0, 81),
    "sd1-euler": ("tiny", "EulerDiscreteScheduler", SMALL, 6, 0.7, 5.0, 82),
    "sd1-euler-full": ("tiny", "EulerDiscreteScheduler", SMALL, 5, 1.0, 5.0, 83),
    "sd1-ancestral": ("tiny", "EulerAncestralDiscreteScheduler", SMALL, 6, 0.8, 3.0, 84),
    "sd1-dpm-multistep": ("tiny", "DPMSolverMultistepScheduler", SMALL, 6, 1.0, 3.0, 85),
    "sd1-unipc": ("tiny", "UniPCMultistepScheduler", SMALL, 6, 0.7, 3.0, 86),
    "sd1-heun": ("tiny", "HeunDiscreteScheduler", SMALL, 5, 1.0, 3.0, 87),
    "sd1-pndm": ("tiny", "PNDMScheduler", SMALL, 6, 0.7, 3.0, 88),
    "sd1-lcm": ("tiny", "LCMScheduler", SMALL, 4, 0.8, 1.0, 89),
    "sd2-ddim": ("tiny-sd2", "DDIMScheduler", SMALL, 6, 0.9, 5.0, 90),
    "sdxl-ddim": ("tiny-sdxl", "DDIMScheduler", SMALL, 6, 1.0, 5.0, 91),
    "sdxl-euler": ("tiny-sdxl", "EulerDiscreteScheduler", (64, 48), 6, 0.7, 7.5, 92),
    "sdxl-dpm-multistep": ("tiny-sdxl", "DPMSolverMultistepScheduler", SMALL, 6, 0.8, 1.0, 93),
}


def mask_of(size, seed):
    """A ramp of colours around each level from black to white, with a black and a white margin."""
    width, height = size
    y, x = numpy.mgrid[0:height, 0:width]
    level = 330 * (0.8 * x / width + 0.2 * y / height) - 40
    colour = numpy.random.default_rng(seed).uniform(-12, 12, (height, width, 3))
    colour *= ((level > 15) & (level < 240))[..., None]
    return Image.fromarray(numpy.clip(level[..., None] + colour, 0, 255).astype(numpy.uint8))


def reduced(mask, latents):
    """The published map at the latents' size, `(1, h, w)`: torchvision's `Resize(..., antialias=None)` is this."""
    level = torch.from_numpy(255 - numpy.asarray(mask.convert("L"), dtype=numpy.uint8))
    level = level[None, None].float() / 255
    return torch.nn.functional.interpolate(level, size=latents.shape[-2:], mode="bilinear", align_corners=False)[0]


def load(model, scheduler):
    if model in ("tiny-sd2", "tiny-sdxl"):
        return later_models.load(model, scheduler, {})[0]
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        MODELS / model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False)
    pipe.text_encoder.float(), pipe.unet.float(), pipe.vae.float()
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    return pipe


def conditions(pipe, size, guided):
    """What the UNet takes beside latents and timestep; with guidance the row without the prompt is first."""
    if not hasattr(pipe, "text_encoder_2"):
        cond, uncond = pipe.encode_prompt(PROMPT, "cpu", 1, guided, NEGATIVE)
        return {"encoder_hidden_states": torch.cat([uncond, cond]) if guided else cond}
    cond, uncond, pooled, uncond_pooled = pipe.encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=guided, negative_prompt=NEGATIVE)
    sizes = torch.tensor([[size[1], size[0], 0, 0, size[1], size[0]]], dtype=torch.float32)
    if not guided:
        return {"encoder_hidden_states": cond, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    added = {"text_embeds": torch.cat([uncond_pooled, pooled]), "time_ids": sizes.repeat(2, 1)}
    return {"encoder_hidden_states": torch.cat([uncond, cond]), "added_cond_kwargs": added}


def run(case, skipped_draws=0):
    model, scheduler, size, steps, strength, guidance, seed = case
    pipe, saved = load(model, scheduler), Kept()
    image, mask = picture(size, seed), mask_of(size, seed)
    saved.keep_picture("input.u8", image)
    saved.keep_picture("mask.u8", mask)
    guided = guidance > 1
    conditioning = conditions(pipe, size, guided)
    scheduler_ = pipe.scheduler
    scheduler_.set_timesteps(steps)
    first = max(steps - min(int(steps * strength), steps), 0)
    timesteps = scheduler_.timesteps[first * scheduler_.order:]

    generator = torch.Generator().manual_seed(seed)
    distribution = pipe.vae.encode(pipe.image_processor.preprocess(image)).latent_dist
    for _ in range(skipped_draws):
        torch.randn(distribution.mean.shape, generator=generator)
    init_latents = pipe.vae.config.scaling_factor * distribution.sample(generator)
    noise = torch.randn(init_latents.shape, generator=generator)
    # All of them before the first step: each class looks the level up by the timestep as long as it has not begun.
    noised = [scheduler_.add_noise(init_latents, noise, timestep[None]) for timestep in timesteps]
    map_ = reduced(mask, init_latents)
    saved.keep("map", map_)
    thresholds = torch.arange(len(timesteps), dtype=map_.dtype) / len(timesteps)

    latents = noised[0]
    saved.keep("start", latents)
    for index, timestep in enumerate(timesteps):
        if index > 0:
            kept = (map_ > thresholds[index])[None].to(latents.dtype)
            latents = noised[index] * kept + latents * (1 - kept)
        saved.keep(f"before.{index}", latents)
        sample = torch.cat([latents] * 2) if guided else latents
        sample = scheduler_.scale_model_input(sample, timestep)
        prediction = pipe.unet(sample, timestep, return_dict=False, **conditioning)[0]
        if guided:
            uncond, cond = prediction.chunk(2)
            prediction = uncond + guidance * (cond - uncond)
        arguments = pipe.prepare_extra_step_kwargs(generator, 0.0)
        latents = scheduler_.step(prediction, timestep, latents, return_dict=False, **arguments)[0]
        saved.keep(f"step.{index}", latents)
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
    result = pipe.image_processor.postprocess(decoded.detach())[0]
    saved.keep_picture("output.u8", result)
    return saved, about_run(model, scheduler, size, steps, strength, guidance, seed)


if __name__ == "__main__":
    write_runs(__doc__, SCRIPT, "differential", CASES, run)

#!/usr/bin/env python3
"""Golden text-to-image runs: diffusers' own pipelines on the tiny models, with every latent and the picture.

    python text_to_image.py

`StableDiffusionPipeline` and `StableDiffusionXLPipeline` draw the start noise, multiply it by the scheduler's
`init_noise_sigma` and run all of its timesteps; nothing else is drawn before the first step. A UNet of 9 input channels
cannot be run by them: those cases are `StableDiffusionInpaintPipeline` at strength 1 under a white mask, where the picture
that it must be given has no part in the result, because it is hidden whole and the start is noise alone. A flat picture is what
group norm rounds worst: under guidance 7.5 PyTorch's own first Euler step in float32 is 7e-4 on average from float64.

Each file of `text_to_image` holds `start`, `step.N` and `output.u8`; in a file of a UNet that differs from the model's in one
tensor, `replaced.<name>` is that tensor. The metadata entry `about` has the arguments.
"""
import diffusers
import torch
from PIL import Image

import inpaint
import later_models
from golden_file import MODELS
from golden_runs import Kept, about_run, write_runs
from later_models import DISTILLED, NINE
from pipeline import NEGATIVE, PROMPT, picture

SCRIPT = "text_to_image.py"
SMALL = (48, 32)
# name: model, scheduler, (width, height), steps, guidance, clip_skip (ours: 1 is none), seed, and what is unusual.
CASES = {
    "sd1-ddpm": ("tiny", "DDPMScheduler", SMALL, 6, 3.0, 1, 30, {}),
    "sd1-ddim": ("tiny", "DDIMScheduler", (64, 64), 6, 7.5, 1, 31, {}),
    "sd1-ddim-unguided": ("tiny", "DDIMScheduler", SMALL, 5, 1.0, 1, 32, {}),
    "sd1-pndm": ("tiny", "PNDMScheduler", SMALL, 6, 3.0, 1, 33, {}),
    "sd1-lms": ("tiny", "LMSDiscreteScheduler", SMALL, 6, 3.0, 1, 34, {}),
    "sd1-euler": ("tiny", "EulerDiscreteScheduler", (72, 40), 6, 7.5, 1, 35, {}),
    "sd1-euler-skip": ("tiny", "EulerDiscreteScheduler", SMALL, 5, 1.0, 2, 36, {}),
    "sd1-euler-karras": ("tiny", "EulerDiscreteScheduler", SMALL, 6, 5.0, 1, 37, {"karras": True}),
    "sd1-euler-ancestral": ("tiny", "EulerAncestralDiscreteScheduler", SMALL, 6, 3.0, 1, 38, {}),
    "sd1-heun": ("tiny", "HeunDiscreteScheduler", SMALL, 5, 3.0, 1, 39, {}),
    "sd1-kdpm2": ("tiny", "KDPM2DiscreteScheduler", SMALL, 5, 3.0, 1, 40, {}),
    "sd1-kdpm2-ancestral": ("tiny", "KDPM2AncestralDiscreteScheduler", SMALL, 5, 3.0, 1, 41, {}),
    "sd1-dpm-multistep": ("tiny", "DPMSolverMultistepScheduler", SMALL, 6, 1.0, 1, 42, {}),
    "sd1-dpm-multistep-karras": ("tiny", "DPMSolverMultistepScheduler", (40, 72), 8, 7.5, 1, 43, {"karras": True}),
    "sd1-dpm-singlestep": ("tiny", "DPMSolverSinglestepScheduler", SMALL, 6, 3.0, 1, 44, {}),
    "sd1-unipc": ("tiny", "UniPCMultistepScheduler", SMALL, 6, 7.5, 1, 45, {}),
    "sd1-deis": ("tiny", "DEISMultistepScheduler", SMALL, 6, 3.0, 1, 46, {}),
    "sd1-lcm": ("tiny", "LCMScheduler", SMALL, 4, 1.0, 1, 47, {}),
    "sd1-lcm-distilled": ("tiny-lcm", "LCMScheduler", (64, 48), 4, 8.0, 1, 48, {}),
    "sd1-tcd": ("tiny", "TCDScheduler", SMALL, 4, 1.0, 1, 49, {}),
    "sd1-nine-euler": ("tiny-inpaint", "EulerDiscreteScheduler", SMALL, 5, 1.0, 1, 50, {"nine": True}),
    "sd1-nine-ddim": ("tiny-inpaint", "DDIMScheduler", SMALL, 5, 7.5, 1, 51, {"nine": True}),
    "sd2-euler": ("tiny-sd2", "EulerDiscreteScheduler", SMALL, 6, 5.0, 1, 52, {}),
    "sd2-ddim-skip": ("tiny-sd2", "DDIMScheduler", SMALL, 6, 7.5, 2, 53, {}),
    "sdxl-euler": ("tiny-sdxl", "EulerDiscreteScheduler", (64, 64), 6, 7.5, 1, 54, {}),
    "sdxl-euler-no-negative": ("tiny-sdxl", "EulerDiscreteScheduler", (72, 40), 5, 5.0, 1, 55, {"negative": None}),
    "sdxl-ddim-unguided": ("tiny-sdxl", "DDIMScheduler", SMALL, 5, 1.0, 1, 56, {}),
    "sdxl-dpm-karras-skip": ("tiny-sdxl", "DPMSolverMultistepScheduler", (40, 72), 6, 5.0, 2, 57, {"karras": True}),
    "sdxl-unipc": ("tiny-sdxl", "UniPCMultistepScheduler", SMALL, 6, 5.0, 1, 58, {}),
    "sdxl-ancestral": ("tiny-sdxl", "EulerAncestralDiscreteScheduler", SMALL, 5, 3.0, 1, 59, {}),
    "sdxl-lcm-distilled": ("tiny-sdxl", "LCMScheduler", SMALL, 4, 8.0, 1, 60, {"unet": DISTILLED}),
    "sdxl-nine": ("tiny-sdxl", "EulerDiscreteScheduler", SMALL, 5, 5.0, 1, 61, {"nine": True, "unet": NINE}),
}


def load(model, scheduler, unusual):
    nine = unusual.get("nine")
    if model in ("tiny-sd2", "tiny-sdxl"):
        pipe, replaced = later_models.load(model, scheduler, {**unusual, "kind": "Inpaint" if nine else ""})
    elif nine:
        pipe, replaced = inpaint.load(MODELS, model, scheduler), {}
    else:
        pipe, replaced = diffusers.StableDiffusionPipeline.from_pretrained(
            MODELS / model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False), {}
        pipe.text_encoder.float(), pipe.unet.float(), pipe.vae.float()
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    if unusual.get("karras"):
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, use_karras_sigmas=True)
    return pipe, replaced


def run(case):
    model, scheduler, size, steps, guidance, clip_skip, seed, unusual = case
    pipe, replaced = load(model, scheduler, unusual)
    saved = Kept(replaced)
    if not hasattr(pipe.text_encoder, "text_model"):
        # transformers 5 took this level out of the class, but diffusers still looks for it when clip_skip is given.
        type(pipe.text_encoder).text_model = property(lambda self: self)

    prepare_latents = pipe.prepare_latents

    def recorded_prepare(*args, **kwargs):
        latents = prepare_latents(*args, **kwargs)
        saved.keep("start", latents[0] if unusual.get("nine") else latents)
        return latents

    def on_step(_pipe, index, _timestep, tensors):
        saved.keep(f"step.{index}", tensors["latents"])
        return tensors

    pipe.prepare_latents = recorded_prepare
    arguments = {}
    if unusual.get("nine"):
        white = Image.new("RGB", size, (255, 255, 255))
        arguments = {"image": picture(size, seed), "mask_image": white, "strength": 1.0}
    negative = unusual.get("negative", NEGATIVE)
    result = pipe(
        PROMPT, width=size[0], height=size[1], negative_prompt=negative, num_inference_steps=steps, guidance_scale=guidance,
        clip_skip=None if clip_skip == 1 else clip_skip - 1, generator=torch.Generator().manual_seed(seed),
        # TCD's own, where the pipeline's would be 0; the others that take it are deterministic.
        eta=0.3 if scheduler == "TCDScheduler" else 0.0,
        callback_on_step_end=on_step, **arguments)
    saved.keep_picture("output.u8", result.images[0])
    about = about_run(
        model, scheduler, size, steps, 1.0, guidance, seed, clip_skip=clip_skip, negative=negative,
        karras=bool(unusual.get("karras")), unet=unusual["unet"][0] if "unet" in unusual else {})
    return saved, about


if __name__ == "__main__":
    write_runs(__doc__, SCRIPT, "text_to_image", CASES, run)

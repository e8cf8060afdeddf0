#!/usr/bin/env python3
"""Whole runs of diffusers on the tiny models of Stable Diffusion 2 and SDXL: image to image and inpainting.

    python later_models.py

What `tiny-sd2` and `tiny-sdxl` lack is `tiny`'s: the VAE's weights, the first tokenizer, SDXL's first text encoder.
Each file of `later` holds `input.u8`, under a mask `mask.u8`, in some the text states (`cond`, `uncond`, and for SDXL `pooled`,
`uncond_pooled`, `sizes`), `start`, `step.N`, and `output.u8` (before any compositing); `about` has the arguments. In a file of a
UNet that differs from the model's in one tensor, `replaced.<name>` is that tensor.
"""
import argparse
import json

import diffusers
import numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from golden_file import MODELS, quiet_and_repeatable, save_golden
from inpaint import mask_of
from pipeline import NEGATIVE, PROMPT, picture

SCRIPT = "later_models.py"
# Tensors in place of the UNet's own: changes to its configuration, name, shape and seed.
NINE = ({"in_channels": 9}, "conv_in.weight", (16, 9, 3, 3), 70)
DISTILLED = ({"time_cond_proj_dim": 256}, "time_embedding.cond_proj.weight", (16, 256), 71)
# Files that hold the text states, too; those of the others are the same or alike.
WITH_STATES = ("sd2-ddim-guided", "sd2-euler-skip", "sdxl-euler-guided", "sdxl-no-negative", "sdxl-empty-negative", "sdxl-skip")
# name: model, scheduler, (width, height), steps, strength, guidance, clip_skip (ours: 1 is none), seed, and what is unusual.
CASES = {
    "sd2-ddim-guided": ("tiny-sd2", "DDIMScheduler", (64, 64), 6, 0.7, 7.5, 1, 0, {}),
    "sd2-euler-skip": ("tiny-sd2", "EulerDiscreteScheduler", (72, 40), 5, 0.9, 5.0, 2, 1, {}),
    "sd2-unipc": ("tiny-sd2", "UniPCMultistepScheduler", (64, 48), 6, 1.0, 3.0, 1, 2, {}),
    "sd2-ancestral": ("tiny-sd2", "EulerAncestralDiscreteScheduler", (48, 32), 5, 0.8, 4.0, 1, 3, {}),
    "sd2-blend": ("tiny-sd2", "DDIMScheduler", (72, 40), 6, 0.7, 7.5, 1, 4, {"mask": True}),
    "sdxl-euler-guided": ("tiny-sdxl", "EulerDiscreteScheduler", (64, 64), 6, 0.7, 7.5, 1, 10, {}),
    "sdxl-no-negative": ("tiny-sdxl", "EulerDiscreteScheduler", (72, 40), 5, 0.9, 5.0, 1, 11, {"negative": None}),
    "sdxl-empty-negative": ("tiny-sdxl", "EulerDiscreteScheduler", (72, 40), 5, 0.9, 5.0, 1, 11, {"negative": ""}),
    "sdxl-skip": ("tiny-sdxl", "DDIMScheduler", (40, 72), 5, 0.9, 5.0, 2, 12, {}),
    "sdxl-unguided": ("tiny-sdxl", "DPMSolverMultistepScheduler", (64, 64), 6, 0.8, 1.0, 1, 13, {}),
    "sdxl-normalised": ("tiny-sdxl", "EulerDiscreteScheduler", (64, 48), 5, 0.6, 5.0, 1, 14,
                        {"vae": {"latents_mean": [-1.6574, 1.886, -1.383, 2.5155], "latents_std": [8.4927, 5.9022, 6.5498, 5.2299], "scaling_factor": 0.5}}),
    "sdxl-distilled": ("tiny-sdxl", "LCMScheduler", (64, 64), 4, 1.0, 8.0, 1, 15, {"unet": DISTILLED}),
    "sdxl-blend": ("tiny-sdxl", "EulerDiscreteScheduler", (72, 40), 6, 0.7, 7.5, 1, 16, {"mask": True}),
    "sdxl-blend-full": ("tiny-sdxl", "DDIMScheduler", (64, 64), 4, 1.0, 5.0, 1, 17, {"mask": True}),
    "sdxl-nine": ("tiny-sdxl", "EulerDiscreteScheduler", (64, 64), 6, 0.7, 7.5, 1, 18, {"mask": True, "unet": NINE}),
    "sdxl-nine-full": ("tiny-sdxl", "DDIMScheduler", (72, 40), 4, 1.0, 5.0, 1, 19, {"mask": True, "unet": NINE}),
}


def changed_unet(folder, change):
    """The model's UNet with one tensor drawn anew, and that tensor."""
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    if change is None:
        return unet, {}
    extra, name, shape, seed = change
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    tensor = (noise / noise[0].numel() ** 0.5).half()
    changed = UNet2DConditionModel.from_config({**unet.config, **extra})
    changed.load_state_dict({**unet.state_dict(), name: tensor.float()})
    return changed.eval(), {f"replaced.{name}": tensor}


def load(model, scheduler, unusual):
    own, tiny = MODELS / model, MODELS / "tiny"
    unet, replaced = changed_unet(own / "unet", unusual.get("unet"))
    vae = AutoencoderKL.from_pretrained(tiny / "vae", torch_dtype=torch.float32)
    config = json.loads((own / "vae" / "config.json").read_text()) if model == "tiny-sdxl" else {}
    vae.register_to_config(**{key: value for key, value in {**config, **unusual.get("vae", {})}.items() if not key.startswith("_")})
    scheduler_config = json.loads((own / "scheduler" / "scheduler_config.json").read_text())
    scheduler = getattr(diffusers, scheduler).from_config(scheduler_config)
    kind = unusual.get("kind", "Inpaint" if unusual.get("mask") else "Img2Img")
    if model == "tiny-sdxl":
        pipe = getattr(diffusers, f"StableDiffusionXL{kind}Pipeline")(
            vae=vae, unet=unet, scheduler=scheduler, add_watermarker=False,
            text_encoder=CLIPTextModel.from_pretrained(tiny / "text_encoder", dtype=torch.float32),
            text_encoder_2=CLIPTextModelWithProjection.from_pretrained(own / "text_encoder_2", dtype=torch.float32),
            tokenizer=CLIPTokenizer.from_pretrained(tiny / "tokenizer"), tokenizer_2=CLIPTokenizer.from_pretrained(own / "tokenizer_2"),
            force_zeros_for_empty_prompt=True)
    else:
        tokenizer = CLIPTokenizer.from_pretrained(tiny / "tokenizer", pad_token="!")
        pipe = getattr(diffusers, f"StableDiffusion{kind}Pipeline")(
            vae=vae, unet=unet, scheduler=scheduler, tokenizer=tokenizer, safety_checker=None, feature_extractor=None,
            text_encoder=CLIPTextModel.from_pretrained(own / "text_encoder", dtype=torch.float32), requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe, replaced


def run(case):
    model, scheduler, size, steps, strength, guidance, clip_skip, seed, unusual = case
    pipe, saved = load(model, scheduler, unusual)
    if not hasattr(pipe.text_encoder, "text_model"):
        # transformers 5 took this level out of the class, but diffusers still looks for it when clip_skip is given.
        type(pipe.text_encoder).text_model = property(lambda self: self)

    def keep(key, value):
        saved[key] = value.detach().clone().contiguous()

    image = picture(size, seed)
    keep("input.u8", torch.from_numpy(numpy.asarray(image).copy()))
    arguments = {}
    if unusual.get("mask"):
        mask = mask_of(size, seed)
        keep("mask.u8", torch.from_numpy(numpy.asarray(mask).copy()))
        arguments = {"mask_image": mask, "width": size[0], "height": size[1]}
    encode_prompt, prepare_latents = pipe.encode_prompt, pipe.prepare_latents

    def recorded_prompt(*args, **kwargs):
        states = encode_prompt(*args, **kwargs)
        for key, value in zip(("cond", "uncond", "pooled", "uncond_pooled"), states):
            if value is not None:
                keep(key, value)
        return states

    def recorded_prepare(*args, **kwargs):
        latents = prepare_latents(*args, **kwargs)
        keep("start", latents[0] if unusual.get("mask") else latents)
        return latents

    def on_step(_pipe, index, _timestep, tensors):
        keep(f"step.{index}", tensors["latents"])
        return tensors

    pipe.encode_prompt, pipe.prepare_latents = recorded_prompt, recorded_prepare
    if model == "tiny-sdxl":
        sizes = pipe._get_add_time_ids

        def recorded_sizes(*args, **kwargs):
            ids, negative = sizes(*args, **kwargs)
            assert torch.equal(ids, negative)
            keep("sizes", ids)
            return ids, negative

        pipe._get_add_time_ids = recorded_sizes
    negative = unusual.get("negative", NEGATIVE)
    result = pipe(
        PROMPT, image=image, negative_prompt=negative, num_inference_steps=steps, strength=strength, guidance_scale=guidance,
        clip_skip=None if clip_skip == 1 else clip_skip - 1, generator=torch.Generator().manual_seed(seed),
        callback_on_step_end=on_step, **arguments)
    keep("output.u8", torch.from_numpy(numpy.asarray(result.images[0]).copy()))
    about = {
        "model": model, "scheduler": scheduler, "width": size[0], "height": size[1], "steps": steps, "strength": strength,
        "guidance_scale": guidance, "clip_skip": clip_skip, "seed": seed, "prompt": PROMPT, "negative_prompt": negative,
        "unet": unusual["unet"][0] if "unet" in unusual else {}, "vae": unusual.get("vae", {})}
    return saved, about


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="run the cases whose name contains this")
    args = parser.parse_args()
    quiet_and_repeatable()
    for name, case in CASES.items():
        if not args.only or args.only in name:
            tensors, about = run(case)
            if name not in WITH_STATES:
                tensors = {key: value for key, value in tensors.items() if not key.startswith(("cond", "uncond", "pooled"))}
            save_golden(f"later/{name}.safetensors", tensors, SCRIPT, **about)


if __name__ == "__main__":
    main()

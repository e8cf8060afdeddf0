#!/usr/bin/env python3
"""Golden image-to-image runs: diffusers' own pipelines on the tiny models, with every latent and the final picture.

    python pipeline.py --models ../models --out ../pipeline

Each file holds one run: the input picture (`input.u8`, H x W x 3), the text states (`cond`, `uncond`), the VAE's moments,
the latents before the first step (`start`), after every step (`step.N`), the decoded picture and `output.u8`.
The metadata entry `about` is the run's arguments as JSON, which the Rust test turns into a request.
"""
import argparse
import json
import pathlib

import diffusers
import numpy
import torch
from PIL import Image
from safetensors.torch import save_file

PROMPT = "a photograph of an astronaut riding a horse"
NEGATIVE = "blurry, low quality"

# name: model, scheduler, (width, height), steps, strength, guidance, clip_skip, seed.
# clip_skip counts as on the wire: 1 is the last layer, which diffusers calls None.
CASES = {
    "lcm-plain": ("tiny", "LCMScheduler", (64, 64), 4, 0.5, 1.0, 1, 0),
    "lcm-full-strength": ("tiny", "LCMScheduler", (64, 64), 2, 1.0, 1.0, 1, 7),
    "lcm-guided-wide": ("tiny", "LCMScheduler", (72, 40), 8, 0.7, 3.0, 2, 42),
    "lcm-distilled": ("tiny-lcm", "LCMScheduler", (64, 64), 4, 0.8, 1.5, 1, 1),
    "lcm-distilled-guidance-0": ("tiny-lcm", "LCMScheduler", (64, 48), 8, 0.5, 0.0, 2, 2**32 + 5),
    "lcm-distilled-tall": ("tiny-lcm", "LCMScheduler", (40, 72), 3, 1.0, 8.0, 1, 123),
    # diffusers' pipeline for latent consistency models, whose strength lowers the start and takes no steps away.
    "lcm-pipeline": ("tiny-lcm", "LCMScheduler", (64, 64), 4, 0.5, 1.5, 1, 21),
    "lcm-pipeline-one-step": ("tiny-lcm", "LCMScheduler", (72, 40), 1, 0.3, 8.0, 2, 22),
    "lcm-pipeline-low": ("tiny-lcm", "LCMScheduler", (64, 48), 8, 0.16, 1.0, 1, 23),
    "ddim-guided": ("tiny", "DDIMScheduler", (64, 64), 10, 0.6, 7.5, 1, 0),
    "ddim-unguided": ("tiny", "DDIMScheduler", (64, 64), 5, 1.0, 1.0, 1, 3),
    "ddim-wide-skip": ("tiny", "DDIMScheduler", (72, 40), 7, 0.3, 5.0, 2, 99),
    "euler-guided": ("tiny", "EulerDiscreteScheduler", (64, 64), 10, 0.6, 7.5, 1, 0),
    "euler-unguided": ("tiny", "EulerDiscreteScheduler", (64, 64), 5, 1.0, 1.0, 1, 3),
    "euler-tall-skip": ("tiny", "EulerDiscreteScheduler", (40, 72), 7, 0.9, 5.0, 2, 99),
}


def picture(size, seed):
    """A smooth picture of the given size, the same on every machine."""
    width, height = size
    small = numpy.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=numpy.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def load(models, case, name):
    """The pipeline of a case, ready to run."""
    model, scheduler = case[:2]
    lower_start = name.startswith("lcm-pipeline")
    pipeline = diffusers.LatentConsistencyModelImg2ImgPipeline if lower_start else diffusers.StableDiffusionImg2ImgPipeline
    pipe = pipeline.from_pretrained(
        models / model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.text_encoder.float(), pipe.unet.float(), pipe.vae.float()
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    return pipe


def run(models, name, case):
    return record(load(models, case, name), case, name)


def record(pipe, case, name):
    """Runs the pipeline on a case: everything on the way, and the arguments."""
    model, scheduler, size, steps, strength, guidance, clip_skip, seed = case
    lower_start = name.startswith("lcm-pipeline")
    if not hasattr(pipe.text_encoder, "text_model"):
        # transformers 5 took this level out of the class, but diffusers still looks for it when clip_skip is given. (Where
        # it loads LoRAs, it knows that the level is gone, so it is put back no earlier than here.)
        type(pipe.text_encoder).text_model = property(lambda self: self)
    saved = {}

    def keep(key, value):
        saved[key] = value.detach().clone().contiguous()

    image = picture(size, seed % 1000)
    keep("input.u8", torch.from_numpy(numpy.asarray(image).copy()))

    encode, decode, encode_prompt = pipe.vae.encode, pipe.vae.decode, pipe.encode_prompt
    prepare_latents = pipe.prepare_latents

    def recorded_encode(x, *args, **kwargs):
        result = encode(x, *args, **kwargs)
        keep("moments", result.latent_dist.parameters)
        return result

    def recorded_decode(*args, **kwargs):
        result = decode(*args, **kwargs)
        keep("decoded", result[0] if isinstance(result, tuple) else result.sample)
        return result

    def recorded_prompt(*args, **kwargs):
        cond, uncond = encode_prompt(*args, **kwargs)[:2]
        keep("cond", cond)
        if uncond is not None:
            keep("uncond", uncond)
        return cond, uncond

    def recorded_prepare(*args, **kwargs):
        latents = prepare_latents(*args, **kwargs)
        keep("start", latents)
        return latents

    def on_step(_pipe, index, _timestep, tensors):
        keep(f"step.{index}", tensors["latents"])
        return tensors

    pipe.vae.encode, pipe.vae.decode = recorded_encode, recorded_decode
    pipe.encode_prompt, pipe.prepare_latents = recorded_prompt, recorded_prepare
    result = pipe(
        PROMPT,
        image=image,
        # The LCM pipeline has no negative prompt.
        **({} if lower_start else {"negative_prompt": NEGATIVE}),
        num_inference_steps=steps,
        strength=strength,
        guidance_scale=guidance,
        clip_skip=None if clip_skip == 1 else clip_skip - 1,
        generator=torch.Generator().manual_seed(seed),
        callback_on_step_end=on_step,
    )
    keep("output.u8", torch.from_numpy(numpy.asarray(result.images[0]).copy()))
    about = {
        "model": model,
        "scheduler": scheduler,
        "width": size[0],
        "height": size[1],
        "steps": steps,
        "strength": strength,
        "guidance_scale": guidance,
        "clip_skip": clip_skip,
        "seed": seed,
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        **({"strength_rule": "lower_start"} if lower_start else {}),
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
        tensors, about = run(args.models, name, case)
        save_file(tensors, args.out / f"{name}.safetensors", metadata={"about": json.dumps(about)})
        steps = sum(key.startswith("step.") for key in tensors)
        print(f"{name}: {steps} steps, picture mean {tensors['output.u8'].double().mean():.2f}", flush=True)


if __name__ == "__main__":
    main()

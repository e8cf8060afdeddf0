#!/usr/bin/env python3
"""Final pictures of every scheduler that diffusers' img2img pipeline can run, for the table of differences.

    python parity.py --models ../models --out ../parity

One file per scheduler: `input.u8` and, for each run, a picture named `<plain|karras>/<strength>/<guidance>`, H x W x 3.
Karras runs exist where the class has `use_karras_sigmas`. The other four of the 18 have no add_noise or are samplers
of unconditional models; docs/adr/0003 defines them and their own tests hold them.
"""
import argparse
import inspect
import json
import pathlib

import diffusers
import numpy
import torch
from safetensors.torch import save_file

from pipeline import NEGATIVE, PROMPT, picture

SCHEDULERS = (
    "DDPM",
    "DDIM",
    "PNDM",
    "LMSDiscrete",
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "DPMSolverMultistep",
    "HeunDiscrete",
    "KDPM2Discrete",
    "DPMSolverSinglestep",
    "KDPM2AncestralDiscrete",
    "UniPCMultistep",
    "DEISMultistep",
    "LCM",
    "TCD",
)
SIZE = (40, 40)
STEPS = 6
SEED = 11
STRENGTHS = (0.4, 0.7, 1.0)
GUIDANCE = (1.0, 7.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that sums are taken in the same order each time
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        args.models / "tiny", torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.text_encoder.float(), pipe.unet.float(), pipe.vae.float()
    pipe.set_progress_bar_config(disable=True)
    checkpoint_config = pipe.scheduler.config
    image = picture(SIZE, SEED)
    for name in SCHEDULERS:
        scheduler = getattr(diffusers, f"{name}Scheduler")
        has_karras = "use_karras_sigmas" in inspect.signature(scheduler.__init__).parameters
        tensors = {"input.u8": torch.from_numpy(numpy.asarray(image).copy())}
        for spacing in ("plain", "karras") if has_karras else ("plain",):
            extra = {"use_karras_sigmas": True} if spacing == "karras" else {}
            for strength in STRENGTHS:
                for guidance in GUIDANCE:
                    pipe.scheduler = scheduler.from_config(checkpoint_config, **extra)
                    result = pipe(
                        PROMPT,
                        image=image,
                        negative_prompt=NEGATIVE,
                        num_inference_steps=STEPS,
                        strength=strength,
                        guidance_scale=guidance,
                        # TCD's own, where the pipeline's would be 0; the others that take it are deterministic.
                        eta=0.3 if name == "TCD" else 0.0,
                        generator=torch.Generator().manual_seed(SEED),
                    )
                    pixels = numpy.asarray(result.images[0]).copy()
                    tensors[f"{spacing}/{strength}/{guidance}"] = torch.from_numpy(pixels)
        about = {
            "model": "tiny",
            "scheduler": f"{name}Scheduler",
            "width": SIZE[0],
            "height": SIZE[1],
            "steps": STEPS,
            "strength": 0.0,
            "guidance_scale": 0.0,
            "clip_skip": 1,
            "seed": SEED,
            "prompt": PROMPT,
            "negative_prompt": NEGATIVE,
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }
        save_file(tensors, args.out / f"{name}.safetensors", metadata={"about": json.dumps(about)})
        print(f"{name}: {len(tensors) - 1} runs", flush=True)


if __name__ == "__main__":
    main()

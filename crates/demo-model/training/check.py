"""Stage 6: runs diffusers' image-to-image pipeline on the exported folder and saves contact sheets to look at.

Each row: the input, its round trip through the auto-encoder, then one prompt at growing strengths (LCM scheduler, no
guidance), as the server runs it.
"""
from pathlib import Path

import numpy as np
import torch
from diffusers import LCMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image

from stage import arguments, sheet

PROMPTS = ["the same at night", "at sunset", "snowy mountains", "a desert on a sunny day", "the sea at sunset",
           "a green forest", "purple", "pencil sketch", "watercolor painting", "a city at night, neon"]


def main():
    a = arguments(__doc__, model=(Path, None, "model folder"), image=(Path, None, "input picture"),
                  out=(Path, None, "contact sheet"), steps=(int, 4, ""), guidance=(float, 1., ""),
                  strengths=(str, "0.3,0.5,0.6,0.7,0.8,0.9,1.0", ""), prompts=(str, "", "separated by |"), seed=(int, 1, ""),
                  scheduler=(str, "lcm", "lcm or the folder's own"), negative=(str, "", ""))
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(a.model or a.run / "model", torch_dtype=torch.float32)
    if a.scheduler == "lcm":
        pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    source = Image.open(a.image).convert("RGB")
    x = pipe.image_processor.preprocess(source)
    with torch.no_grad():
        back = pipe.image_processor.postprocess(pipe.vae.decode(pipe.vae.encode(x).latent_dist.mode()).sample)[0]
    rows = []
    for prompt in a.prompts.split("|") if a.prompts else PROMPTS:
        row = [np.asarray(source.resize(back.size)), np.asarray(back)]
        for s in a.strengths.split(","):
            g = torch.Generator().manual_seed(a.seed)
            row.append(np.asarray(pipe(prompt, image=source, strength=float(s), num_inference_steps=a.steps,
                                       guidance_scale=a.guidance, negative_prompt=a.negative or None, generator=g).images[0]))
        rows.append(row)
        difference = [float(np.abs(r.astype(float) - row[0]).mean()) for r in row[1:]]
        print(prompt, [round(d, 1) for d in difference], flush=True)
    sheet(rows, a.out or a.run / "check.png")


if __name__ == "__main__":
    main()

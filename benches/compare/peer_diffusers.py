#!/usr/bin/env python3
"""Times image to image with diffusers on PyTorch, eager and channels_last, and prints one JSON object.

    python peer_diffusers.py --model models/sd15-lcm --steps 4
    python peer_diffusers.py --model models/sd15-lcm --scheduler UniPC --guidance 7.5
    python peer_diffusers.py --model models/sdxl --size 1024 --scheduler Euler --steps 2 --dtype bfloat16

--model is a diffusers folder of Stable Diffusion 1.x, 2.x or XL. The scheduler takes its settings from the folder's
configuration.
"""
import time

import diffusers
import torch
import transformers

import peer

SCHEDULERS = {
    "LCM": diffusers.LCMScheduler,
    "UniPC": diffusers.UniPCMultistepScheduler,
    "DDIM": diffusers.DDIMScheduler,
    "Euler": diffusers.EulerDiscreteScheduler,
}


def load(args):
    kind, more = diffusers.StableDiffusionImg2ImgPipeline, {"safety_checker": None, "requires_safety_checker": False}
    if peer.is_sdxl(args.model):
        kind, more = diffusers.StableDiffusionXLImg2ImgPipeline, {}
    pipe = kind.from_pretrained(args.model, torch_dtype=getattr(torch, args.dtype), local_files_only=True, **more)
    pipe.scheduler = SCHEDULERS[args.scheduler].from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    # The layout in which oneDNN computes convolutions: without it every one of them is converted there and back.
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    return pipe


def watch(pipe):
    """The lists into which the calls of each part write their seconds."""
    logs = {name: [] for name in ("text", "encode", "unet", "decode")}
    # Not through the pipeline's own assignment, which accepts modules only.
    object.__setattr__(pipe, "unet", peer.Timed(pipe.unet, logs["unet"]))
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(pipe, name, None) is not None:
            object.__setattr__(pipe, name, peer.Timed(getattr(pipe, name), logs["text"]))
    pipe.vae.encode = peer.Timed(pipe.vae.encode, logs["encode"])
    pipe.vae.decode = peer.Timed(pipe.vae.decode, logs["decode"])
    return logs


def main():
    parser = peer.arguments(__doc__)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    pipe = load(args)
    loaded = time.perf_counter() - start
    image, logs = peer.picture(args.size), watch(pipe)

    def make():
        for log in logs.values():
            log.clear()
        pipe(peer.PROMPT, image=image, strength=1.0, num_inference_steps=args.steps, guidance_scale=args.guidance,
             generator=torch.Generator().manual_seed(1))
        return {"text_encode": sum(logs["text"]), "vae_encode": sum(logs["encode"]),
                "evaluations": list(logs["unet"]), "vae_decodes": list(logs["decode"])}

    runs = peer.repeat(args.repeat, make)
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__,
                "transformers": transformers.__version__}
    peer.report("diffusers", args, loaded, runs, versions, dtype=args.dtype)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What diffusers takes to switch LoRAs and to run with them, on the files of the example `lora_switch`.

    cargo run --release -p pentimento-engine --example lora_switch FOLDER
    python benches/peers/lora.py FOLDER [--rounds 3] [--size 512]

Needs torch, diffusers, transformers, peft and accelerate (`tests/golden/generate/requirements.txt`). Prints seconds:
`load_lora_weights` and `set_adapters` of one and of five LoRAs of rank 32, `set_adapters` among loaded ones, `fuse_lora` and
`unfuse_lora`, and evaluations of the UNet with none, one and five of them and fused.
"""
import argparse
import pathlib
import statistics
import time
import warnings

import diffusers
import torch
import transformers

STYLES = [f"style-{number}" for number in range(1, 6)]


def timed(what, rounds, run, before=lambda: None):
    seconds = []
    for _ in range(rounds):
        before()
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    print(f"{what:<44}{statistics.median(seconds):8.3f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_grad_enabled(False)
    parts = {
        "unet": diffusers.UNet2DConditionModel.from_pretrained(args.folder / "checkpoint/unet", torch_dtype=torch.float32),
        # Its LoRA modules are part of a switch too, and `load_lora_weights` does not work without it.
        "text_encoder": transformers.CLIPTextModel.from_pretrained(
            args.folder / "checkpoint/text_encoder", torch_dtype=torch.float32
        ),
    }
    pipe = diffusers.StableDiffusionPipeline(
        vae=None, tokenizer=None, scheduler=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, **parts,
    )
    unet = pipe.unet.to(memory_format=torch.channels_last)
    latent = torch.randn(1, 4, args.size // 8, args.size // 8)
    text = torch.randn(1, 77, 768)

    def evaluate():
        unet(latent, torch.tensor([500.0]), encoder_hidden_states=text)

    def load(names):
        for name in names:
            pipe.load_lora_weights(str(args.folder), weight_name=f"{name}.safetensors", adapter_name=name)
        pipe.set_adapters(names, [0.5] * len(names))

    evaluate()
    timed("evaluation without", args.rounds, evaluate)
    for names in (STYLES[:1], STYLES):
        count = len(names)
        timed(f"load_lora_weights and set_adapters, {count}", args.rounds, lambda: load(names), pipe.unload_lora_weights)
        timed(f"set_adapters among loaded, {count}", args.rounds, lambda: pipe.set_adapters(names, [0.7] * count))
        timed(f"evaluation with {count}", args.rounds, evaluate)
    timed("fuse_lora, 5", 1, lambda: pipe.fuse_lora(components=["unet"]))
    timed("evaluation fused", args.rounds, evaluate)
    timed("unfuse_lora, 5", 1, lambda: pipe.unfuse_lora(components=["unet"]))


if __name__ == "__main__":
    main()

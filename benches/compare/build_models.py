#!/usr/bin/env python3
"""Writes Stable Diffusion 1.5 with seeded random weights as diffusers folders, for benchmarks where no hub is reached.

How long a network takes does not depend on its weights, as long as no activation is infinite or a denormal number.
So weights are drawn with unit gain (variance 1 / fan-in): activations neither vanish nor overflow fp16.

    python build_models.py --vocab clip_anytorch-2.6.0-py3-none-any.whl --out models

Four folders, the last two of which link the weights of the first two:

    sd15           f32, the scheduler configuration of Stable Diffusion 1.5
    sd15-fp16      the same rounded to f16 (*.fp16.safetensors)
    sd15-lcm       f32, the scheduler configuration of a latent consistency model
    sd15-lcm-fp16  f16

The same seed gives the same bytes with the same torch version.
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

# What does not depend on the size is the same for the tiny models of the tests.
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "golden" / "generate"))
from tiny_models import LCM_SCHEDULER, SCHEDULER, dump, randomise, read_merges, write_tokenizer  # noqa: E402

VOCABULARY = 49408


def shapes(width):
    """Configurations of the three networks; `width` 320 is the real one, 32 loads in a second."""
    narrow = width < 320
    vae = 16 if narrow else 128
    text = 64 if narrow else 768
    return {
        "unet": {
            "sample_size": 64,
            "block_out_channels": (width, 2 * width, 4 * width, 4 * width),
            "layers_per_block": 2,
            "cross_attention_dim": text,
            "attention_head_dim": 8,  # As in SD 1.5 this is the number of heads, whatever its name.
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        },
        "vae": {
            "sample_size": 512,
            "block_out_channels": (vae, 2 * vae, 4 * vae, 4 * vae),
            "norm_num_groups": 8 if narrow else 32,
            "layers_per_block": 2,
            "latent_channels": 4,
            "scaling_factor": 0.18215,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
        },
        "text_encoder": {
            "hidden_size": text,
            "intermediate_size": 4 * text,
            "num_hidden_layers": 12,
            "num_attention_heads": text // 64,
            "projection_dim": text,
            "hidden_act": "quick_gelu",
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 77,
            "bos_token_id": VOCABULARY - 2,
            "eos_token_id": VOCABULARY - 1,
            "pad_token_id": 1,
        },
    }


def published_names(part, state):
    """transformers 5 drops the prefix that every published CLIP text encoder has; positions are no weights."""
    weights = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if part != "text_encoder":
        return weights
    return {name if name.startswith("text_model.") else f"text_model.{name}": tensor
            for name, tensor in weights.items()}


def write_network(part, config, seed, full, half):
    """The network as f32 below `full` and as f16 below `half`, with its config.json."""
    if part == "text_encoder":
        model = CLIPTextModel(CLIPTextConfig(**config))
    else:
        model = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part](**config)
    weights = published_names(part, randomise(model, seed).state_dict())
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    for folder, dtype, name in ((full, torch.float32, f"{stem}.safetensors"),
                                (half, torch.float16, f"{stem}.fp16.safetensors")):
        (folder / part).mkdir(parents=True, exist_ok=True)
        if part == "text_encoder":
            model.config.save_pretrained(folder / part)
        else:
            model.save_config(folder / part)
        converted = {key: value.to(dtype).contiguous() for key, value in weights.items()}
        save_file(converted, folder / part / name, metadata={"format": "pt"})
    return sum(weight.numel() for weight in model.parameters())


def write_index(folder, scheduler):
    """model_index.json and the scheduler's configuration."""
    dump(folder / "scheduler" / "scheduler_config.json", scheduler)
    dump(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })


def link(source, target):
    """The same files under another name, without a second copy on the disk."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)
    # These two are written anew, so they must not be the same files.
    (target / "model_index.json").unlink()
    (target / "scheduler" / "scheduler_config.json").unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", required=True, type=pathlib.Path,
                        help="bpe_simple_vocab_16e6.txt.gz, or a wheel that carries it")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the model folders")
    parser.add_argument("--width", type=int, default=320,
                        help="of the UNet's first level; 32 makes small networks, to try the scripts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    merges = read_merges(args.vocab)
    start = time.monotonic()
    folders = [args.out / "sd15", args.out / "sd15-fp16"]
    parameters = {part: write_network(part, config, args.seed + number, *folders)
                  for number, (part, config) in enumerate(shapes(args.width).items())}
    for folder in folders:
        write_tokenizer(folder / "tokenizer", merges, VOCABULARY)
        write_index(folder, SCHEDULER)
    for plain, lcm in zip(folders, (args.out / "sd15-lcm", args.out / "sd15-lcm-fp16")):
        link(plain, lcm)
        write_index(lcm, LCM_SCHEDULER)
    print(json.dumps({"parameters": parameters, "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()

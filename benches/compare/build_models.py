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

`--base sdxl` writes one folder `sdxl` instead, the base model of Stable Diffusion XL in f16 under the usual names: 6.9 GB,
drawn tensor by tensor, so that no network is ever in memory in f32.

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
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

# What does not depend on the size is the same for the tiny models of the tests.
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "golden" / "generate"))
from tiny_models import (LCM_SCHEDULER, SCHEDULER, SCHEDULER_SDXL, draw, dump, randomise, read_merges,  # noqa: E402
                         write_tokenizer)

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


def shapes_of_sdxl(width):
    """As `shapes`, of Stable Diffusion XL's base model: another UNet, a second text encoder, the VAE's factor."""
    narrow = width < 320
    parts = shapes(width)
    second = {**parts["text_encoder"], "hidden_act": "gelu"}
    if not narrow:
        second.update(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
                      projection_dim=1280)
    return {
        "unet": {
            "sample_size": 128,
            "block_out_channels": (width, 2 * width, 4 * width),
            "layers_per_block": 2,
            "cross_attention_dim": parts["text_encoder"]["hidden_size"] + second["hidden_size"],
            "attention_head_dim": (5, 10, 20) if not narrow else (2, 4, 8),
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": second["projection_dim"] + 6 * 256,
            "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
            "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
        },
        "vae": {**parts["vae"], "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
        "text_encoder": parts["text_encoder"],
        "text_encoder_2": second,
    }


def published_names(part, state):
    """transformers 5 drops the prefix that every published CLIP text encoder has; positions are no weights."""
    weights = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if not part.startswith("text_encoder"):
        return weights
    return {name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
            for name, tensor in weights.items()}


def network(part, config):
    """The empty network with this configuration."""
    if part == "text_encoder":
        return CLIPTextModel(CLIPTextConfig(**config))
    if part == "text_encoder_2":
        return CLIPTextModelWithProjection(CLIPTextConfig(**config))
    return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part](**config)


def stem(part):
    return "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"


def write_config(folder, part, model):
    (folder / part).mkdir(parents=True, exist_ok=True)
    if part.startswith("text_encoder"):
        model.config.save_pretrained(folder / part)
    else:
        model.save_config(folder / part)


def write_halves(part, config, seed, folder):
    """The network as f16 in `folder`; of one tensor at a time there is more than that in memory."""
    with torch.device("meta"):
        model = network(part, config)
    generator = torch.Generator().manual_seed(seed)
    state = {f"{prefix}.{name}" if prefix else name: draw(module, name, weight.shape, generator).half()
             for prefix, module in model.named_modules()
             for name, weight in module.named_parameters(recurse=False)}
    write_config(folder, part, model)
    save_file(published_names(part, state), folder / part / f"{stem(part)}.safetensors", metadata={"format": "pt"})
    return sum(weight.numel() for weight in state.values())


def write_network(part, config, seed, full, half):
    """The network as f32 below `full` and as f16 below `half`, with its config.json."""
    model = network(part, config)
    weights = published_names(part, randomise(model, seed).state_dict())
    for folder, dtype, name in ((full, torch.float32, f"{stem(part)}.safetensors"),
                                (half, torch.float16, f"{stem(part)}.fp16.safetensors")):
        write_config(folder, part, model)
        converted = {key: value.to(dtype).contiguous() for key, value in weights.items()}
        save_file(converted, folder / part / name, metadata={"format": "pt"})
    return sum(weight.numel() for weight in model.parameters())


def write_index(folder, scheduler):
    """model_index.json and the scheduler's configuration."""
    dump(folder / "scheduler" / "scheduler_config.json", scheduler)
    parts = {
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if scheduler is SCHEDULER_SDXL:
        kind = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True,
                "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
                "tokenizer_2": ["transformers", "CLIPTokenizer"]}
    else:
        kind = {"_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None],
                "requires_safety_checker": False, "safety_checker": [None, None]}
    dump(folder / "model_index.json", {"_diffusers_version": "0.19.0", **kind, **parts})


def link(source, target):
    """The same files under another name, without a second copy on the disk."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)
    # These two are written anew, so they must not be the same files.
    (target / "model_index.json").unlink()
    (target / "scheduler" / "scheduler_config.json").unlink()


def write_sd15(args, merges):
    """Its four folders; gives the parameters of each part."""
    folders = [args.out / "sd15", args.out / "sd15-fp16"]
    parameters = {part: write_network(part, config, args.seed + number, *folders)
                  for number, (part, config) in enumerate(shapes(args.width).items())}
    for folder in folders:
        write_tokenizer(folder / "tokenizer", merges, VOCABULARY)
        write_index(folder, SCHEDULER)
    for plain, lcm in zip(folders, (args.out / "sd15-lcm", args.out / "sd15-lcm-fp16")):
        link(plain, lcm)
        write_index(lcm, LCM_SCHEDULER)
    return parameters


def write_sdxl(args, merges):
    folder = args.out / "sdxl"
    parameters = {part: write_halves(part, config, args.seed + number, folder)
                  for number, (part, config) in enumerate(shapes_of_sdxl(args.width).items())}
    write_tokenizer(folder / "tokenizer", merges, VOCABULARY)
    write_tokenizer(folder / "tokenizer_2", merges, VOCABULARY, pad="!")
    write_index(folder, SCHEDULER_SDXL)
    return parameters


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", required=True, type=pathlib.Path,
                        help="bpe_simple_vocab_16e6.txt.gz, or a wheel that carries it")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the model folders")
    parser.add_argument("--base", choices=["sd15", "sdxl"], default="sd15")
    parser.add_argument("--width", type=int, default=320,
                        help="of the UNet's first level; 32 makes small networks, to try the scripts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    merges = read_merges(args.vocab)
    start = time.monotonic()
    write = write_sdxl if args.base == "sdxl" else write_sd15
    parameters = write(args, merges)
    print(json.dumps({"parameters": parameters, "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()

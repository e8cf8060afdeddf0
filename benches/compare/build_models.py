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
import gzip
import json
import os
import pathlib
import shutil
import time
import zipfile

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

VOCABULARY = 49408

PLAIN_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
LCM_SCHEDULER = {
    "_class_name": "LCMScheduler",
    "_diffusers_version": "0.22.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "original_inference_steps": 50,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "thresholding": False,
    "timestep_scaling": 10.0,
    "timestep_spacing": "leading",
    "trained_betas": None,
}


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


@torch.no_grad()
def randomise(model, seed):
    """What goes in with unit variance comes out with about unit variance."""
    numbers = torch.Generator().manual_seed(seed)
    for module in model.modules():
        norm = isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm))
        for name, weight in module.named_parameters(recurse=False):
            weight.normal_(generator=numbers)
            if norm and name == "weight":
                weight.mul_(0.1).add_(1)
            elif isinstance(module, torch.nn.Embedding):
                weight.mul_(0.5)
            elif weight.ndim >= 2:
                weight.div_(weight[0].numel() ** 0.5)
            else:
                weight.mul_(0.1)
    return model.eval()


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


def read_merges(path):
    """The merge lines of CLIP's byte pair encoding: from the .txt.gz itself, or from a wheel that carries it."""
    raw = path.read_bytes()
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            raw = wheel.read(next(n for n in wheel.namelist() if n.endswith("bpe_simple_vocab_16e6.txt.gz")))
    return gzip.decompress(raw).decode("utf-8").split("\n")[1:VOCABULARY - 2 * 256 - 2 + 1]


def byte_characters():
    """CLIP's character for each byte, in the order of its vocabulary."""
    keep = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    return [chr(code) for code in keep] + [chr(256 + extra) for extra in range(256 - len(keep))]


def write_tokenizer(folder, merges):
    """vocab.json, merges.txt and the two small configurations, as in the repository of Stable Diffusion 1.5."""
    characters = byte_characters()
    words = characters + [c + "</w>" for c in characters] + ["".join(merge.split()) for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(words)) == VOCABULARY, "this is not CLIP's vocabulary"
    dump(folder / "vocab.json", {word: number for number, word in enumerate(words)}, indent=None)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    start, end = ({"content": word, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
                  for word in words[-2:])
    special = {"bos_token": start, "eos_token": end, "unk_token": end}
    dump(folder / "special_tokens_map.json", {**special, "pad_token": "<|endoftext|>"})
    dump(folder / "tokenizer_config.json", {
        "add_prefix_space": False,
        **{name: {"__type": "AddedToken", **token} for name, token in special.items()},
        "pad_token": "<|endoftext|>",
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    })


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


def dump(path, value, indent=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


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
        write_tokenizer(folder / "tokenizer", merges)
        write_index(folder, PLAIN_SCHEDULER)
    for plain, lcm in zip(folders, (args.out / "sd15-lcm", args.out / "sd15-lcm-fp16")):
        link(plain, lcm)
        write_index(lcm, LCM_SCHEDULER)
    print(json.dumps({"parameters": parameters, "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Builds the tiny seeded models of the true Stable Diffusion architectures that the golden tests run on.

Each is a diffusers folder as on a model hub: four UNet levels with SD 1.5's block types, a four-level VAE (so one
latent pixel stands for 8x8 picture pixels), a five-layer CLIP text encoder and a tokenizer with the first thousand
entries of CLIP's real vocabulary. Weights are drawn with unit gain (variance 1 / fan-in), so that activations neither
vanish nor overflow and attention is not near-uniform. They are stored as fp16; the reference computes in f32.

    pip download --no-deps clip-anytorch==2.6.0   # its wheel carries CLIP's bpe_simple_vocab_16e6.txt.gz (MIT licence)
    python tiny_models.py --vocab clip_anytorch-2.6.0-py3-none-any.whl

`tiny-sd2` and `tiny-sdxl` have what differs from `tiny` only; for the rest the tests and `later_models.py` take its files.

The same seed gives the same bytes with the same torch version.
"""
import argparse
import gzip
import json
import pathlib
import zipfile

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from golden_file import MODELS, quiet_and_repeatable

VOCABULARY = 1000
UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 32, 48, 64),
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,  # As in SD 1.5 this is the number of heads, whatever its name.
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
VAE = {
    "sample_size": 64,
    "block_out_channels": (16, 16, 32, 32),
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "projection_dim": 32,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "bos_token_id": VOCABULARY - 2,
    "eos_token_id": VOCABULARY - 1,
    "pad_token_id": 1,
}
SCHEDULER = {
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
# Name of the folder: what its UNet has beyond UNET, its scheduler, its class in diffusers, the UNet's seed.
MODEL_KINDS = {
    "tiny": ({}, SCHEDULER, "StableDiffusionPipeline", 10),
    "tiny-lcm": ({"time_cond_proj_dim": 256}, LCM_SCHEDULER, "LatentConsistencyModelPipeline", 20),
}
# UNets that stand alone, to be put into `tiny` in place of its own: what they have beyond UNET, and their seed.
LONE_UNETS = {
    # 4 channels of latents, 1 of the mask, 4 of the masked picture, as in the published inpainting checkpoints.
    "tiny-inpaint": ({"in_channels": 9}, 30),
}

# Stable Diffusion 2: OpenCLIP's text encoder, linear projections, heads per level, the velocity is predicted.
UNET_SD2 = {
    **UNET,
    "block_out_channels": (16, 16, 16, 16),
    "cross_attention_dim": 24,
    "attention_head_dim": (2, 2, 4, 4),
    "use_linear_projection": True,
    "upcast_attention": True,
}
OPEN_CLIP = {**TEXT, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "projection_dim": 20, "hidden_act": "gelu"}
SCHEDULER_SD2 = {**SCHEDULER, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
# SDXL: tiny's text encoder and this one, three levels of which the first has no attention, pooled text and sizes.
UNET_SDXL = {
    **UNET_SD2,
    "block_out_channels": (16, 16, 32),
    "cross_attention_dim": TEXT["hidden_size"] + OPEN_CLIP["hidden_size"],
    "attention_head_dim": (2, 2, 4),
    "transformer_layers_per_block": (1, 1, 2),
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": OPEN_CLIP["projection_dim"] + 6 * 8,
    "upcast_attention": None,
}
SCHEDULER_SDXL = {**SCHEDULER, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "interpolation_type": "linear"}


def byte_characters():
    """CLIP's reversible map from each byte to a printable character, in the order of its vocabulary."""
    keep = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    characters = [chr(b) for b in keep]
    return characters + [chr(256 + i) for i in range(256 - len(keep))]


def read_merges(path):
    """The merge lines of CLIP's BPE file: the .txt.gz itself, or a wheel that carries it."""
    raw = path.read_bytes()
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            raw = wheel.read(next(n for n in wheel.namelist() if n.endswith("bpe_simple_vocab_16e6.txt.gz")))
    return gzip.decompress(raw).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]


def dump(path, data, indent=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def write_tokenizer(folder, merges, size=VOCABULARY, pad="<|endoftext|>"):
    """CLIP's tokenizer with the first `size` entries of its vocabulary, padding by `pad`."""
    characters = byte_characters()
    merges = merges[: size - 2 * len(characters) - 2]
    vocabulary = characters + [c + "</w>" for c in characters] + ["".join(m.split()) for m in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    assert len(vocabulary) == len(set(vocabulary)) == size
    dump(folder / "vocab.json", {token: i for i, token in enumerate(vocabulary)}, indent=None)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")

    def token(content):
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    special = {
        "bos_token": token("<|startoftext|>"),
        "eos_token": token("<|endoftext|>"),
        "pad_token": pad,
        "unk_token": token("<|endoftext|>"),
    }
    dump(folder / "special_tokens_map.json", special)
    dump(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            **{k: {"__type": "AddedToken", **v} if isinstance(v, dict) else v for k, v in special.items()},
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def draw(module, name, shape, generator):
    """A unit-gain weight of this module: what goes in with unit variance comes out with about unit variance."""
    noise = torch.randn(shape, generator=generator)
    if isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm)) and name == "weight":
        return 1 + 0.1 * noise
    if isinstance(module, torch.nn.Embedding):
        return 0.5 * noise
    if len(shape) >= 2:
        return noise / shape[1:].numel() ** 0.5
    return 0.1 * noise


@torch.no_grad()
def randomise(model, seed):
    """Draws every weight anew."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            p.copy_(draw(module, name, p.shape, generator))
    return model.eval()


def save_weights(model, path, prefix=""):
    """fp16, under the names that published checkpoints use."""
    state = {prefix + k: v.half().contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}
    save_file(state, path, metadata={"format": "pt"})


def write_part(folder, model):
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    save_weights(model, folder / "diffusion_pytorch_model.safetensors")


def write_text_encoder(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    # Without an explicit dtype transformers 5 would compute in the fp16 of the file, beside an f32 UNet.
    config = {**text.config.to_diff_dict(), "architectures": [type(text).__name__], "torch_dtype": "float32"}
    dump(folder / "config.json", config)
    # transformers 5 drops the prefix that every CLIP text encoder published so far has: put it back.
    bare = not next(iter(text.state_dict())).startswith("text_model.")
    save_weights(text, folder / "model.safetensors", "text_model." if bare else "")


def build_sd2(merges):
    folder = MODELS / "tiny-sd2"
    write_part(folder / "unet", randomise(UNet2DConditionModel(**UNET_SD2), 50))
    write_text_encoder(folder / "text_encoder", randomise(CLIPTextModel(CLIPTextConfig(**OPEN_CLIP)), 51))
    # As published: the two files disagree about padding, and this one is believed.
    dump(folder / "tokenizer" / "special_tokens_map.json", {"pad_token": "!"})
    dump(folder / "scheduler" / "scheduler_config.json", SCHEDULER_SD2)


def build_sdxl(merges):
    folder = MODELS / "tiny-sdxl"
    write_part(folder / "unet", randomise(UNet2DConditionModel(**UNET_SDXL), 60))
    write_text_encoder(folder / "text_encoder_2", randomise(CLIPTextModelWithProjection(CLIPTextConfig(**OPEN_CLIP)), 61))
    write_tokenizer(folder / "tokenizer_2", merges, pad="!")
    dump(folder / "scheduler" / "scheduler_config.json", SCHEDULER_SDXL)
    AutoencoderKL(**{**VAE, "scaling_factor": 0.13025, "force_upcast": True}).save_config(folder / "vae")
    parts = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
    dump(folder / "model_index.json", {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True, **{part: ["", ""] for part in parts}})


def build(name, merges):
    extra, scheduler, pipeline, seed = MODEL_KINDS[name]
    folder = MODELS / name
    write_part(folder / "unet", randomise(UNet2DConditionModel(**UNET, **extra), seed))
    write_part(folder / "vae", randomise(AutoencoderKL(**VAE), 11))
    write_text_encoder(folder / "text_encoder", randomise(CLIPTextModel(CLIPTextConfig(**TEXT)), 12))
    write_tokenizer(folder / "tokenizer", merges)
    dump(folder / "scheduler" / "scheduler_config.json", scheduler)
    dump(
        folder / "model_index.json",
        {
            "_class_name": pipeline,
            "_diffusers_version": "0.22.0",
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--vocab", required=True, type=pathlib.Path, help="bpe_simple_vocab_16e6.txt.gz, or a wheel that carries it"
    )
    parser.add_argument("--later", action="store_true", help="only the models of SD 2 and SDXL")
    args = parser.parse_args()
    quiet_and_repeatable()
    merges = read_merges(args.vocab)
    if args.later:
        build_sd2(merges)
        build_sdxl(merges)
        return
    for name in MODEL_KINDS:
        print(f"models/{name}: {build(name, merges)} bytes")
    for name, (extra, seed) in LONE_UNETS.items():
        write_part(MODELS / name / "unet", randomise(UNet2DConditionModel(**UNET, **extra), seed))
        print(f"models/{name}: a UNet only")
    build_sd2(merges)
    build_sdxl(merges)


if __name__ == "__main__":
    main()

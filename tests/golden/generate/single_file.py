#!/usr/bin/env python3
"""Checkpoints in one file, in the layout of the original repositories, and what diffusers makes of them.

    python single_file.py --vocab clip_anytorch-2.6.0-py3-none-any.whl

`single/names.json` has, for networks of the true shapes of Stable Diffusion 1.5 and its relatives, every tensor's original
name, its name in diffusers and its shape, and the configuration that diffusers knows; diffusers' own conversion
(`single_file_utils`) has been run on the original names and gives exactly these.
`single/tiny.ckpt` is a tiny checkpoint in that layout, as a training framework saves it, and `single/tiny.safetensors` a
picture that diffusers made of it.
"""
import argparse
import json
import pathlib
import re
import tempfile

import diffusers
import numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from golden_file import GOLDEN, quiet_and_repeatable, save_golden
from pipeline import picture
from tiny_models import SCHEDULER, dump, randomise, read_merges, write_tokenizer

FOLDER = GOLDEN / "single"
UNET = {
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TEXT = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "hidden_act": "quick_gelu", "max_position_embeddings": 77,
}
NETWORKS = {
    "sd15": (UNET, VAE, TEXT),
    "sd15-inpaint": ({**UNET, "in_channels": 9}, VAE, TEXT),
    "lcm": ({**UNET, "time_cond_proj_dim": 256}, VAE, TEXT),
    "tiny": (
        {**UNET, "block_out_channels": (32, 32, 32, 32), "cross_attention_dim": 32, "layers_per_block": 1},
        {**VAE, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
        {**TEXT, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 1, "projection_dim": 32},
    ),
}
PROMPT, NEGATIVE = "a red house in the snow", "blurry"


def replaced(name, pairs):
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def original_unet(name, layers):
    """The original name of a tensor; written from CompVis' `openaimodel.py`, not from the conversion that is tested."""
    resnet = [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
              ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection")]
    per_level = layers + 1

    def down(level, kind, layer, rest):
        number = 1 + level * per_level + layer
        return f"input_blocks.{number}.0.{replaced(rest, resnet)}" if kind == "resnets" else f"input_blocks.{number}.1.{rest}"

    def up(level, kind, layer, rest):
        number = level * per_level + layer
        return f"output_blocks.{number}.0.{replaced(rest, resnet)}" if kind == "resnets" else f"output_blocks.{number}.1.{rest}"

    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        way, level, kind, layer, rest = match.groups()
        return "model.diffusion_model." + (down if way == "down" else up)(int(level), kind, int(layer), rest)
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"model.diffusion_model.input_blocks.{(int(match[1]) + 1) * per_level}.0.op.{match[2]}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.*)", name):
        level = int(match[1])
        place = 1 if level == 0 else 2  # The innermost level has no attention before it.
        return f"model.diffusion_model.output_blocks.{level * per_level + layers}.{place}.conv.{match[2]}"
    name = re.sub(r"mid_block\.resnets\.(\d)\.(.*)", lambda m: f"middle_block.{2 * int(m[1])}.{replaced(m[2], resnet)}", name)
    return "model.diffusion_model." + replaced(name, [
        ("mid_block.attentions.0.", "middle_block.1."), ("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."), ("time_embedding.linear_1.", "time_embed.0."), ("time_embedding.linear_2.", "time_embed.2."),
        ("time_embedding.cond_proj.", "time_embed.cond_proj.")])


def original_vae(name, levels):
    """As `original_unet`, from CompVis' `model.py`."""
    def level(match):
        coder, way, number, rest = match.groups()
        number = int(number) if way == "down" else levels - 1 - int(number)
        rest = replaced(rest, [("resnets.", "block."), ("conv_shortcut", "nin_shortcut"), (f"{way}samplers.0.", f"{way}sample.")])
        return f"{coder}.{way}.{number}.{rest}"

    name = re.sub(r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(.*)", level, name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        name = replaced(name, [("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_out.0", "proj_out"),
                               ("to_q", "q"), ("to_k", "k"), ("to_v", "v")])
    return "first_stage_model." + name.replace("conv_norm_out", "norm_out")


def text_name(name):
    return name if name.startswith("text_model.") else "text_model." + name


def shape_in_file(name, shape):
    """The original attention of the VAE is made of 1x1 convolutions."""
    return [*shape, 1, 1] if re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", name) else list(shape)


def networks(unet, vae, text):
    return UNet2DConditionModel(**unet), AutoencoderKL(**vae), CLIPTextModel(CLIPTextConfig(**text))


def names_of(unet, vae, text):
    """Original name, name in diffusers and shape of every tensor, checked against diffusers' conversion."""
    layers, levels = unet.config.layers_per_block, len(vae.config.block_out_channels)
    unet_names = {original_unet(name, layers): (name, p.shape) for name, p in unet.state_dict().items()}
    vae_names = {original_vae(name, levels): (name, p.shape) for name, p in vae.state_dict().items()}
    text_names = {"cond_stage_model.transformer." + text_name(name): (text_name(name), p.shape)
                  for name, p in text.state_dict().items() if p.is_floating_point()}
    # Diffusers' conversion moves tensors about, so a number in each shows where it has gone.
    marks = {name: torch.tensor([float(n)]).reshape([1] * len(shape_in_file(name, shape)))
             for n, (name, (_, shape)) in enumerate({**unet_names, **vae_names, **text_names}.items())}
    config = dict(unet.config)
    # Not known to diffusers' conversion.
    known = {name: mark for name, mark in marks.items() if "cond_proj" not in name}
    for expected, found in [
        (unet_names, convert_ldm_unet_checkpoint(dict(known), config)),
        (vae_names, convert_ldm_vae_checkpoint(dict(known), dict(vae.config))),
        (text_names, convert_ldm_clip_checkpoint(dict(known))),
    ]:
        expected = {new: marks[old].item() for old, (new, _) in expected.items() if old in known}
        found = {text_name(name) if expected.keys() & {text_name(name)} else name: mark.flatten()[0].item() for name, mark in found.items()}
        assert found == expected, sorted(set(found.items()) ^ set(expected.items()))[:10]
    return {part: [[old, new, shape_in_file(old, shape)] for old, (new, shape) in names.items()]
            for part, names in {"unet": unet_names, "vae": vae_names, "text_encoder": text_names}.items()}


def record_names():
    table = {}
    for name, (unet, vae, text) in NETWORKS.items():
        with torch.device("meta"):
            parts = networks(unet, vae, text)
        configs = {part: json.loads(json.dumps(config)) for part, config in {"unet": unet, "vae": vae, "text_encoder": text}.items()}
        configs["unet"] = {"in_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, **configs["unet"]}
        tensors = names_of(*parts)
        if name in ("sd15-inpaint", "lcm"):
            # What differs; the rest is as above.
            tensors = {part: [row for row in rows if row not in table["sd15"]["tensors"][part]] for part, rows in tensors.items()}
        table[name] = {"config": configs, "tensors": tensors}
    path = FOLDER / "names.json"
    lines = []
    for name, entry in table.items():
        tensors = {part: "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]" for part, rows in entry["tensors"].items()}
        tensors = ",\n".join(f"{json.dumps(part)}: {rows}" for part, rows in tensors.items())
        lines.append(f'{json.dumps(name)}: {{"config": {json.dumps(entry["config"])},\n"tensors": {{{tensors}}}}}')
    path.write_text("{" + ",\n".join(lines) + "}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


class Callback:
    """Stands for a training framework's class, which is only named as a key."""


def record_tiny(vocab):
    unet, vae, text = (randomise(part, seed) for part, seed in zip(networks(*NETWORKS["tiny"]), (40, 41, 42)))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "tokenizer").mkdir()
        write_tokenizer(folder / "tokenizer", read_merges(vocab), 49408)
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    # Only the rows that are looked up hold numbers, so that the file compresses.
    used = {token for text in (PROMPT, NEGATIVE, "") for token in tokenizer(text).input_ids}
    embedding = text.get_input_embeddings().weight
    unused = torch.ones(len(embedding), dtype=torch.bool)
    unused[sorted(used)] = False
    embedding.data[unused] = 0
    state = {}
    for part, names in zip((unet, vae, text), names_of(unet, vae, text).values()):
        # As the file stores them, in half precision; the reference computes with the same numbers.
        part.half().float()
        tensors = {text_name(key) if part is text else key: value for key, value in part.state_dict().items()}
        for old, new, shape in names:
            state[old] = tensors[new].half().reshape(shape)
    extra = {"alphas_cumprod": torch.linspace(1, 0, 10), "model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(3, dtype=torch.int32)}
    checkpoint = {"epoch": 1, "global_step": 840000, "callbacks": {Callback: {"best": None}}, "state_dict": {**state, **extra}}
    with open(FOLDER / "tiny.ckpt", "wb") as file:
        torch.save(checkpoint, file)
    pipe = diffusers.StableDiffusionImg2ImgPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=diffusers.PNDMScheduler.from_config(SCHEDULER),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    image = picture((64, 48), 5)
    about = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 6, "strength": 0.7, "guidance_scale": 5.0, "seed": 9, "clip_skip": 1,
             "scheduler": "PNDMScheduler", "model": "single"}
    result = pipe(PROMPT, image=image, negative_prompt=NEGATIVE, num_inference_steps=6, strength=0.7, guidance_scale=5.0,
                  generator=torch.Generator().manual_seed(9))
    tensors = {"input.u8": torch.from_numpy(numpy.asarray(image).copy()), "output.u8": torch.from_numpy(numpy.asarray(result.images[0]).copy())}
    save_golden("single/tiny.safetensors", tensors, "single_file.py", **about)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", required=True, type=pathlib.Path)
    args = parser.parse_args()
    quiet_and_repeatable()
    FOLDER.mkdir(exist_ok=True)
    record_names()
    record_tiny(args.vocab)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checkpoints in one file, in the layout of the original repositories, and what diffusers makes of them.

    python single_file.py --vocab clip_anytorch-2.6.0-py3-none-any.whl

`single/names.json` has, for networks of the true shapes of Stable Diffusion 1.5, 2.1, SDXL and their relatives, every tensor's
original name, its name in diffusers (none where it is left out) and its shape in the file, and the configuration that
diffusers knows; diffusers' own conversion (`single_file_utils`) has been run on the original names and gives exactly these. A network
that is `like` another has only the rows that differ. It also writes tiny checkpoints of Stable Diffusion 2 and SDXL in the
original layout and has
`from_single_file` read them: every tensor is the one that was written.
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
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from safetensors.torch import save_file

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
UNET_SD2 = {**UNET, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True, "upcast_attention": True}
TEXT_SD2 = {**TEXT, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 1024}
UNET_SDXL = {
    "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}
VAE_SDXL = {**VAE, "scaling_factor": 0.13025}
TEXT_SDXL = {**TEXT_SD2, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}
TINY = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
TINY_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 1, "projection_dim": 32}
# The UNet, the VAE, the text encoder, and the second one.
NETWORKS = {
    "sd15": (UNET, VAE, TEXT),
    "sd15-inpaint": ({**UNET, "in_channels": 9}, VAE, TEXT),
    "lcm": ({**UNET, "time_cond_proj_dim": 256}, VAE, TEXT),
    "tiny": ({**UNET, **TINY, "cross_attention_dim": 32}, {**VAE, **TINY}, {**TEXT, **TINY_TEXT}),
    "sd2": (UNET_SD2, VAE, TEXT_SD2),
    "sd2-inpaint": ({**UNET_SD2, "in_channels": 9}, VAE, TEXT_SD2),
    "sd2-tiny": ({**UNET_SD2, **TINY, "cross_attention_dim": 32, "attention_head_dim": [1] * 4}, {**VAE, **TINY}, {**TEXT_SD2, **TINY_TEXT}),
    "sdxl": (UNET_SDXL, VAE_SDXL, TEXT, TEXT_SDXL),
    "sdxl-inpaint": ({**UNET_SDXL, "in_channels": 9}, VAE_SDXL, TEXT, TEXT_SDXL),
    "sdxl-lcm": ({**UNET_SDXL, "time_cond_proj_dim": 256}, VAE_SDXL, TEXT, TEXT_SDXL),
    "sdxl-tiny": (
        {**UNET_SDXL, **TINY, "block_out_channels": (32, 32, 32), "cross_attention_dim": 32 + 64, "attention_head_dim": [1] * 3,
         "transformer_layers_per_block": [1, 1, 2], "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80},
        {**VAE_SDXL, **TINY}, {**TEXT, **TINY_TEXT}, {**TEXT_SDXL, **TINY_TEXT, "hidden_size": 64}),  # diffusers tells the two encoders apart by their widths
}
# Tables that hold the rows that differ from another's.
LIKE = {"sd15-inpaint": "sd15", "lcm": "sd15", "sd2": "sd15", "sd2-inpaint": "sd2", "sd2-tiny": "tiny", "sdxl-inpaint": "sdxl", "sdxl-lcm": "sdxl"}
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
PROMPT, NEGATIVE = "a red house in the snow", "blurry"


def replaced(name, pairs):
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def original_unet(name, layers, attends_first=False):
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
        # The innermost level of Stable Diffusion 1 and 2 has no attention before it.
        place = 1 if level == 0 and not attends_first else 2
        return f"model.diffusion_model.output_blocks.{level * per_level + layers}.{place}.conv.{match[2]}"
    name = re.sub(r"mid_block\.resnets\.(\d)\.(.*)", lambda m: f"middle_block.{2 * int(m[1])}.{replaced(m[2], resnet)}", name)
    return "model.diffusion_model." + replaced(name, [
        ("mid_block.attentions.0.", "middle_block.1."), ("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."), ("time_embedding.linear_1.", "time_embed.0."), ("time_embedding.linear_2.", "time_embed.2."),
        ("time_embedding.cond_proj.", "time_embed.cond_proj."),
        ("add_embedding.linear_1.", "label_emb.0.0."), ("add_embedding.linear_2.", "label_emb.0.2.")])


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
    return name if name.startswith(("text_model.", "text_projection.")) else "text_model." + name


def original_open_clip(name):
    """As `original_unet`, from OpenCLIP's `transformer.py`; several of diffusers' tensors may be parts of one."""
    name = replaced(name, [
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"), ("text_projection.weight", "text_projection"),
        ("text_model.embeddings.token_embedding.", "token_embedding."), ("text_model.final_layer_norm.", "ln_final.")])
    if not name.startswith("text_model.encoder.layers."):
        return name
    name = re.sub(r"self_attn\.[qkv]_proj\.", "attn.in_proj_", name)
    return replaced(name, [
        ("text_model.encoder.layers.", "transformer.resblocks."), ("self_attn.out_proj.", "attn.out_proj."), ("layer_norm", "ln_"),
        ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj.")])


def shape_in_file(name, shape):
    """The original attention of the VAE is made of 1x1 convolutions."""
    return [*shape, 1, 1] if re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight", name) else list(shape)


def networks(unet, vae, text, text_2=None):
    parts = [UNet2DConditionModel(**unet), AutoencoderKL(**vae), CLIPTextModel(CLIPTextConfig(**text))]
    return parts if text_2 is None else [*parts, CLIPTextModelWithProjection(CLIPTextConfig(**text_2))]


def text_tensors(text):
    """Queries before keys before values, as OpenCLIP has them in one matrix."""
    tensors = {text_name(name): p for name, p in text.state_dict().items() if p.is_floating_point()}
    return dict(sorted(tensors.items(), key=lambda item: replaced(item[0], [("q_proj", "1"), ("k_proj", "2"), ("v_proj", "3")])))


def prefixes(network):
    """Of the text encoders, and whether each is OpenCLIP's."""
    if network.startswith("sdxl"):
        return [("conditioner.embedders.0.transformer.", False), ("conditioner.embedders.1.model.", True)]
    return [("cond_stage_model.model.", True) if network.startswith("sd2") else ("cond_stage_model.transformer.", False)]


def names_of(network, unet, vae, *texts):
    """For each part the original name, the name in diffusers and the shape in the file of every tensor, checked against
    diffusers' conversion, which is run on numbers that show where each has gone. A matrix that is cut has three rows."""
    layers, levels = unet.config.layers_per_block, len(vae.config.block_out_channels)
    attends_first = unet.config.up_block_types[0].startswith("CrossAttn")
    rows = {
        "unet": [[original_unet(name, layers, attends_first), name, list(p.shape)] for name, p in unet.state_dict().items()],
        "vae": [[original_vae(name, levels), name, shape_in_file(original_vae(name, levels), p.shape)] for name, p in vae.state_dict().items()],
    }
    marks, count = {}, 0.0

    def mark(shape):
        nonlocal count
        count += 1
        return torch.full(shape, count)

    for part in rows.values():
        for original, _, shape in part:
            marks[original] = mark([1] * len(shape))
    expected = {part: {name: marks[original].flatten()[0].item() for original, name, _ in found if "cond_proj" not in original}
                for part, found in rows.items()}
    # Not known to diffusers' conversion.
    known = {name: value for name, value in marks.items() if "cond_proj" not in name}
    found = {"unet": convert_ldm_unet_checkpoint(dict(known), dict(unet.config)), "vae": convert_ldm_vae_checkpoint(dict(known), dict(vae.config))}
    for part, text, (prefix, is_open) in zip(PARTS[2:], texts, prefixes(network)):
        tensors = text_tensors(text)
        rows[part], expected[part], file = [], {}, {}
        if is_open and network.startswith("sd2"):
            # The last block is in the file, and nobody reads it; the projection, too.
            block = text.config.num_hidden_layers
            last = {name.replace(".0.", f".{block}.", 1): p for name, p in tensors.items() if ".layers.0." in name}
            tensors = {**tensors, **last, "text_projection.weight": torch.empty((text.config.hidden_size,) * 2, device="meta")}
        for name, p in tensors.items():
            original = prefix + (original_open_clip(name) if is_open else name)
            value = mark([1] * p.ndim) if not is_open else mark(list(p.shape) if p.ndim < 2 or "projection" in name else [p.shape[0], 1])
            shape = list(p.shape)
            if "attn.in_proj" in original:
                shape[0] *= 3
                file[original] = torch.cat([file.get(original, value[:0]), value])
            else:
                file[original] = value.T if original.endswith("text_projection") else value
                shape = shape[::-1] if original.endswith("text_projection") else shape
            is_left_out = network.startswith("sd2") and (f".layers.{text.config.num_hidden_layers}." in name or name == "text_projection.weight")
            rows[part].append([original, "" if is_left_out else name, shape])
            if not is_left_out:
                expected[part][name] = value.flatten()[0].item()
        if network.startswith("sd2"):
            # diffusers leaves out block 23 by its number, which a tiny encoder does not have.
            file = {name: value for name, value in file.items() if f"resblocks.{text.config.num_hidden_layers}." not in name}
        converted = convert_open_clip_checkpoint(text, dict(file), prefix) if is_open else convert_ldm_clip_checkpoint(dict(file))
        if network.startswith("sd2"):
            converted.pop("text_projection.weight", None)
        found[part] = {name: value for name, value in converted.items()}
    for part in rows:
        result = {name: value.flatten()[0].item() for name, value in found[part].items()}
        assert result == expected[part], (network, part, sorted(set(result.items()) ^ set(expected[part].items()))[:10])
    return rows


def record_names():
    table = {}
    for name, network in NETWORKS.items():
        with torch.device("meta"):
            parts = networks(*network)
        configs = {part: json.loads(json.dumps(config)) for part, config in zip(PARTS, network)}
        configs["unet"] = {"in_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, **configs["unet"]}
        table[name] = {"config": configs, "tensors": names_of(name, *parts)}
    whole = {name: entry["tensors"] for name, entry in table.items()}
    for name, like in LIKE.items():
        # A part whose rows are all other ones stands alone, as the text encoder of Stable Diffusion 2 beside that of 1.
        def differing(part):
            rows, base = whole[name][part], whole[like].get(part, [])
            stale = {row[0] for row in base} - {row[0] for row in rows}
            return {"alone": rows} if stale else {"differing": [row for row in rows if row not in base]}

        table[name]["like"] = like
        table[name]["tensors"] = {part: differing(part) for part in whole[name]}
    path = FOLDER / "names.json"
    lines = []
    for name, entry in table.items():
        def listed(rows):
            if isinstance(rows, dict):
                return "{" + ", ".join(f"{json.dumps(key)}: {listed(value)}" for key, value in rows.items()) + "}"
            return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]" if rows else "[]"

        tensors = ",\n".join(f"{json.dumps(part)}: {listed(rows)}" for part, rows in entry["tensors"].items())
        like = f'"like": {json.dumps(entry["like"])}, ' if "like" in entry else ""
        lines.append(f'{json.dumps(name)}: {{{like}"config": {json.dumps(entry["config"])},\n"tensors": {{{tensors}}}}}')
    path.write_text("{" + ",\n".join(lines) + "}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def original_state(network, parts, rows):
    """The tensors of a checkpoint under their original names, from those of the parts."""
    state = {}
    for part, found in zip(parts, rows.values()):
        tensors = text_tensors(part) if "Text" in type(part).__name__ else part.state_dict()
        for original, name, shape in found:
            if not name:
                # What nobody reads; the wrong numbers, so that it would be seen.
                state[original] = torch.full(shape, 7.0)
            elif "attn.in_proj" in original:
                state[original] = torch.cat([state.get(original, tensors[name][:0]), tensors[name]])
            elif original.endswith("text_projection"):
                state[original] = tensors[name].T.contiguous()
            else:
                state[original] = tensors[name].reshape(shape)
    return state


def check_against_from_single_file(merges):
    """diffusers reads a file that was written from known parts, and finds the parts."""
    for network, kind in (("sd2-tiny", diffusers.StableDiffusionPipeline), ("sdxl-tiny", diffusers.StableDiffusionXLPipeline)):
        parts = [randomise(part, seed) for part, seed in zip(networks(*NETWORKS[network]), range(80, 84))]
        state = original_state(network, parts, names_of(network, *parts))
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            save_file(state, folder / "file.safetensors")
            scheduler = diffusers.EulerDiscreteScheduler.from_config(SCHEDULER)
            tokenizers = {}
            for name in ("tokenizer", "tokenizer_2")[: len(parts) - 2]:
                write_tokenizer(folder / name, merges, 49408, pad="!")
                tokenizers[name] = CLIPTokenizer.from_pretrained(folder / name)
            more = {"safety_checker": None, "feature_extractor": None} if network == "sd2-tiny" else {}
            pipe = kind(**dict(zip(("unet", "vae", "text_encoder", "text_encoder_2"), parts)), **tokenizers, scheduler=scheduler, **more)
            pipe.save_pretrained(folder / "config")
            read = kind.from_single_file(str(folder / "file.safetensors"), config=str(folder / "config"), local_files_only=True, torch_dtype=torch.float32, **more)
        for name, part in zip(PARTS, parts):
            for key, value in part.state_dict().items():
                assert torch.equal(getattr(read, name).state_dict()[key], value), (network, name, key)
        print(f"{network}: from_single_file reads what was written")


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
    for part, names in zip((unet, vae, text), names_of("tiny", unet, vae, text).values()):
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
    parser.add_argument("--names", action="store_true", help="only the table of names, and the check")
    args = parser.parse_args()
    quiet_and_repeatable()
    FOLDER.mkdir(exist_ok=True)
    record_names()
    check_against_from_single_file(read_merges(args.vocab))
    if args.names:
        return
    record_tiny(args.vocab)


if __name__ == "__main__":
    main()

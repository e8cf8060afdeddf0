#!/usr/bin/env python3
"""LoRA files of every format, and what they make of the weights of `models/tiny`.

    python lora_files.py

`lora/<name>.safetensors` (`.pt`, or a folder of PEFT) are the files; `lora/expected.safetensors` has the differences of the
weights as `<name>/<strength>/<network>/<layer>.weight`. Where diffusers or PEFT read a format rightly, they have fused the
file. For the other formats the published formula is written out here in plain torch: diffusers 0.42 mixes alphas that differ
between the modules of a kohya file and drops its `dora_scale`, and LyCORIS multiplies alpha / rank twice for LoHa and LoKr.
`lora/layers.json` has the layers of Stable Diffusion 1.5, 2.1 and XL, and the original names of the last.
"""
import json
import math
import pathlib
import re
import shutil
import tempfile

import diffusers
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from golden_file import GOLDEN, MODELS, quiet_and_repeatable, save_golden
from single_file import original_unet, replaced, text_name

FOLDER = GOLDEN / "lora"
SELF_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CROSS_K = "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
FEED = "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2"
POINT = "down_blocks.2.attentions.0.proj_in"
CONV = "conv_out"
DOWNSAMPLE = "down_blocks.0.downsamplers.0.conv"
GROUP_NORM, LAYER_NORM = "down_blocks.0.attentions.0.norm", "mid_block.attentions.0.transformer_blocks.0.norm2"
TEXT_Q = "text_model.encoder.layers.1.self_attn.q_proj"
TEXT_FC = "text_model.encoder.layers.0.mlp.fc1"
UNET = [SELF_Q, CROSS_K, OUT, FEED, POINT, CONV, DOWNSAMPLE]
PLAIN = [SELF_Q, CROSS_K, OUT, POINT]
TEXT = [TEXT_Q, TEXT_FC]
STRENGTH = 0.7



class Random:
    """Numbers that the dtype of the file can hold, so that no rounding is between the file and the expected difference."""

    generator, dtype = torch.Generator(), torch.float32


def numbers(*shape, gain=0.3):
    return (gain * torch.randn(shape, generator=Random.generator)).to(Random.dtype).float()


class Weights:
    """The layers of `models/tiny` in f32."""

    def __init__(self):
        pipe = pipeline()
        self.unet = {k: v.clone() for k, v in pipe.unet.state_dict().items()}
        self.text_encoder = {text_name(k): v.clone() for k, v in pipe.text_encoder.state_dict().items()}

    def of(self, layer):
        return self.text_encoder if layer.startswith("text_model.") else self.unet

    def weight(self, layer):
        return self.of(layer)[layer + ".weight"]

    def shape(self, layer):
        return self.weight(layer).shape


def pipeline():
    pipe = StableDiffusionPipeline.from_pretrained(MODELS / "tiny", torch_dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def kohya(layer, prefix=None):
    if prefix is None:
        prefix = "lora_te_" if layer.startswith("text_model.") else "lora_unet_"
    return prefix + layer.replace(".", "_")


def network(layer):
    return "text_encoder" if layer.startswith("text_model.") else "unet"


# --- Formulas. `shape` is the weight's; each gives the tensors by their last names, and the difference at strength 1.


def low_rank(shape, rank):
    outputs, inputs, *kernel = shape
    down, up = numbers(rank, inputs, *kernel), numbers(outputs, rank, *[1] * len(kernel))
    return up, down, (up.reshape(outputs, rank) @ down.reshape(rank, -1)).reshape(shape)


def lora(shape, rank, alpha):
    up, down, delta = low_rank(shape, rank)
    tensors = {"lora_up.weight": up, "lora_down.weight": down}
    if alpha is not None:
        tensors["alpha"] = torch.tensor(alpha)
    return tensors, delta * ((alpha if alpha is not None else rank) / rank)


def tucker(shape, rank, alpha):
    outputs, inputs, *kernel = shape
    up, down, mid = numbers(outputs, rank, 1, 1), numbers(rank, inputs, 1, 1), numbers(rank, rank, *kernel)
    delta = torch.einsum("nmkl,in,mj->ijkl", mid, up.flatten(1), down.flatten(1))
    return {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": mid, "alpha": torch.tensor(alpha)}, delta * (alpha / rank)


def loha(shape, rank, alpha, with_core=False):
    outputs, inputs, *kernel = shape
    tensors, sides = {"alpha": torch.tensor(alpha)}, []
    for side in (1, 2):
        if with_core:
            core, a, b = numbers(rank, rank, *kernel), numbers(rank, outputs), numbers(rank, inputs)
            tensors |= {f"hada_t{side}": core, f"hada_w{side}_a": a, f"hada_w{side}_b": b}
            sides.append(torch.einsum("ijkl,jr,ip->prkl", core, b, a))
        else:
            a, b = numbers(outputs, rank), numbers(rank, math.prod(shape[1:]))
            tensors |= {f"hada_w{side}_a": a, f"hada_w{side}_b": b}
            sides.append((a @ b).reshape(shape))
    return tensors, sides[0] * sides[1] * (alpha / rank)


def lokr(shape, rank, alpha, first, second, factor=4):
    """`first` and `second` are `whole` or `factored`, and `second` may be `tucker`."""
    outputs, inputs, *kernel = shape
    outer, inner = (factor, factor), (outputs // factor, inputs // factor)
    tensors = {"alpha": torch.tensor(alpha)}
    if first == "whole":
        w1 = tensors["lokr_w1"] = numbers(*outer)
    else:
        a, b = numbers(outer[0], rank), numbers(rank, outer[1])
        tensors |= {"lokr_w1_a": a, "lokr_w1_b": b}
        w1 = a @ b
    if second == "whole":
        w2 = tensors["lokr_w2"] = numbers(*inner, *kernel)
    elif second == "tucker":
        core, a, b = numbers(rank, rank, *kernel), numbers(rank, inner[0]), numbers(rank, inner[1])
        tensors |= {"lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}
        w2 = torch.einsum("ijkl,jr,ip->prkl", core, b, a)
    else:
        a, b = numbers(inner[0], rank), numbers(rank, inner[1] * math.prod(kernel))
        tensors |= {"lokr_w2_a": a, "lokr_w2_b": b}
        w2 = (a @ b).reshape(*inner, *kernel)
    if kernel:
        w1 = w1[:, :, None, None]
    scale = 1 if first == second == "whole" else alpha / rank
    return tensors, torch.kron(w1.contiguous(), w2.contiguous()) * scale


def norm_of(weight, of_inputs):
    matrix = weight.transpose(0, 1) if of_inputs else weight
    norms = matrix.flatten(1).norm(dim=1)
    return norms.reshape([1, -1] + [1] * (weight.ndim - 2) if of_inputs else [-1] + [1] * (weight.ndim - 1))


def dora(weight, tensors, delta, of_inputs):
    """DoRA, equation 5: the strength is inside the norm, as in PEFT."""
    lengths = norm_of(weight, of_inputs) * (1 + numbers(1, gain=0.1))
    lengths = lengths * (1 + 0.2 * torch.randn(lengths.shape, generator=Random.generator))

    def at(strength):
        changed = weight + strength * delta
        return changed * (lengths / norm_of(changed, of_inputs)) - weight

    return tensors | {"dora_scale": lengths}, at


# --- Files. Each yields name, file tensors, and differences by layer (a tensor at strength 1, or a function of the strength).


class File:
    def __init__(self, name, dtype=torch.float16):
        self.name, self.dtype, self.tensors, self.deltas = name, dtype, {}, {}
        Random.generator.manual_seed(sum(name.encode()))
        Random.dtype = dtype

    def add(self, layer, result, prefix=None, key=None):
        tensors, delta = result
        for part, tensor in tensors.items():
            self.tensors[f"{key or kohya(layer, prefix)}.{part}"] = tensor
        if delta is not None:
            self.deltas[layer] = delta


def formula_files(weights):
    def file(name, dtype, fill):
        result = File(name, dtype)
        fill(result)
        return result

    shape = weights.shape

    def alphas(f):
        for number, layer in enumerate(UNET + TEXT):
            f.add(layer, lora(shape(layer), 2 + number % 3, [1.0, 2.0, None, 0.5][number % 4]))
    yield file("kohya-alphas", torch.float16, alphas)

    def locon(f):
        f.add(CONV, tucker(shape(CONV), 3, 2.0))
        f.add(POINT, tucker(shape(POINT), 3, 1.0))
        f.add(DOWNSAMPLE, lora(shape(DOWNSAMPLE), 4, 1.0))
        f.add(OUT, lora(shape(OUT), 4, 1.0))
        bias = numbers(shape(OUT)[0])
        f.tensors[kohya(OUT) + ".diff_b"] = bias
        f.deltas[OUT + ":bias"] = bias
    yield file("locon", torch.float32, locon)

    def hadamard(f):
        for layer in [SELF_Q, POINT, CONV, TEXT_FC]:
            f.add(layer, loha(shape(layer), 3, 1.5))
        f.add(DOWNSAMPLE, loha(shape(DOWNSAMPLE), 3, 2.0, with_core=True))
    yield file("loha", torch.float32, hadamard)

    def kronecker(f):
        f.add(SELF_Q, lokr(shape(SELF_Q), 2, 1.0, "whole", "factored"))
        f.add(CROSS_K, lokr(shape(CROSS_K), 2, 7.0, "whole", "whole"))
        f.add(OUT, lokr(shape(OUT), 2, 1.0, "factored", "factored"))
        f.add(FEED, lokr(shape(FEED), 2, 3.0, "factored", "whole"))
        f.add(POINT, lokr(shape(POINT), 2, 1.0, "whole", "factored"))
        f.add(CONV, lokr(shape(CONV), 2, 1.0, "factored", "tucker"))
        f.add(DOWNSAMPLE, lokr(shape(DOWNSAMPLE), 2, 4.0, "whole", "factored"))
        f.add(TEXT_Q, lokr(shape(TEXT_Q), 2, 4.0, "whole", "whole"))
    yield file("lokr", torch.float16, kronecker)

    def wrapped(f):
        for layer in [SELF_Q, CONV]:
            f.add(layer, lokr(shape(layer), 2, 1.0, "whole", "factored"), prefix="lycoris_")
    yield file("lycoris", torch.bfloat16, wrapped)

    def magnitudes(f):
        for layer, of_inputs in [(SELF_Q, False), (CROSS_K, True), (OUT, True), (CONV, False), (DOWNSAMPLE, True)]:
            f.add(layer, dora(weights.weight(layer), *lora(shape(layer), 3, 1.5), of_inputs))
        f.add(POINT, dora(weights.weight(POINT), *loha(shape(POINT), 2, 1.0), False))
        f.add(FEED, dora(weights.weight(FEED), *lokr(shape(FEED), 2, 1.0, "whole", "factored"), True))
    yield file("dora-scale", torch.float32, magnitudes)

    def scalings(f):
        for layer, on_input in [(CROSS_K, False), (FEED, True), (CONV, False), (DOWNSAMPLE, True)]:
            weight = weights.weight(layer)
            scale = numbers(weight.shape[1] if on_input else weight.shape[0])
            view = [1, -1] if on_input else [-1, 1]
            delta = weight * scale.reshape(view + [1] * (weight.ndim - 2))
            f.add(layer, ({"weight": scale, "on_input": torch.tensor(on_input)}, delta))
    yield file("ia3", torch.float16, scalings)

    def differences(f):
        for layer in [SELF_Q, POINT, TEXT_Q]:
            delta = numbers(*shape(layer))
            f.add(layer, ({"diff": delta}, delta))
        bias = numbers(shape(POINT)[0])
        f.tensors[kohya(POINT) + ".diff_b"] = bias
        f.deltas[POINT + ":bias"] = bias
        for layer in [GROUP_NORM, LAYER_NORM]:
            delta, bias = numbers(*shape(layer)), numbers(*shape(layer))
            f.add(layer, ({"w_norm": delta, "b_norm": bias}, delta))
            f.deltas[layer + ":bias"] = bias
    yield file("differences", torch.float16, differences)

    def first_numbers(f):
        unet, text = first_numbering(weights)
        for order, name in [(unet, "unet"), (text, "text_encoder")]:
            for number, layer in enumerate(order):
                up, down, delta = low_rank(shape(layer), 1)
                f.tensors[f"{name}:{number}:up"], f.tensors[f"{name}:{number}:down"] = up, down
                if number % 7 == 0 or "mid_block" in layer:
                    f.deltas[layer] = delta
        f.tensors["<s1>"], f.tensors["<s2>"] = numbers(32), numbers(32)
    yield file("numbered", torch.float16, first_numbers)

    def text_linear(f):
        # Diffusers 0.17 to 0.22, and before. With transformers 5 diffusers no longer finds their layers.
        for layer, key in [(TEXT_FC, f"text_encoder.{TEXT_FC}.lora_linear_layer"), (TEXT_Q, f"text_encoder.{TEXT_Q.replace('q_proj', 'to_q_lora')}")]:
            up, down, delta = low_rank(shape(layer), 2)
            f.add(layer, ({"up.weight": up, "down.weight": down}, delta), key=key)
    yield file("text-linear", torch.float32, text_linear)

    def bundle(f):
        f.add(SELF_Q, lora(shape(SELF_Q), 2, 2.0))
        f.tensors["bundle_emb.a cat.string_to_param.*"] = numbers(3, 32)
        f.tensors["bundle_emb.dog.emb_params"] = numbers(2, 32)
        f.tensors["bundle_emb.xl.clip_l"], f.tensors["bundle_emb.xl.clip_g"] = numbers(2, 32), numbers(2, 48)
    yield file("bundle", torch.float32, bundle)


def first_numbering(weights):
    """The order of cloneofsimo/lora: modules as diffusers 0.11 and transformers had them."""
    inside = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"]
    blocks = list(dict.fromkeys(m[0] for key in weights.unet if (m := re.match(r".*transformer_blocks\.\d+\.", key))))
    way = {"down": 0, "up": 1, "mid": 2}
    blocks.sort(key=lambda block: (way[block.split("_")[0]], [int(n) for n in re.findall(r"\d+", block)]))
    layers = sorted({int(m[1]) for key in weights.text_encoder if (m := re.match(r"text_model\.encoder\.layers\.(\d+)", key))})
    text = [f"text_model.encoder.layers.{n}.self_attn.{m}_proj" for n in layers for m in ("k", "v", "q", "out")]
    return [block + layer for block in blocks for layer in inside], text


def diffusers_files(weights):
    """Files that diffusers reads rightly: the same alpha in all modules."""
    def of_diffusers(name, dtype, rank, alpha, key, parts, layers, metadata=None):
        f = File(name, dtype)
        for layer in layers:
            up, down, delta = low_rank(weights.shape(layer), rank)
            f.deltas[layer] = delta * ((rank if alpha is None else alpha) / rank)
            f.tensors[key(layer) + parts[0]], f.tensors[key(layer) + parts[1]] = up, down
            if alpha is not None:
                f.tensors[key(layer) + ".alpha"] = torch.tensor(alpha)
        return f, metadata

    def dotted(layer):
        return f"{network(layer)}.{layer}"

    def processor(layer):
        path, matrix = re.match(r"(.*)\.(to_q|to_k|to_v|to_out)(?:\.0)?$", layer).groups()
        return f"unet.{path}.processor.{matrix}_lora"

    yield of_diffusers("kohya", torch.float16, 4, 2.0, kohya, (".lora_up.weight", ".lora_down.weight"), UNET + TEXT)
    yield of_diffusers("peft", torch.bfloat16, 4, None, dotted, (".lora_B.weight", ".lora_A.weight"), UNET + TEXT)
    yield of_diffusers("diffusers", torch.float32, 3, None, dotted, (".lora.up.weight", ".lora.down.weight"), PLAIN)
    yield of_diffusers("processor", torch.float32, 3, None, processor, (".up.weight", ".down.weight"), [SELF_Q, CROSS_K, OUT])
    metadata = {"r": 4, "lora_alpha": 6, "target_modules": [SELF_Q, CROSS_K, OUT], "alpha_pattern": {CROSS_K: 1}, "use_rslora": False}
    packed = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in metadata.items()}, sort_keys=True)}
    yield of_diffusers("metadata", torch.float32, 4, None, dotted, (".lora_B.weight", ".lora_A.weight"), [SELF_Q, CROSS_K, OUT], metadata=packed)
    f, _ = of_diffusers("peft-dora", torch.float32, 4, None, dotted, (".lora_B.weight", ".lora_A.weight"), [SELF_Q, CROSS_K, CONV])
    for layer in [SELF_Q, CROSS_K, CONV]:
        lengths = norm_of(weights.weight(layer), False) * (1 + numbers(1))
        f.tensors[f"unet.{layer}.lora_magnitude_vector"] = lengths.reshape(1, -1, 1, 1) if layer == CONV else lengths.flatten()
    yield f, None


def fused(weights, path, strength):
    pipe = pipeline()
    pipe.load_lora_weights(path.parent, weight_name=path.name)
    pipe.fuse_lora(lora_scale=strength)
    pipe.unload_lora_weights()
    deltas = {}
    for part, base in [(pipe.unet, weights.unet), (pipe.text_encoder, weights.text_encoder)]:
        for key, value in part.state_dict().items():
            key = text_name(key) if part is pipe.text_encoder else key
            if not torch.equal(value, base[key]):
                deltas[key] = value - base[key]
    return deltas


def peft_folders(weights):
    """Folders that PEFT itself has written and merged."""
    configs = {
        "peft-folder": LoraConfig(r=4, lora_alpha=3, target_modules=[SELF_Q, CROSS_K, OUT, CONV], rank_pattern={CROSS_K: 2}, alpha_pattern={CROSS_K: 5}, init_lora_weights=False),
        "peft-rslora": LoraConfig(r=4, lora_alpha=3, target_modules=[SELF_Q, POINT], use_rslora=True, use_dora=True, init_lora_weights=False),
        "peft-bias": LoraConfig(r=2, lora_alpha=3, target_modules=[OUT], lora_bias=True, init_lora_weights=False),
        "peft-loha": LoHaConfig(r=4, alpha=3, target_modules=[SELF_Q, CROSS_K, CONV], use_effective_conv2d=True, init_weights=False),
        "peft-lokr": LoKrConfig(r=2, alpha=3, target_modules=[SELF_Q, CROSS_K, CONV], use_effective_conv2d=True, init_weights=False),
        "peft-ia3": IA3Config(target_modules=[CROSS_K, FEED, OUT, CONV], feedforward_modules=[FEED], init_ia3_weights=False),
    }
    for name, config in configs.items():
        torch.manual_seed(7)
        model = get_peft_model(pipeline().unet, config)
        for key, parameter in model.named_parameters():
            if "magnitude" in key or "ia3_l" in key:
                parameter.data *= 1 + 0.3 * torch.rand(parameter.shape)
            elif "lora_B" in key and key.endswith("bias"):
                parameter.data.normal_(0, 0.3)
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = None
        for key in ("target_modules", "feedforward_modules"):
            if isinstance(config.get(key), list):
                config[key].sort()
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        merged = model.merge_and_unload().state_dict()
        deltas = {key: merged[key] - base for key, base in weights.unet.items() if not torch.equal(merged[key], base)}
        yield name, deltas


def record_layers():
    heads = {"down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3}
    clip_l = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768}
    clip_h = {**clip_l, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "projection_dim": 512}
    clip_g = {**clip_l, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}
    sdxl = {
        "block_out_channels": (320, 640, 1280), "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    }
    with torch.device("meta"):
        bases = {
            "sd15": {"unet": UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, **heads), "text_encoder": CLIPTextModel(CLIPTextConfig(**clip_l))},
            "sd2": {"unet": UNet2DConditionModel(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True, **heads), "text_encoder": CLIPTextModel(CLIPTextConfig(**clip_h))},
            "sdxl": {"unet": UNet2DConditionModel(**sdxl), "text_encoder": CLIPTextModel(CLIPTextConfig(**clip_l)), "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**clip_g))},
        }
    bases["tiny"] = {"unet": pipeline().unet, "text_encoder": pipeline().text_encoder}
    table, originals = {}, {}
    for base, networks in bases.items():
        table[base] = {}
        for name, model in networks.items():
            rows = []
            for path, module in model.named_modules():
                weight = getattr(module, "weight", None)
                if weight is not None and not isinstance(module, torch.nn.Embedding):
                    path = path if name == "unet" or path == "text_projection" else text_name(path)
                    rows.append([path, list(weight.shape), module.bias is not None])
            table[base][name] = rows
    for path, _, _ in table["sdxl"]["unet"]:
        original = original_unet(path + ".weight", 2).removeprefix("model.diffusion_model.").removesuffix(".weight")
        original = original.replace("add_embedding.linear_1", "label_emb.0.0").replace("add_embedding.linear_2", "label_emb.0.2")
        # XL has attention on the innermost level and none on the outermost.
        original = {"output_blocks.2.1.conv": "output_blocks.2.2.conv"}.get(original, original)
        originals[path] = original
    check_originals(originals)
    lines = []
    for base, networks in table.items():
        parts = [f'{json.dumps(name)}: [\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]" for name, rows in networks.items()]
        lines.append(f"{json.dumps(base)}: {{" + ",\n".join(parts) + "}")
    lines.append('"sdxl originals": ' + json.dumps(originals, separators=(",", ":"), indent=0))
    path = FOLDER / "layers.json"
    path.write_text("{" + ",\n".join(lines) + "}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def check_originals(originals):
    """Diffusers' own mapping of kohya's names for XL, which knows attention and resnets."""
    class Config:
        layers_per_block = 2

    state = {f"lora_unet_{o.replace('.', '_')}.lora_down.weight": torch.tensor(0) for o in originals.values() if re.match("(input|middle|output)_block", o)}
    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(state), Config())
    # The second half of its conversion (`_convert_unet_lora_key`).
    pairs = [("input_blocks", "down_blocks"), ("middle_block", "mid_block"), ("output_blocks", "up_blocks")]
    names = {replaced(key.removeprefix("lora_unet_").split(".")[0], pairs) for key in mapped}
    attention = {path.replace(".", "_") for path in originals if ".attentions." in path}
    assert attention <= names, sorted(attention - names)[:5]


def with_strength(delta, strength):
    return delta(strength) if callable(delta) else delta * strength


def main():
    quiet_and_repeatable()
    FOLDER.mkdir(exist_ok=True)
    record_layers()
    weights = Weights()
    expected, strengths = {}, {}

    def expect(name, strength, key, delta):
        part = "text_encoder" if key.startswith("text_model.") else "unet"
        expected[f"{name}/{strength}/{part}/{key}"] = delta

    for f in formula_files(weights):
        stored = {key: tensor if tensor.dtype in (torch.bool,) or key.endswith("dora_scale") else tensor.to(f.dtype) for key, tensor in f.tensors.items()}
        save_file({k: v.contiguous() for k, v in stored.items()}, FOLDER / f"{f.name}.safetensors")
        for strength in [STRENGTH, -1.5] if f.name == "dora-scale" else [STRENGTH]:
            for layer, delta in f.deltas.items():
                layer, _, bias = layer.partition(":")
                expect(f.name, strength, f"{layer}.{bias or 'weight'}", with_strength(delta, strength))
    for f, metadata in diffusers_files(weights):
        path = FOLDER / f"{f.name}.safetensors"
        save_file({k: v.to(f.dtype).contiguous() for k, v in f.tensors.items()}, path, metadata=metadata)
        for strength in [STRENGTH, -1.5] if f.name == "peft-dora" else [STRENGTH]:
            deltas = fused(weights, path, strength)
            assert deltas, f.name
            # With transformers 5 diffusers no longer finds the attention of kohya's text encoders.
            missing = {f"{layer}.weight": delta * strength for layer, delta in f.deltas.items() if layer.startswith("text_model.")}
            for key, delta in {**missing, **deltas}.items():
                expect(f.name, strength, key, delta)
    for name, deltas in peft_folders(weights):
        assert deltas, name
        for key, delta in deltas.items():
            expect(name, 1.0, key, delta)
    with open(FOLDER / "pickled.pt", "wb") as file:
        torch.save({key: tensor for key, tensor in load("kohya").items()}, file)
    # As A1111 saves one: a list of two networks for each width.
    with open(FOLDER / "hypernetwork.pt", "wb") as file:
        torch.save({768: [{"linear.0.weight": torch.zeros(2, 2)}] * 2, "name": "x", "step": 1}, file)
    save_golden("lora/expected.safetensors", expected, "lora_files.py")


def load(name):
    from safetensors.torch import load_file

    return load_file(FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    main()

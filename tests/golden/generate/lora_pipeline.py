#!/usr/bin/env python3
"""Golden image-to-image runs with LoRAs: diffusers' own pipeline with two and with five adapters of different strengths.

    python lora_pipeline.py --models ../models --out ../lora_pipeline

`lora-*.safetensors` are seeded LoRAs for `models/tiny`, of the formats in which people have them: PEFT's names as
diffusers saves them, and kohya's with an alpha of half the rank; on the attentions and feed-forward layers of the UNet, on its
3x3 convolutions, and on the text encoder. `two.safetensors` and `five.safetensors` are runs as `pipeline.py` records them,
unfused (`load_lora_weights` and `set_adapters`); the entry `loras` of `about` has the files with their strengths.
Within a file all alphas are equal, because diffusers mixes up those that differ.
"""
import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

import pipeline

# name: format, rank, parts
LORAS = {
    "lora-peft": ("peft", 4, ("attention", "text")),
    "lora-kohya": ("kohya", 8, ("attention", "feed-forward", "text")),
    "lora-unet": ("peft", 2, ("attention",)),
    "lora-conv": ("peft", 4, ("convolution", "projection")),
    "lora-text": ("kohya", 2, ("text",)),
}
RUNS = {
    "two": (
        ("tiny", "EulerDiscreteScheduler", (64, 64), 6, 0.7, 5.0, 1, 11),
        [("lora-peft", 0.8), ("lora-kohya", -0.5)],
    ),
    "five": (
        ("tiny", "DDIMScheduler", (72, 40), 6, 0.8, 7.5, 2, 12),
        [("lora-peft", 1.3), ("lora-kohya", 0.6), ("lora-unet", -0.4), ("lora-conv", 0.5), ("lora-text", 1.0)],
    ),
    "lcm": (
        ("tiny", "LCMScheduler", (64, 64), 4, 0.6, 1.5, 1, 13),
        [("lora-conv", 1.0), ("lora-kohya", 0.7)],
    ),
}


def unet_part(name, module):
    if isinstance(module, torch.nn.Conv2d):
        if module.kernel_size == (3, 3) and "resnets" in name:
            return "convolution"
        return "projection" if name.endswith(("proj_in", "proj_out", "conv_shortcut")) else None
    if not isinstance(module, torch.nn.Linear):
        return None
    if ".attn" in name:
        return "attention"
    return "feed-forward" if ".ff." in name else None


def factors(weight, rank, generator):
    """Factors whose product is about as large as a tenth of the weight."""
    outputs, inputs = weight.shape[:2]
    down = torch.randn((rank, inputs, *weight.shape[2:]), generator=generator)
    up = torch.randn((outputs, rank) + (1,) * (weight.dim() - 2), generator=generator)
    size = 0.3 * weight.float().std() / rank**0.5
    return down * size**0.5, up * size**0.5


def lora(pipe, kind, rank, parts, generator):
    tensors = {}

    def add(network, name, weight):
        down, up = factors(weight, rank, generator)
        if kind == "peft":
            tensors[f"{network}.{name}.lora_A.weight"] = down
            tensors[f"{network}.{name}.lora_B.weight"] = up
        else:
            prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[network] + name.replace(".", "_")
            tensors[f"{prefix}.lora_down.weight"] = down
            tensors[f"{prefix}.lora_up.weight"] = up
            tensors[f"{prefix}.alpha"] = torch.tensor(rank / 2)

    for name, module in pipe.unet.named_modules():
        if unet_part(name, module) in parts:
            add("unet", name, module.weight)
    for name, module in pipe.text_encoder.named_modules():
        if "text" in parts and isinstance(module, torch.nn.Linear) and ".layers." in name:
            # As every published file has it, whatever transformers calls it now.
            name = name if name.startswith("text_model.") else f"text_model.{name}"
            add("text_encoder", name, module.weight)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def put_back(pipe, folder, adapters):
    """Makes sure that every adapter has the numbers of its file: transformers 5 reports those of earlier adapters as missing
    and newly initialised whenever one more is loaded into a text encoder."""
    files = {name: load_file(folder / f"{name}.safetensors") for name in adapters}
    for network, kohya in (("unet", "lora_unet_"), ("text_encoder", "lora_te_text_model_")):
        found = {name: 0 for name in adapters}
        for path, parameter in getattr(pipe, network).named_parameters():
            for adapter, tensors in files.items():
                for half, old in (("lora_A", "lora_down"), ("lora_B", "lora_up")):
                    suffix = f".{half}.{adapter}.weight"
                    if path.endswith(suffix):
                        layer = path.removesuffix(suffix).removeprefix("text_model.")
                        level = "text_model." if network == "text_encoder" else ""
                        names = (f"{network}.{level}{layer}.{half}.weight", f"{kohya}{layer.replace('.', '_')}.{old}.weight")
                        stored = next(tensors[name] for name in names if name in tensors)
                        parameter.data.copy_(stored)
                        found[adapter] += 1
        for adapter, tensors in files.items():
            of_network = [name for name in tensors if name.startswith((f"{network}.", kohya)) and not name.endswith("alpha")]
            assert found[adapter] == len(of_network), (network, adapter, found[adapter], len(of_network))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that sums are taken in the same order each time
    args.out.mkdir(parents=True, exist_ok=True)
    plain = pipeline.load(args.models, RUNS["two"][0], "two")
    for seed, (name, (kind, rank, parts)) in enumerate(LORAS.items()):
        tensors = lora(plain, kind, rank, parts, torch.Generator().manual_seed(seed))
        save_file(tensors, args.out / f"{name}.safetensors")
    for name, (case, loras) in RUNS.items():
        pipe = pipeline.load(args.models, case, name)
        for file, _ in loras:
            pipe.load_lora_weights(str(args.out), weight_name=f"{file}.safetensors", adapter_name=file)
        put_back(pipe, args.out, [file for file, _ in loras])
        pipe.set_adapters([file for file, _ in loras], [strength for _, strength in loras])
        without, _ = pipeline.record(pipeline.load(args.models, case, name), case, name)
        tensors, about = pipeline.record(pipe, case, name)
        del type(pipe.text_encoder).text_model
        about["loras"] = [{"file": file, "strength": strength} for file, strength in loras]
        save_file(tensors, args.out / f"{name}.safetensors", metadata={"about": json.dumps(about)})
        for key in ("cond", "output.u8"):
            change = (tensors[key].double() - without[key].double()).abs()
            print(f"{name}: LoRAs change {key} by {change.mean():.3g}, at most {change.max():.3g}", flush=True)


if __name__ == "__main__":
    main()

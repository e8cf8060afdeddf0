#!/usr/bin/env python3
"""IP-Adapters on the tiny models: seeded adapters of both kinds, how CLIP prepares a picture, and whole runs of diffusers.

    python ip_adapter.py

`ip_adapter/image_encoder` is a tiny CLIP image encoder as the adapters' repository keeps it. The adapters beside it have the
layout in which they are published (https://github.com/tencent-ailab/IP-Adapter): `image_proj.*` and `ip_adapter.N.to_k_ip.weight`,
N odd, counted through the down, up and middle blocks; some as safetensors, some as a pickle of two dictionaries.

`ip_adapter/vision.safetensors` has a smaller encoder (`weights.*`), pictures, and what the encoder makes of them with either
activation. `ip_adapter/pictures.safetensors` has for each case `NAME.before` (H, W, 3) and `NAME.after`, the pixels that the
encoder is given, (3, side, side). `ip_adapter_runs/*.safetensors` are runs: `input.u8`, `image.u8` (the adapter's picture), under a
mask `mask.u8`, `tokens` and `uncond_tokens` as the adapter projects them, `start`, `step.N`, and `output.u8` (before any
compositing); `about` has the arguments.

Traps:
* CLIPImageProcessor of transformers 5 resizes by torchvision, whose numbers are others than Pillow's; published results, and
  every earlier version, are made with Pillow, and so are these (`CLIPImageProcessorPil`).
* diffusers numbers an adapter's layers by the order in which the UNet lists its children: `down_blocks`, `up_blocks`, `mid_block`.
* The heads of a resampler are 64 wide whatever its other sizes are.
"""
import argparse
import json

import numpy
import torch
from diffusers.models.embeddings import ImageProjection, IPAdapterPlusImageProjection
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import later_models
import lora_pipeline
import pipeline
from golden_file import GOLDEN, MODELS, quiet_and_repeatable, save_golden
from inpaint import mask_of
from pipeline import NEGATIVE, PROMPT, picture
from tiny_models import dump, randomise, save_weights

SCRIPT = "ip_adapter.py"
FOLDER = GOLDEN / "ip_adapter"
# The published sizes of a picture and its patches; everything else is small.
ENCODER = {
    "hidden_size": 32, "intermediate_size": 48, "projection_dim": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
}
SMALL_ENCODER = {**ENCODER, "hidden_size": 16, "intermediate_size": 24, "projection_dim": 12, "image_size": 28, "patch_size": 7}
# name: model, kind, format, seed
ADAPTERS = {
    "ip-adapter_sd15": ("tiny", "projection", "safetensors", 90),
    "ip-adapter-plus_sd15": ("tiny", "resampler", "bin", 91),
    "ip-adapter_sdxl": ("tiny-sdxl", "projection", "bin", 92),
    "ip-adapter-plus_sdxl": ("tiny-sdxl", "resampler", "safetensors", 93),
}
TOKENS = {"projection": 4, "resampler": 6}
RESAMPLER = {"embed_dims": ENCODER["hidden_size"], "hidden_dims": 32, "depth": 4, "heads": 2, "num_queries": TOKENS["resampler"]}
# name: adapter, scale, scheduler, (width, height), steps, strength, guidance, seed, and what is unusual.
RUNS = {
    "sd15-one": ("ip-adapter_sd15", 1.0, "DDIMScheduler", (64, 64), 5, 0.8, 7.5, 0, {}),
    "sd15-half": ("ip-adapter_sd15", 0.5, "EulerDiscreteScheduler", (72, 40), 4, 1.0, 5.0, 1, {}),
    "sd15-zero": ("ip-adapter_sd15", 0.0, "EulerDiscreteScheduler", (72, 40), 4, 1.0, 5.0, 1, {}),
    "sd15-unguided": ("ip-adapter_sd15", 0.7, "LCMScheduler", (64, 48), 4, 0.8, 1.0, 2, {}),
    "sd15-lora": ("ip-adapter_sd15", 0.8, "DDIMScheduler", (64, 64), 5, 0.7, 6.0, 3, {"lora": ("lora-peft", 0.9)}),
    "sd15-blend": ("ip-adapter_sd15", 0.9, "DDIMScheduler", (72, 40), 5, 0.8, 7.5, 4, {"mask": True}),
    "sd15-plus-one": ("ip-adapter-plus_sd15", 1.0, "DDIMScheduler", (64, 64), 5, 0.8, 7.5, 5, {}),
    "sd15-plus-half": ("ip-adapter-plus_sd15", 0.5, "EulerDiscreteScheduler", (40, 72), 4, 1.0, 5.0, 6, {}),
    "sd15-plus-zero": ("ip-adapter-plus_sd15", 0.0, "EulerDiscreteScheduler", (40, 72), 4, 1.0, 5.0, 6, {}),
    "sd15-plus-unguided": ("ip-adapter-plus_sd15", 0.7, "LCMScheduler", (64, 48), 4, 0.8, 1.0, 7, {}),
    "sd15-plus-lora": ("ip-adapter-plus_sd15", 0.8, "DDIMScheduler", (64, 64), 5, 0.7, 6.0, 8, {"lora": ("lora-kohya", -0.6)}),
    "sd15-plus-blend": ("ip-adapter-plus_sd15", 0.9, "DDIMScheduler", (72, 40), 5, 0.8, 7.5, 9, {"mask": True}),
    "sdxl-one": ("ip-adapter_sdxl", 1.0, "EulerDiscreteScheduler", (64, 64), 5, 0.8, 7.5, 10, {}),
    "sdxl-half": ("ip-adapter_sdxl", 0.5, "EulerDiscreteScheduler", (72, 40), 4, 0.9, 5.0, 11, {}),
    "sdxl-zero": ("ip-adapter_sdxl", 0.0, "EulerDiscreteScheduler", (72, 40), 4, 0.9, 5.0, 11, {}),
    "sdxl-blend": ("ip-adapter_sdxl", 0.9, "EulerDiscreteScheduler", (72, 40), 5, 0.8, 7.5, 12, {"mask": True}),
    "sdxl-plus-one": ("ip-adapter-plus_sdxl", 1.0, "EulerDiscreteScheduler", (64, 64), 5, 0.8, 7.5, 13, {}),
    "sdxl-plus-half": ("ip-adapter-plus_sdxl", 0.5, "DDIMScheduler", (40, 72), 4, 0.9, 5.0, 14, {}),
    "sdxl-plus-zero": ("ip-adapter-plus_sdxl", 0.0, "DDIMScheduler", (40, 72), 4, 0.9, 5.0, 14, {}),
    "sdxl-plus-unguided": ("ip-adapter-plus_sdxl", 0.6, "DDIMScheduler", (64, 64), 4, 0.8, 1.0, 15, {}),
}
# (width, height) of pictures, and the side that they are brought to.
PICTURES = [((64, 64), 28), ((28, 28), 28), ((97, 41), 28), ((41, 97), 28), ((20, 9), 28), ((3, 50), 28), ((200, 31), 28), ((28, 61), 28), ((30, 29), 28), ((61, 47), 224)]


def draw(generator, *shape):
    """Of unit gain: variance 1 / fan-in."""
    return torch.randn(shape, generator=generator) / shape[-1] ** 0.5


def build_encoder(config, seed):
    encoder = randomise(CLIPVisionModelWithProjection(CLIPVisionConfig(**config)), seed)
    # Stored in half precision, and everything is computed with what is stored.
    return encoder.half().float()


def write_encoder():
    encoder = build_encoder(ENCODER, 80)
    folder = FOLDER / "image_encoder"
    folder.mkdir(parents=True, exist_ok=True)
    dump(folder / "config.json", {**encoder.config.to_diff_dict(), "architectures": [type(encoder).__name__], "torch_dtype": "float32"})
    save_weights(encoder, folder / "model.safetensors")


def original_projection(kind, width, seed):
    """The weights of a projection under their published names, which diffusers turns into its own."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "projection":
        module = randomise(ImageProjection(cross_attention_dim=width, image_embed_dim=ENCODER["projection_dim"], num_image_text_embeds=TOKENS[kind]), seed)
        return {name.replace("image_embeds", "proj"): tensor for name, tensor in module.state_dict().items()}
    hidden, inner, embed = RESAMPLER["hidden_dims"], 64 * RESAMPLER["heads"], RESAMPLER["embed_dims"]
    tensors = {"latents": torch.randn((1, TOKENS[kind], hidden), generator=generator)}

    def layer(name, outputs, inputs, bias):
        tensors[f"{name}.weight"] = draw(generator, outputs, inputs)
        if bias:
            tensors[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

    def norm(name, size):
        tensors[f"{name}.weight"] = 1 + 0.1 * torch.randn(size, generator=generator)
        tensors[f"{name}.bias"] = 0.1 * torch.randn(size, generator=generator)

    layer("proj_in", hidden, embed, True)
    layer("proj_out", width, hidden, True)
    norm("norm_out", width)
    for i in range(RESAMPLER["depth"]):
        norm(f"layers.{i}.0.norm1", hidden)
        norm(f"layers.{i}.0.norm2", hidden)
        layer(f"layers.{i}.0.to_q", inner, hidden, False)
        layer(f"layers.{i}.0.to_kv", 2 * inner, hidden, False)
        layer(f"layers.{i}.0.to_out", hidden, inner, False)
        norm(f"layers.{i}.1.0", hidden)
        layer(f"layers.{i}.1.1", 4 * hidden, hidden, False)
        layer(f"layers.{i}.1.3", hidden, 4 * hidden, False)
    return tensors


def adapter(name):
    """Its two dictionaries, in half precision."""
    model, kind, _, seed = ADAPTERS[name]
    unet = later_models.UNet2DConditionModel.from_pretrained(MODELS / model / "unet", torch_dtype=torch.float32)
    width = unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(seed + 1000)
    layers, number = {}, 1
    # In the order of diffusers' own numbers, which the run then confirms.
    for path in unet.attn_processors:
        if path.endswith("attn2.processor"):
            outputs = unet.get_submodule(path.removesuffix(".processor")).to_k.weight.shape[0]
            for half in ("to_k_ip", "to_v_ip"):
                layers[f"{number}.{half}.weight"] = draw(generator, outputs, width)
            number += 2
    parts = {"image_proj": original_projection(kind, width, seed), "ip_adapter": layers}
    return {part: {key: tensor.half().contiguous().clone() for key, tensor in tensors.items()} for part, tensors in parts.items()}


def file_name(name):
    return f"{name}.{ADAPTERS[name][2]}"


def write_adapters():
    for name, (_, kind, ending, _) in ADAPTERS.items():
        parts, path = adapter(name), FOLDER / file_name(name)
        if ending == "bin":
            torch.save(parts, path)
        else:
            save_file({f"{part}.{key}": tensor for part, tensors in parts.items() for key, tensor in tensors.items()}, path)
        print(f"{path.name}: {kind}, {path.stat().st_size} bytes")


def processor(side):
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def write_vision():
    encoder = build_encoder(SMALL_ENCODER, 81)
    tensors = {f"weights.{name}": tensor.half() for name, tensor in encoder.state_dict().items() if tensor.is_floating_point()}
    pixels = torch.randn((2, 3, 28, 28), generator=torch.Generator().manual_seed(82))
    tensors["pixels"] = pixels
    for activation in ("gelu", "quick_gelu"):
        changed = CLIPVisionModelWithProjection(CLIPVisionConfig(**{**SMALL_ENCODER, "hidden_act": activation})).eval()
        changed.load_state_dict(encoder.state_dict())
        out = changed(pixels, output_hidden_states=True)
        tensors[f"{activation}.embedding"] = out.image_embeds
        tensors[f"{activation}.penultimate"] = out.hidden_states[-2]
    save_golden("ip_adapter/vision.safetensors", tensors, SCRIPT, config=SMALL_ENCODER)


def write_pictures():
    tensors = {}
    for seed, (size, side) in enumerate(PICTURES):
        if side == 224:
            image = picture(size, seed)
        else:
            image = Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8))
        after = processor(side)(image, return_tensors="pt").pixel_values[0]
        name = f"{size[0]}x{size[1]}-{side}"
        tensors[f"{name}.before"] = torch.from_numpy(numpy.asarray(image).copy())
        # Of the large one its first plane and no more, to keep the file small.
        tensors[f"{name}.after"] = after if side < 224 else after[:1]
    save_golden("ip_adapter/pictures.safetensors", tensors, SCRIPT)


def load(name):
    adapter_name, scale, scheduler, _, _, _, _, _, unusual = RUNS[name]
    model = ADAPTERS[adapter_name][0]
    if model == "tiny-sdxl":
        pipe, _ = later_models.load(model, scheduler, unusual)
    else:
        kind = "Inpaint" if unusual.get("mask") else "Img2Img"
        pipe = getattr(later_models.diffusers, f"StableDiffusion{kind}Pipeline").from_pretrained(
            MODELS / model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False)
        pipe.text_encoder.float(), pipe.unet.float(), pipe.vae.float()
        pipe.scheduler = getattr(later_models.diffusers, scheduler).from_config(pipe.scheduler.config)
        if "lora" in unusual:
            file, strength = unusual["lora"]
            loras = GOLDEN / "lora_pipeline"
            pipe.load_lora_weights(str(loras), weight_name=f"{file}.safetensors", adapter_name=file)
            lora_pipeline.put_back(pipe, loras, [file])
            pipe.set_adapters([file], [strength])
    encoder = CLIPVisionModelWithProjection.from_pretrained(FOLDER / "image_encoder", dtype=torch.float32)
    pipe.register_modules(image_encoder=encoder, feature_extractor=processor(224))
    pipe.load_ip_adapter(str(FOLDER), subfolder="", weight_name=file_name(adapter_name))
    pipe.set_ip_adapter_scale(scale)
    assert pipe.image_encoder is encoder and isinstance(pipe.feature_extractor, CLIPImageProcessorPil)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(name):
    adapter_name, scale, scheduler, size, steps, strength, guidance, seed, unusual = RUNS[name]
    pipe, saved = load(name), {}

    def keep(key, value):
        saved[key] = value.detach().clone().contiguous()

    image, prompt_image = picture(size, seed), picture((50, 38), seed + 100)
    keep("input.u8", torch.from_numpy(numpy.asarray(image).copy()))
    keep("image.u8", torch.from_numpy(numpy.asarray(prompt_image).copy()))
    arguments = {}
    if unusual.get("mask"):
        mask = mask_of(size, seed)
        keep("mask.u8", torch.from_numpy(numpy.asarray(mask).copy()))
        arguments = {"mask_image": mask, "width": size[0], "height": size[1]}
    prepare_latents, project = pipe.prepare_latents, pipe.unet.encoder_hid_proj.forward

    def recorded_prepare(*args, **kwargs):
        latents = prepare_latents(*args, **kwargs)
        keep("start", latents[0] if unusual.get("mask") else latents)
        return latents

    def recorded_project(*args, **kwargs):
        projected = project(*args, **kwargs)
        tokens = projected[0].reshape(-1, *projected[0].shape[-2:])
        assert tokens.shape[0] == (2 if guidance > 1 else 1), tokens.shape
        keep("tokens", tokens[-1:])
        if guidance > 1:
            keep("uncond_tokens", tokens[:1])
        return projected

    def on_step(_pipe, index, _timestep, tensors):
        keep(f"step.{index}", tensors["latents"])
        return tensors

    pipe.prepare_latents, pipe.unet.encoder_hid_proj.forward = recorded_prepare, recorded_project
    result = pipe(
        PROMPT, image=image, negative_prompt=NEGATIVE, ip_adapter_image=prompt_image, num_inference_steps=steps, strength=strength,
        guidance_scale=guidance, generator=torch.Generator().manual_seed(seed), callback_on_step_end=on_step, **arguments)
    keep("output.u8", torch.from_numpy(numpy.asarray(result.images[0]).copy()))
    about = {
        "model": ADAPTERS[adapter_name][0], "adapter": file_name(adapter_name), "scale": scale, "scheduler": scheduler,
        "width": size[0], "height": size[1], "steps": steps, "strength": strength, "guidance_scale": guidance, "clip_skip": 1,
        "seed": seed, "prompt": PROMPT, "negative_prompt": NEGATIVE, "lora": unusual.get("lora")}
    return saved, about


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="no models, and the runs whose name contains this")
    args = parser.parse_args()
    quiet_and_repeatable()
    if not args.only:
        FOLDER.mkdir(exist_ok=True)
        write_encoder()
        write_adapters()
        write_vision()
        write_pictures()
    outputs = {}
    for name in RUNS:
        if not args.only or args.only in name:
            tensors, about = run(name)
            save_golden(f"ip_adapter_runs/{name}.safetensors", tensors, SCRIPT, **about)
            outputs[name] = tensors["output.u8"].double()
    for name, output in outputs.items():
        zero = outputs.get(name.replace("half", "zero"))
        if zero is not None and name.endswith("half"):
            print(f"{name}: the picture differs from that of scale 0 by {(output - zero).abs().mean():.3g} on average")


if __name__ == "__main__":
    main()

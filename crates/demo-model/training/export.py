"""Stage 7: writes the model folder in diffusers layout with fp16 weights, its adapters, and the compressed blobs that the crate embeds.

Adapters that have been trained go to the folder `adapters` beside the folder, each in the layout that diffusers and the server load.

transformers 5 saves CLIPTextModel without the `text_model.` prefix that every published SD checkpoint has, so the text
encoder's names are put back here.
"""
import json
from pathlib import Path

import torch
import zstandard
from safetensors.torch import save_file

from clip_tokens import CONTEXT, END, START, VOCABULARY, Clip
from stage import arguments, log
from models import HIDDEN, make_text, make_unet, make_vae
from train_ip import make_vision
from train_tiny import make_tiny

SCHEDULER = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.42.1", "beta_end": 0.012,
             "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
             "prediction_type": "epsilon", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
             "timestep_spacing": "leading", "trained_betas": None}
INDEX = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "feature_extractor": [None, None],
         "image_encoder": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
         "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
         "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
         "vae": ["diffusers", "AutoencoderKL"]}


def special(content):
    """A special token as the tokenizer's files describe it."""
    return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write_json(path, thing):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(thing, indent=2) + "\n")


def write_weights(path, state):
    """fp16, contiguous in the usual order, without buffers that are no weights."""
    save_file({k: v.half().contiguous(memory_format=torch.contiguous_format) for k, v in state.items()
               if "position_ids" not in k}, path, metadata={"format": "pt"})


def rounded(state, bits):
    """The same in fp16 whose mantissas have at most `bits` of 10 bits: zstd makes more of the zeros behind them."""
    drop = 10 - bits
    if not drop:
        return state

    def shortened(v):
        raw = v.half().contiguous().view(torch.int16).int() & 0xffff
        raw = (raw + (1 << (drop - 1))) >> drop << drop
        return torch.where(raw > 0x7fff, raw - 0x10000, raw).short().view(torch.half)
    return {k: shortened(v) for k, v in state.items()}


def write_tokenizer(folder, clip):
    write_json(folder / "vocab.json", clip.ids)
    (folder / "vocab.json").write_text(json.dumps(clip.ids, ensure_ascii=False, separators=(",", ":")))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in clip.merges))
    start, end = "<|startoftext|>", "<|endoftext|>"
    write_json(folder / "tokenizer_config.json", {
        "add_prefix_space": False, "bos_token": special(start), "do_lower_case": True, "eos_token": special(end),
        "errors": "replace", "model_max_length": CONTEXT, "pad_token": end, "tokenizer_class": "CLIPTokenizer",
        "unk_token": special(end)})
    plain = {k: {n: v for n, v in special(t).items() if n != "__type"}
             for k, t in (("bos_token", start), ("eos_token", end), ("unk_token", end))}
    write_json(folder / "special_tokens_map.json", {**plain, "pad_token": end})


def trained(run, name, raw):
    """The weights of `unet` or `text` that stage 4 left, None before it ran."""
    path = run / "unet.pt"
    if not path.exists():
        return None
    state = torch.load(path)["model" if raw else "average"]
    return {k.removeprefix(name + "."): v for k, v in state.items() if k.startswith(name + ".")}


def write_text_encoder(folder, run, raw):
    """The full CLIP table: trained rows where captions had the word, the row of unknown words everywhere else."""
    text = torch.load(run / "text.pt")
    state = trained(run, "text", raw) or text["model"]
    state = {k if k.startswith("text_model.") else "text_model." + k: v for k, v in state.items()}
    key = "text_model.embeddings.token_embedding.weight"
    rows = state[key]
    table = rows[0].expand(VOCABULARY, HIDDEN).clone()
    table[torch.tensor(text["used"])] = rows[1:]
    state[key] = table
    config = make_text(VOCABULARY).config.to_dict()
    keep = ("attention_dropout", "hidden_act", "hidden_size", "initializer_factor", "initializer_range", "intermediate_size",
            "layer_norm_eps", "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "projection_dim",
            "vocab_size")
    write_json(folder / "config.json", {
        "architectures": ["CLIPTextModel"], **{k: config[k] for k in keep}, "bos_token_id": START, "eos_token_id": END,
        "pad_token_id": END, "model_type": "clip_text_model", "torch_dtype": "float16"})
    write_weights(folder / "model.safetensors", state)


def write_adapters(out, run):
    """The adapters that exist, by their names in the catalogue: LCM-LoRA, style LoRA, textual inversion, tiny auto-encoder, IP-Adapter."""
    out.mkdir(parents=True, exist_ok=True)
    for source, name in (("lcm.pt", "demo-lcm-lora"), ("style_lora.pt", "demo-blueprint")):
        if (run / source).exists():
            lora = torch.load(run / source)["lora"]
            write_weights(out / f"{name}.safetensors", {"unet." + k: v for k, v in lora.items()})
    if (run / "style_inversion.pt").exists():
        write_weights(out / "demo-sepia.safetensors", {"<sepia>": torch.load(run / "style_inversion.pt")["token"][None]})
    if (run / "tiny.pt").exists():
        tiny = make_tiny()
        tiny.load_state_dict(torch.load(run / "tiny.pt")["model"])
        tiny.half().save_pretrained(out / "demo-tiny-vae")
    if (run / "ip.pt").exists():
        modules = torch.load(run / "ip.pt")["model"]
        write_weights(out / "demo-ip-adapter.safetensors", {f"{name}.{k}": v for name, state in modules.items() for k, v in state.items()})
        vision = make_vision()
        vision.load_state_dict(torch.load(run / "vision.pt")["model"])
        vision.half().save_pretrained(out / "demo-image-encoder")


def write_blobs(folder, blobs, level):
    """Every file of a folder as the crate embeds it: JSON as it is, everything else compressed."""
    for p in sorted(folder.rglob("*")):
        rel = p.relative_to(folder)
        if p.is_dir() or rel.name == "vocab.json":  # the crate derives the vocabulary from the merges
            continue
        (blobs / rel).parent.mkdir(parents=True, exist_ok=True)
        if p.suffix == ".json":
            (blobs / rel).write_bytes(p.read_bytes())
        else:
            (blobs / f"{rel}.zst").write_bytes(zstandard.ZstdCompressor(level=level).compress(p.read_bytes()))


def main():
    a = arguments(__doc__, out=(Path, None, "model folder to write"),
                  blobs=(Path, Path(__file__).parent.parent / "weights", "where the crate's blobs go"),
                  raw=(int, 0, "1 takes the UNet's last weights instead of their average"),
                  mantissa=(int, 7, "bits of the UNet's mantissas, 1 to 10; 7 change its weights by 0.1 to 0.2 % and spare 5.8 of 31.6 MB"),
                  level=(int, 19, "zstd level"), write_blobs=(int, 0, "1 also writes the blobs"))
    out = a.out or a.run / "model"
    clip = Clip(a.bpe)
    write_json(out / "model_index.json", INDEX)
    write_json(out / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_tokenizer(out / "tokenizer", clip)
    write_text_encoder(out / "text_encoder", a.run, a.raw)
    vae, unet = make_vae(), make_unet()
    better = a.run / "vae_decoder.pt"
    vae.load_state_dict(torch.load(better)["average"] if better.exists() else torch.load(a.run / "vae_white.pt"))
    if (a.run / "unet.pt").exists():
        unet.load_state_dict(trained(a.run, "unet", a.raw))
    for name, module in (("vae", vae), ("unet", unet)):
        module.save_config(out / name)
        state = rounded(module.state_dict(), a.mantissa) if name == "unet" else module.state_dict()
        write_weights(out / name / "diffusion_pytorch_model.safetensors", state)
    write_adapters(out.parent / "adapters", a.run)
    if a.write_blobs:
        write_blobs(out, a.blobs, a.level)
        write_blobs(out.parent / "adapters", a.blobs / "adapters", a.level)
    log(a.run, "export", bytes=sum(p.stat().st_size for p in out.rglob("*.safetensors")),
        blobs=sum(p.stat().st_size for p in a.blobs.rglob("*") if p.is_file()) if a.blobs.exists() else 0)


if __name__ == "__main__":
    main()

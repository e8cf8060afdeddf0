#!/usr/bin/env python3
"""Full outputs of each part of Stable Diffusion on the tiny models: tokenizer, CLIP, UNet, VAE.

    python components.py [name …]      # tokenizer, clip, clip_sdxl, embeddings, unet, unet_sd2, unet_sdxl, vae; default: all
"""
import argparse

import torch
from diffusers import AutoencoderKL, LatentConsistencyModelImg2ImgPipeline, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from golden_file import MODELS, quiet_and_repeatable, save_golden
from tiny_models import randomise

SCRIPT = "components.py"

# Chosen to break a tokenizer: case, white space of every kind, punctuation, contractions, digits, scripts without
# spaces, right-to-left text, joined emoji, combining marks in both normal forms, control characters, special tokens
# in the text, and words longer than the model takes.
TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "A PHOTO of a Cat",
    "a  photo\tof\n\na \r\n cat ",
    "  leading and trailing  ",
    "best quality, masterpiece, (ultra detailed:1.2), [blurry], 8k!!!",
    "it's they're we've I'm he'll she'd don't 'quoted' ''",
    "IT'S THEY'RE",
    "don\u2019t \u201ccurly\u201d \u2014 dash \u2026",
    "1234567890 3.14 1,000 2nd 10x ½ ² Ⅷ ٣",
    "hello,world.foo-bar_baz/qux\\quux#tag@user",
    "!!!???...---___***",
    "<|startoftext|>",
    "<|endoftext|>",
    "a <|endoftext|> b <|startoftext|> c",
    "<|EndOfText|> <|STARTOFTEXT|> <|endoftext|",
    "<|endoftext|><|endoftext|>cat",
    "caf\u00e9 cafe\u0301 \u00c9COLE e\u0301cole",
    "na\u00efve \u00fcber stra\u00dfe STRASSE \u1e9e",
    "\u0130stanbul \u0131 I i",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
    "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 \u03c3\u03c2",
    "\u4e00\u53ea\u732b\u5750\u5728\u5c71\u4e0a",
    "\u732b\u304c\u5c71\u306b\u3044\u308b \u30ab\u30bf\u30ab\u30ca \uff76\uff85",
    "\uace0\uc591\uc774 \u1100\u1161\u11a8",
    "\u0642\u0637\u0629 \u0639\u0644\u0649 \u0627\u0644\u062c\u0628\u0644",
    "\u05d7\u05ea\u05d5\u05dc \u05e2\u05dc \u05d4\u05d4\u05e8",
    "\u202eright to left\u202c override",
    "\u0e41\u0e21\u0e27\u0e1a\u0e19\u0e20\u0e39\u0e40\u0e02\u0e32",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092c\u093f\u0932\u094d\u0932\u0940",
    "\U0001f600\U0001f44d\U0001f3fd a \U0001f408",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\U0001f1e9\U0001f1ea flag \u2764\ufe0f heart",
    "zero\u200bwidth\ufeffmark\u00adsoft\u2060join",
    "nul\x00inside \x01\x02\x1b[31mred\x7f",
    "\u00a0non\u00a0breaking\u2003em\u3000ideographic\u2028line\u0085next\x0bvt\x0cff\x1cfs",
    "\ufb01ligature \u210cfraktur \uff21\uff22wide \u2460",
    "\u0300\u0301combining first Z\u0351\u036b\u0343\u036a\u0302\u0363\u0343",
    "\uffff \ufffd \U0010fffd \ue000",
    "x" * 300,
    "cat " * 100,
    "\u732b" * 100,
    "!" * 500,
    "a1b2c3" * 30,
]


def gaussian(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def text_model(**changes):
    model = CLIPTextModel.from_pretrained(MODELS / "tiny" / "text_encoder", dtype=torch.float32, **changes)
    return model.eval()


def tokenizer():
    tokenizer = CLIPTokenizer.from_pretrained(MODELS / "tiny" / "tokenizer")

    def ids(text, **how):
        return tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt", **how).input_ids

    save_golden("components/tokenizer.safetensors", {"ids": torch.cat([ids(t) for t in TEXTS])}, SCRIPT, texts=TEXTS)


def clip():
    tokenizer = CLIPTokenizer.from_pretrained(MODELS / "tiny" / "tokenizer")
    texts = ["a photo of a cat on a mountain, best quality", ""]
    ids = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    tensors = {"ids": ids}
    for activation in ("quick_gelu", "gelu"):
        model = text_model(hidden_act=activation)
        out = model(ids, output_hidden_states=True)
        final_norm = getattr(model, "text_model", model).final_layer_norm
        for skip in (1, 2, 3, 6):
            # diffusers: hidden_states[-(clip_skip + 1)], then the final norm; its clip_skip=None is our 1.
            hidden = out.hidden_states[-skip]
            tensors[f"{activation}.{skip}"] = final_norm(hidden)
        assert torch.equal(out.last_hidden_state, tensors[f"{activation}.1"])
    save_golden("components/clip.safetensors", tensors, SCRIPT, texts=texts)


def clip_sdxl():
    """The second text encoder of SDXL: states before the final norm, and the pooled state at the end token."""
    folder = MODELS / "tiny-sdxl"
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer_2")
    model = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=torch.float32).eval()
    texts = ["a photo of a cat on a mountain, best quality", "", "cat " * 100]
    ids = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    out = model(ids, output_hidden_states=True)
    tensors = {"ids": ids, "pooled": out.text_embeds}
    for skip in (1, 2, 3):
        # diffusers: hidden_states[-(clip_skip + 2)]; its clip_skip=None is our 1.
        tensors[f"states.{skip}"] = out.hidden_states[-(skip + 1)]
    save_golden("components/clip-sdxl.safetensors", tensors, SCRIPT, texts=texts)


def embeddings():
    steps = torch.tensor([0.0, 1.0, 19.0, 250.5, 499.0, 521.0, 981.0, 999.0])
    w = torch.tensor([0.0, 0.5, 1.0, 6.5, 7.5, 19.0])
    scale = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding
    save_golden(
        "components/embeddings.safetensors",
        {
            "steps": steps,
            "time.320": get_timestep_embedding(steps, 320, flip_sin_to_cos=True, downscale_freq_shift=0),
            "time.32": get_timestep_embedding(steps, 32, flip_sin_to_cos=False, downscale_freq_shift=1),
            "w": w,
            "guidance.256": scale(None, w, embedding_dim=256),
        },
        SCRIPT,
    )


def unet():
    steps = torch.tensor([999.0, 250.5, 1.0])
    for name in ("tiny", "tiny-lcm"):
        model = UNet2DConditionModel.from_pretrained(MODELS / name / "unet").float().eval()
        tensors = {"steps": steps, "context": gaussian(1, 3, 77, 32)}
        if name == "tiny-lcm":
            embed = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding
            tensors["guidance"] = embed(None, torch.tensor([0.0, 0.5, 7.0]), embedding_dim=256)
        for h, w in ((8, 8), (9, 7), (12, 5), (1, 1), (16, 24)):
            sample = gaussian(100 * h + w, 3, 4, h, w)
            tensors[f"{h}x{w}.sample"] = sample
            tensors[f"{h}x{w}.out"] = model(sample, steps, tensors["context"], return_dict=False)[0]
            if "guidance" in tensors:
                guided = model(
                    sample, steps, tensors["context"], timestep_cond=tensors["guidance"], return_dict=False
                )[0]
                tensors[f"{h}x{w}.guided"] = guided
        save_golden(f"components/unet-{name}.safetensors", tensors, SCRIPT)


def unet_sd2():
    """As SD 2.1 and beyond it: linear projections, heads, layers and depth per level, and the other time embedding."""
    config = {
        "in_channels": 9,
        "block_out_channels": [16, 32],
        "norm_num_groups": 8,
        "norm_eps": 1e-6,
        "layers_per_block": [1, 2],
        "cross_attention_dim": 24,
        "attention_head_dim": [2, 4],
        "transformer_layers_per_block": [2, 1],
        "use_linear_projection": True,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "downsample_padding": 0,
        "upcast_attention": True,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    }
    model = randomise(UNet2DConditionModel(**config), 30).half().float().eval()
    tensors = {f"weights.{k}": v.half() for k, v in model.state_dict().items()}
    tensors |= {"steps": torch.tensor([981.0, 3.0]), "context": gaussian(2, 2, 11, 24)}
    for h, w in ((8, 8), (7, 10)):
        sample = gaussian(100 * h + w, 2, 9, h, w)
        tensors[f"{h}x{w}.sample"] = sample
        tensors[f"{h}x{w}.out"] = model(sample, tensors["steps"], tensors["context"], return_dict=False)[0]
    save_golden("components/unet-sd2.safetensors", tensors, SCRIPT, config=config)


def unet_sdxl():
    """With the pooled text and the sizes; once more as a distilled latent consistency model has it, with `cond_proj`."""
    steps = torch.tensor([999.0, 250.5, 1.0])
    sizes = torch.tensor([[64.0, 48, 0, 0, 64, 48], [1024, 1024, 0, 0, 1024, 1024], [8, 8, 3, 5, 512, 768]])
    tensors = {"steps": steps, "context": gaussian(3, 3, 77, 56), "pooled": gaussian(4, 3, 20), "sizes": sizes}
    for name in ("plain", "lcm"):
        extra = {"time_cond_proj_dim": 256} if name == "lcm" else {}
        model = UNet2DConditionModel.from_pretrained(MODELS / "tiny-sdxl" / "unet", low_cpu_mem_usage=False, **extra).float().eval()
        cond = None
        if name == "lcm":
            projection = model.time_embedding.cond_proj.weight
            projection.data = (gaussian(5, *projection.shape) / 16).half().float()
            tensors["cond_proj"] = projection.detach().half()
            cond = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding(None, torch.tensor([0.0, 0.5, 7.0]), embedding_dim=256)
            tensors["guidance"] = cond
        for h, w in ((8, 8), (9, 7)):
            sample = gaussian(100 * h + w, 3, 4, h, w)
            tensors[f"{h}x{w}.sample"] = sample
            added = {"text_embeds": tensors["pooled"], "time_ids": sizes}
            tensors[f"{h}x{w}.{name}"] = model(sample, steps, tensors["context"], timestep_cond=cond, added_cond_kwargs=added, return_dict=False)[0]
    save_golden("components/unet-sdxl.safetensors", tensors, SCRIPT)


def vae():
    model = AutoencoderKL.from_pretrained(MODELS / "tiny" / "vae").float().eval()
    tensors = {}
    for b, h, w in ((2, 64, 64), (1, 72, 40), (1, 8, 8)):
        picture = gaussian(h * w, b, 3, h, w).clamp(-1, 1)
        latent = gaussian(h + w, b, 4, h // 8, w // 8) / model.config.scaling_factor
        tensors[f"{h}x{w}.picture"] = picture
        tensors[f"{h}x{w}.moments"] = model.encode(picture).latent_dist.parameters
        tensors[f"{h}x{w}.latent"] = latent
        tensors[f"{h}x{w}.decoded"] = model.decode(latent).sample
    save_golden("components/vae.safetensors", tensors, SCRIPT)


PARTS = {f.__name__: f for f in (tokenizer, clip, clip_sdxl, embeddings, unet, unet_sd2, unet_sdxl, vae)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help="which parts; default: all")
    args = parser.parse_args()
    quiet_and_repeatable()
    for part in args.part or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()

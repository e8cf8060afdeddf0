#!/usr/bin/env python3
"""VAEs beside a checkpoint's own: a large one in one file, and tiny autoencoders (TAESD and its family) on seeded weights, in
every layout of their files.

    python tiny_vae.py [--real FOLDER]

`vae/tiny-taesd` is a folder as diffusers writes it, `vae/taesd_encoder.pth` and `vae/taesd_decoder.safetensors` the same
weights under the names of the original repository. `inner` is the variant with a norm in the innermost blocks (TAEF2), which
diffusers does not have: it is written out here in plain torch. `vae/kl.safetensors` is a VAE alone under its original names.
With a folder that has TAEF2's published files, `vae/taef2.safetensors` is what they make of a picture and of a latent.
"""
import argparse
import pathlib
import re

import diffusers
import numpy
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from torch import nn

from golden_file import GOLDEN, quiet_and_repeatable, save_golden
from pipeline import NEGATIVE, PROMPT, picture
from prompts import tiny
from single_file import VAE, original_vae, shape_in_file
from tiny_models import randomise

SCRIPT = "tiny_vae.py"
FOLDER = GOLDEN / "vae"
WIDTH = 8


class InnerNorm(nn.Module):
    """x + narrow(relu(norm(wide(x)))): four times as wide, four groups."""

    def __init__(self, width):
        super().__init__()
        self.pool = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.GroupNorm(4, 4 * width),
            nn.ReLU(),
            nn.Conv2d(4 * width, width, 1, bias=False),
        )

    def forward(self, x):
        return x + self.pool(x)


class Block(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.pool = InnerNorm(width).pool if inner else None

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Soft(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def inner_encoder(width, channels):
    layers = [nn.Conv2d(3, width, 3, padding=1), Block(width, False)]
    for level in range(3):
        layers.append(nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False))
        layers += [Block(width, level == 2) for _ in range(3)]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))


def inner_decoder(width, channels):
    layers = [Soft(), nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    for level in range(3):
        layers += [Block(width, level == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
    return nn.Sequential(*layers, Block(width, False), nn.Conv2d(width, 3, 3, padding=1))


def halved(state):
    return {name: value.half().contiguous() for name, value in state.items()}


def gaussian(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def taesd():
    """Diffusers' own, as a folder and as the two original files; parts, and a picture of the pipeline."""
    model = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 4, decoder_block_out_channels=(WIDTH,) * 4
    )
    model = randomise(model, 50).half().float().eval()
    folder = FOLDER / "tiny-taesd"
    folder.mkdir(parents=True, exist_ok=True)
    model.save_config(folder)
    state = halved(model.state_dict())
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})

    def original(part, shift):
        numbered = ((re.match(rf"{part}\.layers\.(\d+)\.(.*)", name), value) for name, value in state.items())
        return {f"{int(name[1]) + shift}.{name[2]}": value for name, value in numbered if name}

    # The original decoder counts the clamp before its first convolution, too.
    torch.save(original("encoder", 0), FOLDER / "taesd_encoder.pth")
    save_file(original("decoder", 1), FOLDER / "taesd_decoder.safetensors")

    image, latent = gaussian(51, 1, 3, 72, 40).clamp(-1, 1), 2 * gaussian(52, 1, 4, 9, 5)
    tensors = {
        "image": image,
        "encoded": model.encode(image).latents,
        "latent": latent,
        "decoded": model.decode(latent).sample,
    }
    picture_tensors, about = pictured(model, diffusers.EulerDiscreteScheduler, 53)
    save_golden("vae/taesd.safetensors", {**tensors, **picture_tensors}, SCRIPT, **about)


def pictured(vae, scheduler, seed):
    """A picture of the tiny model with this VAE, and the arguments that made it."""
    pipe = tiny()
    pipe.vae = vae
    init = picture((64, 64), seed)
    about = {"steps": 5, "strength": 0.6, "guidance_scale": 4.0, "seed": seed}
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    result = pipe(
        PROMPT,
        image=init,
        negative_prompt=NEGATIVE,
        num_inference_steps=about["steps"],
        strength=about["strength"],
        guidance_scale=about["guidance_scale"],
        generator=torch.Generator().manual_seed(seed),
    )
    tensors = {
        "input.u8": torch.from_numpy(numpy.asarray(init).copy()),
        "output.u8": torch.from_numpy(numpy.asarray(result.images[0]).copy()),
    }
    about |= {"model": "tiny", "scheduler": scheduler.__name__, "clip_skip": 1}
    return tensors, {**about, "prompt": PROMPT, "negative_prompt": NEGATIVE}


def large():
    """A VAE in one file of the original layout, without a prefix; it says nothing of its factor."""
    vae = AutoencoderKL(**{**VAE, "block_out_channels": (32,) * 4, "layers_per_block": 1})
    vae = randomise(vae, 58).half().float().eval()
    state = {}
    for name, value in halved(vae.state_dict()).items():
        old = original_vae(name, 4).removeprefix("first_stage_model.")
        state[old] = value.reshape(shape_in_file(old, value.shape))
    save_file(state, FOLDER / "kl.safetensors")
    tensors, about = pictured(vae, diffusers.DDIMScheduler, 59)
    save_golden("vae/kl-picture.safetensors", tensors, SCRIPT, **about)


def inner():
    """The variant with a norm, 6 latent channels, with its weights beside it."""
    encoder, decoder = inner_encoder(WIDTH, 6), inner_decoder(WIDTH, 6)
    encoder, decoder = (randomise(part, seed).half().float().eval() for part, seed in ((encoder, 54), (decoder, 55)))
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.save(halved(encoder.state_dict()), FOLDER / "inner_encoder.pth")
    torch.save(halved(decoder.state_dict()), FOLDER / "inner_decoder.pth")
    image, latent = gaussian(56, 1, 3, 40, 48).clamp(-1, 1), 2 * gaussian(57, 1, 6, 5, 6)
    tensors = {
        "image": image,
        # The network works on 0..1.
        "encoded": encoder((image + 1) / 2),
        "latent": latent,
        "decoded": decoder(latent) * 2 - 1,
    }
    save_golden("vae/inner.safetensors", tensors, SCRIPT)


def published(folder):
    """TAEF2 as its author published it."""
    parts = {"encoder": inner_encoder(64, 32), "decoder": inner_decoder(64, 32)}
    for name, part in parts.items():
        part.load_state_dict(torch.load(folder / f"taef2_{name}.pth", weights_only=True))
        part.float().eval()
    smooth = torch.from_numpy(numpy.asarray(picture((56, 40), 60)).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    encoded = parts["encoder"]((smooth + 1) / 2)
    tensors = {"image": smooth, "encoded": encoded, "latent": encoded, "decoded": parts["decoder"](encoded) * 2 - 1}
    save_golden("vae/taef2.safetensors", tensors, SCRIPT)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=pathlib.Path, help="the folder with taef2_encoder.pth and taef2_decoder.pth")
    args = parser.parse_args()
    quiet_and_repeatable()
    if args.real:
        published(args.real)
    taesd()
    inner()
    large()


if __name__ == "__main__":
    main()

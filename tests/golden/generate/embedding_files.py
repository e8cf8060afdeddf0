#!/usr/bin/env python3
"""Textual inversion files in every form that they are published in, and what diffusers reads from them.

    python embedding_files.py

`embedding/<name>` are the files. `embedding/expected.safetensors` has `<file>/<token>/<slot>`: what diffusers'
`load_textual_inversion` puts into a text encoder's table for the token, one vector after the other. Where diffusers asks for
the token beside the file, the token is empty here.
"""
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from golden_file import GOLDEN, MODELS, quiet_and_repeatable, save_golden

FOLDER = GOLDEN / "embedding"
WIDTH = 32


def numbers(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def files():
    """Name, content, the token in the file, and the token that diffusers must be given, or the vectors where it cannot read it."""
    automatic = {
        "string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": numbers(3, WIDTH, seed=1)}, "name": "my-cat",
        "step": 499, "sd_checkpoint": "cc6cb27103", "sd_checkpoint_name": "v1-5",
    }
    yield "automatic.pt", automatic, "my-cat", None
    parameters = {**automatic, "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(numbers(2, WIDTH, seed=2))})}
    # Diffusers leaves reading this one to `torch.load`'s safe mode, which does not know the dictionary.
    yield "parameters.pt", parameters, "my-cat", parameters["string_to_param"]["*"].data
    yield "emb_params.safetensors", {"emb_params": numbers(4, WIDTH, seed=3)}, "", "given"
    yield "half.safetensors", {"emb_params": numbers(4, WIDTH, seed=4).half()}, "", "given"
    yield "learned_embeds.bin", {"<birb-style>": numbers(WIDTH, seed=5)}, "<birb-style>", None
    yield "learned_embeds.safetensors", {"<birb-style>": numbers(2, WIDTH, seed=6)}, "<birb-style>", None


def table(path, token):
    pipe = StableDiffusionPipeline.from_pretrained(MODELS / "tiny", torch_dtype=torch.float32, safety_checker=None)
    size = len(pipe.tokenizer)
    pipe.load_textual_inversion(path, token=token)
    # One row for each vector, behind all that there were.
    return pipe.text_encoder.get_input_embeddings().weight[size:len(pipe.tokenizer)].clone()


def main():
    quiet_and_repeatable()
    FOLDER.mkdir(exist_ok=True)
    expected = {}
    for name, content, token, given in files():
        path = FOLDER / name
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            with open(path, "wb") as file:
                torch.save(content, file)
        expected[f"{name}/{token}/any"] = given if isinstance(given, torch.Tensor) else table(path, given)
        assert len(expected[f"{name}/{token}/any"]) > 0, name
    # Of XL, which diffusers' users load key by key.
    both = {"clip_l": numbers(2, WIDTH, seed=7), "clip_g": numbers(2, 48, seed=8)}
    save_file(both, FOLDER / "xl.safetensors")
    expected["xl.safetensors//first"], expected["xl.safetensors//second"] = both["clip_l"], both["clip_g"]
    save_golden("embedding/expected.safetensors", expected, "embedding_files.py")


if __name__ == "__main__":
    main()

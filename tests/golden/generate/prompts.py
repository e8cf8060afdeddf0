#!/usr/bin/env python3
"""Text states of weighted, broken and long prompts and of textual inversions, and the pictures that they make.

    python prompts.py

What a prompt means is written by hand beside it: pieces of text with their weights, and BREAK. The arithmetic is that of
A1111's defaults in plain torch: chunks of 75 tokens, what was said after a comma that is at most 20 tokens back moves to the
next chunk, each chunk through the text encoder by itself, the states times the weights, and the mean of the chunk restored.
Textual inversions are diffusers' own `load_textual_inversion`; with weights, the arithmetic above on top of it.
"""
import diffusers
import numpy
import torch

from golden_file import MODELS, quiet_and_repeatable, save_golden
from pipeline import picture

SCRIPT = "prompts.py"
BREAK = None
WIDTH = 32

TAGS = "best quality, 8k, (a boat, on the sea), at night, [blurred] sky with clouds and stars, "
# name: the prompt, what it means, clip_skip as on the wire.
CASES = {
    "plain": ("a photo of a cat", [("a photo of a cat", 1)], 1),
    "escaped": (r"a \(cat\) in a \[box\] \\ at 16:9", [(r"a (cat) in a [box] \ at 16:9", 1)], 1),
    "weighted": (
        "a (red:1.3) house, ((tall)) and [dim], (no:-0.5) (fog:0)",
        [
            ("a ", 1),
            ("red", 1.3),
            (" house, ", 1),
            ("tall", 1.1 * 1.1),
            (" and ", 1),
            ("dim", 1 / 1.1),
            (", ", 1),
            ("no", -0.5),
            (" ", 1),
            ("fog", 0),
        ],
        1,
    ),
    "skipped": ("a (red:1.3) house", [("a ", 1), ("red", 1.3), (" house", 1)], 3),
    "nested": ("(a (b [c) d:1.5] e", [("a ", 1.1), ("b ", 1.1 * 1.1), ("c", 1.1 * 1.1 / 1.1), (" d:1.5", 1.1 / 1.1), (" e", 1.1)], 1),
    "broken": ("a (sun:1.2) BREAK a moon", [("a ", 1), ("sun", 1.2), BREAK, ("a moon", 1)], 1),
    # About 200 tokens.
    "long": (
        TAGS * 7,
        [
            piece
            for _ in range(7)
            for piece in (
                ("best quality, 8k, ", 1),
                ("a boat, on the sea", 1.1),
                (", at night, ", 1),
                ("blurred", 1 / 1.1),
                (" sky with clouds and stars, ", 1),
            )
        ],
        2,
    ),
    "no-commas": ("boat " * 100, [("boat " * 100, 1)], 1),
}


def merged(pieces):
    """Neighbours of one weight are one text."""
    result = []
    for piece in pieces:
        if result and piece and result[-1] and result[-1][1] == piece[1]:
            result[-1] = (result[-1][0] + piece[0], piece[1])
        else:
            result.append(piece)
    return result


def tokens_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def chunks_of(tokenizer, pieces):
    """Lists of (id, weight)."""
    comma = tokens_of(tokenizer, ",")[0]
    chunks, chunk, last_comma = [], [], None
    for piece in merged(pieces):
        if piece is BREAK:
            chunks.append(chunk)
            chunk, last_comma = [], None
            continue
        for token in tokens_of(tokenizer, piece[0]):
            if len(chunk) == 75:
                rest = []
                if token != comma and last_comma is not None and 75 - last_comma <= 20:
                    chunk, rest = chunk[: last_comma + 1], chunk[last_comma + 1 :]
                chunks.append(chunk)
                chunk, last_comma = rest, None
            if token == comma:
                last_comma = len(chunk)
            chunk.append((token, piece[1]))
    if chunk or not chunks:
        chunks.append(chunk)
    return chunks


def states_of(pipe, pieces, clip_skip, at_least=1):
    tokenizer, text = pipe.tokenizer, pipe.text_encoder
    chunks = chunks_of(tokenizer, pieces)
    chunks += [[]] * (at_least - len(chunks))
    states = []
    for chunk in chunks:
        padding = [tokenizer.pad_token_id] * (75 - len(chunk))
        ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id, *padding]
        weights = torch.ones(77)
        weights[1 : 1 + len(chunk)] = torch.tensor([float(weight) for _, weight in chunk])
        out = text(torch.tensor([ids]), output_hidden_states=True)
        z = getattr(text, "text_model", text).final_layer_norm(out.hidden_states[-clip_skip])
        if not torch.all(weights == 1):
            mean = z.mean()
            z = z * weights[None, :, None]
            z = z * (mean / z.mean())
        states.append(z)
    return torch.cat(states, 1)


def tiny():
    pipe = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
        MODELS / "tiny", torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.text_encoder.float(), pipe.unet.float(), pipe.vae.float()
    pipe.set_progress_bar_config(disable=True)
    if not hasattr(pipe.text_encoder, "text_model"):
        # transformers 5 took this level out of the class, but diffusers still looks for it when clip_skip is given.
        type(pipe.text_encoder).text_model = property(lambda self: self)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def run(pipe, seed, **prompts):
    """A picture, and the arguments that made it."""
    image = picture((64, 64), seed)
    about = {"steps": 6, "strength": 0.7, "guidance_scale": 5.0, "seed": seed}
    result = pipe(
        image=image,
        num_inference_steps=about["steps"],
        strength=about["strength"],
        guidance_scale=about["guidance_scale"],
        generator=torch.Generator().manual_seed(seed),
        **prompts,
    )
    pixels = {
        "input.u8": torch.from_numpy(numpy.asarray(image).copy()),
        "output.u8": torch.from_numpy(numpy.asarray(result.images[0]).copy()),
    }
    return pixels, {"model": "tiny", "scheduler": "DDIMScheduler", **about}


def weights():
    pipe = tiny()
    tensors = {name: states_of(pipe, pieces, skip) for name, (_, pieces, skip) in CASES.items()}
    cases = {name: {"prompt": prompt, "clip_skip": skip} for name, (prompt, _, skip) in CASES.items()}
    save_golden("prompts/states.safetensors", tensors, SCRIPT, cases=cases)

    prompt, pieces, skip = CASES["long"]
    negative, negative_pieces, _ = CASES["weighted"]
    cond = states_of(pipe, pieces, skip)
    uncond = states_of(pipe, negative_pieces, 1, at_least=cond.shape[1] // 77)
    pixels, about = run(pipe, 31, prompt_embeds=cond, negative_prompt_embeds=uncond)
    about = {**about, "prompt": prompt, "negative_prompt": negative, "clip_skip": skip}
    save_golden("prompts/picture.safetensors", {**pixels, "cond": cond, "uncond": uncond}, SCRIPT, **about)


def inversion():
    """Two embeddings, of one and of three vectors, in the prompt and in the negative one."""
    pipe = tiny()
    generator = torch.Generator().manual_seed(40)
    one, three = (0.5 * torch.randn(count, WIDTH, generator=generator) for count in (1, 3))
    pipe.load_textual_inversion({"<one>": one[0]})
    pipe.load_textual_inversion({"string_to_param": {"*": three}, "name": "badthree"}, token="badthree")
    prompt, negative = "a cat, <one>, on a <one>", "badthree, blurry"
    cond, uncond = pipe.encode_prompt(
        prompt, "cpu", 1, True, negative, clip_skip=None
    )
    tensors = {"one": one, "three": three, "cond": cond, "uncond": uncond}
    # A weight on an embedding multiplies the states of each of its vectors.
    spelled = pipe.maybe_convert_prompt("badthree", pipe.tokenizer)
    tensors["weighted"] = states_of(pipe, [("a ", 1), (spelled, 1.4), (" cat", 1)], 1)
    pixels, about = run(pipe, 32, prompt=prompt, negative_prompt=negative)
    about = {**about, "prompt": prompt, "negative_prompt": negative, "clip_skip": 1, "weighted": "a (BadThree:1.4) cat"}
    save_golden("prompts/inversion.safetensors", {**tensors, **pixels}, SCRIPT, **about)


def main():
    quiet_and_repeatable()
    weights()
    inversion()


if __name__ == "__main__":
    main()

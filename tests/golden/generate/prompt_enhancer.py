"""A tiny GPT-2 as a prompt enhancer: its tokenizer, its logits, and what greedy choice among listed words makes of prompts.

`prompt_enhancer/model/` is a folder as a repository has it, with a byte-level vocabulary trained on the words below.
`prompt_enhancer/cases` holds for each prompt its ids and the logits at every place, by transformers' `GPT2LMHeadModel`, and the ids
that are chosen by the rule of `crates/pipeline/src/word_model.rs`, written here a second time: at each place the most likely id
among those that are a listed word with the space before it, and that neither the prompt nor the chosen ones have as a word, and the
comma. No comma comes first or behind a comma, and nothing but a comma behind three words; at most 12 ids are chosen.
"""
import json
import re

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from golden_file import GOLDEN, quiet_and_repeatable, save_golden

LISTED = ["sharp", "focus", "cinematic", "lighting", "intricate", "detailed", "soft", "golden"]
CORPUS = ["a photo of a red house, sharp focus, cinematic lighting", "intricate, highly detailed, soft golden light, women playing tennis",
          "an oil painting of a dog, golden hour, soft lighting, detailed", "sharp intricate cinematic focus, it's 3 o'clock"]
PROMPTS = ["a photo of a red house", "women playing tennis, it's 12 o'clock!", "a", "Haus am See, \u00fc\u2603 \U0001f600  two  spaces ", "Soft, GOLDEN,detailed!"]
MOST = 12


def main():
    quiet_and_repeatable()
    folder = GOLDEN / "prompt_enhancer/model"
    folder.mkdir(parents=True, exist_ok=True)
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=420, min_frequency=1, special_tokens=["<|endoftext|>"], show_progress=False)
    trained.save_model(str(folder))
    tokenizer = GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    size = len(tokenizer)
    config = GPT2Config(vocab_size=size, n_positions=96, n_embd=32, n_layer=3, n_head=4, bos_token_id=end, eos_token_id=end)
    torch.manual_seed(18)
    generator = torch.Generator().manual_seed(18)
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.3
        parameter.data = noise + 1 if "ln_" in name and name.endswith("weight") else noise
    model.tie_weights()
    model.save_pretrained(folder, safe_serialization=True)
    for extra in folder.glob("generation_config.json"):
        extra.unlink()
    about = json.loads((folder / "config.json").read_text())
    print(size, "tokens,", about["activation_function"])
    vocabulary = tokenizer.get_vocab()
    comma = vocabulary[","]
    listed = {vocabulary["\u0120" + word]: word for word in LISTED if "\u0120" + word in vocabulary}
    print(len(listed), "listed ids")
    tensors = {}
    with torch.no_grad():
        for index, prompt in enumerate(PROMPTS):
            ids = tokenizer(prompt)["input_ids"]
            chosen = []
            while len(chosen) < MOST:
                logits = model(torch.tensor([ids + chosen])).logits[0]
                if not chosen:
                    tensors[f"logits.{index}"] = logits
                last = logits[-1].clone()
                said = set(re.findall(r"\w+", prompt.lower()))
                words = {id for id, word in listed.items() if id not in chosen and word not in said}
                if not words:
                    break
                allowed = words | ({comma} if chosen and chosen[-1] != comma else set())
                if len(chosen) >= 3 and comma not in chosen[-3:]:
                    allowed = {comma}
                best = max(sorted(allowed), key=lambda id: last[id].item())
                chosen.append(best)
            print(repr(tokenizer.decode(chosen)))
            tensors[f"ids.{index}"] = torch.tensor(ids, dtype=torch.int64)
            tensors[f"chosen.{index}"] = torch.tensor(chosen, dtype=torch.int64)
    save_golden("prompt_enhancer/cases.safetensors", tensors, "prompt_enhancer.py", prompts=PROMPTS, listed=LISTED)


main()

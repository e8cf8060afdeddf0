"""CLIP's byte pair tokenizer as training needs it, and the compact table of the tokens that captions use."""
import gzip
import html
import re
from pathlib import Path

import torch

CONTEXT = 77
START, END, VOCABULARY = 49406, 49407, 49408


class Clip:
    """OpenAI's CLIP byte-pair encoding; the ids are those of the real SD 1.x tokenizer."""
    PATTERN = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-zA-Z]+|[0-9]|[^\sa-zA-Z0-9]+", re.I)

    def __init__(self, bpe):
        codes = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
        chars, n = codes[:], 0
        for b in range(256):
            if b not in codes:
                codes.append(b)
                chars.append(256 + n)
                n += 1
        self.letters = {b: chr(c) for b, c in zip(codes, chars)}
        text = (gzip.open(bpe).read() if str(bpe).endswith(".gz") else Path(bpe).read_bytes()).decode()
        self.merges = [tuple(m.split()) for m in text.split("\n")[1:49152 - 256 - 2 + 1]]
        vocab = list(self.letters.values())
        vocab += [v + "</w>" for v in vocab] + ["".join(m) for m in self.merges] + ["<|startoftext|>", "<|endoftext|>"]
        self.ids = {v: i for i, v in enumerate(vocab)}
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.cache = {}

    def word(self, w):
        """The ids of one word."""
        if w not in self.cache:
            t = [self.letters[b] for b in w.encode()]
            t[-1] += "</w>"
            while len(t) > 1:
                k = min(range(len(t) - 1), key=lambda i: self.rank.get((t[i], t[i + 1]), 1 << 30))
                if (t[k], t[k + 1]) not in self.rank:
                    break
                t[k:k + 2] = [t[k] + t[k + 1]]
            self.cache[w] = [self.ids[x] for x in t]
        return self.cache[w]

    def __call__(self, text):
        words = self.PATTERN.findall(" ".join(html.unescape(text).lower().split()))
        ids = [START] + [i for w in words for i in self.word(w)][:CONTEXT - 2] + [END]
        return ids + [END] * (CONTEXT - len(ids))


class Compact:
    """Only the ids that captions use get a trained row; row 0 stands for every other word, so unknown words are
    neutral and the exported table, nearly all of it equal rows, compresses well."""

    def __init__(self, clip, ids):
        self.clip, self.used = clip, sorted(set(ids) - {START, END}) + [START, END]
        self.rows = {i: k + 1 for k, i in enumerate(self.used)}
        self.size = len(self.used) + 1

    def __call__(self, texts):
        return torch.tensor([[self.rows.get(i, 0) for i in self.clip(t)] for t in texts])

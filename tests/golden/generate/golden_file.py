"""Writes golden files: safetensors whose metadata says what made them.

A golden file holds full tensors, never sums or means, and carries under `about` a JSON text with the script, the
versions of the reference and the arguments, so that a difference can be traced years later.
"""
import importlib.metadata
import json
import pathlib

import torch
from safetensors.torch import save_file

GOLDEN = pathlib.Path(__file__).resolve().parent.parent
MODELS = GOLDEN / "models"


def quiet_and_repeatable():
    """One thread and deterministic kernels, so that the same script writes the same bytes on the same machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)


def versions():
    return {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers", "tokenizers")}


def save_golden(name, tensors, script, root=GOLDEN, **about):
    """Writes `<root>/<name>`; `tensors` maps names to CPU tensors."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"script": script, "versions": versions(), **about}, sort_keys=True)
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path, metadata={"about": text})
    print(f"{path.relative_to(root)}: {len(tensors)} tensors, {path.stat().st_size} bytes")

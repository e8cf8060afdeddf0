#!/usr/bin/env python3
"""Token merging by the package `tomesd` without its random choice: tokens alone, and a whole tiny UNet.

    python merging.py
"""
import importlib.metadata

import tomesd
import torch
from diffusers import UNet2DConditionModel
from tomesd.merge import bipartite_soft_matching_random2d

from components import gaussian
from golden_file import MODELS, quiet_and_repeatable, save_golden

SCRIPT = "merging.py"
# Lines, columns, width, tokens to merge: whole and cut cells, everything that can go, and a picture of two blocks.
TOKENS = ((8, 8, 32, 32), (9, 7, 20, 31), (5, 12, 7, 30), (6, 6, 16, 27), (34, 36, 24, 612))
SIZES = ((8, 8), (9, 7), (12, 5), (16, 24))
# No choice in a golden file may hang on rounding.
CLEAR = 2e-6


def smooth(seed, rows, h, w, width):
    """Neighbours that are alike, as in a picture."""
    coarse = gaussian(seed, rows, width, h // 3 + 2, w // 3 + 2)
    fine = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bicubic")
    return (fine + 0.3 * gaussian(seed + 1, rows, width, h, w)).flatten(2).transpose(1, 2).contiguous()


def is_destination(h, w):
    lines, columns = h // 2 * 2, w // 2 * 2
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return ((y < lines) & (x < columns) & (y % 2 == 0) & (x % 2 == 0)).flatten()


def margin(metric, h, w, merged):
    """How far the closest choice is from going the other way."""
    metric = metric / metric.norm(dim=-1, keepdim=True)
    stays = is_destination(h, w)
    scores = metric[:, ~stays] @ metric[:, stays].transpose(-1, -2)
    two = scores.topk(2).values
    best = two[..., 0].sort(descending=True).values
    edge = best[:, merged - 1] - best[:, merged] if merged < best.shape[1] else torch.ones(())
    return min((two[..., 0] - two[..., 1]).min().item(), edge.min().item())


def in_picture_order(unmerge, h, w, rows, kept):
    """For each token its place when kept tokens stay in the picture's order, and the package's place of each of those."""
    theirs = unmerge(torch.arange(kept, dtype=torch.float32).expand(rows, kept)[..., None]).long()[..., 0]
    places, orders = torch.empty_like(theirs), []
    stays = is_destination(h, w)
    for row in range(rows):
        alone = torch.bincount(theirs[row], minlength=kept)[theirs[row]] == 1
        # A place's own token is its destination, or its only one.
        own = stays | alone
        order = theirs[row][own]
        assert len(order) == kept and len(set(order.tolist())) == kept
        places[row] = torch.empty(kept, dtype=torch.long).scatter_(0, order, torch.arange(kept))[theirs[row]]
        orders.append(order)
    return places, torch.stack(orders)


def tokens():
    tensors = {}
    for h, w, width, merged in TOKENS:
        name = f"{h}x{w}"
        seed = 1000 * h + w
        while margin(x := smooth(seed, 2, h, w, width), h, w, merged) < CLEAR:
            seed += 2
        merge, unmerge = bipartite_soft_matching_random2d(x, w, h, 2, 2, merged, no_rand=True)
        kept = h * w - merged
        places, order = in_picture_order(unmerge, h, w, 2, kept)
        theirs = merge(x)
        tensors[f"{name}.x"] = x
        tensors[f"{name}.places"] = places
        tensors[f"{name}.merged"] = theirs.gather(1, order[..., None].expand(-1, -1, width))
        tensors[f"{name}.unmerged"] = unmerge(theirs)
    return tensors


def unet():
    model = UNet2DConditionModel.from_pretrained(MODELS / "tiny" / "unet").float().eval()
    tomesd.apply_patch(model, ratio=0.5, max_downsample=1, sx=2, sy=2, use_rand=False)
    margins = []

    def watch(block, args, kwargs):
        h, w = block._tome_info["size"]
        x = args[0] if args else kwargs["hidden_states"]
        if x.shape[1] == h * w:
            margins.append(margin(x, h, w, h * w // 2))

    for module in model.modules():
        if type(module).__name__ == "ToMeBlock":
            module.register_forward_pre_hook(watch, with_kwargs=True)
    tensors = {"steps": torch.tensor([999.0, 250.5, 1.0]), "context": gaussian(1, 3, 77, 32)}
    for h, w in SIZES:
        seed = 100 * h + w
        while True:
            margins.clear()
            sample = gaussian(seed, 3, 4, h, w)
            out = model(sample, tensors["steps"], tensors["context"], return_dict=False)[0]
            if min(margins) >= CLEAR:
                break
            seed += 1000
        assert len(margins) == 3
        tensors[f"{h}x{w}.sample"] = sample
        tensors[f"{h}x{w}.out"] = out
    return tensors


def main():
    quiet_and_repeatable()
    about = {"tomesd": importlib.metadata.version("tomesd"), "ratio": 0.5, "use_rand": False}
    save_golden("merging/tokens.safetensors", tokens(), SCRIPT, **about, merged=[m for *_, m in TOKENS])
    save_golden("merging/unet-tiny.safetensors", unet(), SCRIPT, **about)


if __name__ == "__main__":
    main()

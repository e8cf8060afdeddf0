"""Stage 3: renders pairs of pictures and keeps their latents with captions and attributes, in files.

It may go on in the background while the UNet trains: the trainer picks up new files.
`--world 2 --rank 0` and `--rank 1` share the files between two processes.
"""
import numpy as np
import torch

from compose import ATTRS, World
from models import make_vae
from stage import SCALING, Budget, arguments, autocast, log, save, to_tensor

JUDGED = ("object", "hue", "terrain", "bg", "texture", "time", "style", "look")  # what evaluate.py's judge learns to see


def classes(a):
    """The judged attributes as class numbers; 0 stands for none."""
    return [ATTRS[k].index(a[k]) if a.get(k) in ATTRS[k] else 0 for k in JUDGED]


def main():
    a = arguments(__doc__, size=(int, 128, "pixels"), files=(int, 40, "files in all"), pairs=(int, 1024, "pairs in a file"),
                  rank=(int, 0, "of this process"), world=(int, 1, "processes"))
    vae = make_vae().eval()
    vae.load_state_dict(torch.load(a.run / "vae_white.pt"))
    world = World(a.run, a.packages, a.photos, without=("coffee",))
    folder = a.run / "latents"
    folder.mkdir(exist_ok=True)
    budget = Budget(a.minutes)
    for n in range(a.rank, a.files, a.world):
        path = folder / f"{a.size}-{n:03}.pt"
        if path.exists():
            continue
        rng = np.random.default_rng([a.size, n])
        first, second, captions, seen = [], [], [], []
        for _ in range(a.pairs // 16):
            pairs = [world.pair(rng, a.size) for _ in range(16)]
            with torch.no_grad(), autocast(a):
                z = [(vae.encode(to_tensor([p[k] for p in pairs])).latent_dist.mean.float() * SCALING).half().contiguous() for k in (0, 1)]
            first.append(z[0])
            second.append(z[1])
            captions += [p[4] for p in pairs]
            seen += [(classes(p[2]), classes(p[3])) for p in pairs]
            if budget.over():
                return
        save(dict(first=torch.cat(first), second=torch.cat(second), captions=captions, classes=torch.tensor(seen, dtype=torch.uint8)), path)
        log(a.run, "latents", file=path.name, std=float(torch.cat(second).float().std()), minutes=budget.spent / 60)


if __name__ == "__main__":
    main()

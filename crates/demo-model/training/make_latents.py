"""Stage 3: renders pairs of pictures and keeps their latents with the caption of the second, in files of 1,024 pairs.

It may go on in the background while the UNet trains: the trainer picks up new files.
"""
import numpy as np
import torch

import photos
import scenes
from stage import SCALING, Budget, arguments, log, save, to_tensor
from models import make_vae


def main():
    a = arguments(__doc__, size=(int, 128, "pixels"), files=(int, 8, "files in all"), photos=(str, None, "folder of photographs"),
                  photo_share=(float, .25, "share of photo-like pairs"))
    vae = make_vae().eval().to(memory_format=torch.channels_last)
    vae.load_state_dict(torch.load(a.run / "vae_white.pt"))
    photographs = photos.load(a.photos)
    folder = a.run / "latents"
    folder.mkdir(exist_ok=True)
    budget = Budget(a.minutes)
    for n in range(a.files):
        path = folder / f"{a.size}-{n:03}.pt"
        if path.exists():
            continue
        rng = np.random.default_rng([a.size, n])
        first, second, captions = [], [], []
        for _ in range(32):
            pairs = [photos.pair(rng, photographs, a.size) if rng.random() < a.photo_share else scenes.pair(rng, a.size)
                     for _ in range(32)]
            with torch.no_grad():
                z = torch.cat([vae.encode(to_tensor([p[k] for p in pairs[h:h + 16]])).latent_dist.mean * SCALING
                               for k in (0, 1) for h in (0, 16)]).half()
            first.append(z[:32])
            second.append(z[32:])
            captions += [p[2] for p in pairs]
            if budget.over():
                return
        save(dict(first=torch.cat(first), second=torch.cat(second), captions=captions), path)
        log(a.run, "latents", file=path.name, std=float(torch.cat(second).float().std()), minutes=budget.spent / 60)


if __name__ == "__main__":
    main()

"""Photo-like pictures: crops of public-domain photographs given in a folder, dead leaves and 1/f noise.

The scenes alone would teach the auto-encoder only flat drawings; these keep a user's own photograph recognisable.
"""
from pathlib import Path

import numpy as np
from PIL import Image

import scenes


def load(folder):
    """Every photograph of a folder as an RGB picture, none when there is no folder."""
    return [picture for _, picture in named(folder)]


def named(folder):
    """Pairs of the name and the RGB picture of every photograph of a folder, none when there is no folder."""
    if folder is None:
        return []
    return [(p.stem, Image.open(p).convert("RGB")) for p in sorted(Path(folder).iterdir()) if p.suffix in (".png", ".jpg")]


def crop(rng, photo, size):
    """A random square crop of a photograph, covering 35 to 100 % of its short side, scaled to `size` and jittered."""
    short = min(photo.size)
    side = int(short * rng.uniform(.35, 1.))
    x, y = rng.integers(0, photo.width - side + 1), rng.integers(0, photo.height - side + 1)
    a = np.asarray(photo.resize((size, size), Image.LANCZOS, box=(x, y, x + side, y + side)), np.float32)
    if rng.random() < .5:
        a = a[:, ::-1]
    if rng.random() < .7:  # colour jitter: channel gains, gamma, saturation
        a = 255 * (a / 255) ** rng.uniform(.7, 1.4) * rng.uniform(.8, 1.1, 3)
        grey = a.mean(-1, keepdims=True)
        a = grey + (a - grey) * rng.uniform(.4, 1.6)
    return np.clip(a, 0, 255).astype(np.uint8)


def leaves(rng, size, count=90):
    """Dead leaves: discs of random colour and power-law size hiding each other, which have natural edge statistics."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    base = rng.uniform(0, 255, 3)
    a = np.full((size, size, 3), base, np.float32)
    for _ in range(count):
        r = .03 / (rng.random() ** .5 + .06)
        d = np.hypot(x - rng.random(), (y - rng.random()) * rng.uniform(.6, 1.6)) - r
        m = np.clip(.5 - d * size, 0, 1)[..., None]
        tone = np.clip(base + rng.normal(0, 70, 3), 0, 255) if rng.random() < .6 else rng.uniform(0, 255, 3)
        a += m * (tone + rng.normal(0, 40) * (x[..., None] - .5) - a)
    return np.clip(a + rng.normal(0, 4, a.shape), 0, 255).astype(np.uint8)


def pink(rng, size):
    """1/f noise in correlated colours."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]) + 1 / size
    n = np.stack([np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) / f ** rng.uniform(.9, 1.4)).real for _ in range(3)], -1)
    n = n / n.std((0, 1)) @ (np.eye(3) * .5 + .5) / 1.2
    return np.clip(rng.uniform(60, 190, 3) + n * rng.uniform(20, 55), 0, 255).astype(np.uint8)


def sample(rng, photos, size):
    """One photo-like picture; mostly crops of photographs when there are any."""
    u = rng.random()
    if photos and u < .7:
        return crop(rng, photos[rng.integers(len(photos))], size)
    return leaves(rng, size) if u < .9 else pink(rng, size)


def edited_attrs(rng):
    """What a caption may ask of a photograph: a time of day, snow, a style, a tint or a terrain's palette."""
    b = dict.fromkeys(scenes.ATTRS)
    b.update(kind="photo", style="", snow=0)
    keys = scenes.pick(rng, [["time"], ["time"], ["time"], ["snow"], ["time", "snow"], ["style"], ["style"], ["tint"], ["tint"],
                             ["tint"], ["terrain", "time"], ["terrain", "time"], ["time", "style"], ["terrain"]])
    if "time" in keys:
        b["time"] = scenes.pick(rng, list(scenes.TIMES), [.2, .4, .4])
    if "snow" in keys:
        b["snow"] = 1
    if "style" in keys:
        b["style"] = scenes.pick(rng, [s for s in scenes.STYLES if s])
    if "tint" in keys:
        b["tint"] = scenes.pick(rng, scenes.CN)
    if "terrain" in keys:
        b["terrain"] = scenes.pick(rng, list(scenes.TERRAINS))
    return b, keys


GROUND = {"mountains": (112, 108, 122), "hills": (95, 150, 65), "sea": (35, 105, 170), "desert": (228, 185, 115),
          "forest": (30, 88, 55), "city": (95, 95, 105)}


def edit(seed, picture, b):
    """The photograph as the attributes ask: relit, snowed on, tinted, recoloured or stylised."""
    rng = scenes.stream(seed, 9)
    a = picture.astype(np.float32)
    n = a.shape[0]
    y = (np.arange(n, dtype=np.float32) / n)[:, None, None]
    grey = (a @ np.array((.3, .59, .11), np.float32))[..., None]
    time = b["time"] or "day"
    light = np.array(scenes.LIGHT[time], np.float32)
    top, low = (np.array(v, np.float32) for v in scenes.SKY[time])
    sky = top + (low - top) * np.clip(y / .55, 0, 1)
    if b["terrain"]:
        flat = sky + (np.array(GROUND[b["terrain"]], np.float32) * light - sky) * np.clip((y - .5) * 12, 0, 1)
        detail = (grey - grey.mean()) / (grey.std() + 12)
        a = flat * np.clip(1 + .38 * detail, .25, 1.7) + 8 * detail
    elif b["tint"]:
        c = np.array(scenes.COLORS[b["tint"]][0], np.float32)
        v = grey / 255
        a = c * np.clip(.25 + 1.1 * v, 0, 1.25) + 215 * np.clip(v - .72, 0, 1) if b["tint"] != "white" else 150 + .42 * grey + 0 * a
        a = .88 * a + .12 * picture
    elif b["time"]:
        bright = np.clip((grey - 110) / 90, 0, 1) * np.clip(1.25 - 1.1 * y, .25, 1)
        warm = {"day": .0, "night": .45, "sunset": .6}[time]
        a = a * light * (1.12 if time == "day" else 1) + (14 if time == "day" else 0)
        a = a + bright * warm * (sky * (.7 + .3 * grey / 255) - a)
        if time == "sunset":
            a = a * np.array((1.12, .92, .85), np.float32)
    if b["snow"]:
        noise = scenes.value_noise(rng, n, 4, 5)[..., None]
        lie = np.clip((noise + .55 * y + .45 * grey / 255 - .78) * 4, 0, 1)
        cold = (.45 * a + .55 * a.mean(-1, keepdims=True)) * np.array((.97, 1., 1.06), np.float32)
        a = cold + (.22 + .6 * lie) * (np.array((238, 243, 250), np.float32) * (.35 + .65 * light) - cold)
    return np.clip(scenes.stylize(rng, a.astype(np.float32), b["style"]), 0, 255).astype(np.uint8)


def pair(rng, photos, size):
    """(photo-like picture, the same as a caption asks, that caption)."""
    p = sample(rng, photos, size)
    b, keys = edited_attrs(rng)
    return p, edit(int(rng.integers(1 << 40)), p, b), scenes.describe(rng, b, keys if rng.random() < .5 else None)

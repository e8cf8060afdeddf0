"""The objects that the model can name: their words, their pictures from two emoji packages, and recolouring.

Pictures come from the folders of unpacked npm packages and are never committed: `@lobehub/fluent-emoji-3d` (rendered,
WebP with transparency) and `@iconify-json/fluent-emoji-flat` (the same objects drawn flat, SVG).
The words are written out here instead of taken from a list of emoji, so that every synonym is one that people type.
"""
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from scenes import COLORS

SIDE = 160                      # pixels at which an object is kept
LOOKS = ["", "flat"]            # rendered, or drawn flat
LOOK_WORDS = {"flat": ["flat icon", "flat illustration", "vector art", "clip art"]}
HOMES = {"g": "ground", "a": "air", "w": "water", "t": "table"}

# code point, home (g ground, a air, w water, t table), name, synonyms
TABLE = """
1f436 g dog, puppy, dog face
1f431 g cat, kitten, cat face
1f43b g bear, brown bear
1f43c g panda, panda bear
1f981 g lion
1f437 g pig, piglet
1f438 g frog, toad
1f430 g rabbit, bunny, hare
1f427 g penguin
1f986 w duck
1f989 g owl
1f40e g horse, pony
1f418 g elephant
1f422 g turtle, tortoise
1f433 w whale
1f420 w fish, tropical fish
1f419 w octopus
1f98b a butterfly
1f980 g crab
1f995 g dinosaur, sauropod
1f339 g rose
1f33b g sunflower
1f337 g tulip, flower
1f335 g cactus
1f332 g fir tree, pine, evergreen
1f344 g mushroom, toadstool
1f34e t apple
1f34c t banana
1f353 t strawberry
1f383 g pumpkin, jack o lantern, halloween pumpkin
1f355 t pizza, slice of pizza
1f366 t ice cream
1f369 t doughnut, donut
1f382 t cake, birthday cake
2615 t cup of coffee, coffee, coffee cup, cup, cup of tea
1fad6 t teapot
1f697 g car, automobile
1f68c g bus
1f69c g tractor
1f6b2 g bicycle, bike
1f3cd g motorcycle, motorbike
1f682 g train, locomotive, steam train
2708 a airplane, plane, aeroplane
1f680 a rocket, spaceship
26f5 w sailboat, sailing boat
1f3e0 g house, home
1f3f0 g castle
26fa g tent
1f3b8 g guitar
26bd g soccer ball, football
1f388 a balloon
1f381 t gift, present
2602 g umbrella
1f511 t key
1f4d5 t book
1f451 t crown
1f56f t candle
1f9f8 g teddy bear, teddy
1f916 g robot
26c4 g snowman
1f392 g backpack, bag
"""


def _table():
    for line in TABLE.strip().splitlines():
        code, home, words = line.split(" ", 2)
        words = [w.strip() for w in words.split(",")]
        yield words[0], (code, HOMES[home], words)


OBJECTS = dict(_table())        # name -> (code point, home, words, the name first)
NAMES = list(OBJECTS)


def _square(picture):
    """The picture cropped to what is visible, centred in a square of SIDE pixels, premultiplied float RGBA in 0..1."""
    picture = picture.convert("RGBA").crop(picture.getchannel("A").getbbox())
    n = max(picture.size)
    whole = Image.new("RGBA", (n, n))
    whole.paste(picture, ((n - picture.width) // 2, n - picture.height))  # it stands on the lower edge
    a = np.asarray(whole, np.float32) / 255
    a[..., :3] *= a[..., 3:]
    layers = [np.asarray(Image.fromarray(a[..., k]).resize((SIDE, SIDE), Image.BOX if n > SIDE else Image.BICUBIC)) for k in range(4)]
    return np.clip(np.stack(layers, -1), 0, 1)


def _flat(icons, names, code):
    """The flat drawing of a code point, rasterised."""
    import resvg_py
    icon = icons["icons"][names.get(code) or names[code + "-fe0f"]]
    w, h = icon.get("width", icons.get("width", 32)), icon.get("height", icons.get("height", 32))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="256" height="256">{icon["body"]}</svg>'
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def build(packages, cache):
    """Reads the packages below `packages` and keeps the small pictures of all objects in the file `cache`."""
    solid = next(Path(packages).glob("*fluent-emoji-3d*")) / "assets"
    flat = next(Path(packages).glob("*fluent-emoji-flat*"))
    icons, names = (json.loads((flat / n).read_text()) for n in ("icons.json", "chars.json"))
    pictures = []
    for name, (code, _, _) in OBJECTS.items():
        file = next(p for p in (solid / f"{code}.webp", solid / f"{code}-fe0f.webp") if p.exists())
        pictures.append([_square(Image.open(file).convert("RGBA")), _square(_flat(icons, names, code))])
    np.savez_compressed(cache, pictures=(np.array(pictures) * 255).round().astype(np.uint8), names=NAMES)


class Library:
    """The pictures of all objects, with the part of each that a colour word may change."""

    def __init__(self, packages, cache):
        if not Path(cache).exists():
            build(packages, cache)
        d = np.load(cache)
        if list(d["names"]) != NAMES:
            raise SystemExit(f"{cache} is of another vocabulary; delete it")
        self.pictures = d["pictures"].astype(np.float32) / 255
        self.parts = [[part(p) for p in looks] for looks in self.pictures]
        cover = [looks[0][2] for looks in self.parts]
        self.paintable = [n for n, c in zip(NAMES, cover) if c > .38]

    def get(self, name, look="", hue=None, rng=None):
        """The object's premultiplied RGBA in 0..1, painted in the colour `hue` when one is asked for."""
        k, j = NAMES.index(name), LOOKS.index(look)
        p = self.pictures[k, j]
        if hue is None or name not in self.paintable:
            return p
        weight, shade = self.parts[k][j][:2]
        tone = np.array(COLORS[hue][0], np.float32) + (0 if rng is None else rng.normal(0, 10, 3))
        tone = np.clip(tone / 255, 0, 1).astype(np.float32)
        light = np.clip(shade - 1, 0, 1)[..., None] * .7
        painted = (tone * np.clip(shade, 0, 1)[..., None] * (1 - light) + light) * p[..., 3:]
        q = p.copy()
        q[..., :3] += weight[..., None] * (painted - p[..., :3])
        return q


def part(p):
    """(weight, shade, share) of the pixels that have an object's main hue, or of its pale pixels when it has hardly any hue."""
    alpha = p[..., 3]
    rgb = p[..., :3] / np.maximum(alpha, 1e-3)[..., None]
    top, low = rgb.max(-1), rgb.min(-1)
    chroma = top - low
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    angle = np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b)
    mass = chroma * alpha
    bins = np.histogram(angle, 36, (-np.pi, np.pi), weights=mass)[0]
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    centre = (smooth.argmax() + .5) / 36 * 2 * np.pi - np.pi
    away = np.abs((angle - centre + np.pi) % (2 * np.pi) - np.pi)
    weight = np.clip((np.radians(48) - away) / np.radians(18), 0, 1) * np.clip((chroma - .12) / .15, 0, 1) * np.clip(alpha * 2, 0, 1)
    pale = np.clip((.22 - chroma) / .1, 0, 1) * np.clip((top - .3) / .2, 0, 1) * np.clip(alpha * 2, 0, 1)
    if (weight * alpha).sum() <= .38 * alpha.sum() < (pale * alpha).sum():
        weight = pale
    inside = weight > .5
    if inside.sum() < 20:
        return weight, top, 0.
    grey = .5 * top + .5 * rgb.mean(-1)
    return weight.astype(np.float32), (grey / np.percentile(grey[inside], 60)).astype(np.float32), float((weight * alpha).sum() / alpha.sum())

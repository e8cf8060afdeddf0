"""Objects composed over drawn scenes, plain and textured backgrounds and photographs, with captions and attributes.

A picture is a dictionary of attributes (see `ATTRS`) and a seed.
As in scenes.py every part has its own random stream, so the same seed with other attributes is the same layout with
another object, colour, time of day, season, background or style: what image-to-image is learnt from.
"""
import numpy as np
from PIL import Image

import photos
import scenes
from objects import Library, LOOK_WORDS, LOOKS, NAMES, OBJECTS
from prompts import held_out
from scenes import CN, article, pick, stream, word

TEXTURES = {"grass": ["on grass", "on the lawn"], "brick": ["in front of a brick wall", "on a brick wall"],
            "gravel": ["on gravel", "on stones"], "table": ["on a wooden table", "on a table"]}
BESIDE = {"mountains": ["in the mountains", "in front of mountains", "with mountains"],
          "hills": ["on green hills", "in a meadow", "in the fields", "in the countryside"],
          "sea": ["by the sea", "at the sea", "on a lake", "at the ocean"],
          "desert": ["in a desert", "in the desert", "on sand"],
          "forest": ["in a forest", "in the forest", "in the woods"],
          "city": ["in a city", "in the city", "in front of a city skyline", "in a town"]}
ATTRS = {**scenes.ATTRS, "kind": ["shapes", "land", "photo", "object"], "object": [None, *NAMES], "hue": [None, *CN],
         "object2": [None, *NAMES], "look": [None, *LOOKS], "texture": [None, *TEXTURES]}
WIDTHS = {"small": .38, "": .58, "large": .78}
SIDES = {"left": .3, "right": .7, "": .5}
MEDIA = ("pencil sketch", "sketch", "pencil drawing", "black and white drawing", "watercolor", "watercolor painting", "painting", "mosaic",
         "tile mosaic", "neon sign")  # styles that a picture can be "a ... of"
SYNONYM = .45  # share of captions that use another word than an object's first


def object_attrs(rng, library):
    """Attributes of a random composition that is not held out for evaluation."""
    while True:
        a = dict.fromkeys(ATTRS)
        a.update(kind="object", size="", place="", pattern="", snow=0, look="")
        a["style"] = pick(rng, list(scenes.STYLES), [.86, .03, .03, .025, .03, .025])
        a["object"] = pick(rng, NAMES)
        a["look"] = pick(rng, LOOKS, [.85, .15])
        if rng.random() < .45 and a["object"] in library.paintable:
            a["hue"] = pick(rng, CN)
        backdrop(rng, a)
        if rng.random() < .04:
            a["object2"] = pick(rng, [n for n in NAMES if n != a["object"]])
        else:
            a["size"] = pick(rng, list(WIDTHS), [.15, .5, .35])
            a["place"] = pick(rng, list(SIDES), [.13, .13, .74])
        if a["size"] == "large":
            a["place"] = ""
        if not held_out(a):
            return a


def backdrop(rng, a):
    """Gives the attributes another background: a landscape, a colour, a texture."""
    a.update(bg=None, pattern="", terrain=None, time=None, snow=0, texture=None)
    u = rng.random()
    if u < .5:
        a["terrain"] = pick(rng, list(scenes.TERRAINS))
        a["time"] = pick(rng, list(scenes.TIMES), [.5, .27, .23])
        a["snow"] = int(a["terrain"] in scenes.SNOWABLE and rng.random() < .25)
    elif u < .86:
        a["bg"] = pick(rng, [c for c in CN if c != a["hue"]])
        a["pattern"] = pick(rng, scenes.PATTERNS, [.7, .06, .06, .06, .12])
    else:
        a["texture"] = pick(rng, list(TEXTURES))


def draw_texture(seed, c, a, textures):
    """A photographed surface, or a table of planks before a wall."""
    rng = stream(seed, 0)
    if a["texture"] != "table" and a["texture"] in textures:
        c.img[:] = photos.crop(rng, textures[a["texture"]], c.n)
        return
    c.paint(np.ones_like(c.x), rng.uniform(150, 240, 3))
    top = rng.uniform(.5, .62)
    grain = scenes.value_noise(rng, c.n, 4, 3)
    rings = .5 + .5 * np.sin((c.y * 3 + grain * 1.6 + c.x * .3) * 30)
    wood = np.array((150, 100, 60), np.float32) * rng.uniform(.75, 1.25) * (.8 + .25 * rings + .15 * grain)[..., None]
    wood *= 1 - .35 * c.mask(np.abs(np.mod((c.y - top) * 5, 1) - .5) - .03, 2)[..., None]
    c.img += c.mask(top - c.y)[..., None] * (np.clip(wood, 0, 255) - c.img)


def paste(c, picture, x, foot, width, light, shadow):
    """Puts a premultiplied object on the canvas: `x` its middle, `foot` its lower edge, `width` its side, all in units."""
    n = max(4, int(round(width * c.n)))
    layers = [np.asarray(Image.fromarray(np.ascontiguousarray(picture[..., k])).resize((n, n), Image.BILINEAR, reducing_gap=2)) for k in range(4)]
    left, top = int(round(x * c.n - n / 2)), int(round(foot * c.n - n))
    if shadow:
        d = np.hypot((c.x - x) / (width * .42), (c.y - foot + .01) / (width * .09))
        c.img *= 1 - .38 * np.clip(1.15 - d, 0, 1)[..., None]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + n, c.n), min(top + n, c.n)
    if x1 <= x0 or y1 <= y0:
        return
    p = np.stack(layers, -1)[y0 - top:y1 - top, x0 - left:x1 - left]
    view = c.img[y0:y1, x0:x1]
    view += p[..., :3] * 255 * light - p[..., 3:] * view


def draw_objects(seed, c, a, library):
    """Pastes the object or the two objects of the attributes, lit as the landscape is."""
    rng = stream(seed, 7)
    light = .42 + .58 * np.array(scenes.LIGHT[a["time"] or "day"], np.float32)
    width = WIDTHS[a["size"] or ""] * rng.uniform(.92, 1.08)
    spots = [(a["object"], a["hue"], SIDES[a["place"] or ""] + rng.normal(0, .025))]
    if a["object2"]:
        width = .46
        spots = [(a["object"], a["hue"], .28), (a["object2"], None, .72)]
    flip, low, high = rng.random() < .5, rng.uniform(.8, .93), rng.uniform(.5, .66)
    for name, hue, x in spots:
        home = OBJECTS[name][1]
        on_ground = bool(a["terrain"]) or a["texture"] == "table"
        foot = min(.97, max(low, width + .03)) if on_ground else .5 + width / 2
        if home == "air" and a["terrain"]:
            foot = max(high, width * .9)
        picture = library.get(name, a["look"] or "", hue, stream(seed, 8))
        paste(c, picture[:, ::-1] if flip else picture, x, foot, width, light, on_ground and home != "air")


def render(seed, size, a, library, textures, photo=None):
    """The uint8 picture of a seed and attributes; `photo` is the photograph behind an object of the kind `photo`."""
    if a["object"] is None and a["kind"] != "object" and photo is None:
        return scenes.render(seed, size, a)
    c = scenes.Canvas(size)
    if photo is not None:
        c.img[:] = photo
    elif a["terrain"]:
        scenes.draw_land(seed, c, {**a, "extra": None})
    elif a["texture"]:
        draw_texture(seed, c, a, textures)
    else:
        scenes.draw_background(seed, c, a)
    if a["object"]:
        draw_objects(seed, c, a, library)
    return np.clip(scenes.stylize(stream(seed, 5), c.img, a["style"]), 0, 255).astype(np.uint8)


def noun(rng, name):
    words = OBJECTS[name][2]
    return words[0] if len(words) == 1 or rng.random() > SYNONYM else pick(rng, words[1:])


def describe(rng, a, only=None):
    """A caption of the attributes; with `only`, a short one that names nothing but these attributes."""
    if a["kind"] != "object" and a["object"] is None:
        return scenes.describe(rng, a, only)
    named = {k for k in a if a[k] not in (None, "", 0)} if only is None else set(only)
    if only is None:
        named -= {k for k in ("terrain", "bg", "texture") if rng.random() < .1}
    d = ""
    if named & {"object", "hue", "size", "place", "object2"} and a["object"]:
        words = [a["size"] if "size" in named and rng.random() < .8 else "", word(rng, a["hue"]) if a["hue"] else "", noun(rng, a["object"])]
        bare = " ".join(w for w in words if w)
        d = bare if rng.random() < .12 else article(bare)
        if a["object2"]:
            d += " and " + article(noun(rng, a["object2"]))
        elif a["place"] and "place" in named:
            d += {"left": " on the left", "right": " on the right"}[a["place"]]
    d = (d + " " + behind(rng, a, named, bool(d))).strip()
    if a["style"] and "style" in named:
        s = pick(rng, scenes.STYLES[a["style"]])
        d = s if not d else f"{article(s)} of {d}" if s in MEDIA and rng.random() < .4 else pick(rng, [f"{d}, {s}", f"{d}, {s} style"])
    if a["look"] and ("look" in named or only is None):
        s = pick(rng, LOOK_WORDS[a["look"]])
        d = pick(rng, [f"{d}, {s}", f"{article(s)} of {d}"]) if d else s
    u = rng.random()
    if u < .1 and d:
        d = pick(rng, ["a picture of ", "a photo of ", "a photo of ", "an image of "]) + d
    elif u < .15:
        d += pick(rng, [", highly detailed", ", best quality", ", 3d render"])
    return d


def behind(rng, a, named, object_first):
    """The words for what is behind the object."""
    out = []
    if "bg" in named or "pattern" in named:
        ground = article((a["pattern"] + " " if a["pattern"] else "") + word(rng, a["bg"]) + " background")
        out.append("on " + ground if object_first else ground)
    elif "texture" in named:
        out.append(pick(rng, TEXTURES[a["texture"]]))
    else:
        if "terrain" in named:
            snowy = a["snow"] and "snow" in named
            place = pick(rng, BESIDE[a["terrain"]]) if object_first else pick(rng, scenes.TERRAINS[a["terrain"]])
            out.append(place.replace("green ", "") if snowy else place)
        if a["snow"] and "snow" in named:
            out.append(pick(rng, scenes.SNOW_AFTER[:3] + ["in the snow"]))
        if a["time"] and "time" in named and (a["time"] != "day" or rng.random() < .4 or not out):
            out.append(pick(rng, scenes.TIMES[a["time"]]))
    return " ".join(out)


CHANGES = [["object"], ["object"], ["object"], ["object"], ["object", "hue"], ["hue"], ["hue"], ["hue"], ["time"], ["time"], ["snow"],
           ["style"], ["look"], ["ground"], ["ground"], ["object", "ground"], ["add"], ["add"], ["add"], ["drop"]]


def change(rng, a, library):
    """Attributes (before, after) of the same layout, and the names of those that a caption of the change must name."""
    while True:
        b, keys = dict(a), list(pick(rng, CHANGES))
        if "object" in keys:
            b["object"] = pick(rng, [n for n in NAMES if n != a["object"]])
            if b["object"] not in library.paintable:
                b["hue"] = None
        if "hue" in keys and b["object"] in library.paintable:
            b["hue"] = pick(rng, [c for c in CN if c not in (a["hue"], b["bg"])])
        if a["time"] and "time" in keys:
            b["time"] = pick(rng, [t for t in scenes.TIMES if t != a["time"]])
        if a["terrain"] in scenes.SNOWABLE and "snow" in keys:
            b["snow"] = 1 - a["snow"]
        if "style" in keys:
            b["style"] = pick(rng, [s for s in scenes.STYLES if s and s != a["style"]]) if rng.random() < .8 else ""
        if "look" in keys:
            b["look"] = "flat" if a["look"] == "" else ""
        if "ground" in keys:
            backdrop(rng, b)
        before = dict(a)
        if "add" in keys:
            before.update(object=None, object2=None, hue=None, look="")
            keys.append("object")
        if "drop" in keys:
            b.update(object=None, object2=None, hue=None, look="")
            keys += ["terrain", "bg", "texture"]
        if before != b and not held_out(b):
            return before, b, [k for k in b if (before[k] != b[k] or k in keys) and b[k] not in (None, "", 0)]


def plan(rng, library):
    """What a pair shows: (what is behind it, attributes before and after, the changed ones).

    Behind is None for drawn pairs, `edit` for an edited photograph, `photo` for an object put into one.
    """
    u, photo = rng.random(), {**dict.fromkeys(ATTRS), "kind": "photo"}
    if u < .08:
        b, keys = photos.edited_attrs(rng)
        return "edit", photo, {**dict.fromkeys(ATTRS), **b}, keys
    if u < .14:
        b = object_attrs(rng, library)
        b.update(bg=None, pattern="", terrain=None, time=None, snow=0, texture=None, object2=None, style="")
        return "photo", photo, b, ["object", "hue", "look"]
    if u < .24:
        a = {**dict.fromkeys(ATTRS), **scenes.sample_attrs(rng)}
        return None, a, *scenes.change(rng, a)
    return None, *change(rng, object_attrs(rng, library), library)


def told(b, keys):
    """The changed attributes that a caption can name."""
    return [k for k in keys if b[k] not in (None, "", 0)]


def pair(rng, size, library, textures, photographs):
    """(picture, the same layout after a change, attributes of both, three captions of the second picture)."""
    seed = int(rng.integers(1 << 40))
    behind_it, before, b, keys = plan(rng, library)
    if behind_it is None:
        p, q = (render(seed, size, x, library, textures) for x in (before, b))
    else:
        p = photos.sample(rng, photographs, size)
        q = photos.edit(seed, p, b) if behind_it == "edit" else render(seed, size, b, library, textures, p)
    short = told(b, keys)
    return p, q, before, b, [describe(rng, b), describe(rng, b), describe(rng, b, short) if short else describe(rng, b)]


def sample(rng, size, library, textures):
    """A random composition with its caption and attributes."""
    a = object_attrs(rng, library)
    return render(int(rng.integers(1 << 40)), size, a, library, textures), describe(rng, a), a


def edits(rng, world, size, count):
    """(pictures, captions of a change to each, the attributes that the change asks for), where a caption can tell the change."""
    pictures, captions, wanted = [], [], []
    while len(pictures) < count:
        before, b, keys = change(rng, object_attrs(rng, world.library), world.library)
        short = told(b, keys)
        if short:
            pictures.append(render(int(rng.integers(1 << 40)), size, before, world.library, world.textures))
            captions.append(describe(rng, b) if len(pictures) % 2 else describe(rng, b, short))
            wanted.append({k: b[k] for k in short})
    return pictures, captions, wanted


class World:
    """The library and the photographs that a training stage draws from."""

    def __init__(self, run, packages, folder, without=()):
        self.library = Library(packages, run / "objects.npz")
        self.textures = dict(photos.named(folder))
        self.photographs = [p for n, p in self.textures.items() if n not in without]

    def pair(self, rng, size):
        return pair(rng, size, self.library, self.textures, self.photographs)

    def sample(self, rng, size):
        return sample(rng, size, self.library, self.textures)

    def picture(self, rng, size):
        """One picture for the auto-encoder: compositions, drawn scenes, photo-like ones."""
        u = rng.random()
        if u < .6:
            return self.sample(rng, size)[0]
        return scenes.sample(rng, size)[0] if u < .78 else photos.sample(rng, self.photographs, size)

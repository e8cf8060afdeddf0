"""Procedural captioned pictures for the demo model: numpy only, resolution independent.

`render(seed, size, attributes)` draws with signed-distance masks in unit coordinates, so one seed gives one picture at
64, 128 or 256 px, already anti-aliased.
Every part of a picture has its own random stream, so the same seed with other attributes keeps the same layout: such
pairs ("the same scene at night") are what the UNet learns image-to-image from.
"""
import numpy as np

COLORS = {  # name -> (rgb, synonyms)
    "red": ((214, 40, 40), ("crimson", "scarlet")), "orange": ((240, 135, 30), ("amber",)),
    "yellow": ((245, 210, 50), ("golden", "gold")), "green": ((50, 155, 70), ("emerald",)),
    "cyan": ((60, 200, 205), ("turquoise", "teal")), "blue": ((45, 85, 200), ("navy",)),
    "purple": ((125, 60, 165), ("violet",)), "pink": ((240, 140, 180), ("rose",)),
    "brown": ((125, 80, 45), ("wooden",)), "black": ((25, 25, 30), ("dark",)),
    "white": ((242, 242, 240), ("pale",)), "gray": ((135, 135, 140), ("grey", "silver")),
}
CN = list(COLORS)
SHAPES = ["circle", "square", "triangle", "star", "heart", "ring", "cross", "moon"]
SHAPE_SYN = {"circle": ["circle", "ball", "disc"], "square": ["square", "box"], "ring": ["ring", "donut"],
             "moon": ["crescent moon", "crescent"]}
SIZES = [("small", .13), ("", .2), ("large", .29)]
PLACES = {"left": (.3, .5), "right": (.7, .5), "top": (.5, .3), "bottom": (.5, .7), "": (.5, .5)}
PATTERNS = ["", "striped", "checkered", "dotted", "gradient"]
TERRAINS = {"mountains": ["mountains", "a mountain landscape", "mountain peaks", "rocky mountains", "the alps", "a mountain"],
            "hills": ["green hills", "hills", "a meadow", "fields", "a valley", "the countryside", "grass"],
            "sea": ["the sea", "the ocean", "a lake", "a beach", "water", "the coast"],
            "desert": ["a desert", "sand dunes", "desert", "sand", "dunes"],
            "forest": ["a forest", "pine trees", "the woods", "a jungle", "forest"],
            "city": ["a city", "a city skyline", "a town", "buildings", "skyscrapers", "a street"]}
TIMES = {"day": ["on a sunny day", "at day", "with a blue sky", "in the morning", "in daylight", "in summer", "daytime", "sunny"],
         "night": ["at night", "under the moon", "in a starry night", "at midnight", "in moonlight", "night", "dark night"],
         "sunset": ["at sunset", "at dusk", "with an orange sky", "at sunrise", "at dawn", "in the evening",
                    "at golden hour", "sunset"]}
SNOW = ["snowy", "snow covered", "winter", "frozen", "icy"]
SNOW_AFTER = ["in winter", "covered in snow", "with snow", "snow"]
EXTRAS = {"house": ["a house", "a cabin", "a cottage", "a hut"], "tree": ["trees", "a tree"],
          "boat": ["a boat", "a ship", "a sailboat"], "clouds": ["clouds", "a cloudy sky"], "rainbow": ["a rainbow"]}
STYLES = {"": [""], "sketch": ["pencil sketch", "sketch", "pencil drawing", "black and white drawing"],
          "watercolor": ["watercolor", "watercolor painting", "watercolour", "painting"],
          "mosaic": ["mosaic", "tile mosaic", "stained glass"], "pixel": ["pixel art", "8-bit pixel art", "pixelated"],
          "neon": ["neon", "neon sign", "glowing neon", "cyberpunk"]}
SUBJECTS = ["photo", "photograph", "picture", "cat", "dog", "cup", "coffee", "cup of coffee", "woman", "man", "person",
            "face", "astronaut", "rocket", "motorcycle", "car", "room", "table", "flower", "bird", "wall", "stones", "portrait"]
ATTRS = {"style": list(STYLES), "kind": ["shapes", "land", "photo"], "c1": [None] + CN, "s1": [None] + SHAPES,
         "c2": [None] + CN, "s2": [None] + SHAPES, "bg": [None] + CN, "pattern": [None] + PATTERNS,
         "place": [None] + list(PLACES), "size": [None] + [s for s, _ in SIZES],
         "terrain": [None] + list(TERRAINS), "time": [None] + list(TIMES), "snow": [None, 0, 1],
         "extra": [None] + list(EXTRAS), "tint": [None] + CN}


def stream(seed, part):
    """The random stream of one part of one picture."""
    return np.random.default_rng([seed, part])


def value_noise(rng, n, octaves=4, base=4):
    """n x n smooth noise in [0,1] by bilinear/cosine up-sampling of random grids."""
    out, amp, tot = np.zeros((n, n), np.float32), 1.0, 0.0
    for o in range(octaves):
        g = base * 2 ** o
        if g >= n:
            break
        grid = rng.random((g + 1, g + 1), dtype=np.float32)
        t = np.linspace(0, g, n, endpoint=False, dtype=np.float32)
        i = t.astype(np.int32)
        f = t - i
        f = f * f * (3 - 2 * f)
        rows = grid[i] * (1 - f)[:, None] + grid[i + 1] * f[:, None]
        out += amp * (rows[:, i] * (1 - f) + rows[:, i + 1] * f)
        tot += amp
        amp *= .5
    return out / max(tot, 1e-6)


def blur(img, r):
    """box blur r px, separable, edge padded (cumsum)."""
    if r < 1:
        return img
    for ax in (0, 1):
        p = np.pad(img, [(r + 1, r) if a == ax else (0, 0) for a in range(img.ndim)], mode="edge")
        c = np.cumsum(p, axis=ax, dtype=np.float32)
        n = img.shape[ax]
        hi = np.take(c, np.arange(2 * r + 1, 2 * r + 1 + n), axis=ax)
        lo = np.take(c, np.arange(0, n), axis=ax)
        img = (hi - lo) / (2 * r + 1)
    return img


class Canvas:
    def __init__(self, size):
        self.n = size
        a = ((np.arange(size, dtype=np.float32) + .5) / size).astype(np.float32)
        self.x, self.y = np.meshgrid(a, a)
        self.img = np.zeros((size, size, 3), np.float32)

    def sub(self, cx, cy, r):
        """view of the square window |x-cx|<r, |y-cy|<r: draw small things there (much cheaper)."""
        c = object.__new__(Canvas)
        n = c.n = self.n
        sl = tuple(slice(int(np.clip((v - r) * n, 0, n)), int(np.clip((v + r) * n + 1, 0, n))) for v in (cy, cx))
        c.x, c.y, c.img = self.x[sl], self.y[sl], self.img[sl]
        return c

    def mask(self, sdf, soft=1.2):  # sdf<0 inside, unit coordinates
        return np.clip(.5 - sdf * (self.n / soft), 0, 1).astype(np.float32, copy=False)

    def paint(self, m, color):
        c = np.asarray(color, np.float32)
        self.img += np.asarray(m, np.float32)[..., None] * (c - self.img)


def sdf_shape(c, name, cx, cy, r, rot):
    x, y = c.x - cx, c.y - cy
    if rot:
        co, si = np.cos(rot), np.sin(rot)
        x, y = co * x + si * y, -si * x + co * y
    d = np.hypot(x, y)
    if name == "circle":
        return d - r
    if name == "ring":
        return np.abs(d - r * .78) - r * .24
    if name == "square":
        return np.maximum(np.abs(x), np.abs(y)) - r * .85
    if name == "cross":
        a, b = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(a - r, b - r * .33), np.maximum(a - r * .33, b - r))
    if name == "triangle":
        return np.maximum(.866 * np.abs(x) - .5 * y - r * .55, y - r * .55)
    if name == "star":
        a = np.mod(np.arctan2(x, -y) + np.pi / 5, 2 * np.pi / 5) - np.pi / 5
        px, py = d * np.cos(a), np.abs(d * np.sin(a))
        # edge between the tip (r,0) and the inner vertex (.42r at 36 deg)
        ix, iy = .42 * r * np.cos(np.pi / 5), .42 * r * np.sin(np.pi / 5)
        nx, ny = iy, r - ix
        return ((px - r) * nx + py * ny) / np.hypot(nx, ny)
    if name == "heart":
        X, Y = np.abs(x) / (1.75 * r), .58 - y / (1.75 * r)
        s2 = np.maximum(X + Y, 0) * .5
        low = np.sqrt(np.minimum(X * X + (Y - 1) ** 2, (X - s2) ** 2 + (Y - s2) ** 2)) * np.sign(X - Y)
        return np.where(X + Y > 1, np.hypot(X - .25, Y - .75) - .35355, low) * (1.75 * r)
    if name == "moon":
        return np.maximum(d - r, .82 * r - np.hypot(x - .42 * r, y + .15 * r))
    raise KeyError(name)


def jitter(rng, name, s=14):
    return np.clip(np.array(COLORS[name][0], np.float32) + rng.normal(0, s, 3), 0, 255).astype(np.float32)


def word(rng, name):
    syn = COLORS[name][1]
    return name if rng.random() < .75 else syn[rng.integers(len(syn))]


def pick(rng, seq, p=None):
    return seq[rng.choice(len(seq), p=p)] if p is not None else seq[rng.integers(len(seq))]


def draw_background(seed, c, a):
    """A coloured background, plain or patterned."""
    rng = stream(seed, 0)
    bgc = jitter(rng, a["bg"])
    alt = jitter(rng, a["bg"], 4) * .55 + 255 * .45 * (rng.random() < .6)
    rng = stream(seed, 1)
    c.paint(np.ones_like(c.x), bgc)
    k = rng.uniform(5, 9)
    if a["pattern"] == "striped":
        th = rng.choice([0, np.pi / 2, np.pi / 4])
        u = c.x * np.cos(th) + c.y * np.sin(th)
        c.paint(c.mask((np.abs(np.mod(u * k, 1) - .5) - .25) / k), alt)
    elif a["pattern"] == "checkered":
        u, v = np.mod(c.x * k / 2, 1) - .5, np.mod(c.y * k / 2, 1) - .5
        c.paint((c.mask((np.abs(u) - .25) * 2 / k) - c.mask((np.abs(v) - .25) * 2 / k)) ** 2, alt)
    elif a["pattern"] == "dotted":
        u, v = np.mod(c.x * k, 1) - .5, np.mod(c.y * k, 1) - .5
        c.paint(c.mask((np.hypot(u, v) - .27) / k), alt)
    elif a["pattern"] == "gradient":
        c.paint(c.y if rng.random() < .7 else c.x, alt)


def draw_shapes(seed, c, a):
    """A coloured shape or two on a coloured background."""
    draw_background(seed, c, a)
    full = c
    rng = stream(seed, 2)
    px, py = PLACES[a["place"]]
    r = dict(SIZES)[a["size"]] * rng.uniform(.9, 1.12)
    spots = [(a["c1"], a["s1"], px, py)]
    if a["s2"]:
        spots = [(a["c1"], a["s1"], .3, .5), (a["c2"], a["s2"], .7, .5)]
        r = min(r, .2)
    for col, shp, x, y in spots:
        x, y = x + rng.normal(0, .03), y + rng.normal(0, .03)
        rot = rng.normal(0, .15)
        c, x, y, rot = full.sub(x, y, r * 1.5 + .04), float(x), float(y), float(rot)
        s = sdf_shape(c, shp, x, y, r, rot)
        shade = jitter(rng, col)
        c.paint(c.mask(sdf_shape(c, shp, x + .015, y + .025, r, rot), 12) * .35, (0, 0, 0))  # soft shadow
        c.paint(c.mask(s), shade)
        c.paint(c.mask(s) * np.clip(1 - np.hypot(c.x - x + r * .4, c.y - y + r * .45) / r, 0, 1) * .35, (255, 255, 255))


SKY = {"day": ((70, 145, 225), (190, 225, 250)), "night": ((8, 10, 40), (35, 40, 95)),
       "sunset": ((95, 60, 130), (250, 150, 75))}
LIGHT = {"day": (1., 1., 1.), "night": (.28, .32, .52), "sunset": (.85, .58, .5)}


def draw_land(seed, c, a):
    """A landscape: sky, sun or moon, terrain, and one extra thing."""
    rng = stream(seed, 0)
    top, bot = (np.array(v, np.float32) + rng.normal(0, 8, 3) for v in SKY[a["time"]])
    light = np.array(LIGHT[a["time"]], np.float32)
    hor = rng.uniform(.52, .66)
    c.paint(np.ones_like(c.x), top)
    c.paint(np.clip(c.y / hor, 0, 1), bot)
    sx, high = rng.uniform(.18, .82), rng.uniform(.12, .28)
    sy = hor - rng.uniform(.05, .14) if a["time"] == "sunset" else high
    rng = stream(seed, 1)
    if a["time"] == "night":
        for _ in range(26):
            x, y = rng.random(), rng.random() * hor
            w = c.sub(x, y, .02)
            w.paint(w.mask(np.hypot(w.x - x, w.y - y) - rng.uniform(.003, .008)), (255, 255, 235))
        c.paint(np.exp(-np.hypot(c.x - sx, c.y - sy) * 9) * .5, (200, 205, 240))
        c.paint(c.mask(sdf_shape(c, "circle" if rng.random() < .5 else "moon", sx, sy, .075, .3)), (245, 243, 220))
    else:
        sun = (255, 236, 130) if a["time"] == "day" else (255, 205, 95)
        c.paint(np.exp(-np.hypot(c.x - sx, c.y - sy) * 7) * .6, sun)
        c.paint(c.mask(np.hypot(c.x - sx, c.y - sy) - .08), sun)
    rng = stream(seed, 2)
    if a["extra"] == "clouds":
        for _ in range(4):
            x, y = rng.random(), rng.uniform(.08, .4)
            w = c.sub(x + .08, y, .26)
            for k in range(4):
                w.paint(w.mask(np.hypot((w.x - x - .05 * k) / 1.5, w.y - y + .02 * (k % 2)) - .05, 5) * .85,
                        np.array((250, 250, 252)) * (.45 + .55 * light))
    if a["extra"] == "rainbow":
        for k, col in enumerate(["red", "orange", "yellow", "green", "blue", "purple"]):
            d = np.hypot(c.x - .5, c.y - hor - .05)
            c.paint(c.mask(np.abs(d - (.46 - .028 * k)) - .014, 2) * .8 * (c.y < hor + .02), COLORS[col][0])
    rng = stream(seed, 3)
    nz = value_noise(rng, c.n, 4, 4)
    n1 = value_noise(rng, c.n, 4, 5)[0]  # 1-D profiles
    n2 = value_noise(rng, c.n, 3, 3)[0]
    white = np.array((238, 243, 250), np.float32)

    def ground(profile, color, tex=30):
        m = np.clip(.5 + (c.y - profile[None, :]) * c.n / 1.2, 0, 1)
        col = (np.asarray(color, np.float32) + (nz[..., None] - .5) * tex) * light
        c.img += m[..., None] * (col - c.img)
        return m
    t = a["terrain"]
    grass = white if a["snow"] else np.array((95, 150, 65), np.float32)
    if t == "mountains":
        tri = np.zeros(c.n, np.float32)
        X = c.x[0]
        for _ in range(rng.integers(3, 5)):
            p, h, w = rng.random(), rng.uniform(.22, .42), rng.uniform(.25, .4)
            tri = np.maximum(tri, h * np.clip(1 - np.abs(X - p) / w, 0, 1))
        prof = hor - tri + .05 * (n1 - .5)
        m = ground(prof, (112, 108, 122), 55)
        if rng.random() < .5 or a["snow"]:  # snow caps (deep when 'snowy')
            cap = (hor - (.08 if a["snow"] else .26)) + .06 * (n1 - .5)[None, :] + .05 * (nz - .5)
            c.paint(m * np.clip(.5 + (cap - c.y) * c.n / 3, 0, 1), white * light)
        ground(np.full(c.n, hor, np.float32) + .04 * (n2 - .5), grass)
    elif t == "hills":
        ground(hor - .1 + .16 * (n2 - .5), grass * .85)
        ground(hor + .06 + .14 * (n1 - .5), grass)
    elif t == "sea":
        m = np.clip(.5 + (c.y - hor) * c.n / 1.2, 0, 1)
        depth = np.clip((c.y - hor) / (1 - hor), 0, 1)
        wave = .5 + .5 * np.sin(np.maximum(c.y - hor, 0) ** .6 * 90 + 9 * nz)
        col = np.array((35, 105, 170), np.float32) * (1.15 - .45 * depth[..., None]) + 26 * (wave[..., None] - .5)
        c.img += m[..., None] * (col * light - c.img)
        c.paint(m * np.exp(-np.abs(c.x - sx) * 14) * wave * .65, np.array((255, 225, 150)) if a["time"] != "night" else np.array((190, 200, 235)))
    elif t == "desert":
        ground(hor - .03 + .12 * (n2 - .5), np.array((205, 160, 95)) * .9)
        ground(hor + .12 + .18 * (n1 - .5), (228, 185, 115))
    elif t == "forest":
        ground(np.full(c.n, hor, np.float32) + .05 * (n2 - .5), grass)
        for i in range(16):
            x, b = rng.random(), hor + .05 + .3 * (i / 16)
            h, w = rng.uniform(.2, .28) * (.7 + .6 * i / 16), .075 * (.7 + .6 * i / 16)
            full, c = c, c.sub(x, b - h / 2, h / 2 + .02)
            u = (c.y - (b - h)) / h
            m = np.clip(.5 + (w * u * (.75 + .25 * np.mod(u * 3, 1)) - np.abs(c.x - x)) * c.n / 1.5, 0, 1) * (u > 0) * (u < 1)
            c.paint(m, np.array((30, 88, 55)) * rng.uniform(.75, 1.2) * light)
            if a["snow"]:
                c.paint(m * np.clip((.6 - np.mod(u * 3, 1)) * 3, 0, 1) * .9, white * light)
            c = full
    elif t == "city":
        x = 0.
        while x < 1:
            w, h = rng.uniform(.07, .15), rng.uniform(.15, .42)
            g = rng.uniform(70, 130)
            b = np.maximum(np.abs(c.x - x - w / 2) - w / 2 * .95, hor - h - c.y)
            c.paint(c.mask(b), np.array((g, g, g * 1.1)) * light)
            win = (np.mod((c.x - x) * 40, 1) > .45) & (np.mod(c.y * 30, 1) > .5) & (b < -.012)
            c.paint(win * .9, (255, 225, 120) if a["time"] != "day" else (170, 200, 225))
            if a["snow"]:
                c.paint(c.mask(np.maximum(np.abs(c.x - x - w / 2) - w / 2, np.abs(c.y - hor + h) - .014)), white * light)
            x += w
        ground(np.full(c.n, hor + .08, np.float32), white if a["snow"] else np.array((85, 85, 90)))
    rng = stream(seed, 4)
    if a["extra"] == "house":
        x, b, s = rng.uniform(.28, .72), hor + .2, rng.uniform(.1, .13)
        c = c.sub(x, b - s, .3)
        c.paint(c.mask(np.maximum(np.abs(c.x - x) - s, np.abs(c.y - b + s * .7) - s * .7)), np.array((225, 205, 170)) * light)
        c.paint(c.mask(np.maximum(np.abs(c.x - x) * .7 - (c.y - b + s * 2.3) * .95, c.y - b + s * 1.4) * .8),
                (white if a["snow"] else np.array((175, 60, 45))) * light)
        c.paint(c.mask(np.maximum(np.abs(c.x - x) - s * .2, np.abs(c.y - b + s * .4) - s * .4)), np.array((95, 60, 40)) * light)
        c.paint(c.mask(np.maximum(np.abs(np.abs(c.x - x) - s * .6) - s * .18, np.abs(c.y - b + s * .9) - s * .18)),
                (255, 225, 120) if a["time"] != "day" else (150, 195, 230))
    elif a["extra"] == "tree":
        for _ in range(2):
            x, b, s = rng.uniform(.12, .88), hor + rng.uniform(.14, .26), rng.uniform(.08, .12)
            full, c = c, c.sub(x, b - .15, .24)
            c.paint(c.mask(np.maximum(np.abs(c.x - x) - .016, np.abs(c.y - b + s * .8) - s * .8)), np.array((95, 65, 40)) * light)
            for dx, dy in ((-.5, -1.5), (.5, -1.5), (0, -2.1)):
                c.paint(c.mask(np.hypot(c.x - x - dx * s, c.y - b - dy * s) - s * .75, 4),
                        (white if a["snow"] else np.array((60, 130, 55))) * light)
            c = full
    elif a["extra"] == "boat":
        x, b, s = rng.uniform(.25, .75), hor + rng.uniform(.1, .2), .11
        c.paint(c.mask(np.maximum(np.abs(c.x - x) - s + (c.y - b) * .9, np.abs(c.y - b - .02) - .028)), np.array((150, 70, 45)) * light)
        c = c.sub(x, b - .1, .22)
        c.paint(c.mask(np.maximum(np.maximum(x - c.x, (c.x - x) - (c.y - b + s * 2.2) * .55), c.y - b + .02)), np.array((245, 240, 230)) * (.4 + .6 * light))


def stylize(rng, img, style):
    n = img.shape[0]
    if style == "":
        return img
    g = img @ np.array((.3, .59, .11), np.float32)
    if style in ("sketch", "neon"):
        k = max(1, n // 128)
        b = blur(img, k)
        gx = np.abs(np.roll(b, -k, 1) - np.roll(b, k, 1)).max(-1)
        gy = np.abs(np.roll(b, -k, 0) - np.roll(b, k, 0)).max(-1)
        e = np.hypot(gx, gy)
        e[:k], e[-k:], e[:, :k], e[:, -k:] = 0, 0, 0, 0
        if style == "sketch":
            x, y = np.meshgrid(np.arange(n), np.arange(n))
            hatch = (.5 + .5 * np.sin((x + y) * np.float32(2 * np.pi * 20 / n))) * np.clip(.75 - g / 255, 0, 1)
            v = 246 - np.clip(e * 3, 0, 190) - 75 * hatch + rng.normal(0, 3, g.shape)
            return np.stack([v, v * .985, v * .95], -1)
        e = np.clip(e * 5, 0, 255)[..., None] / 255
        m = img.max(-1, keepdims=True)
        sat = np.clip((img - m) * 1.8 + 255, 60, 255)
        glow = blur(e * sat, max(1, n // 40)) * 1.4
        return np.array((12, 8, 26), np.float32) + e * sat + glow
    if style == "watercolor":
        p = value_noise(rng, n, 4, 6)
        q = value_noise(rng, n, 4, 6)
        amp = n / 26
        x, y = np.meshgrid(np.arange(n), np.arange(n))
        w = img[np.clip(y + (p - .5) * amp, 0, n - 1).astype(int), np.clip(x + (q - .5) * amp, 0, n - 1).astype(int)]
        w = blur(w, max(1, n // 100))
        b2 = blur(w, max(2, n // 36))
        edge = np.clip(np.abs(w - b2).max(-1, keepdims=True) - 4, 0, 26)
        out = w * .62 + 248 * .38 + 44 * (value_noise(rng, n, 5, 5)[..., None] - .5) - edge * 1.1
        d = np.minimum(np.minimum(x, n - 1 - x), np.minimum(y, n - 1 - y)) / n
        return np.where((d < .035 + .03 * (p - .5))[..., None], 248, out)
    if style in ("mosaic", "pixel"):
        k = 32 if style == "pixel" else 20
        s = n / k
        idx = np.minimum((np.arange(n) / s).astype(int), k - 1)
        cen = np.minimum(((np.arange(k) + .5) * s).astype(int), n - 1)
        small = blur(img, int(s / 2.6))[cen][:, cen]
        if style == "pixel":
            return (np.round(small / 36) * 36)[idx][:, idx]
        small = small * rng.uniform(.8, 1.2, (k, k, 1)) + rng.normal(0, 7, (k, k, 3))
        f = np.abs((np.arange(n) + .5) / s - idx - .5)
        grout = np.clip((np.maximum(f[:, None], f[None, :]) - .4) * s / .9, 0, 1)[..., None]
        return small[idx][:, idx] * (1 - grout) + 205 * grout
    raise KeyError(style)


def article(s):
    """`s` with its indefinite article."""
    return ("an " if s[0] in "aeiou" else "a ") + s


def describe(rng, a, only=None):
    """A caption of the attributes; with `only`, a short one that names nothing but these attributes."""
    named = {k for k in a if a[k] not in (None, "", 0)} if only is None else set(only)
    if a["kind"] == "shapes":
        d = describe_shapes(rng, a, named, only is not None)
    else:
        d = describe_scene(rng, a, named, only is not None)
    st = a["style"] if "style" in named else ""
    if st:
        s = pick(rng, STYLES[st])
        if d == "" or rng.random() < .06:
            return pick(rng, [s, f"{s} style", article(s)])
        d = pick(rng, [f"{d}, {s}", f"{d}, {s} style", f"{article(s)} of {d}"])
    u = rng.random()
    if u < .06:
        d += pick(rng, [", highly detailed", ", beautiful", ", high quality", ", best quality"])
    elif u < .1:
        d = pick(rng, ["a picture of ", "an image of ", "make it "]) + d
    return d


def describe_shapes(rng, a, named, short):
    """Caption of a shapes picture, without its style."""
    def thing(c, s, size=""):
        syn = SHAPE_SYN.get(s, [s])
        return article((size + " " if size else "") + word(rng, c) + " " + (syn[0] if rng.random() < .7 else pick(rng, syn)))
    ground = article((a["pattern"] + " " if a["pattern"] else "") + word(rng, a["bg"]) + " background")
    if short and not named & {"c1", "s1", "size", "place", "c2", "s2"}:
        return ground if named & {"bg", "pattern"} else ""
    d = thing(a["c1"], a["s1"], a["size"] if not a["s2"] else "")
    if a["s2"]:
        d += " and " + thing(a["c2"], a["s2"])
    elif a["place"]:
        d += {"left": " on the left", "right": " on the right", "top": " at the top", "bottom": " at the bottom"}[a["place"]]
    if (rng.random() < .92 and not short) or named & {"bg", "pattern"} and short:
        d += " on " + ground
    return d


def describe_scene(rng, a, named, short):
    """Caption of a landscape or of an edited photograph, without its style."""
    noun = pick(rng, TERRAINS[a["terrain"]]) if "terrain" in named else ""
    if a["kind"] == "photo" and not noun and rng.random() < (.35 if short else .85):
        s = pick(rng, SUBJECTS)
        noun = pick(rng, [article(s), s, f"a photo of {article(s)}"])
    if a.get("tint") and "tint" in named:
        c = word(rng, a["tint"])
        if not noun:
            return pick(rng, [c, f"{c} tones", f"{c} colors", f"{c} light"])
        bare = noun.removeprefix("a photo of ")
        for head in ("an ", "a ", "the "):
            bare = bare.removeprefix(head)
        noun = pick(rng, [article(f"{c} {bare}"), f"{noun}, {c}", f"{noun} in {c}", f"{noun} in {c} light"])
    after = []
    if a["snow"] and "snow" in named:
        if noun and rng.random() < .6:
            bare = noun.removeprefix("green ")
            for head in ("an ", "a ", "the "):
                if bare.startswith(head):
                    bare = bare[len(head):]
            noun = pick(rng, SNOW) + " " + bare
            noun = article(noun) if rng.random() < .4 else noun
        else:
            after.append(pick(rng, SNOW_AFTER if rng.random() < .8 else SNOW))
    if a["time"] and "time" in named and (short or a["time"] != "day" or a["kind"] == "photo" or rng.random() < .75):
        after.append(pick(rng, TIMES[a["time"]]))
    if a["extra"] and "extra" in named:
        after.append(("with " if rng.random() < .85 else "") + pick(rng, EXTRAS[a["extra"]]))
    if not short and rng.random() < .12 and len(after) + bool(noun) > 1:  # one aspect only
        parts = [p for p in [noun, *after] if p]
        parts = [parts[i] for i in rng.permutation(len(parts))[:rng.integers(1, len(parts))]]
        return ", ".join(parts)
    if rng.random() < .15:
        rng.shuffle(after)
    d = noun
    for p in after:
        d += (", " if d and rng.random() < .25 else " " if d else "") + p
    if rng.random() < .15 and a["kind"] == "land" and d:
        d = "a landscape of " + d
    return d


def sample_attrs(rng):
    """Attributes of a random picture: 60 % landscapes, 40 % shapes, a third of them in a style."""
    a = dict.fromkeys(ATTRS)
    a["style"] = pick(rng, list(STYLES), [.67, .07, .07, .06, .07, .06])
    if rng.random() < .4:
        a["kind"] = "shapes"
        a["bg"] = pick(rng, CN)
        a["c1"] = pick(rng, [x for x in CN if x != a["bg"]])
        a["s1"] = pick(rng, SHAPES)
        a["pattern"] = pick(rng, PATTERNS, [.68, .08, .08, .08, .08])
        a["size"] = pick(rng, [s for s, _ in SIZES], [.15, .5, .35])
        a["place"] = ""
        if rng.random() < .2:
            a["c2"] = pick(rng, [x for x in CN if x not in (a["bg"], a["c1"])])
            a["s2"] = pick(rng, SHAPES)
            a["size"] = ""
        elif rng.random() < .25:
            a["place"] = pick(rng, [p for p in PLACES if p])
            a["size"] = "" if a["size"] == "large" else a["size"]
    else:
        a["kind"] = "land"
        a["terrain"] = pick(rng, list(TERRAINS))
        a["time"] = pick(rng, list(TIMES), [.4, .3, .3])
        a["snow"] = int(a["terrain"] in SNOWABLE and rng.random() < .35)
        a["extra"] = pick(rng, extras(a)) if rng.random() < .45 else None
    return a


SNOWABLE = ("mountains", "hills", "forest", "city")


def extras(a):
    """The extra things that a landscape may hold."""
    opts = {"sea": ["boat", "boat", "clouds", "rainbow"], "city": ["clouds", "rainbow"], "desert": ["clouds", "house"],
            "forest": ["house", "clouds"]}.get(a["terrain"], ["house", "tree", "clouds", "rainbow"])
    return [o for o in opts if not (o == "rainbow" and a["time"] == "night")]


def change(rng, a):
    """Other attributes for the same layout, and the names of those that differ."""
    b = dict(a)
    if a["kind"] == "shapes":
        keys = pick(rng, [["c1"], ["bg"], ["bg"], ["c1", "bg"], ["c1", "bg"], ["s1"], ["style"], ["pattern"], ["bg", "style"],
                          ["c1", "s1", "bg"]])
        for k in keys:
            if k in ("c1", "bg"):
                b[k] = pick(rng, [x for x in CN if x not in (a[k], b["c1"], b["bg"])])
    else:
        keys = pick(rng, [["time"], ["time"], ["time"], ["snow"], ["time", "snow"], ["terrain"], ["terrain", "time"],
                          ["style"], ["time", "style"], ["extra"], ["terrain", "time", "snow", "extra"]])
        if "terrain" in keys:
            b["terrain"] = pick(rng, [t for t in TERRAINS if t != a["terrain"]])
        if "time" in keys:
            b["time"] = pick(rng, [t for t in TIMES if t != a["time"]])
        if "snow" in keys:
            b["snow"] = 1 - a["snow"]
        if b["terrain"] not in SNOWABLE:
            b["snow"] = 0
        if "extra" in keys:
            b["extra"] = pick(rng, extras(b))
        elif b["extra"] and b["extra"] not in extras(b):
            b["extra"] = None
    if "style" in keys:
        b["style"] = pick(rng, [s for s in STYLES if s not in ("", a["style"])] if a["style"] == "" or rng.random() < .3 else [""])
    if "s1" in keys:
        b["s1"] = pick(rng, [s for s in SHAPES if s != a["s1"]])
    if "pattern" in keys:
        b["pattern"] = pick(rng, [p for p in PATTERNS if p != a["pattern"]])
    return b, [k for k in b if b[k] != a[k]]


def render(seed, size, a):
    """The uint8 picture of a seed and attributes."""
    c = Canvas(size)
    (draw_shapes if a["kind"] == "shapes" else draw_land)(seed, c, a)
    return np.clip(stylize(stream(seed, 5), c.img, a["style"]), 0, 255).astype(np.uint8)


def sample(rng, size, **force):
    """A random picture with its caption and attributes."""
    a = sample_attrs(rng)
    a.update(force)
    return render(int(rng.integers(1 << 40)), size, a), describe(rng, a), a


def pair(rng, size):
    """(picture, changed picture of the same layout, caption of the changed one)."""
    a = sample_attrs(rng)
    b, keys = change(rng, a)
    seed = int(rng.integers(1 << 40))
    short = [k for k in keys if b[k] not in (None, "", 0)]
    caption = describe(rng, b, short) if short and rng.random() < .35 else describe(rng, b)
    return render(seed, size, a), render(seed, size, b), caption

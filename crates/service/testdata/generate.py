"""Makes the small pictures that the image codec's tests read, and what Pillow makes of them.

Needs Pillow and numpy.
Run it in this folder; each picture is 12x10, and `<name>.rgb` holds Pillow's convert("RGB") as raw bytes.
16-bit grey is the one exception: Pillow clips it to white, so there the high byte is written.
"""
import io
import struct
import zlib

import numpy as np
from PIL import Image

W, H = 12, 10
rng = np.random.RandomState(7)
y, x = np.mgrid[0:H, 0:W]
rgb = np.stack([x * 20, y * 25, (x + y) * 11], -1).astype(np.uint8)
alpha = ((x * 37 + y * 53) % 256).astype(np.uint8)
rgb16 = rng.randint(0, 65536, (H, W, 3)).astype(np.uint16)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth, colour, interlace, raw):
    header = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, interlace)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def rows(array):
    return b"".join(b"\0" + line.tobytes() for line in array)


def adam7(array):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    return b"".join(rows(array[dy::sy, dx::sx]) for dx, dy, sx, sy in passes if array[dy::sy, dx::sx].size)


def write(name, data, expected=None):
    open(name, "wb").write(data)
    if expected is None:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    stem = name.rsplit(".", 1)[0]
    open(stem + ".rgb", "wb").write(np.ascontiguousarray(expected, np.uint8).tobytes())


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


picture = Image.fromarray(rgb)
write("rgb_interlaced.png", png(8, 2, 1, adam7(rgb)))
write("rgb_16.png", png(16, 2, 0, rows(rgb16.astype(">u2"))))
grey16 = rgb16[..., 0]
write("grey_16.png", png(16, 0, 0, rows(grey16.astype(">u2"))), np.repeat((grey16 >> 8)[..., None], 3, 2))
write("rgba.png", saved(Image.fromarray(np.dstack([rgb, alpha])), "PNG"))
write("grey_alpha.png", saved(Image.fromarray(np.dstack([rgb[..., 2], alpha])), "PNG"))
write("grey_1.png", saved(Image.fromarray(rgb[..., 0] > 99), "PNG"))
write("grey_4.png", png(4, 0, 0, rows(((x[:, ::2] % 16) * 16 + (y[:, ::2] % 16)).astype(np.uint8))))
palette = picture.quantize(16)
write("palette_alpha.png", saved(palette, "PNG", transparency=bytes([0, 128, 255] * 5 + [7])))
frames = [Image.fromarray(np.roll(rgb, k, 0)) for k in range(3)]
write("animated.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100))
write("progressive.jpeg", saved(picture, "JPEG", quality=90, progressive=True))
write("subsampled.jpeg", saved(picture, "JPEG", quality=90, subsampling=2))
write("grey.jpeg", saved(picture.convert("L"), "JPEG", quality=90))
write("cmyk.jpeg", saved(picture.convert("CMYK"), "JPEG", quality=95))
write("lossy.webp", saved(picture, "WEBP", quality=90))
write("alpha.webp", saved(Image.fromarray(np.dstack([rgb, alpha])), "WEBP", lossless=True, exact=True))
write("animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100, lossless=True))

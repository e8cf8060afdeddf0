#!/usr/bin/env python3
"""Resized pictures of Pillow's LANCZOS, which diffusers resizes with.

    python resize.py

`images/resize.safetensors` holds for each case `NAME.before` and `NAME.after`: (H, W, 3) for RGB and (H, W) for L. Names
say mode, content and both sizes.
"""
import json
import pathlib

import numpy
import PIL
from PIL import Image
from safetensors.numpy import save_file

GOLDEN = pathlib.Path(__file__).resolve().parent.parent

SIZES = [
    ((1, 1), (5, 7)),
    ((2, 2), (23, 19)),
    ((3, 5), (1, 1)),
    ((7, 5), (13, 11)),
    ((13, 11), (7, 5)),
    ((31, 29), (31, 8)),
    ((31, 29), (8, 29)),
    ((31, 29), (31, 61)),
    ((33, 17), (64, 48)),
    ((64, 48), (33, 17)),
    ((40, 40), (39, 41)),
    ((97, 5), (9, 9)),
    ((5, 97), (9, 9)),
    ((120, 80), (11, 7)),
    ((16, 16), (16, 16)),
    # On both sides of the rule by which Pillow changes the height first.
    ((30, 30), (28, 26)),
    ((30, 30), (28, 25)),
    ((30, 30), (32, 30)),
    ((30, 30), (32, 29)),
    # 256 lines become 65, so that windows are wide and their sums long.
    ((3, 256), (3, 65)),
]


def noise(width, height, channels):
    return numpy.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, channels))


def edges(width, height, channels):
    """Black and white checks of three pixels, shifted in each channel: the filter's overshoot everywhere."""
    y, x, c = numpy.mgrid[0:height, 0:width, 0:channels]
    return ((x + c) // 3 + (y + 2 * c) // 3) % 2 * 255


def gradient(width, height, channels):
    y, x, c = numpy.mgrid[0:height, 0:width, 0:channels]
    return (x * 255 // max(width - 1, 1) * (c + 1) + y * 7) % 256


def main():
    tensors = {}
    for before, after in SIZES:
        for mode, channels in (("RGB", 3), ("L", 1)):
            for content in (noise, edges, gradient):
                pixels = content(*before, channels).astype(numpy.uint8)
                pixels = numpy.ascontiguousarray(pixels if mode == "RGB" else pixels[..., 0])
                resized = Image.fromarray(pixels, mode).resize(after, Image.Resampling.LANCZOS)
                sizes = "-".join(f"{width}x{height}" for width, height in (before, after))
                name = f"{mode}-{content.__name__}-{sizes}"
                tensors[f"{name}.before"] = pixels
                tensors[f"{name}.after"] = numpy.asarray(resized).copy()
    path = GOLDEN / "images" / "resize.safetensors"
    path.parent.mkdir(exist_ok=True)
    about = {"script": "resize.py", "versions": {"pillow": PIL.__version__}}
    save_file(tensors, path, metadata={"about": json.dumps(about)})
    print(f"{path.name}: {len(tensors) // 2} pictures, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

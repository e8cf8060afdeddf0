#!/usr/bin/env python3
"""JPEG files of every layout and the pixels that Pillow reads from them.

    python jpeg.py

Needs `jpegtran` (Debian: libjpeg-turbo-progs) beside Pillow and numpy.

`images/jpeg.safetensors` holds for each case `NAME.file`, the bytes of the file, and `NAME.rgb` (H, W, 3), the pixels of
Pillow's `Image.open(…).convert("RGB")`. Names say sampling, scans, restart interval and size.
"""
import io
import json
import pathlib

import numpy
import PIL.features
from PIL import Image
from safetensors.numpy import save_file

from jpeg_file import transcoded, write

GOLDEN = pathlib.Path(__file__).resolve().parent.parent

SAMPLINGS = {
    "444": [(1, 1), (1, 1), (1, 1)],
    "422": [(2, 1), (1, 1), (1, 1)],
    "420": [(2, 2), (1, 1), (1, 1)],
    "440": [(1, 2), (1, 1), (1, 1)],
    "411": [(4, 1), (1, 1), (1, 1)],
    "410": [(4, 2), (1, 1), (1, 1)],
    "441": [(1, 4), (1, 1), (1, 1)],
    # Each colour subsampled its own way.
    "mixed": [(2, 2), (1, 2), (2, 1)],
    # Two samples of each colour for four of brightness, in another notation of 4:2:2.
    "422tall": [(2, 2), (1, 2), (1, 2)],
}
TOGETHER, SEPARATE, REVERSED, COLOURS_LAST = [[0, 1, 2]], [[0], [1], [2]], [[2], [1], [0]], [[0], [1, 2]]
LAYOUTS = {"together": TOGETHER, "separate": SEPARATE, "reversed": REVERSED, "colours-last": COLOURS_LAST}


def picture(width, height, seed):
    """Gradients, an edge between strong colours, and fine texture: what subsampling and its undoing change most."""
    y, x = numpy.mgrid[0:height, 0:width]
    rgb = numpy.stack([x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), (x * 5 + y * 9) % 256], -1)
    rgb[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3.2) ** 2] = (230, 20, 40)
    rgb += numpy.random.default_rng(seed).normal(0, 12, (height, width, 1))
    return Image.fromarray(numpy.clip(rgb, 0, 255).astype(numpy.uint8))


def planes(width, height, seed, mode="YCbCr"):
    return list(numpy.moveaxis(numpy.asarray(picture(width, height, seed).convert(mode)), -1, 0))


def colour_cases():
    number = 0
    for name, factors in SAMPLINGS.items():
        for layout, scans in LAYOUTS.items():
            for restart in (0, 1, 3):
                width, height = 17 + number * 5 % 16, 17 + number * 7 % 16
                number += 1
                file = write(planes(width, height, number), factors, scans, restart, jfif=True)
                yield f"{name}-{layout}-restart{restart}-{width}x{height}", file
        for layout in ("-progressive", "-progressive -restart 2B", "-progressive -restart 1"):
            width, height = 17 + number * 5 % 16, 17 + number * 7 % 16
            number += 1
            file = write(planes(width, height, number), factors, TOGETHER, jfif=True)
            yield f"{name}{layout.replace(' ', '')}-{width}x{height}", transcoded(file, *layout.split())


def size_cases():
    """Every width and height modulo 16, and the smallest pictures."""
    for at in range(16):
        width, height = 16 + at, 16 + at * 11 % 16
        for layout in ("together", "separate"):
            for name in ("420", "422", "440"):
                if (at + len(layout) + int(name[1])) % 2 or name == "420":
                    file = write(planes(width, height, at), SAMPLINGS[name], LAYOUTS[layout], jfif=True)
                    yield f"{name}-{layout}-size-{width}x{height}", file
    for width, height in ((1, 1), (2, 1), (1, 2), (2, 2), (3, 3), (8, 8), (9, 9), (16, 1), (1, 17)):
        for name in ("444", "420"):
            for layout in ("together", "separate"):
                file = write(planes(width, height, 3), SAMPLINGS[name], LAYOUTS[layout], jfif=True)
                yield f"{name}-{layout}-tiny-{width}x{height}", file
            file = write(planes(width, height, 3), SAMPLINGS[name], TOGETHER, jfif=True)
            yield f"{name}-progressive-tiny-{width}x{height}", transcoded(file, "-progressive")


def grey_cases():
    for width, height in ((1, 1), (3, 2), (8, 8), (9, 17), (25, 23), (40, 11)):
        plane = numpy.asarray(picture(width, height, 5).convert("L"))
        for factor in ((1, 1), (2, 2), (4, 1)):
            file = write([plane], [factor], [[0]], jfif=True)
            yield f"grey-{factor[0]}{factor[1]}-{width}x{height}", file
        yield f"grey-restart2-{width}x{height}", write([plane], [(1, 1)], [[0]], 2, jfif=True)
        file = write([plane], [(1, 1)], [[0]], jfif=True)
        yield f"grey-progressive-{width}x{height}", transcoded(file, "-progressive")


def ink_cases():
    """Four components: CMYK and YCCK, with Adobe's marker, whose files are inverted, and without it."""
    together, separate = [[0, 1, 2, 3]], [[0], [1], [2], [3]]
    width, height = 27, 21
    cmyk = planes(width, height, 8, "CMYK")
    cmyk[3] = numpy.asarray(picture(width, height, 9).convert("L")) // 3
    inverted = [255 - plane for plane in cmyk]
    ink_as_rgb = Image.fromarray(numpy.stack(inverted[:3], -1))
    ycck = [*numpy.moveaxis(numpy.asarray(ink_as_rgb.convert("YCbCr")), -1, 0), inverted[3]]
    full, half = [(1, 1)] * 4, [(2, 2), (1, 1), (1, 1), (2, 2)]
    for layout, scans in (("together", together), ("separate", separate)):
        yield f"cmyk-plain-{layout}", write(cmyk, full, scans)
        yield f"cmyk-adobe-{layout}", write(inverted, full, scans, adobe=0)
        yield f"ycck-{layout}", write(ycck, full, scans, adobe=2)
        yield f"ycck-420-{layout}", write(ycck, half, scans, adobe=2)
    yield "ycck-420-progressive", transcoded(write(ycck, half, together, adobe=2), "-progressive")
    yield "cmyk-adobe-restart", write(inverted, full, together, 2, adobe=0)


def colour_space_cases():
    """Three components, and all ways to say which they are."""
    rgb, ycc = planes(19, 22, 4, "RGB"), planes(19, 22, 4)
    full = SAMPLINGS["444"]
    yield "rgb-adobe", write(rgb, full, TOGETHER, adobe=0)
    yield "rgb-adobe-separate", write(rgb, full, SEPARATE, adobe=0)
    yield "rgb-named", write(rgb, full, TOGETHER, ids=list(b"RGB"))
    yield "ycc-adobe", write(ycc, full, TOGETHER, adobe=1)
    yield "ycc-unmarked", write(ycc, full, TOGETHER)
    yield "ycc-unmarked-from-zero", write(ycc, full, TOGETHER, ids=[0, 1, 2])
    yield "ycc-unmarked-strange", write(ycc, full, TOGETHER, ids=[35, 7, 9])
    yield "ycc-jfif-named-rgb", write(ycc, full, TOGETHER, ids=list(b"RGB"), jfif=True)


def main():
    tensors = {}
    for cases in (colour_cases(), size_cases(), grey_cases(), ink_cases(), colour_space_cases()):
        for name, file in cases:
            assert f"{name}.file" not in tensors, name
            pixels = numpy.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
            tensors[f"{name}.file"] = numpy.frombuffer(file, numpy.uint8)
            tensors[f"{name}.rgb"] = numpy.ascontiguousarray(pixels)
    path = GOLDEN / "images" / "jpeg.safetensors"
    path.parent.mkdir(exist_ok=True)
    versions = {"pillow": PIL.__version__, "libjpeg-turbo": PIL.features.version("libjpeg_turbo")}
    save_file(tensors, path, metadata={"about": json.dumps({"script": "jpeg.py", "versions": versions})})
    print(f"{path.name}: {len(tensors) // 2} files, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Pictures with the watermark of the package invisible-watermark, method `dwtDctSvd`, and a look at ours with its decoder.

    pip install --no-deps invisible-watermark==0.2.0 opencv-python-headless==5.0.0.93 PyWavelets==1.9.0
    python watermark.py

`watermark/source.png` is the photograph of the tests with sides of 384 and 256, `package.png` the same with the message
written by the package. `ours.png` is written by the test of `crates/service/src/image_codec/watermark` (INSTA_UPDATE=always);
this script decodes it with the package and fails when a bit is wrong. Another method of the package needs torch, and is left out.
"""
import pathlib
import sys
import types

import numpy
from PIL import Image

sys.modules["imwatermark.rivaGan"] = types.ModuleType("imwatermark.rivaGan")
sys.modules["imwatermark.rivaGan"].RivaWatermark = object
from imwatermark import WatermarkDecoder, WatermarkEncoder  # noqa: E402

TESTS = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = TESTS / "golden" / "watermark"
MESSAGE = b"pentim"
METHOD = "dwtDctSvd"


def bgr(picture):
    return numpy.ascontiguousarray(numpy.asarray(picture.convert("RGB"))[:, :, ::-1])


def right_bits(picture):
    wanted = numpy.unpackbits(numpy.frombuffer(MESSAGE, numpy.uint8))
    found = numpy.array(WatermarkDecoder("bits", wanted.size).decode(bgr(picture), METHOD)).astype(int)
    return int((found == wanted).sum()), wanted.size


def main():
    FOLDER.mkdir(exist_ok=True)
    source = Image.open(TESTS / "images" / "photo.png").convert("RGB").resize((384, 256), Image.LANCZOS)
    source.save(FOLDER / "source.png", optimize=True)
    encoder = WatermarkEncoder()
    encoder.set_watermark("bytes", MESSAGE)
    marked = Image.fromarray(encoder.encode(bgr(source), METHOD)[:, :, ::-1])
    marked.save(FOLDER / "package.png", optimize=True)
    for name in ["package.png", "ours.png"]:
        path = FOLDER / name
        if path.exists():
            right, of = right_bits(Image.open(path))
            print(f"{name}: {right} of {of} bits")
            assert right == of, name
    assert right_bits(source)[0] < 40


if __name__ == "__main__":
    main()

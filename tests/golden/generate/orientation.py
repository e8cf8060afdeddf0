#!/usr/bin/env python3
"""Files that say in every possible place how they are to be turned, and what Pillow's `ImageOps.exif_transpose` makes.

    python orientation.py

`images/orientation.safetensors` holds for each case `NAME.file`, the bytes of the file, and `NAME.rgb` (H, W, 3), the
pixels of `ImageOps.exif_transpose(Image.open(…)).convert("RGB")`. Most files say 6, a quarter turn, so that width and
height tell whether it was followed. Cases for which Pillow has an exception are not kept.
"""
import io
import json
import pathlib
import struct
import warnings
import zlib

import numpy
import PIL
from PIL import Image, ImageOps
from safetensors.numpy import save_file

GOLDEN = pathlib.Path(__file__).resolve().parent.parent
PREFIX = b"Exif\0\0"
ARROW = numpy.zeros((2, 3, 3), numpy.uint8)
ARROW[0, :, :] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
ARROW[1, 0] = [0, 0, 255]
# Wide enough for the blocks of a JPEG.
BROAD = numpy.kron(ARROW, numpy.ones((8, 8, 1), numpy.uint8))


def tiff(value=6, order=">", kind=3, count=1, others=(), head=None, next_to=b""):
    """A TIFF block. `others` are entries (tag, type, count, value) before the orientation."""
    sizes = {1: "B3x", 2: "4s", 3: "H2x", 4: "L", 6: "b3x", 7: "4s", 8: "h2x", 9: "l", 11: "f", 13: "L", 99: "L"}
    entries = [(*other[:3], struct.pack(f"{order}L", other[3])) for other in others]
    if kind == 5:
        field = struct.pack(f"{order}L", 8 + 2 + 12 * (len(entries) + 1) + 4)
        next_to = struct.pack(f"{order}LL", value, 1)
    elif kind in (2, 7):
        field = str(value).encode().ljust(4, b"\0")
    else:
        field = struct.pack(order + sizes[kind], value)
    entries.append((0x112, kind, count, field))
    head = head or {">": b"MM\0*", "<": b"II*\0"}[order]
    block = head + struct.pack(f"{order}LH", 8, len(entries))
    for tag, entry_kind, number, raw in entries:
        block += struct.pack(f"{order}HHL", tag, entry_kind, number) + raw
    return block + struct.pack(f"{order}L", 0) + next_to


def xmp(form, value=6):
    text = {"attribute": f'<rdf:Description tiff:Orientation="{value}"/>', "element": f"<tiff:Orientation>{value}</tiff:Orientation>"}
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{text[form]}</x:xmpmeta>'.encode()


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(before=b"", after=b""):
    file = io.BytesIO()
    Image.fromarray(ARROW).save(file, "PNG")
    data = file.getvalue()
    return data[:33] + before + data[33:-12] + after + data[-12:]


def profile(block, name="exif"):
    digits = block.hex()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    return ("\n%s\n%8d\n" % (name, len(block)) + "\n".join(lines) + "\n").encode()


def text(kind, keyword, body):
    if kind == b"zTXt":
        body = b"\0" + zlib.compress(body)
    if kind == b"iTXt":
        body = b"\0\0\0\0" + body
    if kind == b"iTXt compressed":
        kind, body = b"iTXt", b"\1\0\0\0" + zlib.compress(body)
    return png_chunk(kind, keyword + b"\0" + body)


def webp(*chunks, flags=None):
    file = io.BytesIO()
    Image.fromarray(ARROW).save(file, "WEBP", lossless=True)
    pixels = file.getvalue()[12:]
    if flags is None:
        flags = 8 * any(name == b"EXIF" for name, _ in chunks) | 4 * any(name == b"XMP " for name, _ in chunks)
    body = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0, 2, 0, 0, 1, 0, 0]) + pixels
    for name, data in chunks:
        body += name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg(*segments, after_header=b"", before_end=b"", **options):
    """`segments` are (marker, body) behind the JFIF marker."""
    file = io.BytesIO()
    Image.fromarray(BROAD).save(file, "JPEG", quality=95, subsampling=0, **options)
    data = file.getvalue()
    added = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    tables = data.index(b"\xff\xc4")
    return data[:20] + added + data[20:tables] + after_header + data[tables:-2] + before_end + data[-2:]


def segment(body):
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def block_cases():
    """The same place, with all kinds of blocks."""
    for value in range(10):
        yield f"value-{value}", tiff(value)
    yield "little-endian", tiff(order="<")
    yield "value-over-a-byte", tiff(262)
    for kind in (1, 2, 4, 5, 6, 7, 8, 9, 13, 99):
        yield f"type-{kind}", tiff(kind=kind)
    yield "two-values", tiff(count=2)
    yield "three-values", tiff(8 + 2 + 12 + 4, kind=4, count=3, next_to=struct.pack(">LLL", 6, 3, 3))
    yield "three-values-beyond-the-end", tiff(8 + 2 + 12 + 4, kind=4, count=3, next_to=struct.pack(">LL", 6, 3))
    yield "no-value", tiff(count=0)
    yield "behind-others", tiff(others=[(0x100, 4, 1, 3), (0x10F, 2, 4, 0x41414141)])
    yield "behind-a-longer-tag", tiff(others=[(0x9999, 4, 1, 3)])
    yield "twice", tiff(3, others=[(0x112, 3, 1, 6 << 16)])
    yield "twice-first-unknown", tiff(3, others=[(0x112, 99, 1, 6 << 16)])
    yield "without", tiff(others=[]).replace(b"\x01\x12", b"\x01\x13")
    yield "swapped-magic", tiff(head=b"MM*\0")
    yield "swapped-magic-little", tiff(order="<", head=b"II\0*")
    yield "magic-43", tiff(head=b"MM\0+")
    yield "big-tiff", b"MM\0+\0\x08\0\0" + struct.pack(">QQHHQHHLQ", 16, 1, 0x112, 3, 1, 6, 0, 0, 0)
    yield "one-prefix", PREFIX + tiff()
    yield "two-prefixes", PREFIX * 2 + tiff()
    yield "three-prefixes", PREFIX * 3 + tiff()
    yield "cut-in-the-directory", tiff()[:20]
    yield "cut-behind-it", tiff()[:22]
    yield "directory-far-away", tiff()[:4] + struct.pack(">L", 4000) + tiff()[8:]
    yield "not-tiff", b"Orientation: 6"
    yield "empty", b""


def cases():
    for name, block in block_cases():
        yield f"png-block-{name}", png(png_chunk(b"eXIf", block))
        yield f"webp-block-{name}", webp((b"EXIF", block))
        if not block.startswith(PREFIX):
            yield f"jpeg-block-{name}", jpeg((0xE1, PREFIX + block))

    exif = png_chunk(b"eXIf", tiff())
    yield "png-exif-after-pixels", png(after=exif)
    yield "png-exif-twice", png(png_chunk(b"eXIf", tiff(3)), exif)
    for kind in (b"tEXt", b"zTXt", b"iTXt", b"iTXt compressed"):
        short = kind.decode().replace(" ", "-")
        for place in ("before", "after"):
            for keyword, block in (("exif", tiff()), ("exif", PREFIX + tiff()), ("APP1", PREFIX + tiff())):
                chunk = text(kind, f"Raw profile type {keyword}".encode(), profile(block, keyword))
                prefixed = "-prefixed" if block.startswith(PREFIX) else ""
                yield f"png-profile-{keyword}-{short}-{place}{prefixed}", png(**{place: chunk})
            yield f"png-xmp-{short}-{place}", png(**{place: text(kind, b"XML:com.adobe.xmp", xmp("attribute"))})
        yield f"png-raw-exif-{short}", png(text(kind, b"exif", tiff()))
    yield "png-profile-broken", png(text(b"tEXt", b"Raw profile type exif", b"\nexif\n 4\nxyz"))
    yield "png-profile-not-deflate", png(png_chunk(b"zTXt", b"Raw profile type exif\0\0nothing"))
    yield "png-profile-and-exif", png(png_chunk(b"eXIf", tiff(3)) + text(b"zTXt", b"Raw profile type exif", profile(tiff(6))))
    yield "png-xmp-element", png(text(b"iTXt", b"XML:com.adobe.xmp", xmp("element")))
    yield "png-xmp-and-exif", png(text(b"iTXt", b"XML:com.adobe.xmp", xmp("element")) + png_chunk(b"eXIf", tiff(3)))
    yield "png-xmp-and-exif-of-1", png(text(b"iTXt", b"XML:com.adobe.xmp", xmp("element")) + png_chunk(b"eXIf", tiff(1)))
    without = tiff().replace(b"\x01\x12", b"\x01\x13")
    yield "png-xmp-and-exif-without", png(text(b"iTXt", b"XML:com.adobe.xmp", xmp("element")) + png_chunk(b"eXIf", without))
    for value in ("0", "9", "", "x"):
        yield f"png-xmp-value-{value}", png(text(b"iTXt", b"XML:com.adobe.xmp", xmp("attribute", value)))

    yield "webp-xmp", webp((b"XMP ", xmp("attribute")))
    yield "webp-xmp-element", webp((b"XMP ", xmp("element")))
    yield "webp-xmp-and-exif", webp((b"EXIF", tiff(3)), (b"XMP ", xmp("element")))
    yield "webp-exif-without-its-flag", webp((b"EXIF", tiff()), flags=0)
    yield "webp-exif-behind-another-chunk", webp((b"abcd", b"odd"), (b"EXIF", PREFIX + tiff()))
    yield "webp-exif-twice", webp((b"EXIF", tiff(3)), (b"EXIF", tiff(6)))
    yield "webp-saved-by-pillow", saved_by_pillow("WEBP", lossless=True)
    yield "png-saved-by-pillow", saved_by_pillow("PNG")

    head, packet = (0xE1, PREFIX + tiff()), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp("element"))
    yield "jpeg-exif-behind-the-frame", jpeg(after_header=segment(PREFIX + tiff()))
    yield "jpeg-exif-behind-the-scan", jpeg(before_end=segment(PREFIX + tiff()))
    yield "jpeg-exif-behind-others", jpeg((0xE2, b"MPF\0nothing"), (0xED, b"Photoshop 3.0\0"), packet, head)
    yield "jpeg-exif-in-two-markers", jpeg((0xE1, PREFIX + tiff()[:15]), (0xE1, PREFIX + tiff()[15:]))
    yield "jpeg-exif-in-another-marker", jpeg((0xE2, PREFIX + tiff()))
    yield "jpeg-exif-with-other-case", jpeg((0xE1, b"EXIF\0\0" + tiff()))
    yield "jpeg-exif-progressive", jpeg(head, progressive=True)
    yield "jpeg-xmp", jpeg(packet)
    yield "jpeg-xmp-and-exif", jpeg(packet, (0xE1, PREFIX + tiff(3)))
    yield "jpeg-xmp-twice", jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp("element", 3)), packet)


def saved_by_pillow(kind, **options):
    exif = Image.Exif()
    exif[0x112] = 6
    file = io.BytesIO()
    Image.fromarray(ARROW).save(file, kind, exif=exif.tobytes(), **options)
    return file.getvalue()


def main():
    warnings.simplefilter("ignore")
    tensors, turned = {}, 0
    for name, file in cases():
        assert f"{name}.file" not in tensors, name
        try:
            pixels = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}")
            continue
        turned += pixels.width < pixels.height
        tensors[f"{name}.file"] = numpy.frombuffer(file, numpy.uint8)
        tensors[f"{name}.rgb"] = numpy.asarray(pixels).copy()
    path = GOLDEN / "images" / "orientation.safetensors"
    path.parent.mkdir(exist_ok=True)
    about = {"script": "orientation.py", "versions": {"pillow": PIL.__version__}}
    save_file(tensors, path, metadata={"about": json.dumps(about)})
    print(f"{path.name}: {len(tensors) // 2} files, {turned} turned on their side, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

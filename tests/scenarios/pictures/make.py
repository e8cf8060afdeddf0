"""Makes the pictures of the scenarios: every shape a file may have, and every way it may be wrong.

Run with Pillow 13: `python tests/scenarios/pictures/make.py`. The output is committed; the tests need no Python.
"""

import io
import pathlib
import struct
import zlib

from PIL import Image

HERE = pathlib.Path(__file__).parent


def scene(width: int, height: int) -> Image.Image:
    """Sky above, meadow below, a sun on the left, so that turns and flips can be seen."""
    picture = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            sky = y < height * 2 // 3
            sun = (x - width / 4) ** 2 + (y - height / 4) ** 2 < (height / 6) ** 2
            picture.putpixel((x, y), (250, 220, 60) if sun else (90, 150, 230) if sky else (60, 160, 70))
    return picture


def save(name: str, picture: Image.Image, **options) -> None:
    picture.save(HERE / name, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def rows(picture: Image.Image) -> bytes:
    width, height = picture.size
    data = picture.tobytes()
    line = len(data) // height
    return b"".join(b"\0" + data[y * line : (y + 1) * line] for y in range(height))


def main() -> None:
    small = scene(64, 48)
    save("small.png", small)
    save("small.jpg", small, quality=92)
    save("small.webp", small, lossless=True)
    save("lossy.webp", small, quality=80)
    save("progressive.jpg", small, progressive=True)
    save("cmyk.jpg", small.convert("CMYK"))
    save("grey.jpg", small.convert("L"))
    save("palette-alpha.png", small.convert("P", palette=Image.Palette.ADAPTIVE, colors=8), transparency=0)
    save("grey-alpha.png", small.convert("LA"))
    transparent = small.convert("RGBA")
    transparent.putalpha(0)
    save("transparent.png", transparent)
    # Strokes on an empty canvas: all is black, and only alpha has a shape.
    strokes = Image.new("RGBA", (64, 64))
    strokes.paste((0, 0, 0, 255), (16, 16, 48, 48))
    save("strokes.png", strokes)
    save("one-bit.png", small.convert("1"))
    save("pixel.png", scene(1, 1))
    save("line.png", scene(200, 1))
    save("odd-67x45.png", scene(67, 45))
    save("edge-2048x8.png", scene(2048, 8))
    save("wide-2049x8.png", scene(2049, 8))
    save("tall-1x20000.png", Image.new("RGB", (1, 20000), "teal"))
    save("animation.webp", small, save_all=True, append_images=[small.rotate(180)], lossless=True)
    save("animation.png", small, save_all=True, append_images=[small.rotate(180)])
    save("animation.gif", small, save_all=True, append_images=[small.rotate(180)])
    save("picture.bmp", scene(16, 16))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"orientation-{orientation}.jpg", small, exif=exif, quality=92)

    deep = struct.pack(">3H", 0x5A5A, 0x9696, 0xE6E6) * 64
    sixteen = header(64, 48, depth=16) + chunk(b"IDAT", zlib.compress((b"\0" + deep) * 48))
    (HERE / "sixteen-bit.png").write_bytes(png(sixteen))
    # Adam7 by hand: Pillow reads it and does not write it.
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    scanlines = b""
    for left, top, right, down in passes:
        for y in range(top, 48, down):
            scanlines += b"\0" + b"".join(bytes(small.getpixel((x, y))) for x in range(left, 64, right))
    interlaced = png(header(64, 48, interlace=1), chunk(b"IDAT", zlib.compress(scanlines)))
    (HERE / "interlaced.png").write_bytes(interlaced)
    assert Image.open(io.BytesIO(interlaced)).convert("RGB").tobytes() == small.tobytes()

    whole = (HERE / "small.png").read_bytes()
    jpeg = (HERE / "small.jpg").read_bytes()
    pixels = chunk(b"IDAT", zlib.compress(rows(small)))
    wrong = {
        "bomb-100000x100000.png": png(header(100_000, 100_000), chunk(b"IDAT", zlib.compress(b"\0" * 1000))),
        "claims-2000x2000.png": png(header(2000, 2000), chunk(b"IDAT", zlib.compress(b"\0" * 10))),
        "zero-size.png": png(header(0, 0), chunk(b"IDAT", zlib.compress(b""))),
        "truncated.png": whole[: len(whole) // 2],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header-only.jpg": jpeg[:20],
        "wrong-checksum.png": whole[:-30] + b"\0\0\0\0" + whole[-26:],
        "page.html": b"<!doctype html><title>Not a picture</title>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><script>1</script></svg>',
        "document.pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n",
        "text.txt": b"this is no picture at all\n",
        "heic.bin": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40,
        "riff-no-webp.webp": b"RIFF\x10\0\0\0WEBPVP8 \x04\0\0\0\0\0\0\0",
    }
    fine = {
        # A text chunk of 8 MB in 8 kB: must cost nothing.
        "text-bomb.png": png(
            header(64, 48), chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 8_000_000, 9)), pixels
        ),
        "many-chunks.png": png(header(64, 48), *[chunk(b"tEXt", b"a\0b")] * 2000, pixels),
        # A PNG that is also the beginning of a ZIP file.
        "polyglot.png": whole + b"PK\x03\x04" + b"\0" * 60,
    }
    for name, data in {**wrong, **fine}.items():
        (HERE / name).write_bytes(data)


main()

"""Writes JPEG files of every layout that sequential Huffman coding has, which no common encoder offers together.

Sampling factors per component, scans of any components in any order, restart intervals, and the markers that say what the
components are. Progressive files are made from these by libjpeg's `jpegtran`, without loss.
"""
import io
import struct
import subprocess

import numpy
from PIL import Image

ZIGZAG = sorted(range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8))
COSINES = numpy.array(
    [[(numpy.sqrt(0.125) if u == 0 else 0.5) * numpy.cos((2 * x + 1) * u * numpy.pi / 16) for x in range(8)] for u in range(8)]
)


def borrowed_tables():
    """Quantisation and Huffman tables, as libjpeg writes them at quality 90."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=90)
    data, at, quantisation, huffman = file.getvalue(), 2, {}, {}
    while data[at + 1] != 0xDA:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        body = data[at + 4 : at + 2 + length]
        if marker == 0xDB:
            quantisation[body[0]] = list(body[1:65])
        if marker == 0xC4:
            while body:
                count = sum(body[1:17])
                huffman[body[0]] = body[: 17 + count]
                body = body[17 + count :]
        at += 2 + length
    return quantisation, huffman


QUANTISATION, HUFFMAN = borrowed_tables()


def codes(table):
    """Symbol to (code, length)."""
    result, code, at = {}, 0, 17
    for length in range(1, 17):
        for _ in range(table[length]):
            result[table[at]] = (code, length)
            code, at = code + 1, at + 1
        code <<= 1
    return result


CODES = {identifier: codes(table) for identifier, table in HUFFMAN.items()}


class Bits:
    def __init__(self):
        self.out, self.value, self.length = bytearray(), 0, 0

    def put(self, value, length):
        self.value, self.length = (self.value << length) | value, self.length + length
        while self.length >= 8:
            self.length -= 8
            byte = (self.value >> self.length) & 0xFF
            self.out += bytes([byte]) + (b"\0" if byte == 0xFF else b"")
        self.value &= (1 << self.length) - 1

    def fill(self):
        if self.length:
            self.put((1 << (8 - self.length)) - 1, 8 - self.length)


def put_number(bits, value):
    size = abs(value).bit_length()
    bits.put(value if value > 0 else value + (1 << size) - 1, size)


def put_block(bits, block, before, table):
    """A quantised block in zigzag order; `before` is the DC of the block before."""
    difference = block[0] - before
    bits.put(*CODES[table][abs(difference).bit_length()])
    if difference:
        put_number(bits, difference)
    run = 0
    for value in block[1:]:
        if value == 0:
            run += 1
            continue
        while run > 15:
            bits.put(*CODES[0x10 | table][0xF0])
            run -= 16
        bits.put(*CODES[0x10 | table][run << 4 | abs(value).bit_length()])
        put_number(bits, value)
        run = 0
    if run:
        bits.put(*CODES[0x10 | table][0])


def blocks_of(plane, columns, lines, table):
    """Quantised blocks, of a plane that is continued to the right and below by its last pixels."""
    height, width = plane.shape
    plane = numpy.pad(plane, ((0, lines * 8 - height), (0, columns * 8 - width)), mode="edge").astype(float) - 128
    grid = plane.reshape(lines, 8, columns, 8).swapaxes(1, 2)
    steps = numpy.array(QUANTISATION[table])
    wanted = (COSINES @ grid @ COSINES.T).reshape(lines, columns, 64)[..., ZIGZAG]
    return numpy.rint(wanted / steps).astype(int).tolist()


def ceil(a, b):
    return -(-a // b)


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def write(planes, factors, scans, restart=0, ids=None, jfif=False, adobe=None):
    """A sequential file.

    `planes` are full-size, one per component; `factors` their (horizontal, vertical) sampling; `scans` lists of component
    numbers; `restart` an interval in MCUs; `adobe` the transform flag of an Adobe marker.
    """
    height, width = planes[0].shape
    most = [max(factor[axis] for factor in factors) for axis in (0, 1)]
    across, down = ceil(width, 8 * most[0]), ceil(height, 8 * most[1])
    ids = ids or list(range(1, len(planes) + 1))
    tables = [0 if number in (0, 3) else 1 for number in range(len(planes))]
    coded = []
    for plane, (h, v), table in zip(planes, factors, tables):
        # The mean over what one sample stands for.
        step_x, step_y = most[0] // h, most[1] // v
        own_width, own_height = ceil(width * h, most[0]), ceil(height * v, most[1])
        padded = numpy.pad(plane, ((0, own_height * step_y - height), (0, own_width * step_x - width)), mode="edge")
        own = padded.reshape(own_height, step_y, own_width, step_x).mean((1, 3))
        coded.append((blocks_of(own, across * h, down * v, table), ceil(own_width, 8), ceil(own_height, 8)))
    out = b"\xff\xd8"
    if jfif:
        out += segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    if adobe is not None:
        out += segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, adobe))
    for number in sorted(set(tables)):
        out += segment(0xDB, bytes([number]) + bytes(QUANTISATION[number]))
        out += segment(0xC4, HUFFMAN[number]) + segment(0xC4, HUFFMAN[0x10 | number])
    components = b"".join(bytes([i, h << 4 | v, t]) for i, (h, v), t in zip(ids, factors, tables))
    out += segment(0xC0, struct.pack(">BHHB", 8, height, width, len(planes)) + components)
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    for scan in scans:
        named = b"".join(bytes([ids[number], tables[number] * 0x11]) for number in scan)
        out += segment(0xDA, bytes([len(scan)]) + named + b"\0\x3f\0")
        if len(scan) == 1:
            blocks, columns, lines = coded[scan[0]]
            units = [[(scan[0], blocks[y][x])] for y in range(lines) for x in range(columns)]
        else:
            units = [
                [
                    (number, coded[number][0][y * factors[number][1] + j][x * factors[number][0] + i])
                    for number in scan
                    for j in range(factors[number][1])
                    for i in range(factors[number][0])
                ]
                for y in range(down)
                for x in range(across)
            ]
        bits, before = Bits(), [0] * len(planes)
        for count, unit in enumerate(units):
            if restart and count and count % restart == 0:
                bits.fill()
                bits.out += bytes([0xFF, 0xD0 + (count // restart - 1) % 8])
                before = [0] * len(planes)
            for number, block in unit:
                put_block(bits, block, before[number], tables[number])
                before[number] = block[0]
        bits.fill()
        out += bytes(bits.out)
    return out + b"\xff\xd9"


def transcoded(file, *arguments):
    """The same coefficients in another layout, by `jpegtran` of libjpeg-turbo."""
    return subprocess.run(["jpegtran", "-copy", "all", *arguments], input=file, capture_output=True, check=True).stdout

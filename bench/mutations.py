"""Request bodies to fuzz with: pictures of every kind, and JSON, each damaged in a way of its own.

Everything follows from a seed and a number, so that any input can be made again.
"""

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

__all__ = ["MODEL", "body", "pictures", "sound"]

MODEL = "ssd"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 0.5, 1e308, 2**63, 2**64, 10**400, float("nan"), float("-inf")),
    *("", " ", "\0", "\ud800", "é" * 300, "a" * 257, "../../etc/passwd", "data:,", "====", "A"),
    *([], {}, [[]] * 50, {"image": {"image": "x"}}, "data:image/png;base64,"),
)
FIELDS = ("model_name", "image", "threshold", "model_version", "version_label", "extra")


def _save(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def _interlaced(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """An interlaced PNG, which Pillow reads and does not write: seven passes (Adam7)."""
    height, width = pixels.shape[:2]
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))  # fmt: skip
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, right in passes
        for row in pixels[top::down, left::right]
        if row.size
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)


def _bitmap(size: int, depth: int, height: int, compression: int, pixels: bytes) -> bytes:
    """A BMP 16 wide of a kind that Pillow does not write; ``size`` is that of its header."""
    layout = "<IHHHH" if size == 12 else "<IiiHHIIiiII"
    more = () if size == 12 else (compression, len(pixels), 0, 0, 0, 0)
    info = struct.pack(layout, size, 16, height, 1, depth, *more)
    palette = b"" if depth > 8 else bytes(range(256)) * (3 if size == 12 else 4)
    start = 14 + len(info) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + info + palette + pixels


@cache
def pictures() -> dict[str, bytes]:
    """A small sound picture of every kind, by name; the last part of a name is its format."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    rgb = coarse.resize((53, 41), Image.Resampling.BICUBIC)
    ImageDraw.Draw(rgb).ellipse((5, 5, 30, 30), (200, 30, 20))
    turned = Image.Exif()
    turned[0x0112] = 6
    gray, rgba, palette = rgb.convert("L"), rgb.convert("RGBA"), rgb.quantize(200)
    frames: dict[str, Any] = {
        "save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)], "duration": 40,
    }  # fmt: skip
    deep = np.asarray(rgb).astype(np.uint16) * 257
    return {
        "baseline.jpeg": _save(rgb, "JPEG", quality=80),
        "full.jpeg": _save(rgb, "JPEG", quality=95, subsampling=0, exif=turned),
        "restarts.jpeg": _save(rgb, "JPEG", restart_marker_blocks=2),
        "progressive.jpeg": _save(rgb, "JPEG", progressive=True),
        "cmyk.jpeg": _save(rgb.convert("CMYK"), "JPEG"),
        "gray.jpeg": _save(gray, "JPEG"),
        "rgb.png": _save(rgb, "PNG"),
        "rgba.png": _save(rgba, "PNG", exif=turned),
        "gray.png": _save(gray, "PNG"),
        "gray-alpha.png": _save(gray.convert("LA"), "PNG"),
        "gray-16.png": cv2.imencode(".png", deep[..., 0])[1].tobytes(),
        "rgb-16.png": cv2.imencode(".png", deep)[1].tobytes(),
        "one-bit.png": _save(rgb.convert("1"), "PNG"),
        "palette.png": _save(palette, "PNG", transparency=3),
        "interlaced.png": _interlaced(np.asarray(rgb)),
        "animated.png": _save(rgb, "PNG", **frames),
        "lossy.webp": _save(rgb, "WEBP", quality=70),
        "alpha.webp": _save(rgba, "WEBP", quality=70, exif=turned),
        "lossless.webp": _save(rgb, "WEBP", lossless=True),
        "animated.webp": _save(rgb, "WEBP", **frames),
        "still.gif": _save(palette, "GIF"),
        "animated.gif": _save(rgb, "GIF", **frames),
        "rgb.bmp": _save(rgb, "BMP"),
        "rgba.bmp": _save(rgba, "BMP"),
        "palette.bmp": _save(palette, "BMP"),
        "one-bit.bmp": _save(rgb.convert("1"), "BMP"),
        "upside-down.bmp": _bitmap(40, 24, -16, 0, bytes(range(256)) * 3),
        "fields.bmp": _bitmap(40, 16, 16, 0, bytes(range(256)) * 2),
        "os2.bmp": _bitmap(12, 8, 16, 0, bytes(range(256))),
        "run-length.bmp": _bitmap(40, 8, 16, 1, b"\x10\x05\0\0" * 16 + b"\0\1"),
    }


def _pieces(data: bytes) -> list[bytes]:
    """The parts that a format has: chunks of PNG and WebP, segments of JPEG; else even cuts."""
    parts, at = [], 0
    try:
        if data.startswith(PNG_SIGNATURE):
            parts, at = [data[:8]], 8
            while at < len(data):
                end = at + 12 + int.from_bytes(data[at : at + 4], "big")
                parts.append(data[at:end])
                at = end
        elif data.startswith(b"RIFF"):
            parts, at = [data[:12]], 12
            while at < len(data):
                size = int.from_bytes(data[at + 4 : at + 8], "little")
                end = at + 8 + size + (size & 1)
                parts.append(data[at:end])
                at = end
        elif data.startswith(b"\xff\xd8"):
            parts, at = [data[:2]], 2
            while data[at + 1] != 0xDA:
                end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
                parts.append(data[at:end])
                at = end
            parts += [data[at:-2], data[-2:]]
    except IndexError:
        pass
    return parts or [data[at : at + 16] for at in range(0, len(data), 16)]


def _splice(data: bytes, rng: random.Random) -> bytes:
    """Its parts repeated, dropped, swapped, or joined by those of another picture."""
    parts = _pieces(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(parts))
        change = rng.randrange(4)
        if change == 0:
            parts[at:at] = [parts[at]] * rng.choice((1, 2, 20, 200))
        elif change == 1 and len(parts) > 1:
            del parts[at]
        elif change == 2:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts.insert(at, rng.choice(_pieces(rng.choice(list(pictures().values())))))
    return b"".join(parts)


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _number(data: bytes, rng: random.Random) -> bytes:
    """A length, a size or a count replaced, where headers have them more often than elsewhere."""
    changed = bytearray(data)
    width = rng.choice((1, 2, 3, 4))
    at = rng.randrange(min(len(data), rng.choice((32, 64, 256, 1 << 30))))
    value = rng.choice(EDGES) if rng.random() < 0.7 else rng.getrandbits(32)
    order = "big" if rng.random() < 0.5 else "little"
    changed[at : at + width] = (value & (256**width - 1)).to_bytes(width, order)
    return bytes(changed)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data) + 1)]


def _cut(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 2, 4, 64)) :] or data


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    new = rng.randbytes(rng.choice((1, 4, 100))) if rng.random() < 0.5 else data[at : at + 64]
    return data[:at] + new * rng.choice((1, 1, 8, 64)) + data[at:]


Mutation = Callable[[bytes, random.Random], bytes]
MUTATIONS: tuple[Mutation, ...] = (_flip, _number, _number, _truncate, _cut, _insert, _splice)


def _mutate(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(MUTATIONS)(data, rng)
    return data


def _checked(data: bytes) -> bytes:
    """The same PNG with checksums that are right, for what lies behind them to be reached."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    whole = [part for part in _pieces(data)[1:] if len(part) >= 12]
    return PNG_SIGNATURE + b"".join(_chunk(part[4:8], part[8:-4]) for part in whole)


def sound() -> bytes:
    """A body that must be answered."""
    return _wrap(pictures()["baseline.jpeg"])


def _wrap(picture: bytes) -> bytes:
    text = base64.b64encode(picture).decode()
    return f'{{"model_name": "{MODEL}", "image": "{text}"}}'.encode()


def _json(rng: random.Random) -> bytes:
    fields: list[tuple[str, Any]] = [
        ("model_name", MODEL),
        ("image", base64.b64encode(rng.choice(list(pictures().values()))).decode()),
    ]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        field = (rng.choice(FIELDS), rng.choice(ODD))
        if rng.random() < 0.5:
            fields.append(field)
        else:
            fields[rng.randrange(len(fields))] = field
    pairs = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields)
    text = ("{" + ", ".join(pairs) + "}").encode()
    return _mutate(text, rng) if rng.random() < 0.6 else text


def body(seed: int, number: int) -> tuple[str, bytes]:
    """The kind of input ``number`` of ``seed``, a picture's format or ``json``, and its body."""
    rng = random.Random(f"{seed} {number}")
    if rng.random() < 0.2:
        return "json", _json(rng)
    name, picture = rng.choice(list(pictures().items()))
    mutated = _mutate(picture, rng)
    if rng.random() < 0.7:
        mutated = _checked(mutated)
    return name.rpartition(".")[2], _wrap(mutated)

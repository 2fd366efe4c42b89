"""Detections drawn on the picture they were made on."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from gateway.imaging.picture import open_picture

# Okabe and Ito's palette, which differs to any eye, with its lights dimmed for white letters.
_COLOURS = ("#0072b2", "#d55e00", "#007a58", "#b3387a", "#8a6d00", "#2b7fb8", "#6a3d9a", "#444444")


@dataclass(frozen=True, slots=True)
class Box:
    """What is drawn: a rectangle with its left, top, right and bottom edges in 0..1 of the upright
    picture, a text, and a class whose colour it gets."""

    x1: float
    y1: float
    x2: float
    y2: float
    text: str
    class_id: int


def annotate(data: bytes, boxes: Sequence[Box]) -> bytes:
    """The upright picture in a JPEG of the same size, with ``boxes`` drawn on it, the first on top.

    Raises:
        InvalidImageError: ``data`` is not a picture that is read, or is truncated or damaged.
    """
    image = Image.fromarray(open_picture(data, max_pixels=sys.maxsize).to_rgb())
    draw = ImageDraw.Draw(image)
    shorter = min(image.size)
    line_width = max(2, round(shorter / 160))
    font = ImageFont.load_default(max(12, round(shorter / 24)))
    for box in reversed(boxes):
        _draw_box(draw, box, line_width, font)
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=92, subsampling="4:4:4")
    return encoded.getvalue()


def _draw_box(
    draw: ImageDraw.ImageDraw,
    box: Box,
    line_width: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    width, height = draw.im.size
    colour = _COLOURS[box.class_id % len(_COLOURS)]
    left, right = sorted((box.x1 * width, box.x2 * width))
    top, bottom = sorted((box.y1 * height, box.y2 * height))
    draw.rectangle((left, top, right, bottom), outline=colour, width=line_width)
    if not box.text:
        return
    _, _, text_width, text_height = draw.textbbox((0, 0), box.text, font=font)
    plate_width, plate_height = text_width + 2 * line_width, text_height + 2 * line_width
    # Above the box; inside of it where the picture ends; and never over the picture's edge.
    plate_left = max(0, min(left, width - plate_width))
    plate_top = top - plate_height if top >= plate_height else top
    plate_top = max(0, min(plate_top, height - plate_height))
    plate = (plate_left, plate_top, plate_left + plate_width, plate_top + plate_height)
    draw.rectangle(plate, fill=colour)
    draw.text((plate_left + line_width, plate_top + line_width), box.text, fill="white", font=font)

"""Boxes drawn on pictures."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gateway.errors import InvalidImageError
from gateway.imaging.annotate import Box, annotate

GRAY = (128, 128, 128)


@pytest.fixture
def draw(encode):
    """The pixels of a gray picture with boxes on it, and where they differ from gray."""

    def make(*boxes, size=(300, 200)):
        drawn = Image.open(BytesIO(annotate(encode(Image.new("RGB", size, GRAY), "PNG"), boxes)))
        assert drawn.format == "JPEG"
        assert drawn.size == size
        pixels = np.asarray(drawn).astype(int)
        return pixels, np.abs(pixels - GRAY).max(axis=2) > 40

    return make


def test_box_is_drawn_where_it_is(draw):
    """x runs to the right and y down, as shares of the picture; inside nothing is covered."""
    _, touched = draw(Box(x1=0.2, y1=0.5, x2=0.6, y2=0.9, text="", class_id=1))
    rows, columns = np.nonzero(touched)
    assert (columns.min(), columns.max()) == (60, 180)
    assert (rows.min(), rows.max()) == (100, 180)
    assert not touched[105:175, 65:175].any()


def test_text_stands_above_the_box(draw):
    """The label is readable: letters of white on the box's colour, over its upper edge."""
    pixels, touched = draw(Box(0.2, 0.5, 0.6, 0.9, "dog 0.87", 1))
    plate = pixels[80:99, 60:130]
    assert touched[82:98, 62:110].mean() > 0.9
    assert (plate.min(axis=2) > 200).any()
    assert not touched[:75].any()


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((0, 0, 0.1, 0.1), (300, 200)),
        ((0.9, 0, 1, 1), (300, 200)),
        ((0, 0.97, 1, 1), (300, 200)),
        ((0, 0, 1, 1), (300, 200)),
        ((0, 0.5, 1, 1), (300, 30)),
    ],
)
def test_text_stays_in_the_picture(draw, box, size):
    """At each edge the whole label is seen."""

    def label_of(*box, size=(300, 200)):
        _, with_text = draw(Box(*box, "traffic light 0.99", 10), size=size)
        _, without = draw(Box(*box, "", 10), size=size)
        return (with_text & ~without).sum()

    assert label_of(*box, size=size) > 0.8 * label_of(0.4, 0.4, 0.5, 0.5)


def test_classes_have_colours_of_their_own(draw):
    """Two classes differ in colour, one class does not."""

    def colour(class_id):
        pixels, _ = draw(Box(0.2, 0.5, 0.6, 0.9, "", class_id))
        return pixels[140, 61]

    assert np.abs(colour(1) - colour(2)).max() > 50
    assert np.abs(colour(1) - colour(1)).max() == 0


def test_size_of_lines_and_letters_follows_the_picture(draw):
    """A large photograph shown small can still be read."""
    shares = []
    for size in ((400, 300), (2000, 1500)):
        _, touched = draw(Box(0.2, 0.5, 0.6, 0.9, "dog 0.87", 1), size=size)
        shares.append(touched.mean())
    assert shares[0] == pytest.approx(shares[1], rel=0.2)


def test_first_box_is_on_top(draw):
    """The best detection, which comes first, is not covered by the others."""
    best, other = Box(0.2, 0.5, 0.6, 0.9, "", 1), Box(0.2, 0.5, 0.6, 0.9, "", 2)
    both, _ = draw(best, other)
    alone, _ = draw(best)
    np.testing.assert_array_equal(both, alone)


def test_box_outside_of_the_picture_or_upside_down_is_no_error(draw):
    """Models answer such boxes; what can be seen of them is drawn."""
    _, touched = draw(
        Box(0.6, 0.9, 0.2, 0.5, "x", 1), Box(-3, -2, 4, 5, "y", 2), Box(2, 2, 3, 3, "z", 3)
    )
    assert touched[140, 60:62].all()


def test_picture_is_drawn_on_upright(encode):
    """Boxes are those of the upright picture, so that is what is drawn on, without its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn = Image.open(BytesIO(annotate(encode(Image.new("L", (60, 40)), "JPEG", exif=exif), [])))
    assert drawn.size == (40, 60)
    assert 0x0112 not in drawn.getexif()


def test_what_is_no_picture_is_refused():
    """As everywhere."""
    with pytest.raises(InvalidImageError):
        annotate(b"no picture", [])

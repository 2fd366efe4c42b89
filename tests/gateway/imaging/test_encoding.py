"""Base64 as clients write it."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidImageError
from gateway.imaging import decode_base64

# All 64 characters, both of those that the two alphabets differ in, and padding.
DATA = bytes(range(256)) + b"\xfb\xff\xbf\xfe"
STANDARD = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        STANDARD,
        URL_SAFE,
        STANDARD.rstrip("="),
        URL_SAFE.rstrip("="),
        STANDARD.rstrip("=") + "=",
        f"data:image/png;base64,{STANDARD}",
        f"DATA:image/svg+xml;charset=utf-8;BASE64,{URL_SAFE}",
        f"data:;base64,{STANDARD}",
        f" \n data:image/jpeg;base64,\n {STANDARD}",
        f"\r\n{STANDARD}\r\n",
        "\n".join(re.findall(".{1,76}", STANDARD)),
        "\t".join(STANDARD),
        STANDARD[:100] + URL_SAFE[100:],
    ],
)
def test_every_tolerated_form_gives_the_bytes(text: str):
    """Whitespace, a data URL's prefix, the URL-safe alphabet and missing padding do no harm."""
    assert len(DATA) % 3 == 2
    assert len(STANDARD.rstrip("=")) % 4 == 3
    assert decode_base64(text) == DATA


@pytest.mark.parametrize("text", ["", "  \n", "data:image/png;base64,", "data:image/png;base64, "])
def test_nothing_is_called_empty(text: str):
    """A client that sent nothing is told so, rather than that it is no picture."""
    with pytest.raises(InvalidImageError, match=r"^image: is empty$"):
        decode_base64(text)


@pytest.mark.parametrize(
    "text",
    [
        "/home/me/cat.jpg?",
        "https://example.com/cat.jpg",
        "QUJD!",
        "QUJDR",  # one character over a whole group holds no byte
        "QUI=QUJD",
        "=QUJD",
        "QUJD====",
        "QUJDQQ===",
        "QUJDé",
        "ＱＵＪＤ",
        "QUJD\u00a0",
        "QUJD\ud800",
        "QUJD\0",
        "data:image/png,QUJD",
        "QUJDdata:image/png;base64,QUJD",
        "b'QUJD'",
    ],
)
def test_anything_else_is_called_not_base64(text: str):
    """Not a character is skipped or guessed at."""
    with pytest.raises(InvalidImageError, match=r"^image: is not base64$"):
        decode_base64(text)


@given(st.binary(min_size=1), st.booleans(), st.booleans(), st.integers(1, 80))
def test_whatever_was_encoded_comes_back(data: bytes, url_safe: bool, padded: bool, width: int):
    """Alphabet, padding and line width never change the bytes."""
    encoded = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    lines = re.findall(f".{{1,{width}}}", encoded if padded else encoded.rstrip("="))
    assert decode_base64("\r\n".join(lines)) == data

"""Base64 as it comes from clients."""

import re

import pybase64

from gateway.errors import InvalidImageError

# RFC 2397; only its base64 form carries a picture.
_DATA_URL_PREFIX = re.compile(rb"data:[^,]{0,255};base64,", re.IGNORECASE)
_WHITESPACE = b" \t\r\n\f\v"
_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """The bytes that ``text`` stands for: RFC 4648, strict about every character.

    Tolerated: whitespace anywhere, a ``data:<type>;base64,`` prefix, the URL-safe alphabet (also
    beside the standard one) and missing padding.

    Raises:
        InvalidImageError: there is nothing in it, or it is not base64.
    """
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError:
        data = _decode_tolerantly(text)
    if not data:
        raise InvalidImageError("is empty")
    return data


def _decode_tolerantly(text: str) -> bytes:
    try:
        encoded = text.encode("ascii").translate(None, _WHITESPACE)
        if prefix := _DATA_URL_PREFIX.match(encoded):
            encoded = encoded[prefix.end() :]
        encoded = encoded.translate(_URL_SAFE_TO_STANDARD)
        padding = b"=" * (-len(encoded) % 4)
        return pybase64.b64decode(encoded + padding, validate=True)
    except ValueError:
        raise InvalidImageError("is not base64") from None

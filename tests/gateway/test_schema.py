"""What a body may be made of, before it is read."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import schema
from gateway.errors import BodyTooLargeError, GatewayError, InvalidJsonError
from gateway.schema import MAX_STRUCTURE_BYTES, parse_request

STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
MANY = MAX_STRUCTURE_BYTES


def body_with(extra: bytes) -> bytes:
    return b'{"model_name": "a", "image": "aGVs", "extra": ' + extra + b"}"


@pytest.mark.parametrize(
    "body",
    [
        body_with(b"[" + b"0," * MANY + b"0]"),
        body_with(b"[" + (b"[" * 100 + b"]" * 100 + b",") * (MANY // 200) + b"0]"),
        body_with(b"{" + b'"a":{},' * MANY + b'"a":0}'),
        body_with(b"[" + b'"",' * MANY + b'""]'),
        body_with(b'["\\"",' + b"[]," * MANY + b'"\\""]'),
        body_with(b'["\\\\",' + b"[]," * MANY + b'""]'),
        body_with(b'"' + b'\\"' * MANY + b'"'),
        body_with(b'"' + b"\\" * 2 * MANY + b'"'),
        b"[" * 2 * MANY,
        b" " * 2 * MANY + b"{}",
        b'{"threshold": [' + b"0," * MANY + b'0], "model_name": "cut',
    ],
    ids=range(11),
)
def test_a_body_of_countless_values_is_refused(body):
    """However its values are nested or hidden behind escaped quotes, it is not parsed."""
    with pytest.raises(BodyTooLargeError, match="65536 bytes outside its strings"):
        parse_request(body)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xd8\xff\xe0" + bytes(2 * MANY),
        b"\x89PNG\r\n\x1a\n",
        b'--a\r\nContent-Disposition: form-data; name="image"\r\n\r\n\xff\xd8\r\n--a--',
    ],
    ids=["jpeg", "png", "form"],
)
def test_a_file_or_a_form_is_told_apart(body):
    """Whoever posts the picture itself is told what to send instead."""
    with pytest.raises(InvalidJsonError, match="base64 as its field image"):
        parse_request(body)


def test_long_strings_are_no_structure():
    """A picture of megabytes passes, with escaped slashes and line breaks, and so does a text."""
    image, text = "abc\\/\\n" * 1_000_000, "[,{" * 100_000
    parsed = parse_request(
        f'{{"extra": "{text}", "image": "{image}", "model_name": "a\\"\\\\"}}'.encode()
    )
    assert parsed.image == "abc/\n" * 1_000_000
    assert parsed.model_name == 'a"\\'


JSON = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\[,é\n'), max_size=12),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a"\\', max_size=4), inner),
)


@given(value=JSON, limit=st.integers(1, 80), cut=st.integers(0, 40))
def test_structure_is_counted_as_a_parser_sees_it(value, limit, cut):
    """Refused is what has more outside its strings than the limit, and nothing much smaller."""
    whole = json.dumps(value, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "MAX_STRUCTURE_BYTES", limit)
        for body in (whole, whole[: len(whole) - cut]):
            outside = len(STRING.sub(b'"', body))
            refused = False
            try:
                parse_request(body)
            except BodyTooLargeError:
                refused = True
            except GatewayError:
                pass
            if body is whole and outside > limit:
                assert refused
            if outside + body.count(b"\\") < limit:
                assert not refused

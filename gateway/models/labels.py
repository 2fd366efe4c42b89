"""Label maps: from the class ids that a model answers with to words."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["load_labels"]


def load_labels(source: str) -> Mapping[int, str]:
    """The labels by class id, read-only; an id without a label is not in it.

    ``source`` is ``coco``, the 80 classes of COCO on their ids 1 to 90, or the path of a UTF-8
    file:

    - ``.pbtxt``: a label map of the TensorFlow Object Detection API: ``item { id: 1 name: "person"
      }`` and so on, in protobuf's text format. ``display_name`` is preferred to ``name``; other
      fields are skipped.
    - ``.txt``: one label a line; line k belongs to id k, from 1; an empty line leaves its id out.
    - ``.json``: an object ``{"1": "person"}``, or a list, whose first label belongs to id 1.

    Raises:
        ValueError: there are no labels to be had from it; the message names the source, and the
            line or the reason.
    """
    if source == "coco":
        text = resources.files("gateway.models").joinpath("coco.pbtxt").read_text("utf-8")
        return MappingProxyType(_parse_pbtxt(text))
    parsers = {".pbtxt": _parse_pbtxt, ".txt": _parse_lines, ".json": _parse_json}
    parse = parsers.get(Path(source).suffix.lower())
    if parse is None:
        raise ValueError(f"labels {source}: neither coco nor a .pbtxt, .txt or .json file")
    try:
        labels = parse(Path(source).read_text("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"labels {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"labels {source}: byte {error.start} is not UTF-8") from error
    except ValueError as error:
        raise ValueError(f"labels {source}: {error}") from error
    if not labels:
        raise ValueError(f"labels {source}: it holds no labels")
    return MappingProxyType(labels)


def _parse_lines(text: str) -> dict[int, str]:
    lines = enumerate(text.split("\n"), start=1)
    return {class_id: line.strip() for class_id, line in lines if line.strip()}


def _parse_json(text: str) -> dict[int, str]:
    try:
        # Objects as tuples of pairs: a dict would hide a key that comes twice.
        content = json.loads(text, object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    if isinstance(content, list):
        content = ((str(class_id), label) for class_id, label in enumerate(content, start=1))
    elif not isinstance(content, tuple):
        raise ValueError("neither an object nor a list")
    labels: dict[int, str] = {}
    for key, label in content:
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"the label of id {key} is not a string, or is empty")
        _add(labels, key, label)
    return labels


def _parse_pbtxt(text: str) -> dict[int, str]:
    labels: dict[int, str] = {}
    for name, item, line in _fields(deque(_tokens(text)), closing="end"):
        if name != "item":
            continue
        try:
            if not isinstance(item, dict):
                raise ValueError("item is not followed by braces")
            label = item.get("display_name") or item.get("name")
            if not isinstance(label, str) or not label:
                raise ValueError("this item has neither a display_name nor a name")
            _add(labels, item.get("id"), label)
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from error
    return labels


def _add(labels: dict[int, str], key: object, label: str) -> None:
    if not isinstance(key, str) or not re.fullmatch("[0-9]{1,18}", key):
        raise ValueError(f"{label!r} has no class id, or one that is not a number: {key!r}")
    class_id = int(key)
    if class_id in labels:
        raise ValueError(f"two labels for id {class_id}: {labels[class_id]!r} and {label!r}")
    labels[class_id] = label


# As much of protobuf's text format as a label map can hold, and what extra fields may bring:
# https://protobuf.dev/reference/protobuf/textformat-spec/

_TOKEN = re.compile(
    r"""
      (?P<space>  \s+ | \#[^\n]* )
    | (?P<string> (?P<quote>["']) (?: \\(?:[0-3]?[0-7]{1,2} | x[0-9a-fA-F]{2} | [abfnrtv\\"'])
                                    | (?!(?P=quote)) [^\\\n] )* (?P=quote) )
    | (?P<word>   [-+.\w]+ )
    | (?P<mark>   [][{}<>:;,] )
    """,
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}


class _Token(NamedTuple):
    kind: str  # string, word, end, or a mark itself
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"line {line}: unexpected {text[position : position + 10]!r}")
        if match["string"]:
            yield _Token("string", _unescape(match["string"][1:-1], line), line)
        elif match["word"]:
            yield _Token("word", match["word"], line)
        elif match["mark"]:
            yield _Token(match["mark"], match["mark"], line)
        line += match[0].count("\n")
        position = match.end()
    yield _Token("end", "the end", line)


def _unescape(text: str, line: int) -> str:
    # Escapes stand for bytes of UTF-8; unicode_escape makes one Latin-1 character of each byte.
    try:
        return text.encode().decode("unicode_escape").encode("latin-1").decode()
    except UnicodeDecodeError:
        raise ValueError(f"line {line}: the string is not UTF-8") from None


def _fields(tokens: deque[_Token], closing: str) -> Iterator[tuple[str, Any, int]]:
    """Name, value and line of each field up to ``closing``, which is taken as well."""
    while (token := tokens.popleft()).kind != closing:
        if token.kind != "word":
            raise ValueError(f"line {token.line}: unexpected {token.text!r}")
        if tokens[0].kind == ":":
            tokens.popleft()
        yield token.text, _value(tokens), token.line
        if tokens[0].kind in (",", ";"):
            tokens.popleft()


def _value(tokens: deque[_Token]) -> Any:
    """A word or a string as str, a message as dict, a list as None: no label is one."""
    token = tokens.popleft()
    if token.kind in _CLOSING:
        return {name: value for name, value, _ in _fields(tokens, _CLOSING[token.kind])}
    if token.kind == "[":
        while tokens[0].kind != "]":
            _value(tokens)
            if tokens[0].kind == ",":
                tokens.popleft()
        tokens.popleft()
        return None
    if token.kind not in ("word", "string"):
        raise ValueError(f"line {token.line}: unexpected {token.text!r}")
    text = token.text
    while token.kind == "string" and tokens[0].kind == "string":  # adjacent strings are one
        text += tokens.popleft().text
    return text

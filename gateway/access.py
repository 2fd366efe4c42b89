"""Who may ask: the keys of clients, known by their hashes alone."""

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ForbiddenError, UnauthorizedError

__all__ = ["Access", "Key", "new_key", "read_keys"]

KEY_BYTES = 32
PREFIX = 32  # hexadecimal digits of a hash, by which its entry is found


class Key(BaseModel):
    """What the gateway is told of one key: whose it is, and what that client may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    models: frozenset[Annotated[str, Field(min_length=1)]] | None = None
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    share: float | None = Field(default=None, gt=0, le=1)

    def check_model(self, name: str) -> None:
        """Raise ForbiddenError if the key is not for the model ``name``."""
        if self.models is not None and name not in self.models:
            raise ForbiddenError(f"this key is not for the model {name!r}")


class Access:
    """Tells whose key a request carries. Without any keys, nobody needs one."""

    def __init__(self, keys: Sequence[Key] | None) -> None:
        self.replace(keys)

    def replace(self, keys: Sequence[Key] | None) -> None:
        """From now on these keys count, and no others; None asks nobody for one."""
        self._keys = None if keys is None else {key.sha256[:PREFIX]: key for key in keys}

    @property
    def needed(self) -> bool:
        """Whether a request needs a key."""
        return self._keys is not None

    def identify(self, secret: str) -> Key:
        """The entry of the key ``secret``.

        Raises
        ------
        UnauthorizedError
            There is no such key, or it is empty.
        """
        if not secret:
            raise UnauthorizedError(
                "a key is needed: send it as Authorization: Bearer KEY or as X-API-Key: KEY"
            )
        # A key is random and long, so nobody can try them out and a slow hash would gain nothing.
        offered = hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
        # Which entry it could be is no secret: nobody can make up a key whose hash begins like one.
        found = (self._keys or {}).get(offered[:PREFIX])
        if found is None or not hmac.compare_digest(found.sha256, offered):
            raise UnauthorizedError("the key is not known")
        return found


def new_key(name: str) -> tuple[str, Key]:
    """A new key for the client ``name``, and its entry, which does not tell the key.

    Raises
    ------
    ValueError
        The name cannot stand in an entry; the message says why.
    """
    secret = secrets.token_urlsafe(KEY_BYTES)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    try:
        return secret, Key(name=name, sha256=digest)
    except ValidationError as error:
        raise ValueError("; ".join(_mistakes("key", error))) from None


def read_keys(path: Path) -> list[Key]:
    """Read a file of keys.

    Raises
    ------
    ValueError
        It cannot be read, or has mistakes; the message names each with its entry and field, one a
        line, and never a hash.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"api_keys: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)  # the text may hold what must not be logged
        line = f", see line {where.line + 1}" if where else ""
        raise ValueError(f"api_keys: {path} is not YAML{line}") from None
    if not isinstance(content, list):
        raise ValueError(f"api_keys: {path} holds no list of keys")
    keys, problems = [], []
    for number, entry in enumerate(content, 1):
        try:
            keys.append(Key.model_validate(entry))
        except ValidationError as error:
            problems += _mistakes(_entry(number, entry), error)
    problems += _twice(content, "name") + _twice(content, "sha256")
    if problems:
        raise ValueError("\n".join(f"api_keys: {problem}" for problem in problems))
    return keys


def _entry(number: int, entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return f"entry {number} ({name})" if isinstance(name, str) else f"entry {number}"


def _mistakes(entry: str, error: ValidationError) -> list[str]:
    return [
        ": ".join([entry, *filter(None, [".".join(map(str, one["loc"]))]), one["msg"]])
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _twice(content: list[Any], field: str) -> list[str]:
    values = [entry.get(field) if isinstance(entry, dict) else None for entry in content]
    counts = Counter(value for value in values if isinstance(value, str))
    return [
        f"{_entry(number, entry)}: {field}: stands in entry {values.index(value) + 1} already"
        for number, (entry, value) in enumerate(zip(content, values, strict=True), 1)
        if isinstance(value, str) and counts[value] > 1 and values.index(value) + 1 < number
    ]

"""The JSON of the HTTP interface: what is read, and what is written."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import to_json

from gateway.errors import BodyTooLargeError, InvalidJsonError, InvalidRequestError
from gateway.models import Detection
from gateway.tfserving import ModelChoice

__all__ = ["DetectionRequest", "detections_json", "parse_request"]

DEFAULT_THRESHOLD = 0.4

MAX_STRUCTURE_BYTES = 1 << 16
"""Bytes that a body may have outside its strings; a request for detections needs some dozens."""

_BACKSLASH = 0x5C


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is true or false, not a number")
    return value


class DetectionRequest(BaseModel):
    """The body of ``POST /imageDetection``. Fields beyond these are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_name: str = Field(min_length=1, max_length=256)
    image: str = Field(min_length=1)
    model_version: Annotated[int | None, BeforeValidator(_no_boolean)] = Field(
        None, ge=0, lt=1 << 63
    )
    version_label: str | None = Field(None, min_length=1, max_length=256)
    threshold: Annotated[float, BeforeValidator(_no_boolean)] = Field(
        DEFAULT_THRESHOLD, ge=0, le=1, allow_inf_nan=False
    )

    @field_validator("version_label")
    @classmethod
    def _one_choice(cls, label: str | None, info: ValidationInfo) -> str | None:
        if label is not None and info.data.get("model_version") is not None:
            raise ValueError("cannot stand beside model_version")
        return label

    @property
    def choice(self) -> ModelChoice:
        """The model and, if one is asked for, its version."""
        return ModelChoice(self.model_name, self.model_version, self.version_label)


def parse_request(body: bytes) -> DetectionRequest:
    """Read a body, whatever its Content-Type said.

    Raises
    ------
    InvalidJsonError
        It is empty or is not JSON.
    InvalidRequestError
        It is JSON and not what the contract asks for; every field at fault is named.
    BodyTooLargeError
        It is made of more values than any request needs.
    """
    _check_structure(body)
    if not body.strip():
        raise InvalidJsonError("the body is empty; send a JSON object")
    try:
        return DetectionRequest.model_validate_json(body.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    if mistakes[0]["type"] == "json_invalid":
        raise InvalidJsonError(f"the body is not JSON: {mistakes[0]['msg']}")
    errors: dict[str, list[str]] = {}
    for mistake in mistakes:
        field = ".".join(map(str, mistake["loc"])) or "body"
        errors.setdefault(field, []).append(mistake["msg"].removeprefix("Value error, "))
    raise InvalidRequestError(errors)


def _check_structure(body: bytes) -> None:
    """Refuse a body of countless small values: 32 MB of them are 5 s of the event loop and 1.5 GB.

    What stands outside the strings is counted, and no string is looked into, so that this takes
    microseconds of a body that is a picture. A backslash before a quote counts as well: each is
    looked at, to tell whether the quote ends its string.
    """
    left, at = MAX_STRUCTURE_BYTES, 0
    while left > 0 and (start := body.find(b'"', at)) >= 0:
        left -= start + 1 - at
        end, escaped = start, True
        while escaped and left > 0:
            end = body.find(b'"', end + 1)
            if end < 0:
                return  # cut in a string: the parser says so
            first = end
            while body[first - 1] == _BACKSLASH and left > 0:
                first -= 1
                left -= 1
            escaped = (end - first) % 2 == 1
        at = end + 1
    if left - (len(body) - at) < 0:
        raise BodyTooLargeError(
            f"the body has more than {MAX_STRUCTURE_BYTES} bytes outside its strings"
        )


def detections_json(
    detections: Sequence[Detection],
    labels: Mapping[int, str],
    *,
    controller_time: float,
    tfserve_time: float,
    model_version: int,
) -> bytes:
    """The answer to ``POST /imageDetection``; times in seconds."""
    return to_json(
        {
            "detections": [
                {
                    "class_id": found.class_id,
                    "score": found.score,
                    "class_label": labels.get(found.class_id),
                    "hit_box": {"x1": found.x1, "y1": found.y1, "x2": found.x2, "y2": found.y2},
                }
                for found in detections
            ],
            "controller_time": controller_time,
            "tfserve_time": tfserve_time,
            "model_version": model_version,
        }
    )

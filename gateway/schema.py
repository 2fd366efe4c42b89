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

__all__ = [
    "DetectionRequest",
    "Detections",
    "Failure",
    "Health",
    "Models",
    "Readiness",
    "detections_json",
    "parse_request",
]

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

    model_name: str = Field(
        min_length=1, max_length=256, description="the model's name on TensorFlow Serving"
    )
    image: str = Field(
        min_length=1,
        description="an image file in base64: JPEG, PNG, WebP, GIF or BMP. A"
        " `data:image/...;base64,` prefix, line breaks and the URL-safe alphabet are fine",
    )
    model_version: Annotated[int | None, BeforeValidator(_no_boolean)] = Field(
        None, ge=0, lt=1 << 63, description="the version to ask, by its number"
    )
    version_label: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="the version to ask, by its label; not beside `model_version`",
    )
    threshold: Annotated[float, BeforeValidator(_no_boolean)] = Field(
        DEFAULT_THRESHOLD,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="only detections that score more are returned",
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


class HitBox(BaseModel):
    """A box over the upright picture, 0 to 1: left, top, right and bottom."""

    x1: float = Field(ge=0, le=1)
    y1: float = Field(ge=0, le=1)
    x2: float = Field(ge=0, le=1)
    y2: float = Field(ge=0, le=1)


class DetectedObject(BaseModel):
    """One object on the picture."""

    class_id: int
    score: float
    class_label: str | None = Field(description="null where the model has no label for the class")
    hit_box: HitBox


class Detections(BaseModel):
    """The answer to ``POST /imageDetection``; ``detections_json`` writes it."""

    detections: list[DetectedObject] = Field(description="best first")
    controller_time: float = Field(ge=0, description="seconds from arrival to answer")
    tfserve_time: float = Field(ge=0, description="seconds of the Predict call that carried it")
    model_version: int = Field(description="the version that answered")


class Failure(BaseModel):
    """The answer to whatever could not be done."""

    message: str = Field(description="what is wrong, for people")
    code: str = Field(description="what is wrong, for programs")
    request_id: str = Field(description="finds the request in the gateway's log")
    errors: dict[str, list[str]] | None = Field(
        None, description="of each field or header at fault the reasons; with status 422"
    )


class Health(BaseModel):
    """The answer to ``GET /healthz``."""

    status: str


class Readiness(BaseModel):
    """The answer to ``GET /readyz``."""

    ready: bool
    reason: str | None = Field(None, description="why it is not ready")
    models: dict[str, str] | None = Field(None, description="of each configured model its state")


class ModelInput(BaseModel):
    """What a model takes; a side is null where any will do."""

    name: str
    takes: str
    height: int | None
    width: int | None


class LearntServer(BaseModel):
    """What calls of one TensorFlow Serving cost: n pictures take ``transport_s + fixed_s +
    per_item_s * n`` seconds where nothing is in their way."""

    fixed_s: float
    per_item_s: float
    transport_s: float = Field(description="what of it passes while the device may run others")
    noise: float = Field(description="relative standard deviation of a call's time")
    parallelism: int = Field(description="calls that are best at a time; 0 is any number")
    device: str = Field(description="the kind of device that it seems to be, in words")
    max_batch_size: int = Field(description="pictures that a call may carry")


class Learnt(BaseModel):
    """What is known of a model's calls."""

    expected_s: float | None = Field(description="seconds that a request has to expect now")
    servers: list[LearntServer] = Field(description="those that may be asked now")


class ModelDescription(BaseModel):
    """How a model is asked, as far as it could be learnt from TensorFlow Serving."""

    name: str
    labels: int = Field(description="classes that have a label")
    problem: str | None = Field(None, description="why there is no more to say")
    versions: dict[str, str] | None = Field(None, description="of each version its state")
    version: int | None = Field(None, description="the one that is asked by default")
    signature: str | None = None
    input: ModelInput | None = None
    batches: bool | None = Field(None, description="whether a call may carry several pictures")
    learnt: Learnt | None = Field(None, description="what calls cost, once they were seen")


class Models(BaseModel):
    """The answer to ``GET /models``."""

    models: list[ModelDescription]


# Pictures of the five formats, and multipart/form-data.
_OTHER_CONTENTS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"--")


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
    if not body.strip():
        raise InvalidJsonError("the body is empty; send a JSON object")
    if body.startswith(_OTHER_CONTENTS):
        raise InvalidJsonError(
            "the body is a file or a form, not JSON; send an object with the picture's file in"
            " base64 as its field image"
        )
    _check_structure(body)
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

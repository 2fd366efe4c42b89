"""What can go wrong, in the words of the domain.

Each class is translated once at each border: gRPC status to one of these in ``tfserving``, and from
these to an HTTP status in ``middleware``. ``str(error)`` is always fit to be shown to a client: it
names the field, the model or the limit, and never a path, an address or a stack of ours.
"""

from typing import ClassVar, Self

__all__ = [
    "BackendAnswerInvalidError",
    "BackendMemoryError",
    "BackendRefusedError",
    "BackendUnavailableError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "ClientLimitError",
    "DeadlineExceededError",
    "EncodingUnsupportedError",
    "ForbiddenError",
    "GatewayError",
    "ImageTooLargeError",
    "InputRefusedError",
    "InvalidHttpError",
    "InvalidImageError",
    "InvalidJsonError",
    "InvalidRequestError",
    "ModelNotFoundError",
    "ModelUnsupportedError",
    "OverloadedError",
    "ShuttingDownError",
    "UnauthorizedError",
]


class GatewayError(Exception):
    """An outcome that the caller is told of; ``code`` is the stable word for it."""

    code: ClassVar[str]

    def renew(self) -> Self:
        """Make another error like this one: callers who share a failure do not share its object."""
        again = self.__class__.__new__(self.__class__, *self.args)
        again.args = self.args
        again.__dict__.update(self.__dict__)
        again.__cause__ = self
        return again


class InvalidHttpError(GatewayError):
    """What came is no HTTP: a body in chunks that are none."""

    code = "invalid_http"


class InvalidJsonError(GatewayError):
    """The body is empty or is not JSON."""

    code = "invalid_json"


class InvalidRequestError(GatewayError):
    """The JSON does not say what the contract asks for: ``errors`` holds the reasons by field."""

    code = "invalid_request"

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__("; ".join(f"{field}: {', '.join(why)}" for field, why in errors.items()))
        self.errors = errors


class InvalidImageError(InvalidRequestError):
    """The field ``image`` is not base64, not a picture, or only a part of one."""

    code = "invalid_image"

    def __init__(self, reason: str) -> None:
        super().__init__({"image": [reason]})


class UnauthorizedError(GatewayError):
    """The request carries no key, or none that is known."""

    code = "unauthorized"


class ForbiddenError(GatewayError):
    """The key is known, and not for what is asked."""

    code = "forbidden"


class BodyTooLargeError(GatewayError):
    """The body is longer than ``max_body_bytes``."""

    code = "body_too_large"


class EncodingUnsupportedError(GatewayError):
    """The body is compressed; nothing is gained by that for a picture."""

    code = "encoding_unsupported"


class ImageTooLargeError(GatewayError):
    """The picture has more pixels than ``max_pixels``, or needs more memory than there may be."""

    code = "image_too_large"


class BodyTimeoutError(GatewayError):
    """The body had not arrived whole when the deadline passed, or came too slowly."""

    code = "body_timeout"


class ModelNotFoundError(GatewayError):
    """TensorFlow Serving has no such model, or has it but no version of it is loaded yet."""

    code = "model_not_found"


class ModelUnsupportedError(GatewayError):
    """The model's signature is not that of an object detector that this gateway can feed."""

    code = "model_unsupported"


class OverloadedError(GatewayError):
    """Refused at the door: ``reason`` is the limit that fired, for the metrics; it may be worth to
    ask again after ``retry_after`` seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class ClientLimitError(OverloadedError):
    """This client has used what is its own; others are served."""

    code = "client_limit"


class ShuttingDownError(GatewayError):
    """This process is on its way out and takes no new requests."""

    code = "shutting_down"


class BackendUnavailableError(GatewayError):
    """TensorFlow Serving cannot be reached, or has no room for the call now."""

    code = "backend_unavailable"


class BackendMemoryError(BackendUnavailableError):
    """TensorFlow Serving had not enough memory for the call; a smaller one may do."""


class BackendRefusedError(GatewayError):
    """TensorFlow Serving was reached and would not run the call as it was sent."""

    code = "backend_refused"


class InputRefusedError(BackendRefusedError):
    """It was refused for what it carries: one of the pictures, or too many of them."""


class BackendAnswerInvalidError(GatewayError):
    """TensorFlow Serving answered with something that is not a set of detections."""

    code = "backend_answer_invalid"


class DeadlineExceededError(GatewayError):
    """The time that the request was given has passed."""

    code = "deadline_exceeded"

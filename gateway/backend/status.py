"""Errors as TensorFlow Serving words them: a gRPC status code and a message.

TensorFlow numbers its codes as gRPC does (``tensorflow/core/protobuf/error_codes.proto``).
"""

import grpc
import tensorflow as tf

__all__ = ["StatusError", "from_tensorflow"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# tensorflow_serving/model_servers/grpc_status_util.cc
_MAX_MESSAGE = 1024


class StatusError(Exception):
    """A call that ends with ``code`` and ``message`` instead of a response."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        if len(message) > _MAX_MESSAGE:
            message = f"{message[:_MAX_MESSAGE]}...TRUNCATED"
        super().__init__(message)
        self.code = code
        self.message = message


def from_tensorflow(error: Exception) -> StatusError:
    """The status that TensorFlow's runtime gave, with its own message; UNKNOWN if it gave none."""
    status = StatusError(grpc.StatusCode.UNKNOWN, str(error) or type(error).__name__)
    # TensorFlow's Python raises the runtime's error again, with tracebacks added or the code lost.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, tf.errors.OpError):
            code = _CODES.get(cause.error_code, grpc.StatusCode.UNKNOWN)
            status = StatusError(code, cause.message)
        cause = cause.__context__
    return status

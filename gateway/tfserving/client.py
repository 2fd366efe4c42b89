"""Calls to one TensorFlow Serving, and what its gRPC statuses mean."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import TypeVar

import grpc
import grpc.aio

from gateway.errors import (
    BackendAnswerInvalidError,
    BackendMemoryError,
    BackendRefusedError,
    BackendUnavailableError,
    DeadlineExceededError,
    GatewayError,
    InputRefusedError,
    ModelNotFoundError,
)
from gateway.tfserving import tfserving_pb2 as pb
from gateway.tfserving.credentials import handshake_failure
from gateway.tfserving.metadata import (
    ModelMetadata,
    VersionStatus,
    parse_metadata,
    parse_status,
)
from gateway.tfserving.wire import ModelChoice, PredictAnswer, parse_predict

__all__ = ["ServingClient", "cause"]

log = logging.getLogger("gateway")

T = TypeVar("T")

CLOSED = "the connection to TensorFlow Serving is closed"

_INTERNAL = re.compile(r"(?<!\w)/\w|\d+\.\d+\.\d+\.\d+")
"""A path or an address: not for clients."""

_OUT_OF_MEMORY = re.compile(r"\bOOM\b|out of memory", re.IGNORECASE)
_ABOUT_INPUT = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE}
_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}
_OUTAGES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
}


def cause(error: GatewayError) -> str:
    """What gRPC says of it, with addresses: for the log and not for clients."""
    status = error.__cause__
    said = status.details() if isinstance(status, grpc.aio.AioRpcError) else None
    return f"{error}: {said}" if said else str(error)


class ServingClient:
    """One channel to one address (``host:port``, ``unix:/path``); made and used on one event loop.

    Every call takes ``timeout`` in seconds and raises the domain's errors: ModelNotFoundError,
    BackendRefusedError, BackendUnavailableError, DeadlineExceededError, BackendAnswerInvalidError.
    Nothing is retried here. An unreachable server fails a call at once rather than at its deadline;
    after an outage the channel tries to connect twice a second.

    With ``credentials`` it speaks TLS, and the certificate must be for ``server_name``; without
    one, for the host in ``address``.
    """

    def __init__(
        self,
        address: str,
        *,
        max_message_bytes: int,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
    ) -> None:
        # gRPC's own default for messages received is 4 MiB. A server disconnects clients that ping
        # more often than once in five minutes; keepalive is on for the TCP_USER_TIMEOUT that comes
        # with it: a peer that is gone without a word would be written to for a quarter of an hour.
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", 600_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            if server_name is not None:
                options.append(("grpc.default_authority", server_name))
            self._channel = grpc.aio.secure_channel(address, credentials, options=options)
        self._address = address
        self._max_message_bytes = max_message_bytes
        self._secure = credentials is not None
        self.tls_failure: str | None = None
        """Why the last call found no connection, if that was for TLS; fit for clients."""
        self._predict = self._method("PredictionService/Predict")
        self._metadata = self._method("PredictionService/GetModelMetadata")
        self._status = self._method("ModelService/GetModelStatus")

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def predict(self, request: bytes, *, model: ModelChoice, timeout: float) -> PredictAnswer:
        """Send a serialised PredictRequest (see ``wire``)."""
        return await self._call(self._predict, request, parse_predict, str(model), timeout)

    async def metadata(self, model: ModelChoice, *, timeout: float) -> ModelMetadata:
        """Ask for the signatures of the version that serves now, or of the one chosen."""
        spec = pb.ModelSpec(name=model.name)
        if model.version is not None:
            spec.version.value = model.version
        elif model.label is not None:
            spec.version_label = model.label
        request = pb.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        message = request.SerializeToString()
        return await self._call(self._metadata, message, parse_metadata, str(model), timeout)

    async def status(self, model_name: str, *, timeout: float) -> list[VersionStatus]:
        """Ask for the state of each version, newest first."""
        request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name=model_name))
        message = request.SerializeToString()
        what = str(ModelChoice(model_name))
        return await self._call(self._status, message, parse_status, what, timeout)

    async def aclose(self, grace: float | None = None) -> None:
        """Close the channel; calls that still run after ``grace`` seconds (none: at once) end with
        BackendUnavailableError."""
        await self._channel.close(grace)

    def _method(self, name: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        # No serializer: requests and answers pass as the bytes that they are.
        return self._channel.unary_unary(f"/tensorflow.serving.{name}")

    async def _call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]",
        message: bytes,
        parse: Callable[[bytes], T],
        what: str,
        timeout: float,
    ) -> T:
        try:
            answer = await method(message, timeout=max(0.0, timeout))
        except grpc.aio.AioRpcError as error:
            self._note_tls(error)
            raise _translate(error, what, self.tls_failure, self._max_message_bytes) from error
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise BackendUnavailableError(CLOSED) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise BackendUnavailableError(
                CLOSED
            ) from error  # the call was cancelled, not its caller
        self.tls_failure = None
        return parse(answer)

    def _note_tls(self, error: grpc.aio.AioRpcError) -> None:
        """Log why there is no connection, once until it is for another reason."""
        failure = None
        if self._secure and error.code() is grpc.StatusCode.UNAVAILABLE:
            failure = handshake_failure(error.details() or "")
        if failure is not None and failure != self.tls_failure:
            log.error("no TLS with TensorFlow Serving at %s: %s", self._address, failure)
        self.tls_failure = failure


def _translate(
    error: grpc.aio.AioRpcError, what: str, tls_failure: str | None, max_message_bytes: int
) -> GatewayError:
    """Keep the meaning of a status (the facts behind this table are in docs/design.md)."""
    code, details = error.code(), error.details() or ""
    unknown_label = code is grpc.StatusCode.INVALID_ARGUMENT and "version label" in details
    if code is grpc.StatusCode.NOT_FOUND or unknown_label:
        return ModelNotFoundError(f"TensorFlow Serving has no {what} ready to use")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError("TensorFlow Serving did not answer in time")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _exhausted(details, max_message_bytes)
    if code in _OUTAGES:
        reason = f" with TLS: {tls_failure}" if tls_failure else ""
        return BackendUnavailableError(f"TensorFlow Serving cannot be reached{reason}")
    if code in _REFUSALS:
        # Up to the first line's end or graph location, a status says what is wrong with the input.
        reason = details.partition("\n")[0].partition("[[")[0].strip()[:300]
        if not reason.isprintable() or _INTERNAL.search(reason):
            reason = ""
        kind = InputRefusedError if code in _ABOUT_INPUT else BackendRefusedError
        return kind(f"TensorFlow Serving refused the request: {reason or code.name}")
    return BackendAnswerInvalidError(f"TensorFlow Serving failed with {code.name}")


def _exhausted(details: str, max_message_bytes: int) -> GatewayError:
    if "larger than max" in details:
        # The words are the same on both sides, and older releases of gRPC do not say on which.
        ours = f"vs. {max_message_bytes})" in details and "SERVER:" not in details
        if ours or "CLIENT:" in details:
            return BackendAnswerInvalidError(
                "TensorFlow Serving's answer exceeds max_message_bytes"
            )
        return InputRefusedError("TensorFlow Serving takes no message as long as this call")
    if _OUT_OF_MEMORY.search(details):
        return BackendMemoryError("TensorFlow Serving has not enough memory for the call")
    return BackendUnavailableError("TensorFlow Serving has no room for the call now")

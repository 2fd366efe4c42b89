"""Calls over real gRPC: what is sent, what comes back, and what each status means."""

import asyncio
import contextlib
import os
import socket
import sys

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from gateway import errors
from gateway.tfserving import (
    ModelChoice,
    PredictCall,
    ServingClient,
    Signature,
    TensorInfo,
    VersionState,
    VersionStatus,
    encode_predict,
)
from gateway.tfserving.metadata import parse_metadata, parse_status

CALL = PredictCall(
    ModelChoice("colors"), "serving_default", "inputs", ("detection_scores", "num_detections")
)
IMAGES = [np.full((4, 5, 3), 10 * n, np.uint8) for n in range(3)]


@pytest.fixture
async def client(serving):
    client = ServingClient(serving.address, max_message_bytes=1 << 20)
    yield client
    await client.aclose()


async def predict(client, timeout=5.0):
    message = encode_predict(CALL, IMAGES)
    return await client.predict(message, model=ModelChoice("colors"), timeout=timeout)


@pytest.mark.parametrize("as_content", [False, True])
async def test_predict(client, serving, as_content):
    """The pictures arrive as they are, only the outputs asked for come back, in either encoding."""
    serving.models["colors"].as_content = as_content
    answer = await predict(client)
    assert set(answer.outputs) == {"detection_scores", "num_detections"}
    assert answer.outputs["detection_scores"].shape == (3, 100)
    assert answer.outputs["detection_scores"][:, 0] == pytest.approx([0.9] * 3)
    assert answer.model_version == 1
    sent = tf.make_ndarray(serving.requests[0].inputs["inputs"])
    np.testing.assert_array_equal(sent, np.stack(IMAGES))


async def test_metadata(client, serving, fake_model):
    """Signatures come as plain values; open sizes are None, an unknown rank has no shape at all."""
    serving.models["odd"] = fake_model(
        version=4, signature="detection_signature", dtype=types_pb2.DT_STRING, shape=None
    )
    metadata = await client.metadata(ModelChoice("colors"), timeout=5)
    signature = metadata.signatures["serving_default"]
    assert isinstance(signature, Signature)
    assert signature.inputs == {
        "inputs": TensorInfo("image_tensor:0", "uint8", (None, None, None, 3))
    }
    assert "detection_boxes" in signature.outputs
    odd = await client.metadata(ModelChoice("odd"), timeout=5)
    assert odd.version == 4
    assert odd.signatures["detection_signature"].inputs["inputs"].shape is None


async def test_status(client, serving):
    """The state of a version is told."""
    serving.models["colors"].state = get_model_status_pb2.ModelVersionStatus.LOADING
    assert await client.status("colors", timeout=5) == [VersionStatus(1, VersionState.LOADING, "")]


def test_status_is_newest_first_with_its_error():
    """Versions are sorted newest first; why one failed is kept; a state unknown here is UNKNOWN."""
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=1, state=30)
    failed = response.model_version_status.add(version=2, state=50)
    failed.status.error_code, failed.status.error_message = 9, "no such op"
    assert parse_status(response.SerializeToString()) == [
        VersionStatus(2, VersionState.END, "no such op"),
        VersionStatus(1, VersionState.AVAILABLE, ""),
    ]
    assert parse_status(b"\x0a\x04\x08\x01\x10\x63")[0].state is VersionState.UNKNOWN


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("NOT_FOUND", errors.ModelNotFoundError),
        ("INVALID_ARGUMENT", errors.InputRefusedError),
        ("FAILED_PRECONDITION", errors.BackendRefusedError),
        ("UNIMPLEMENTED", errors.BackendRefusedError),
        ("UNAVAILABLE", errors.BackendUnavailableError),
        ("RESOURCE_EXHAUSTED", errors.BackendUnavailableError),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceededError),
        ("INTERNAL", errors.BackendAnswerInvalidError),
        ("UNKNOWN", errors.BackendAnswerInvalidError),
    ],
)
async def test_statuses_keep_their_meaning(client, serving, status, expected):
    """Each status becomes the error that says the same; its location in the graph is not shown."""
    reason = "bad shape\n\t [[{{node map/while}}]] /models/ssd/1"
    serving.abort = (grpc.StatusCode[status], reason)
    for call in (predict(client), client.metadata(ModelChoice("colors"), timeout=5)):
        with pytest.raises(errors.GatewayError) as caught:
            await call
        assert type(caught.value) is expected
        assert "node" not in str(caught.value)
        assert "/models" not in str(caught.value)
        if issubclass(expected, errors.BackendRefusedError):
            assert "bad shape" in str(caught.value)
        if expected is errors.ModelNotFoundError:
            assert "'colors'" in str(caught.value)


async def test_deadline_is_kept(client, serving):
    """A call that is not answered within its timeout ends with DeadlineExceededError."""
    serving.gate = asyncio.Event()
    for timeout in (-1.0, 0.05):
        with pytest.raises(errors.DeadlineExceededError):
            await predict(client, timeout=timeout)
    serving.gate.set()


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ("SERVER: Received message larger than max (9 vs. 1048576)", errors.InputRefusedError),
        ("Received message larger than max (9 vs. 4194304)", errors.InputRefusedError),
        ("CLIENT: Received message larger than max (9 vs. 4)", errors.BackendAnswerInvalidError),
        ("Received message larger than max (9 vs. 1048576)", errors.BackendAnswerInvalidError),
    ],
)
async def test_whose_limit_it_was(client, serving, details, error):
    """Both sides have one of their own: what the server would not take may do in parts."""
    serving.abort = (grpc.StatusCode.RESOURCE_EXHAUSTED, details)
    with pytest.raises(error):
        await predict(client)


async def test_an_answer_over_the_limit_is_refused(serving, fake_model):
    """max_message_bytes bounds what is received; the error names that limit."""
    client = ServingClient(serving.address, max_message_bytes=1000)
    with pytest.raises(errors.BackendAnswerInvalidError, match="max_message_bytes"):
        await predict(client)
    await client.aclose()


async def test_unreachable_and_back(client, serving):
    """With the server gone a call fails at once; when it is back, calls succeed again."""
    await predict(client)
    port = serving.address
    await serving.stop()
    with pytest.raises(errors.BackendUnavailableError):
        await predict(client, timeout=60)
    await serving.start(port)
    while True:
        try:
            await predict(client, timeout=60)
            break
        except errors.BackendUnavailableError:
            continue
    assert serving.address == port


def user_timeouts(port: int) -> list[int]:
    """TCP_USER_TIMEOUT, in ms, of this process's own ends of connections to a local port."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as one:
            if one.getpeername()[1:2] == (port,):
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and TCP_USER_TIMEOUT")
async def test_a_peer_that_acknowledges_nothing(client, serving):
    """The kernel gives it up after ten seconds, not after a quarter of an hour: the next call gets
    a new connection."""
    await predict(client)
    assert user_timeouts(int(serving.address.rpartition(":")[2])) == [10_000]


async def test_closed_client(client):
    """After aclose a call fails as unavailable rather than with something of gRPC's."""
    await client.aclose()
    with pytest.raises(errors.BackendUnavailableError):
        await predict(client)


async def test_closed_while_a_call_runs(client, serving):
    """Then the call is unavailable; only a caller that was cancelled itself is told of that."""
    serving.gate = asyncio.Event()
    cancelled, closed = (asyncio.ensure_future(predict(client, timeout=60)) for _ in range(2))
    for _ in range(2):
        await serving.arrived.acquire()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await client.aclose()
    with pytest.raises(errors.BackendUnavailableError, match="closed"):
        await closed
    serving.gate.set()


def test_garbage_is_no_metadata_and_no_status():
    """Bytes that are no message of the kind are an invalid answer."""
    for parse in (parse_metadata, parse_status):
        with pytest.raises(errors.BackendAnswerInvalidError):
            parse(b"\xff\xff\xff")
    packed = get_model_metadata_pb2.GetModelMetadataResponse()
    packed.metadata["signature_def"].value = b"\xff\xff"
    with pytest.raises(errors.BackendAnswerInvalidError):
        parse_metadata(packed.SerializeToString())

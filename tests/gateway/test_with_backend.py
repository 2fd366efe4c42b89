"""The gateway's client against the embedded server: both ends of the wire, on TensorFlow itself."""

from pathlib import Path

import numpy as np
import pytest

from gateway import errors
from gateway.backend.server import BackendOptions, Server
from gateway.models import served_model, split_rows
from gateway.tfserving import (
    ModelChoice,
    ServingClient,
    VersionState,
    VersionStatus,
    encode_predict,
)

MODEL = Path(__file__).parents[2] / "examples" / "digits" / "model"

DIGITS = ModelChoice("digits")


@pytest.fixture(scope="module", params=[False, True], ids=["float_val", "tensor_content"])
def address(request):
    server = Server(
        BackendOptions(
            MODEL,
            model_name="digits",
            port=0,
            enable_serialization_as_tensor_content=request.param,
            file_system_poll_wait_seconds=0,
        )
    )
    yield server.start()
    server.stop()


async def test_a_batch_through_the_wire(address):
    """Signature, status and a batch of pictures pass through; rows do not depend on their mates."""
    client = ServingClient(address, max_message_bytes=1 << 28)
    assert await client.status("digits", timeout=60) == [
        VersionStatus(1, VersionState.AVAILABLE, "")
    ]
    model = served_model(DIGITS, await client.metadata(DIGITS, timeout=60))
    assert (model.batches, model.size, model.encoded) == (True, None, False)
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 255, (90, 120, 3), np.uint8) for _ in range(3)]

    async def ask(batch):
        message = encode_predict(model.call, batch)
        answer = await client.predict(message, model=DIGITS, timeout=60)
        assert set(answer.outputs) == set(model.call.output_filter)
        return split_rows(answer.outputs, len(batch))

    together = await ask(pictures)
    for picture, row in zip(pictures, together, strict=True):
        (alone,) = await ask([picture])
        np.testing.assert_allclose(row.scores, alone.scores, atol=1e-4)
        np.testing.assert_allclose(row.boxes, alone.boxes, atol=1e-3)
    with pytest.raises(errors.ModelNotFoundError):
        await client.metadata(ModelChoice("ghost"), timeout=60)
    await client.aclose()

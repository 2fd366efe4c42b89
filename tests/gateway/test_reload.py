"""Models and labels that change while running, and the first calls to a TensorFlow Serving."""

import asyncio

import pytest
from tensorflow.core.framework import types_pb2

from gateway.app import reload
from gateway.keys import CLIENT


@pytest.fixture
def label_map(tmp_path):
    """Write a label map for the class that a picture of red 30 has; its path."""
    path = tmp_path / "labels.txt"

    def write(text: str) -> str:
        path.write_text(text)
        return str(path)

    return write


async def label(ask, gateway) -> str | None:
    status, answer = await ask(gateway)
    assert status == 200
    return answer["detections"][0]["class_label"]


async def test_models_are_read_again(start, settings, label_map, ask, serving, fake_model):
    """Labels, the list of models and their batch sizes change for whoever comes next."""
    gateway = await start(models={"colors": label_map("a\nb\nfirst")})
    assert await label(ask, gateway) == "first"
    serving.models["other"] = fake_model()
    changed = {"colors": {"labels": label_map("a\nb\nsecond"), "batch_sizes": [4]}, "other": ""}
    reload(gateway.app, settings(models=changed))
    assert await label(ask, gateway) == "second"
    assert serving.batches[-1] == ("colors", (4, 48, 64, 3))
    answer = await (await gateway.get("/readyz")).json()
    assert answer["models"] == {"colors": "AVAILABLE", "other": "AVAILABLE"}


async def test_a_mistake_changes_nothing(start, settings, label_map, ask):
    """Every label map that cannot be read is named, and the old ones stay."""
    gateway = await start(models={"colors": label_map("a\nb\nold")})
    wrong = settings(models={"colors": "missing.txt", "x": "missing.json", "y": ""})
    with pytest.raises(ValueError, match=r"model 'colors'(?s:.)*model 'x'"):
        reload(gateway.app, wrong)
    assert await label(ask, gateway) == "old"
    assert list((await (await gateway.get("/readyz")).json())["models"]) == ["colors"]


async def test_what_needs_a_restart_is_named(start, settings, caplog):
    """The log says which settings have changed in vain."""
    gateway = await start()
    reload(gateway.app, settings(request_timeout=7, max_queue_size=9))
    assert [record.args[0] for record in caplog.records if "restart" in record.msg] == [
        "request_timeout",
        "max_queue_size",
    ]


async def test_labels_of_another_version(start, serving, label_map, ask, caplog):
    """When another version serves, its labels are read; if they cannot be, the old ones stay."""
    gateway = await start(models={"colors": label_map("a\nb\none")})
    assert await label(ask, gateway) == "one"
    label_map("a\nb\ntwo")
    assert await label(ask, gateway) == "one"
    serving.models["colors"].version = 2
    await label(ask, gateway)  # which shows that there is another version
    assert await label(ask, gateway) == "two"
    label_map("\x00")
    serving.models["colors"].version = 3
    await label(ask, gateway)
    assert await label(ask, gateway) in ("two", None)


async def test_not_ready_before_it_is_warm(start, serving, fake_model, shows):
    """Each configured model is asked once for each batch size; meanwhile /readyz says why not."""
    serving.models |= {
        "fixed": fake_model(shape=(-1, 30, 20, 3)),
        "single": fake_model(shape=(1, -1, -1, 3), input_name="input_tensor"),
    }
    serving.gate = asyncio.Event()
    gateway = await start(
        models={"colors": "", "fixed": {"batch_sizes": [2, 8]}, "single": {"batch_sizes": [2]}}
    )
    response = await gateway.get("/readyz")
    assert response.status == 503
    assert (await response.json())["reason"] == "TensorFlow Serving is being warmed up"
    serving.gate.set()
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert (await gateway.get("/readyz")).status == 200
    assert serving.batches == [
        ("colors", (1, 480, 640, 3)),
        ("fixed", (2, 30, 20, 3)),
        ("fixed", (8, 30, 20, 3)),
        ("single", (1, 480, 640, 3)),
    ]


async def test_a_model_that_takes_files_is_warmed_with_one(
    start, serving, fake_model, decode_strings, shows
):
    """A blank picture, as the bytes of a file."""
    serving.models["text"] = fake_model(
        detect=decode_strings, dtype=types_pb2.DT_STRING, shape=(-1,)
    )
    gateway = await start(models={"text": {"batch_sizes": [3]}})
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert serving.batches == [("text", (3,))]


async def test_what_cannot_be_warmed_is_told(start, serving, caplog, shows, ask, monkeypatch):
    """A model that is not there, or takes too long, does not keep the others from serving."""
    gateway = await start(models={"missing": "", "colors": ""})
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert "'missing' could not be warmed up" in caplog.text
    assert (await ask(gateway))[0] == 200
    monkeypatch.setattr("gateway.warmup.SECONDS", 0.0)
    gateway = await start(models={"colors": ""})
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert "not warm after" in caplog.text


async def test_warmed_again_when_it_was_lost(start, serving, ask, shows):
    """A TensorFlow Serving that was away is another one when it is back."""
    gateway = await start(models={"colors": ""})
    await shows(gateway, "gateway_replicas_left_out", 0)
    await serving.stop()
    assert (await ask(gateway))[0] == 503
    assert gateway.app[CLIENT].left_out == 1
    serving.batches.clear()
    await serving.start(serving.address)
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert serving.batches == [("colors", (1, 480, 640, 3))]
    assert (await ask(gateway))[0] == 200


async def test_only_what_calls_may_carry_is_warmed(start, serving, fake_model, shows):
    """No batch is built that would never be sent, however large the model's own sizes are."""
    serving.models["fixed"] = fake_model(shape=(-1, 512, 512, 3))
    gateway = await start(
        models={"colors": {"batch_sizes": [2, 64]}, "fixed": {"batch_sizes": [1, 2, 4]}},
        max_batch_size=16,
        max_message_bytes=2 << 20,
    )
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert [(name, shape[0]) for name, shape in serving.batches] == [
        ("colors", 2),
        ("fixed", 1),
        ("fixed", 2),
    ]

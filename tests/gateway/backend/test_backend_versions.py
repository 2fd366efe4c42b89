"""Which version serves while directories come, go and break; GetModelStatus tells of it."""

import shutil
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    ModelVersionStatus,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from gateway.backend.versions import Model

Start = Any
AVAILABLE, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END


def statuses(client: Any, spec: ModelSpec | None = None) -> list[ModelVersionStatus]:
    request = GetModelStatusRequest(model_spec=spec or ModelSpec(name="pixels"))
    return list(client.model.GetModelStatus(request).model_version_status)


def states(client: Any) -> list[tuple[int, int]]:
    return [(status.version, status.state) for status in statuses(client)]


def mean(client: Any) -> float:
    """The answer for pixels of 1: the number of the export that gave it."""
    response = client.predict("mean", inputs=np.ones((1, 2, 2, 3), np.uint8))
    return float(response.outputs["mean"].float_val[0])


def test_a_new_version_takes_over(start: Start, base_path: Path, exports: dict[int, Path]) -> None:
    """The higher number is loaded and answers; the lower one has ended; newest first."""
    server, client = start(base_path)
    assert (mean(client), states(client)) == (1.0, [(1, AVAILABLE)])
    shutil.copytree(exports[2], base_path / "2")
    server.model.poll()
    assert (mean(client), states(client)) == (2.0, [(2, AVAILABLE), (1, END)])


def test_numbers_are_compared_as_numbers(
    start: Start, base_path: Path, exports: dict[int, Path]
) -> None:
    """Ten is newer than nine, leading zeros do not matter, and other names are no versions."""
    (base_path / "1").rename(base_path / "9")
    shutil.copytree(exports[2], base_path / "0010")
    for name in ("tmp-11", "v12", "13.bak", "²0"):
        shutil.copytree(exports[1], base_path / name)
    _, client = start(base_path)
    assert (mean(client), states(client)) == (2.0, [(10, AVAILABLE)])


def test_a_version_being_written_is_left_alone(
    start: Start, base_path: Path, exports: dict[int, Path]
) -> None:
    """Until the SavedModel's own file is there the directory is no version at all."""
    server, client = start(base_path)
    shutil.copytree(exports[2], base_path / "2", ignore=shutil.ignore_patterns("*.pb"))
    server.model.poll()
    assert (mean(client), states(client)) == (1.0, [(1, AVAILABLE)])
    shutil.copy(exports[2] / "saved_model.pb", base_path / "2")
    server.model.poll()
    assert mean(client) == 2.0


def test_a_broken_version_leaves_the_old_one_serving(
    start: Start, base_path: Path, exports: dict[int, Path]
) -> None:
    """The status says that and why it ended; it is tried again only when its files change."""
    told: list[str] = []
    server, client = start(base_path, report=told.append)
    (base_path / "2").mkdir()
    (base_path / "2" / "saved_model.pb").write_bytes(b"not a graph")
    server.model.poll()
    server.model.poll()
    assert (mean(client), states(client)) == (1.0, [(2, END), (1, AVAILABLE)])
    broken = statuses(client)[0].status
    assert broken.error_code != 0
    assert broken.error_message
    assert sum("cannot load pixels version 2" in line for line in told) == 1
    shutil.copytree(exports[2], base_path / "2", dirs_exist_ok=True)
    server.model.poll()
    assert (mean(client), states(client)) == (2.0, [(2, AVAILABLE), (1, END)])
    assert statuses(client)[0].status.error_code == 0


def test_a_version_with_lost_variables_is_broken(
    start: Start, base_path: Path, exports: dict[int, Path]
) -> None:
    """TensorFlow's own code is passed on where it gives one."""
    server, client = start(base_path)
    shutil.copytree(exports[2], base_path / "2", ignore=shutil.ignore_patterns("*.data-*"))
    server.model.poll()
    assert states(client) == [(2, END), (1, AVAILABLE)]
    assert statuses(client)[0].status.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_when_the_newest_is_taken_away_the_next_serves(
    start: Start, base_path: Path, exports: dict[int, Path]
) -> None:
    """Removing a version rolls back, and removing them all unloads the model."""
    shutil.copytree(exports[2], base_path / "2")
    server, client = start(base_path)
    assert mean(client) == 2.0
    shutil.rmtree(base_path / "2")
    server.model.poll()
    assert (mean(client), states(client)) == (1.0, [(2, END), (1, AVAILABLE)])
    shutil.rmtree(base_path / "1")
    server.model.poll()
    assert states(client) == [(2, END), (1, END)]
    with pytest.raises(grpc.RpcError) as failure:
        mean(client)
    assert failure.value.details() == "Servable not found for request: Latest(pixels)"


def test_a_base_path_out_of_reach_changes_nothing(start: Start, base_path: Path) -> None:
    """A mount that is away for a while does not unload the model, and is told of once each time."""
    told: list[str] = []
    server, client = start(base_path, report=told.append)
    away = base_path.with_name("away")
    for _ in range(2):
        base_path.rename(away)
        server.model.poll()
        server.model.poll()
        assert (mean(client), states(client)) == (1.0, [(1, AVAILABLE)])
        away.rename(base_path)
        server.model.poll()
    assert sum(line.startswith("cannot read the versions of pixels") for line in told) == 2


def test_without_a_version_the_server_waits(
    start: Start, tmp_path: Path, exports: dict[int, Path]
) -> None:
    """It listens, finds nothing, and serves the first version that comes."""
    told: list[str] = []
    server, client = start(tmp_path, model_name="pixels", report=told.append)
    assert any("no version of pixels" in line for line in told)
    for call in (mean, statuses):
        with pytest.raises(grpc.RpcError) as failure:
            call(client)
        assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    shutil.copytree(exports[1], tmp_path / "1")
    server.model.poll()
    assert mean(client) == 1.0


def test_a_running_server_looks_for_itself(
    start: Start, base_path: Path, exports: dict[int, Path]
) -> None:
    """The watcher picks a new version up without being told."""
    took_over = threading.Event()

    def report(line: str) -> None:
        if line.startswith("loaded pixels version 2 in "):
            took_over.set()

    _, client = start(base_path, file_system_poll_wait_seconds=0.01, report=report)
    shutil.copytree(exports[2], base_path.parent / "elsewhere")
    (base_path.parent / "elsewhere").rename(base_path / "2")
    assert took_over.wait(60)
    assert mean(client) == 2.0


def test_a_version_stays_until_its_last_call_has_ended(
    base_path: Path, exports: dict[int, Path]
) -> None:
    """The old version runs calls that began on it, though the new one has taken over."""
    events: list[str] = []
    loaded = threading.Event()
    model = Model("pixels", base_path, report=lambda line: "version 2" in line and loaded.set())
    model.poll()
    shutil.copytree(exports[2], base_path / "2")
    with model.lend("pixels", None) as old:
        close = old.close
        old.close = lambda: (events.append("closed"), close())
        watcher = threading.Thread(target=model.poll)
        watcher.start()
        assert loaded.wait(60)
        with model.lend("pixels", None) as new:
            assert new.number == 2
        signature = old.signatures["fixed"]
        x = np.ones((1, 2), np.float32)
        old.run({signature.inputs["x"].name: x}, [signature.outputs["y"].name])
        events.append("call ended")
    watcher.join()
    assert events == ["call ended", "closed"]
    assert model.states()[1].state == END
    model.unload()


@pytest.mark.parametrize(
    ("spec", "details"),
    [
        (ModelSpec(name="other"), "Could not find any versions of model other"),
        (
            ModelSpec(name="pixels", version=Int64Value(value=7)),
            "Could not find version 7 of model pixels",
        ),
    ],
    ids=["model", "version"],
)
def test_the_status_of_what_was_never_there(client: Any, spec: ModelSpec, details: str) -> None:
    """An unknown model or version is NOT_FOUND, and named."""
    with pytest.raises(grpc.RpcError) as failure:
        statuses(client, spec)
    outcome = (failure.value.code(), failure.value.details())
    assert outcome == (grpc.StatusCode.NOT_FOUND, details)


def test_the_status_of_one_version(start: Start, base_path: Path, exports: dict[int, Path]) -> None:
    """``version`` limits the answer to it; a healthy one carries an empty status."""
    server, client = start(base_path)
    shutil.copytree(exports[2], base_path / "2")
    server.model.poll()
    spec = ModelSpec(name="pixels", version=Int64Value(value=1))
    (one,) = statuses(client, spec)
    assert (one.version, one.state) == (1, END)
    assert one.HasField("status")
    assert one.status.error_code == 0


def test_a_status_request_must_carry_a_model(client: Any) -> None:
    """No ModelSpec is invalid."""
    with pytest.raises(grpc.RpcError) as failure:
        client.model.GetModelStatus(GetModelStatusRequest())
    outcome = (failure.value.code(), failure.value.details())
    assert outcome == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")

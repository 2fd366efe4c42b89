"""The server's life: start, failures to start, signals."""

import importlib
import io
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.backend.server import BackendOptions, BackendStartError, Server, run

Start = Any


def test_the_model_is_named_after_its_directory(start: Start, base_path: Path) -> None:
    """Without ``model_name`` the name is that of the base path, however the path is written."""
    server, _ = start(base_path / "1" / "..")
    assert server.model.name == "pixels"


def test_a_base_path_that_is_no_directory(tmp_path: Path) -> None:
    """A typing mistake is told at once, with the path."""
    with pytest.raises(BackendStartError, match="missing is not a directory"):
        Server(BackendOptions(tmp_path / "missing"))


def test_a_port_that_is_taken(start: Start, base_path: Path) -> None:
    """Two servers never share a port: the second one is told."""
    first = Server(BackendOptions(base_path, port=0, file_system_poll_wait_seconds=0))
    port = int(first.start().rpartition(":")[2])
    try:
        with pytest.raises(BackendStartError, match=f"cannot listen on 127.0.0.1:{port}"):
            start(base_path, port=port)
    finally:
        first.stop()


def test_a_stopped_server_is_gone(start: Start, base_path: Path) -> None:
    """After ``stop`` calls find nobody, and the version is unloaded."""
    told: list[str] = []
    server, client = start(base_path, file_system_poll_wait_seconds=60, report=told.append)
    server.stop()
    with pytest.raises(grpc.RpcError) as failure:
        client.predict(inputs=np.ones((1, 2, 2, 3), np.uint8))
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert told[-1] == "unloaded pixels version 1"


def test_a_call_under_way_is_answered_before_the_server_stops(
    start: Start, base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``stop`` lets what it has begun come to its end."""
    server, client = start(base_path)
    under_way, go_on = threading.Event(), threading.Event()
    with server.model.lend("pixels", None) as version:
        compute = version.run

    def wait_and_compute(*arguments: Any) -> Any:
        under_way.set()
        assert go_on.wait(60)
        return compute(*arguments)

    def stop_and_go_on(grace: float) -> Any:
        stopped = stop(grace)
        go_on.set()
        return stopped

    stop = server._grpc.stop
    monkeypatch.setattr(version, "run", wait_and_compute)
    monkeypatch.setattr(server._grpc, "stop", stop_and_go_on)
    with ThreadPoolExecutor(1) as caller:
        pixels = np.ones((1, 2, 2, 3), np.uint8)
        answer = caller.submit(client.predict, "mean", inputs=pixels)
        assert under_way.wait(60)
        server.stop()
        assert answer.result().outputs["mean"].float_val == [1.0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_order(
    number: signal.Signals, base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``run`` tells each step on stderr, and SIGTERM or SIGINT, even twice, makes it return 0."""

    class Terminal(io.StringIO):
        def flush(self) -> None:
            if self.getvalue().splitlines()[-1].startswith(("listening on 127.0.0.1:", "stopping")):
                signal.raise_signal(number)

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    before = signal.getsignal(number)
    assert run(BackendOptions(base_path, port=0)) == 0
    assert signal.getsignal(number) is before
    words = [line.split(" in ")[0].split(":")[0] for line in terminal.getvalue().splitlines()]
    assert words == [
        "loading TensorFlow …",
        "loaded pixels version 1",
        "listening on 127.0.0.1",
        "stopping",
        "unloaded pixels version 1",
    ]


def test_without_tensorflow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module imports without TensorFlow; making a server then says what to install."""
    for name in ("server", "services", "status", "tensors", "versions"):
        monkeypatch.delitem(sys.modules, f"gateway.backend.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    lean = importlib.import_module("gateway.backend.server")
    with pytest.raises(
        lean.BackendStartError, match=r"pip install 'tfserving-gateway\[embedded\]'"
    ):
        lean.Server(lean.BackendOptions(tmp_path))

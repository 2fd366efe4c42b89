"""The embedded server's life: start, watch for new versions, stop."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

__all__ = ["BackendOptions", "BackendStartError", "Server", "run"]

# What a stopping server gives to the calls that it has begun.
_GRACE_SECONDS = 5.0


class BackendStartError(Exception):
    """The server cannot be started; the message says why and what to do, on one line."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What to serve and where, in the words of TensorFlow Serving's flags.

    ``model_base_path`` holds one directory a version, named by its number, with the SavedModel in
    it. ``model_name`` is the name of that directory unless given. Port 0 is any free one.
    ``file_system_poll_wait_seconds`` is the pause between two looks for new versions; 0 looks once.
    """

    model_base_path: Path
    model_name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8500
    enable_serialization_as_tensor_content: bool = False
    file_system_poll_wait_seconds: float = 1.0


class Server:
    """One model on one port, answered by four threads a CPU, as TensorFlow Serving's default.

    Further calls wait their turn. Making a server imports TensorFlow, which takes seconds.
    ``report`` is given each step in a line of words, from any thread.

    BackendStartError: the extra is not installed, or ``model_base_path`` is no directory.
    """

    def __init__(
        self, options: BackendOptions, *, report: Callable[[str], None] = lambda _: None
    ) -> None:
        try:
            # Not at the top: TensorFlow is an extra, and whoever asks for options has no use for it
            from gateway.backend.services import add_to_server  # noqa: PLC0415 - see above
            from gateway.backend.versions import Model  # noqa: PLC0415 - see above
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in {"tensorflow", "tensorflow_serving"}:
                raise
            raise BackendStartError(
                "the embedded server needs TensorFlow: pip install 'tfserving-gateway[embedded]'"
            ) from error
        base_path = options.model_base_path.resolve()
        if not base_path.is_dir():
            raise BackendStartError(f"the model base path {base_path} is not a directory")
        self._options = options
        self._report = report
        self.model = Model(options.model_name or base_path.name, base_path, report=report)
        self._grpc = grpc.server(
            ThreadPoolExecutor(4 * (os.cpu_count() or 1), thread_name_prefix="backend"),
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                # Without this a second server on the same port would start and take half the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        add_to_server(
            self._grpc,
            self.model,
            as_tensor_content=options.enable_serialization_as_tensor_content,
        )
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="backend-versions", daemon=True)

    def start(self) -> str:
        """Load the newest version, if there is one, and listen; returns ``host:port``.

        BackendStartError: the port is taken, or the host is not one of this machine's.
        """
        host = self._options.host
        host = f"[{host}]" if ":" in host else host
        try:
            port = self._grpc.add_insecure_port(f"{host}:{self._options.port}")
        except RuntimeError as error:
            raise BackendStartError(
                f"cannot listen on {host}:{self._options.port}: is another server there?"
            ) from error
        self.model.poll()
        if not self.model.states():
            self._report(
                f"no version of {self.model.name} in {self._options.model_base_path} yet: waiting"
            )
        self._grpc.start()
        if self._options.file_system_poll_wait_seconds > 0:
            self._watcher.start()
        return f"{host}:{port}"

    def stop(self) -> None:
        """Refuse new calls, give those under way five seconds, and free the model."""
        self._stopping.set()
        self._grpc.stop(_GRACE_SECONDS).wait()
        if self._watcher.is_alive():
            self._watcher.join()
        self.model.unload(timeout=0)

    def _watch(self) -> None:
        while not self._stopping.wait(self._options.file_system_poll_wait_seconds):
            self.model.poll()


def run(options: BackendOptions) -> int:
    """Serve until SIGTERM or SIGINT; returns 0. Progress goes to stderr. Main thread only.

    BackendStartError: see ``Server`` and ``Server.start``.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    signals = (signal.SIGTERM, signal.SIGINT)

    def interrupt(*_: object) -> None:
        """Break off whatever is under way, a long load too; what stops is not interrupted again."""
        # A terminal's Ctrl-C reaches the whole process group, and a parent may pass it on as well.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in signals}
    server = None
    try:
        _progress("loading TensorFlow …")
        with _silent_stderr():
            server = Server(options, report=_progress)
        address = server.start()
        _progress(f"listening on {address}")
        threading.Event().wait()
    except KeyboardInterrupt:
        _progress("stopping")
    finally:
        if server is not None:
            server.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing on descriptor 2: TensorFlow's C++ greets there on import, whatever its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

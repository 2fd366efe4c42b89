"""The versions of one model: which directory is served, loading, lending and unloading.

As TensorFlow Serving does by default: the highest version number is served; the next version is
loaded before the old one goes, and the old one goes when its last call has ended.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from gateway.backend.status import StatusError, from_tensorflow
from gateway.backend.tensors import Array

__all__ = ["Model", "ModelVersion", "VersionState"]


class ModelVersion:
    """One SavedModel in memory, TF1 or TF2, run as TensorFlow Serving runs it: by tensor names.

    ``signatures`` are the SignatureDefs of the graph tagged ``serve``, by key. Whatever
    TensorFlow raises while reading ``path`` is raised.
    """

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
        except BaseException:
            self._session.close()
            raise
        self._session.graph.finalize()
        self.signatures = dict(meta_graph.signature_def)

    def tensor(self, name: str) -> tf.Tensor:
        """The graph's tensor ``name``, for its ``dtype`` and static ``shape``."""
        return self._session.graph.get_tensor_by_name(name)

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """The values of ``fetches``. Raises ``tf.errors.OpError``; may be called by many threads.

        Feeds must have the tensor's own dtype, or they are cast to it without a word.
        """
        values = self._session.run(list(fetches), dict(feeds))
        return [
            np.asarray(value, dtype=self.tensor(name).dtype.as_numpy_dtype)
            for name, value in zip(fetches, values, strict=True)
        ]

    def close(self) -> None:
        """Free the memory; calls under way are cancelled."""
        self._session.close()


@dataclass(frozen=True, slots=True)
class VersionState:
    """What GetModelStatus says of a version: a ``ModelVersionStatus.State`` and why it ended."""

    state: int
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""


class Model:
    """``name``, served from the newest of the version directories in ``base_path``.

    ``poll`` and ``unload`` belong to one thread at a time; all else may be called by any.
    """

    def __init__(
        self, name: str, base_path: Path, *, report: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name = name
        self._base_path = base_path
        self._report = report
        # Guarded by _changed: what is loaded, how many calls each version is lent to, and every
        # state seen so far.
        self._loaded: dict[int, ModelVersion] = {}
        self._lent: Counter[int] = Counter()
        self._states: dict[int, VersionState] = {}
        self._changed = Condition()
        self._readable = True
        # The files of a version as they were when it failed to load.
        self._failed: dict[int, frozenset[tuple[str, int, int]]] = {}

    @contextmanager
    def lend(self, name: str, number: int | None) -> Iterator[ModelVersion]:
        """Version ``number`` of model ``name``, or the newest loaded; kept until the block ends.

        StatusError NOT_FOUND: there is none.
        """
        with self._changed:
            chosen = max(self._loaded, default=0) if number is None else number
            if name != self.name or chosen not in self._loaded:
                wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}"
                )
            version = self._loaded[chosen]
            self._lent[chosen] += 1
        try:
            yield version
        finally:
            with self._changed:
                self._lent[chosen] -= 1
                self._changed.notify_all()

    def states(self) -> dict[int, VersionState]:
        """Every version ever tried, newest first."""
        with self._changed:
            return dict(sorted(self._states.items(), reverse=True))

    def poll(self) -> None:
        """Look at the directory once; load what is new and then unload what is old.

        A version whose SavedModel is still being written is left alone. One that cannot be loaded
        leaves the old one serving, and is tried again when its files have changed. A base path
        that cannot be read changes nothing.
        """
        try:
            newest = _newest(self._base_path)
            files = _files(newest[1]) if newest else frozenset()
        except OSError as error:
            if self._readable:
                self._report(f"cannot read the versions of {self.name}: {error}")
            self._readable = False
            return
        self._readable = True
        if newest is None:
            self.unload()
            return
        number, path = newest
        if number in self._loaded or self._load(number, path, files):
            self.unload(keep=number)

    def unload(self, *, keep: int | None = None, timeout: float | None = None) -> None:
        """Unload all versions but ``keep``, each when its last call has ended.

        After ``timeout`` seconds the calls that are left are cancelled; None waits for them.
        """
        for number in self._loaded.keys() - {keep}:
            self._unload(number, timeout)

    def _unload(self, number: int, timeout: float | None) -> None:
        with self._changed:
            version = self._loaded.pop(number)
            self._states[number] = VersionState(ModelVersionStatus.UNLOADING)
            self._changed.wait_for(lambda: self._lent[number] == 0, timeout)
        version.close()
        self._set_state(number, VersionState(ModelVersionStatus.END))
        self._report(f"unloaded {self.name} version {number}")

    def _load(self, number: int, path: Path, files: frozenset[tuple[str, int, int]]) -> bool:
        """Whether version ``number`` is now loaded, from ``path`` as its ``files`` are."""
        if self._failed.get(number) == files:
            return False
        self._set_state(number, VersionState(ModelVersionStatus.LOADING))
        started = time.perf_counter()
        try:
            version = ModelVersion(number, path)
        except Exception as error:  # a broken SavedModel raises nearly anything
            self._failed[number] = files
            status = from_tensorflow(error)
            self._set_state(
                number, VersionState(ModelVersionStatus.END, status.code, status.message)
            )
            self._report(f"cannot load {self.name} version {number}: {status.message}")
            return False
        with self._changed:
            self._loaded[number] = version
            self._states[number] = VersionState(ModelVersionStatus.AVAILABLE)
        seconds = time.perf_counter() - started
        self._report(f"loaded {self.name} version {number} in {seconds:.1f} s")
        return True

    def _set_state(self, number: int, state: VersionState) -> None:
        with self._changed:
            self._states[number] = state


def _newest(base_path: Path) -> tuple[int, Path] | None:
    """The highest number among the directories that hold a SavedModel, with its path."""
    return max(
        (
            (int(path.name), path)
            for path in base_path.iterdir()
            if path.name.isascii() and path.name.isdigit() and _is_saved_model(path)
        ),
        default=None,
    )


def _is_saved_model(path: Path) -> bool:
    # An export writes the graph's file after the variables, so it marks a whole one.
    return any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def _files(path: Path) -> frozenset[tuple[str, int, int]]:
    stats = ((file, file.stat()) for file in path.rglob("*") if file.is_file())
    return frozenset((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats)

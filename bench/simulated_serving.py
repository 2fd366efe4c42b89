"""A stand-in for TensorFlow Serving with a known cost: ``a + b * n`` ms for a call of n pictures.

    python -m bench.simulated_serving --cost 20,2 --address 127.0.0.1:8500 --control 8501

Calls run on a device of the kind ``--device`` (bench/simulated_devices.py), by default on one of
``--devices`` serial ones, which sleep instead of burning the CPU that the gateway under test needs.
The wire is TensorFlow Serving's, and the answer depends on each picture (bench/marks.py). Faults
come from flags or from the control port while running:

    curl -d 'slow=2&error_rate=0.1' localhost:8501     # also cost, devices, hang=1, refuse=1, die=1
    curl -d 'device=sharing' localhost:8501            # what runs ends on the device it is on
    curl localhost:8501                                # counts and settings as JSON
"""

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import selectors
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qsl

import grpc
import grpc.aio

from bench import simulated_devices, wire
from bench import simulated_models as models

__all__ = ["Behaviour", "SimulatedServing", "main", "parse"]

Context = grpc.aio.ServicerContext[bytes, bytes]
GRACE = 5.0  # seconds for the calls that run at SIGTERM
UNLIMITED = 1 << 30
MERGED = 32  # items that a merging device makes one call of, unless max_batch_size says otherwise


@dataclass(slots=True)
class Behaviour:
    """How the device and the server behave now; times in milliseconds."""

    cost: tuple[float, float] = (20.0, 2.0)
    device: str = "serial"  # or another kind of simulated_devices.make
    devices: int = 1  # of the serial or sliced kind; of the others there is one
    max_batch_size: int = UNLIMITED
    slow: float = 1.0  # factor on the cost
    error_rate: float = 0.0  # share of calls answered INTERNAL after their time on the device
    hang: bool = False  # calls get no answer until this is lifted
    refuse: bool = False  # calls are answered UNAVAILABLE at once

    def change(self, name: str, text: str) -> None:
        """Set one field from its text form; ValueError for an unknown name or an unfit value."""
        if name == "cost":
            a, b = map(float, text.split(","))
            self.cost = (a, b)
        elif name == "device":
            simulated_devices.make(text, self.seconds)  # ValueError if there is no such kind
            self.device = text
        elif name in {"devices", "max_batch_size"}:
            setattr(self, name, int(text))
        elif name in {"slow", "error_rate"}:
            setattr(self, name, float(text))
        elif name in {"hang", "refuse"}:
            setattr(self, name, text == "1")
        else:
            raise ValueError(f"no such setting: {name}")

    def seconds(self, n: int) -> float:
        """Return what a call of ``n`` pictures takes when it has the device to itself."""
        a, b = self.cost
        return (a + b * n) * self.slow / 1000

    def merged(self) -> int:
        """Return how many pictures a merging device makes one call of at most."""
        return MERGED if self.max_batch_size == UNLIMITED else self.max_batch_size


@dataclass(slots=True)
class Counts:
    """What was done since the start; ``batches`` counts calls, as they came, by batch size.

    ``busy_seconds`` is what the calls would take one after the other, those that were merged as
    one; a device that runs several at once has more of them than the clock.
    """

    calls: int = 0
    images: int = 0
    busy_seconds: float = 0.0
    errors: int = 0
    batches: dict[int, int] = field(default_factory=dict)


class SimulatedServing:
    """The gRPC services and the devices behind them; lives on one event loop."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.counts = Counts()
        self._running = asyncio.Event()  # cleared while it hangs
        self._kind = ""
        self.apply()

    def apply(self) -> None:
        """Take notice of a change of ``behaviour``."""
        if self.behaviour.hang:
            self._running.clear()
        else:
            self._running.set()
        if self.behaviour.device != self._kind:  # the same kind keeps its calls
            self._kind = self.behaviour.device
            self._device = simulated_devices.make(
                self._kind,
                self._begin,
                slots=lambda: self.behaviour.devices,
                most=self.behaviour.merged,
            )

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the services; requests and answers stay bytes."""

        unary = grpc.unary_unary_rpc_method_handler
        prediction: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Predict": unary(self.predict),
            "GetModelMetadata": unary(self.metadata),
        }
        status: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "GetModelStatus": unary(self.status)
        }
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "tensorflow.serving.PredictionService", prediction
                ),
                grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", status),
            )
        )

    async def predict(self, body: bytes, context: Context) -> bytes:
        """Answer Predict after the device has had its time."""
        try:
            await self._up()
            request = wire.read_predict(body)
            models.check(request, self.behaviour.max_batch_size)
            await self.run(request.model, request.tensor.shape[0])
            return models.answer(request)
        except models.Refusal as refusal:
            self.counts.errors += 1
            await context.abort(refusal.status, str(refusal))
        except wire.WireError as error:
            self.counts.errors += 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError("abort returned")

    async def metadata(self, body: bytes, context: Context) -> bytes:
        """Answer GetModelMetadata."""
        try:
            await self._up()
            models.known(wire.model_of(body))
        except models.Refusal as refusal:
            await context.abort(refusal.status, str(refusal))
        return models.metadata(wire.model_of(body))

    async def status(self, body: bytes, context: Context) -> bytes:
        """Answer GetModelStatus."""
        try:
            await self._up()
            models.known(wire.model_of(body))
        except models.Refusal as refusal:
            await context.abort(refusal.status, str(refusal))
        return models.status()

    async def _up(self) -> None:
        if self.behaviour.refuse:
            raise models.Refusal(grpc.StatusCode.UNAVAILABLE, "refusing, as told")
        await self._running.wait()

    def _begin(self, n: int) -> float:
        """Return the seconds of a call that the device begins, and count them."""
        seconds = self.behaviour.seconds(n)
        self.counts.busy_seconds += seconds
        return seconds

    async def run(self, model: str, n: int) -> None:
        """Return when the device has run a call of ``n`` pictures; Refusal if it is to fail."""
        counts = self.counts
        counts.calls += 1
        counts.images += n
        counts.batches[n] = counts.batches.get(n, 0) + 1
        await self._device.call(model, n)
        if self.behaviour.error_rate > random.random():
            raise models.Refusal(grpc.StatusCode.INTERNAL, "failing, as told")

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one HTTP request of the control port: GET reads, POST changes."""
        header = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(header.partition("content-length:")[2].split("\r\n")[0] or 0)
        body = (await reader.readexactly(size)).decode()
        status, answer = "200 OK", ""
        try:
            for name, text in parse_qsl(body):
                if name == "die":
                    os._exit(9)
                self.behaviour.change(name, text)
            self.apply()
            answer = json.dumps(asdict(self.behaviour) | asdict(self.counts))
        except ValueError as error:
            status, answer = "400 Bad Request", json.dumps({"message": str(error)})
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(answer)}\r\n\r\n{answer}".encode()
        )
        await writer.drain()
        writer.close()


async def serve(serving: SimulatedServing, address: str, control: int) -> None:
    """Serve until SIGTERM, and then to the end of the calls that run; prints one line when both
    ports are open."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    serving.add_to(server)
    server.add_insecure_port(address)
    await server.start()
    async with await asyncio.start_server(serving.control, "127.0.0.1", control):
        sys.stdout.write(f"simulated serving on {address}, control on 127.0.0.1:{control}\n")
        sys.stdout.flush()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        await server.stop(GRACE)


def keep_memory() -> None:
    """Have glibc keep freed memory (mallopt(3)): page faults were half of this server's CPU."""
    libc = ctypes.CDLL(None)
    for parameter, size in ((-3, 1 << 25), (-1, 1 << 30), (-2, 1 << 26)):  # mmap, trim, top pad
        libc.mallopt(parameter, size)


def parse(arguments: Sequence[str] | None = None) -> tuple[Behaviour, str, int]:
    """Read the flags: the behaviour, the address and the port of the control."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--address", default="127.0.0.1:8500", help="HOST:PORT or unix:PATH")
    parser.add_argument("--control", type=int, default=8501, help="port of the control")
    behaviour = Behaviour()
    parser.add_argument("--cost", default="20,2", help="a,b in ms (default %(default)s)")
    kinds = "serial, sharing, cores:N, amdahl, merging or sliced (default %(default)s)"
    parser.add_argument("--device", default=behaviour.device, metavar="KIND", help=kinds)
    for name in ("devices", "max_batch_size", "slow", "error_rate"):
        value = getattr(behaviour, name)
        parser.add_argument(f"--{name.replace('_', '-')}", default=str(value))
    for name in ("hang", "refuse"):
        parser.add_argument(f"--{name}", action="store_const", const="1", default="0")
    flags = vars(parser.parse_args(arguments))
    address, control = flags.pop("address"), flags.pop("control")
    try:
        for name, text in flags.items():
            behaviour.change(name, text)
    except ValueError as error:
        parser.error(str(error))
    return behaviour, address, control


def main() -> None:
    """Parse the flags and serve."""
    behaviour, address, control = parse()
    keep_memory()
    # epoll waits in whole milliseconds, select in microseconds; a device of 2 ms needs the latter.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(serve(SimulatedServing(behaviour), address, control))


if __name__ == "__main__":
    main()

"""The application over real HTTP, in front of the fake TensorFlow Serving."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestClient

from batching import CostModel
from gateway.app import create_app
from gateway.connections import Runner
from gateway.forecast import kind_of
from gateway.keys import DETECTOR
from gateway.predict import Lane
from gateway.settings import Settings, load_settings

Start = Callable[..., Awaitable[TestClient]]
Believe = Callable[..., None]


class Authority:
    """Signs certificates, into files that it replaces as a whole."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.pem = self.ca.cert_pem.bytes()
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.pem)
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"

    def issue(self, *names: str, **dates: Any) -> trustme.LeafCert:
        """Write a new certificate and its key."""
        leaf = self.ca.issue_cert(*names, **dates)
        self.cert.write_bytes(chain(leaf))
        self.key.write_bytes(leaf.private_key_pem.bytes())
        return leaf


def chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems)


@pytest.fixture
def authority(tmp_path) -> Callable[[], Authority]:
    """Make an authority, with a folder of its own."""
    made: list[Authority] = []

    def make() -> Authority:
        folder = tmp_path / f"authority-{len(made)}"
        folder.mkdir()
        made.append(Authority(folder))
        return made[-1]

    return make


@pytest.fixture
def settings(serving, monkeypatch) -> Callable[..., Settings]:
    """Settings for the fake, with changes; the environment of the tests is kept out."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"APP_{name.upper()}", raising=False)

    def make(**changes: Any) -> Settings:
        return load_settings({"tfserving": serving.address, "request_timeout": 60, **changes})

    return make


@pytest.fixture
def start(aiohttp_client, settings) -> Start:
    """Start a gateway with changed settings; a client of it."""

    async def run(**changes: Any) -> TestClient:
        app = create_app(settings(**changes))
        return await aiohttp_client(app, server_kwargs={"handler_cancellation": True})

    return run


@pytest.fixture
async def gateway(start) -> TestClient:
    return await start()


@pytest.fixture
def believe() -> Believe:
    """Have a gateway that was used believe in another cost of calls, on all servers."""

    def believe_it(
        gateway: TestClient, fixed_s: float, *, lane: Lane | None = None, **more: Any
    ) -> None:
        detector = gateway.app[DETECTOR]
        lane = lane or detector.forecast.usual("colors")
        cost = {"per_item_s": 0.0, "transport_s": 0.0, "noise": 0.0, **more}
        for server in detector._servers(lane):
            known = detector._dispatch.server(server)._kind(kind_of(lane))
            known.estimator.restart(CostModel(fixed_s, **cost))

    return believe_it


@pytest.fixture
def ask(photo) -> Callable[..., Awaitable[tuple[int, Any]]]:
    """Post a request for detections; its status and its JSON."""

    async def post(client: TestClient, headers: Any = None, **body: Any) -> tuple[int, Any]:
        body = {"model_name": "colors", "image": photo(), **body}
        response = await client.post("/imageDetection", json=body, headers=headers)
        return response.status, await response.json()

    return post


@pytest.fixture
def learn(ask) -> Callable[[TestClient], Awaitable[None]]:
    """Ask until it is known what calls cost: before, one runs at a time."""

    async def teach(client: TestClient) -> None:
        while not client.app[DETECTOR].learnt():
            assert (await ask(client))[0] == 200

    return teach


@pytest.fixture
def shows() -> Callable[[TestClient, str, float], Awaitable[None]]:
    """Wait until a gauge has a value: state is polled as an operator sees it."""

    async def poll(client: TestClient, gauge: str, value: float) -> None:
        line = f"\n{gauge} {value:.1f}\n"
        while line not in await (await client.get("/metrics")).text():
            pass

    return poll


@pytest.fixture
async def listen(settings) -> AsyncIterator[Callable[..., Awaitable[tuple[str, int]]]]:
    """Start a gateway with changed settings on the connections that the command serves on; where it
    listens."""
    runners: list[Runner] = []

    async def run(**changes: Any) -> tuple[str, int]:
        runners.append(Runner(create_app(settings(**changes))))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        return runners[-1].addresses[0]

    yield run
    for runner in runners:
        await runner.cleanup()

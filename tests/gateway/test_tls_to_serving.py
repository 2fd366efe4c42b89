"""The gateway in front of a TensorFlow Serving that speaks TLS, and certificates that change."""

import asyncio

import grpc
import pytest

from gateway.keys import CLIENT


@pytest.fixture
async def mutual(serving, authority, monkeypatch):
    """The fake, which now asks for certificates; the authorities of the two sides."""
    monkeypatch.setattr("gateway.tls.LOOK_SECONDS", 0.01)
    servers, clients = authority(), authority()
    servers.issue("localhost")
    clients.issue("gateway")
    pair = (servers.key.read_bytes(), servers.cert.read_bytes())
    await serving.stop()
    await serving.start(
        credentials=grpc.ssl_server_credentials([pair], clients.pem, require_client_auth=True)
    )
    return servers, clients


@pytest.fixture
def secure(serving, mutual):
    """Settings for it, by its name."""
    servers, clients = mutual
    return {
        "tfserving": serving.address.replace("127.0.0.1", "localhost"),
        "tfserving_ca": servers.file,
        "tfserving_cert": clients.cert,
        "tfserving_key": clients.key,
    }


async def test_a_name_is_looked_up_and_still_verified(start, secure, ask, shows):
    """The channel connects to 127.0.0.1, and the certificate is for localhost."""
    gateway = await start(**secure, models={"colors": ""})
    assert (await ask(gateway))[0] == 200
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert (await gateway.get("/readyz")).status == 200


async def test_another_name_may_be_configured(start, secure, serving, ask):
    """An address in numbers is verified as such, unless a name is given."""
    numbers = secure | {"tfserving": serving.address}
    assert (await ask(await start(**numbers)))[0] == 503
    named = await start(**numbers, tfserving_server_name="localhost")
    assert (await ask(named))[0] == 200


async def test_not_trusted(start, secure, authority, ask):
    """503 for the client, and /readyz says that it is TLS, and why."""
    gateway = await start(**(secure | {"tfserving_ca": authority().file}), models={"colors": ""})
    status, answer = await ask(gateway)
    assert (status, answer["code"]) == (503, "backend_unavailable")
    assert "TLS: its certificate is not trusted" in answer["message"]
    response = await gateway.get("/readyz")
    assert response.status == 503
    reason = (await response.json())["reason"]
    assert "unreachable; TLS with TensorFlow Serving: its certificate is not trusted" in reason


async def test_a_rotation_loses_no_request(start, secure, serving, mutual, ask):
    """Under concurrent load, the certificate changes four times, and each one is seen in use."""
    _, clients = mutual
    gateway = await start(**secure)
    asked = 0

    async def keep_asking(used: bytes) -> None:
        nonlocal asked
        while used not in serving.certificates:
            asked += 1
            assert asked < 4000, "the new certificate is not used"
            assert (await ask(gateway))[0] == 200

    for _ in range(4):
        clients.issue("gateway")
        new = clients.cert.read_bytes()
        await asyncio.gather(*(keep_asking(new) for _ in range(8)))
    assert gateway.app[CLIENT].count == 1


async def test_a_call_that_runs_ends_on_the_old_channel(start, secure, serving, mutual, ask, learn):
    """It keeps its answer, and others are answered meanwhile; then the old channel is closed."""
    _, clients = mutual
    gateway = await start(**secure)
    await learn(gateway)
    while not serving.arrived.locked():
        await serving.arrived.acquire()
    serving.gate = gate = asyncio.Event()
    running = asyncio.ensure_future(ask(gateway))
    await serving.arrived.acquire()
    serving.gate = None
    clients.issue("gateway")
    while clients.cert.read_bytes() not in serving.certificates:
        assert (await ask(gateway))[0] == 200
    assert not running.done()
    gate.set()
    assert (await running)[0] == 200
    while gateway.app[CLIENT]._closing:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


async def test_half_a_file_changes_nothing(start, secure, serving, mutual, ask, caplog):
    """The old certificate goes on, the log says once why, and a whole one is taken over."""
    _, clients = mutual
    gateway = await start(**secure)
    old, whole = clients.cert.read_bytes(), clients.key.read_bytes()
    clients.key.write_bytes(whole[:50])
    while "all stays as it was" not in caplog.text:
        assert (await ask(gateway))[0] == 200
    assert (await ask(gateway))[0] == 200
    assert set(serving.certificates) <= {old}
    clients.issue("gateway")
    while clients.cert.read_bytes() not in serving.certificates:
        assert (await ask(gateway))[0] == 200
    assert caplog.text.count(f"{clients.cert} and {clients.key} are no certificate and key") == 1

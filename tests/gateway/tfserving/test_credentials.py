"""TLS to TensorFlow Serving: who is trusted, who is not, and what is said of it."""

import datetime

import grpc
import pytest

from gateway import errors
from gateway.tfserving import Credentials, ServingClient
from gateway.tfserving.credentials import handshake_failure

LONG_AGO = {
    "not_before": datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC),
    "not_after": datetime.datetime(2002, 1, 1, tzinfo=datetime.UTC),
}


@pytest.fixture
async def secured(serving):
    """Start the fake anew, with the certificate of an authority; it may ask clients for theirs."""

    async def start(server, clients=None) -> None:
        await serving.stop()
        pair = (server.key.read_bytes(), server.cert.read_bytes())
        ca = None if clients is None else clients.pem
        await serving.start(
            credentials=grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)
        )

    return start


@pytest.fixture
async def connect(serving):
    """Make clients of the fake, and close them."""
    made = []

    def make(credentials, name=None) -> ServingClient:
        made.append(
            ServingClient(
                serving.address,
                max_message_bytes=1 << 20,
                credentials=credentials.channel,
                server_name=name,
            )
        )
        return made[-1]

    yield make
    for client in made:
        await client.aclose()


async def test_the_name_is_that_which_was_configured(secured, connect, authority):
    """The channel connects to a number, and the certificate is for a name, or for the number."""
    ours = authority()
    for host, name in [("serving.example", "serving.example"), ("127.0.0.1", None)]:
        ours.issue(host)
        await secured(ours)
        client = connect(Credentials(ours.file), name)
        assert await client.status("colors", timeout=30)
        assert client.tls_failure is None


async def test_mutual_tls(secured, connect, authority):
    """The gateway shows its own certificate to a server that asks for one."""
    servers, clients = authority(), authority()
    servers.issue("127.0.0.1")
    clients.issue("gateway")
    await secured(servers, clients)
    credentials = Credentials(servers.file, clients.cert, clients.key)
    assert await connect(credentials).status("colors", timeout=30)


@pytest.mark.parametrize(
    ("issued", "told"),
    [
        ({"name": "other.example"}, "its certificate is for another name"),
        (LONG_AGO, "its certificate is not trusted: certificate has expired"),
        ({"authority": "another"}, "its certificate is not trusted: unable to get local issuer"),
        ({"plain": True}, "it does not speak TLS"),
        ({"clients": "asked"}, "it hung up, as if it wanted another certificate"),
    ],
    ids=["renamed", "expired", "wrong authority", "no TLS", "no client certificate"],
)
async def test_refused(secured, connect, authority, serving, caplog, issued, told):
    """No call is made, the caller is told that it is for TLS, and the log says so once."""
    ours, signer = authority(), authority()
    if "authority" not in issued:
        signer = ours
    dates = issued if "not_after" in issued else {}
    signer.issue(issued.get("name", "serving.example"), **dates)
    if "plain" not in issued:
        await secured(signer, ours if "clients" in issued else None)
    client = connect(Credentials(ours.file), "serving.example")
    for _ in range(2):
        with pytest.raises(errors.BackendUnavailableError, match=f"with TLS: {told}") as caught:
            await client.status("colors", timeout=30)
        assert "127.0.0.1" not in str(caught.value)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"no TLS with TensorFlow Serving at {serving.address}: {told}")


async def test_another_certificate_of_the_gateway_is_refused(secured, connect, authority):
    """One that the server's authorities have not signed is as good as none."""
    servers, clients = authority(), authority()
    servers.issue("127.0.0.1")
    await secured(servers, clients)
    client = connect(Credentials(servers.file, servers.cert, servers.key))
    with pytest.raises(errors.BackendUnavailableError, match="wanted another certificate"):
        await client.status("colors", timeout=30)


async def test_over_when_it_is_mended(secured, connect, authority, serving):
    """A server that was not trusted is, once it has another certificate."""
    ours = authority()
    ours.issue("old.example")
    await secured(ours)
    client = connect(Credentials(ours.file), "new.example")
    with pytest.raises(errors.BackendUnavailableError, match="another name"):
        await client.status("colors", timeout=30)
    address = serving.address
    await serving.stop()
    ours.issue("new.example")
    pair = (ours.key.read_bytes(), ours.cert.read_bytes())
    await serving.start(address, grpc.ssl_server_credentials([pair]))
    while client.tls_failure is not None:
        try:
            await client.status("colors", timeout=30)
        except errors.BackendUnavailableError:
            continue
    assert await client.status("colors", timeout=30)


def test_files_that_have_changed(authority):
    """New content makes new credentials; a file at fault leaves the old ones in place."""
    ours = authority()
    ours.issue("gateway")
    credentials = Credentials(ours.file, ours.cert, ours.key)
    first = credentials.channel
    assert not credentials.look()
    ours.file.write_bytes(ours.pem[:100])
    with pytest.raises(ValueError, match=r"ca\.pem"):
        credentials.look()
    assert credentials.channel is first
    ours.file.write_bytes(ours.pem + authority().pem)
    assert credentials.look()
    assert credentials.channel is not first


def test_other_outages_are_not_for_tls():
    """Nor is a connection that was there and is lost."""
    for details in ("Socket closed", "Connection refused", "recvmsg:Connection reset by peer"):
        assert handshake_failure(details) is None

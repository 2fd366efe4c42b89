"""HTTPS on the gateway's own port, certificates of clients, and files that change meanwhile."""

import asyncio
import base64
import contextlib
import signal
import socket
import ssl

import pytest
from cryptography import x509

from gateway.cli import main
from gateway.cli.tls import ServerTls
from gateway.tls import PemFiles


def trusting(authority, client=None, **limits) -> ssl.SSLContext:
    """A client's side, which trusts the authority."""
    context = ssl.create_default_context()
    authority.ca.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    for name, value in limits.items():
        setattr(context, name, value)
    return context


class Connection:
    """To the gateway, kept open; OSError where it ends without an answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, url: str, context: ssl.SSLContext) -> "Connection":
        host, port = url.removeprefix("https://").split(":")
        return cls(*await asyncio.open_connection(host, int(port), ssl=context))

    async def healthz(self) -> int:
        """Ask once; the serial number of the certificate that the gateway has shown."""
        self.writer.write(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n")
        try:
            head = await self.reader.readuntil(b"}")
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("no answer") from error
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        return int(self.writer.get_extra_info("peercert")["serialNumber"], 16)


async def serial_of(url: str, context: ssl.SSLContext) -> int:
    """Of the certificate that a new connection is shown."""
    connection = await Connection.to(url, context)
    try:
        return await connection.healthz()
    finally:
        connection.writer.close()


def serial(leaf) -> int:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number


@pytest.mark.parametrize("workers", [1, 2])
async def test_serve(spawn, authority, workers):
    """Connections are HTTPS; a bad pair is told and changes nothing; a good one is used for new
    connections, while those that stand go on."""
    ours = authority()
    first = ours.issue("127.0.0.1")
    gateway = await spawn(
        "serve", "--port", "0", "--workers", str(workers),
        "--tls-cert", str(ours.cert), "--tls-key", str(ours.key),
    )  # fmt: skip
    url = await gateway.url()
    assert url.startswith("https://")
    context = trusting(ours)
    standing = await Connection.to(url, context)
    assert await standing.healthz() == serial(first)
    ours.key.write_text("half")
    for _ in range(workers):
        await gateway.line("TLS of the port: all stays as it was: .*no certificate and key")
    assert await serial_of(url, context) == serial(first)
    second = ours.issue("127.0.0.1")
    for _ in range(workers):
        await gateway.line("TLS of the port: the new files are in use")
    for _ in range(4):
        assert await serial_of(url, context) == serial(second)
    assert await standing.healthz() == serial(first)
    standing.writer.close()
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_clients_must_show_a_certificate(spawn, authority, workers):
    """With tls_client_ca, only those with a certificate of that authority are answered."""
    servers, clients = authority(), authority()
    servers.issue("127.0.0.1")
    gateway = await spawn(
        "serve", "--port", "0", "--workers", str(workers),
        "--tls-cert", str(servers.cert), "--tls-key", str(servers.key),
        "--tls-client-ca", str(clients.file),
    )  # fmt: skip
    url = await gateway.url()
    await serial_of(url, trusting(servers, clients.issue("somebody")))
    for nobody in (None, servers.issue("somebody")):
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on who is faster
            await serial_of(url, trusting(servers, nobody))


async def test_commands(spawn, serving, authority, photo):
    """They trust the authority in SSL_CERT_FILE, and nobody whom they do not know."""
    ours = authority()
    ours.issue("127.0.0.1")
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", serving.address, "--models", "colors",
        "--tls-cert", str(ours.cert), "--tls-key", str(ours.key),
    )  # fmt: skip
    url = await gateway.url()
    picture = ours.file.parent / "picture.png"
    picture.write_bytes(base64.b64decode(photo()))
    for argv in (("models", "--url", url), ("detect", "--url", url, str(picture))):
        known = await spawn(*argv, SSL_CERT_FILE=str(ours.file))
        assert await known.end() == 0
        unknown = await spawn(*argv, SSL_CERT_FILE=str(authority().file))
        assert await unknown.end() == 1
        (line,) = unknown.lines
        assert "CERTIFICATE_VERIFY_FAILED" in line
    planned = await spawn(
        "plan", "--rate", "1", "--slo", "500", "--from", url, SSL_CERT_FILE=str(ours.file)
    )
    await planned.end()
    assert "the gateway has learnt of no model" in "".join(planned.lines)


@contextlib.asynccontextmanager
async def listening(tls: ServerTls):
    """A port that answers ``ok``, as a function that connects and returns version and session."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.context)
    port = server.sockets[0].getsockname()[1]

    def connect(context, session=None) -> tuple[str, ssl.SSLSession]:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secured,
        ):
            if secured.recv(2) != b"ok":
                raise ConnectionError("no answer")
            return secured.version(), secured.session

    yield lambda *args: asyncio.to_thread(connect, *args)
    server.close()
    await server.wait_closed()


async def test_an_authority_that_is_taken_away(authority):
    """Its clients are refused from then on, also those that were there before and come back."""
    servers, old, new = authority(), authority(), authority()
    servers.issue("127.0.0.1")
    file = old.file
    tls = ServerTls(PemFiles(ca=file, cert=servers.cert, key=servers.key), ask_clients=True)
    before = trusting(servers, old.issue("before"))
    after = trusting(servers, new.issue("after"))
    async with listening(tls) as connect:
        _, session = await connect(before)
        with pytest.raises(OSError):  # noqa: PT011 - as above
            await connect(after)
        assert not tls.look()
        file.write_bytes(new.pem)
        assert tls.look()
        await connect(after)
        for resumed in (None, session):
            with pytest.raises(OSError):  # noqa: PT011 - as above
                await connect(before, resumed)


@pytest.mark.parametrize("ask_clients", [False, True])
async def test_versions_of_tls(authority, ask_clients):
    """None below 1.2; with certificates of clients 1.3, since in 1.2 a session can be resumed
    without one."""
    ours = authority()
    leaf = ours.issue("127.0.0.1")
    tls = ServerTls(PemFiles(ca=ours.file, cert=ours.cert, key=ours.key), ask_clients=ask_clients)
    least = ssl.TLSVersion.TLSv1_3 if ask_clients else ssl.TLSVersion.TLSv1_2
    assert tls.context.minimum_version is least
    client = trusting(ours, leaf, maximum_version=ssl.TLSVersion.TLSv1_2)
    async with listening(tls) as connect:
        if ask_clients:
            with pytest.raises(OSError):  # noqa: PT011 - as above
                await connect(client)
        else:
            assert (await connect(client))[0] == "TLSv1.2"


def test_unreadable_at_the_start_with_workers(capsys, tmp_path):
    """The setting is named in one line, before any worker is started; the exit status is 2."""
    missing = str(tmp_path / "no.pem")
    flags = ("--tls-cert", missing, "--tls-key", missing, "--workers", "2")
    assert main(["serve", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tfserving-gateway: tls_cert: cannot read {missing}: No such file")

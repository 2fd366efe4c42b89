"""Files of certificates and keys: read whole or not at all, and again when they have changed."""

import asyncio
import ssl

import pytest
from cryptography.hazmat.primitives import serialization as pem

from gateway.cli import main
from gateway.tls import Pem, PemFiles, keep_fresh


@pytest.fixture
def ours(authority):
    """An authority that has signed a certificate."""
    ours = authority()
    ours.issue("localhost")
    return ours


def load(files: PemFiles) -> bool:
    return files.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def files_of(ours) -> PemFiles:
    return PemFiles(ca=ours.file, cert=ours.cert, key=ours.key)


def test_only_a_change_of_content_counts(ours):
    """What was loaded is not loaded again, though it was written again."""
    files = files_of(ours)
    assert load(files)
    ours.file.write_bytes(ours.pem)
    assert not load(files)
    ours.issue("localhost")
    assert load(files)
    assert files.content == Pem(ours.pem, ours.key.read_bytes(), ours.cert.read_bytes())
    assert not load(files)


def locked(key: bytes) -> bytes:
    return pem.load_pem_private_key(key, None).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("file", lambda text: text[:-40], "no list of whole certificates"),
        ("file", lambda text: text + text[:200], "no list of whole certificates"),
        ("file", lambda _: b"", "no list of whole certificates"),
        ("cert", lambda text: text[:300], "no certificate and key"),
        ("key", lambda text: text[:100], "no certificate and key"),
        ("key", lambda _: b"", "no certificate and key"),
        ("key", locked, "without a passphrase"),
    ],
)
def test_half_a_file(ours, name, change, reason):
    """A file that is cut short, or locked, is refused by its path; what was loaded is kept."""
    files = files_of(ours)
    load(files)
    before = files.content
    path = getattr(ours, name)
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    with pytest.raises(ValueError, match=reason) as caught:
        load(files)
    assert str(path) in str(caught.value)
    assert files.content == before
    path.write_bytes(whole)
    assert not load(files)


def test_a_key_of_another_certificate(ours):
    """While a rotation has written one of the two, the pair is refused."""
    old = ours.key.read_bytes()
    ours.issue("localhost")
    ours.key.write_bytes(old)
    with pytest.raises(ValueError, match=r"key\.pem is not the key of .*cert\.pem"):
        load(files_of(ours))


def test_a_file_that_changes_while_it_is_loaded(ours, monkeypatch):
    """What was checked and what is kept are the same."""
    files = files_of(ours)
    seen = iter([Pem(ours.pem), Pem(ours.pem + b"\n")])
    monkeypatch.setattr(files, "_read", lambda: next(seen))
    with pytest.raises(ValueError, match="is being written"):
        load(files)
    assert files.content == Pem()


async def test_a_fault_is_logged_once(monkeypatch, caplog):
    """However often it is seen, until it is another one or over; then it is told again."""
    monkeypatch.setattr("gateway.tls.LOOK_SECONDS", 0.0)
    outcomes = iter(["half", "half", "no such file", "half", "half", False, "half", True])
    done = asyncio.Event()

    def look() -> bool:
        outcome = next(outcomes)
        if isinstance(outcome, str):
            raise ValueError(outcome)
        return outcome

    task = asyncio.ensure_future(keep_fresh("TLS", look, done.set))
    await done.wait()
    task.cancel()
    faults = [record.args[1] for record in caplog.records if record.levelname == "ERROR"]
    assert faults == ["half", "no such file", "half", "half"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--tls-cert {cert}", "tls_key: and tls_cert are of use together only"),
        ("--tls-key {key}", "tls_key: and tls_cert are of use together only"),
        ("--tls-cert {cert} --tls-key no.pem", "tls_key: cannot read no.pem: No such file"),
        ("--tls-cert no.pem --tls-key {key}", "tls_cert: cannot read no.pem: No such file"),
        ("--tls-cert {key} --tls-key {key}", "tls_cert: {key} is no list of whole certificates"),
        ("--tls-cert {cert} --tls-key {cert}", "tls_key: {cert} and {cert} are no certificate"),
        ("--tls-cert {file} --tls-key {key}", "tls_key: {key} is not the key of {file}"),
        ("--tls-client-ca {file}", "tls_client_ca: is of no use without tls_cert"),
        ("--tfserving-ca no.pem", "tfserving_ca: cannot read no.pem: No such file"),
        ("--tfserving-cert {cert} --tfserving-key {key}", "tfserving_cert: is of no use without"),
        ("--tfserving-server-name a", "tfserving_server_name: is of no use without tfserving_ca"),
        (
            "--tfserving-ca {file} --tfserving-key {key}",
            "tfserving_key: and tfserving_cert are of use together only",
        ),
    ],
)
def test_settings_at_fault(ours, capsys, flags, told):
    """The command ends with status 2 and a line that names the setting, the file and the reason."""
    assert main(["serve", *flags.format(**vars(ours)).split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tfserving-gateway: {told.format(**vars(ours))}")

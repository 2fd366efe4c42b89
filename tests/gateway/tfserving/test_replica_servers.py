"""Where the batcher may send a call, and what comes of its choice."""

import asyncio
import socket

import grpc
import pytest

from gateway import errors
from tests.gateway.tfserving.many import COLORS, asked, predict, replicas_of, until


class Changes:
    """Notes which addresses have gone, and how often something else has changed."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.count = 0

    def __call__(self, gone: str | None) -> None:
        if gone is None:
            self.count += 1
        else:
            self.gone.append(gone)

    async def wait(self) -> None:
        """Return at the next one."""
        before = self.count
        await until(lambda: self.count > before)


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def three(servings, changes):
    """Three fakes, and the replicas that stand for them."""
    fakes = await servings(3)
    replicas = await replicas_of([fake.address for fake in fakes], changed=changes)
    yield fakes, replicas
    await replicas.aclose()


async def test_the_chosen_one_is_asked(three):
    """However busy it is, as long as it may be asked; else any other is."""
    fakes, replicas = three
    for _ in range(3):
        await predict(replicas, server=fakes[1].address)
    assert asked(fakes) == [0, 3, 0]
    await predict(replicas, server="127.0.0.1:1")  # it is gone meanwhile
    assert asked(fakes)[1] == 3
    await fakes[1].stop()
    await predict(replicas, server=fakes[1].address)  # not delivered, and tried on another
    assert replicas.servers(COLORS) == [fakes[0].address, fakes[2].address]
    await predict(replicas, server=fakes[1].address)
    assert asked(fakes)[1] == 3


async def test_those_that_are_left_out_are_none(three, changes):
    """They come back by themselves; both is told."""
    fakes, replicas = three
    all_three = [fake.address for fake in fakes]
    assert replicas.servers(COLORS) == all_three
    fakes[0].abort = (grpc.StatusCode.UNAVAILABLE, "queue full")
    before = changes.count
    while not replicas.left_out:
        await predict(replicas, server=all_three[0])
    assert replicas.servers(COLORS) == all_three[1:]
    assert changes.count == before + 1
    fakes[0].abort = None
    await changes.wait()
    await until(lambda: replicas.servers(COLORS) == all_three)


async def test_one_is_told_of_once_it_is_prepared(servings, changes):
    """Not only when it is reached: whoever waits for a server is to be sent there then."""
    prepared, go_on = asyncio.Event(), asyncio.Event()

    async def prepare(_):
        prepared.set()
        await go_on.wait()

    fakes = await servings(2)
    addresses = [fake.address for fake in fakes]
    replicas = await replicas_of(addresses, prepare=prepare, changed=changes)
    await prepared.wait()
    before = changes.count
    go_on.set()
    await until(lambda: not replicas.left_out)
    assert changes.count >= before + 2
    assert replicas.servers(COLORS) == addresses
    await replicas.aclose()


async def test_all_are_left_out(three):
    """Those that merely refuse may be asked; when nobody can be reached one is named, in vain."""
    fakes, replicas = three
    addresses = [fake.address for fake in fakes]
    for fake in fakes[1:]:
        fake.abort = (grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
    await fakes[0].stop()
    while replicas.left_out < 3:
        for address in addresses:
            with pytest.raises(errors.BackendUnavailableError):
                await predict(replicas, server=address)
    assert replicas.servers(COLORS) == addresses[1:]
    for fake in fakes[1:]:
        await fake.stop()
    while len(replicas.servers(COLORS)) > 1:
        for address in addresses:
            with pytest.raises(errors.BackendUnavailableError):
                await predict(replicas, server=address)
    [named] = replicas.servers(COLORS)
    with pytest.raises(errors.BackendUnavailableError):
        await predict(replicas, server=named)


async def test_a_name_that_stands_for_nobody(monkeypatch):
    """Then it is the name itself that is asked, in vain."""

    async def look_up(*_, **__):
        raise socket.gaierror

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    replicas = await replicas_of(["pool:1"])
    assert replicas.servers(COLORS) == ["pool:1"]
    with pytest.raises(errors.BackendUnavailableError):
        await predict(replicas, server="pool:1")
    await replicas.aclose()


async def test_one_that_lacks_the_model_is_asked_for_it_apart_from_calls(
    three, changes, monkeypatch
):
    """A call finds out that it does; whether it has it by now is seen without one, while the model
    is in use."""
    monkeypatch.setattr("gateway.tfserving.replica.LACKS_SECONDS", 0.01)
    fakes, replicas = three
    lacking, *others = [fake.address for fake in fakes]
    model = fakes[0].models.pop("colors")
    before = changes.count
    await predict(replicas, server=lacking)
    assert changes.count == before + 1
    for _ in range(4):
        await predict(replicas, server=lacking)
        assert replicas.servers(COLORS) == others
        await fakes[0].metadata_asked.acquire()
        await until(lambda: not replicas._replicas[lacking]._looks)
    assert asked(fakes)[0] == 1
    fakes[0].models["colors"] = model
    await predict(replicas, server=lacking)
    await changes.wait()
    assert replicas.servers(COLORS) == [lacking, *others]
    await predict(replicas, server=lacking)
    assert asked(fakes)[0] == 2


async def test_all_lack_the_model(three):
    """Each of them may be asked: it may have it by now."""
    fakes, replicas = three
    for fake in fakes:
        fake.models.clear()
    with pytest.raises(errors.ModelNotFoundError):
        await predict(replicas)
    assert replicas.servers(COLORS) == [fake.address for fake in fakes]


async def test_a_single_one_is_always_named(serving):
    """There is nobody else: even when it was lost it is asked."""
    replicas = await replicas_of([serving.address])
    await serving.stop()
    for _ in range(4):
        with pytest.raises(errors.BackendUnavailableError, match=r"^TensorFlow Serving cannot"):
            await predict(replicas, server=serving.address)
        assert replicas.servers(COLORS) == [serving.address]
    await replicas.aclose()


async def test_what_the_dns_has_forgotten_is_told(changes, monkeypatch):
    """Once, with its address; what is new as well."""
    monkeypatch.setattr("gateway.tfserving.replicas.RESOLVE_SECONDS", 0.01)
    monkeypatch.setattr("gateway.tfserving.names.LOOKS", 2)
    machines = ["127.0.0.1", "127.0.0.2"]

    async def look_up(host, port, **_):
        return [(socket.AF_INET, 0, 0, "", (ip, port)) for ip in machines]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    replicas = await replicas_of(["pool:1"], changed=changes)
    assert changes.count == 2
    machines[:] = ["127.0.0.2", "127.0.0.3"]
    await until(lambda: changes.gone)
    assert changes.gone == ["127.0.0.1:1"]
    assert changes.count == 3
    assert replicas.servers(COLORS) == ["127.0.0.2:1", "127.0.0.3:1"]
    await replicas.aclose()

"""The second replica that is asked when the first is late, and the one that is asked first."""

import asyncio
from functools import partial

import grpc
import pytest

from gateway import errors
from gateway.tfserving import Replicas, ServingClient
from tests.gateway.tfserving import many
from tests.gateway.tfserving.many import asked, until

# What is late is a call that takes longer than a fiftieth of a second.
predict = partial(many.predict, usual=0.02, timeout=60.0)


@pytest.fixture
async def two(servings):
    """Two fakes, and replicas that hold a call for late after a fiftieth of a second."""
    fakes = await servings(2)
    replicas = await replicas_of(fakes)
    yield fakes, replicas
    await replicas.aclose()


async def replicas_of(fakes, **options) -> Replicas:
    replicas = await many.replicas_of([fake.address for fake in fakes], **options)
    replicas._late = 1.0
    return replicas


class Preparing:
    """Notes what it prepares, and takes until its gate is open."""

    def __init__(self) -> None:
        self.clients: list[ServingClient] = []
        self.gate = asyncio.Event()

    async def __call__(self, client: ServingClient) -> None:
        self.clients.append(client)
        await self.gate.wait()


async def test_a_late_call_is_sent_to_another_too(two):
    """The caller has the answer of the second, and nothing is left running of the first."""
    fakes, replicas = two
    fakes[0].gate = asyncio.Event()
    await predict(replicas)
    assert asked(fakes) == [1, 1]
    for _ in range(3):
        await asyncio.sleep(0)
    assert [one.running for one in replicas._replicas.values()] == [0, 0]
    fakes[0].gate.set()


async def test_one_that_is_always_late_is_left_out(two):
    """Being outrun three times in a row is being silent."""
    fakes, replicas = two
    fakes[0].gate = fakes[0].status_gate = asyncio.Event()
    while not replicas.left_out:
        await predict(replicas, server=fakes[0].address)
    assert asked(fakes)[0] == 3
    await predict(replicas)
    assert asked(fakes)[0] == 3
    fakes[0].gate.set()


async def test_the_first_may_still_win(two):
    """What answers first counts; the second is given up."""
    fakes, replicas = two
    for fake in fakes:
        fake.gate = asyncio.Event()
    call = asyncio.ensure_future(predict(replicas))
    for fake in fakes:
        await fake.arrived.acquire()
    fakes[0].gate.set()
    await call
    assert replicas.left_out == 0
    assert [one.failures for one in replicas._replicas.values()] == [0, 0]
    fakes[1].gate.set()


async def test_a_second_that_fails_is_no_answer(two):
    """Then the first is waited for; when both fail, what the first failed with is told."""
    fakes, replicas = two
    fakes[0].gate = asyncio.Event()
    fakes[1].refuse = lambda _: (grpc.StatusCode.UNAVAILABLE, "queue full")
    call = asyncio.ensure_future(predict(replicas))
    await fakes[1].arrived.acquire()
    fakes[0].gate.set()
    await call
    fakes[0].gate = asyncio.Event()
    fakes[0].refuse = lambda _: (grpc.StatusCode.INTERNAL, "broken")
    call = asyncio.ensure_future(predict(replicas, server=fakes[0].address))
    await fakes[1].arrived.acquire()
    fakes[0].gate.set()
    with pytest.raises(errors.BackendAnswerInvalidError, match="INTERNAL"):
        await call


@pytest.mark.parametrize("refusing", [0, 1])
async def test_a_refusal_is_an_answer(two, refusing):
    """What one of them says of the input, the other would say as well: it is not waited for."""
    fakes, replicas = two
    gates = [asyncio.Event(), asyncio.Event()]
    for fake, gate in zip(fakes, gates, strict=True):
        fake.gate = gate
    fakes[refusing].refuse = lambda _: (grpc.StatusCode.INVALID_ARGUMENT, "bad picture")
    call = asyncio.ensure_future(predict(replicas))
    for fake in fakes:
        await fake.arrived.acquire()
    gates[refusing].set()
    with pytest.raises(errors.InputRefusedError, match="bad picture"):
        await call
    gates[1 - refusing].set()


async def test_a_caller_that_leaves_ends_both(two):
    """Neither call goes on."""
    fakes, replicas = two
    for fake in fakes:
        fake.gate = asyncio.Event()
    call = asyncio.ensure_future(predict(replicas))
    for fake in fakes:
        await fake.arrived.acquire()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    for _ in range(3):
        await asyncio.sleep(0)
    assert [one.running for one in replicas._replicas.values()] == [0, 0]
    for fake in fakes:
        fake.gate.set()


async def test_late_calls_share_the_budget_of_retries(two):
    """When everything is late, a tenth is sent twice, not everything, and some is left for calls
    that fail."""
    fakes, replicas = two
    replicas._retries = 5.0
    for fake in fakes:
        fake.gate = asyncio.Event()
    calls = [asyncio.ensure_future(predict(replicas, usual=1e-4)) for _ in range(40)]
    for _ in range(43):
        await fakes[0].arrived.acquire() if fakes[0].arrived._value else await asyncio.sleep(0.001)
    for fake in fakes:
        fake.gate.set()
    await asyncio.gather(*calls)
    assert 42 <= sum(asked(fakes)) <= 45
    assert replicas._retries >= 4


async def test_without_hedging(servings):
    """Nothing is sent twice where that is not wanted, nor while nothing is known."""
    fakes = await servings(2)
    for options, usual in (({"hedge": False}, 1e-4), ({}, 0.0)):
        replicas = await replicas_of(fakes, **options)
        fakes[0].gate = asyncio.Event()
        before = asked(fakes)
        call = asyncio.ensure_future(predict(replicas, usual=usual))
        await fakes[0].arrived.acquire()
        for _ in range(20):
            await asyncio.sleep(0.001)
        fakes[0].gate.set()
        await call
        assert [now - then for now, then in zip(asked(fakes), before, strict=True)] == [1, 0]
        await replicas.aclose()


async def test_what_is_late_is_learnt(two):
    """After some dozens of calls: what 99 of 100 were faster than, and never less than usual."""
    _, replicas = two
    replicas._late = 0.0
    for n in range(64):
        replicas._calls = 16
        assert replicas._late == 0.0
        replicas._learn(4.0 if n == 40 else 1.0)
    assert replicas._late == 4.0
    for _ in range(256):
        replicas._learn(0.5)
    assert replicas._late == 1.5


async def test_late_is_what_is_late_for_the_one_that_was_asked(two):
    """A replica that takes longer than others has the time that it usually takes."""
    fakes, replicas = two
    slow, fast = fakes
    usual = {slow.address: 30.0, fast.address: 0.02}.__getitem__
    for fake, second_asked in ((slow, 0), (fast, 1)):
        fake.gate = asyncio.Event()
        call = asyncio.ensure_future(predict(replicas, usual=usual, server=fake.address))
        await fake.arrived.acquire()
        for _ in range(60):
            await asyncio.sleep(0.001)
        fake.gate.set()
        await call
        assert sum(asked(fakes)) == 1 + second_asked
        for one in fakes:
            one.requests.clear()


async def test_the_one_that_is_asked_last_is_blamed(servings):
    """A first call that was passed on is late for the fault of who has it now."""
    fakes = await servings(3)
    replicas = await replicas_of(fakes)
    refusing, silent, well = replicas._replicas.values()
    fakes[0].gate, fakes[1].gate = asyncio.Event(), asyncio.Event()
    fakes[0].abort = (grpc.StatusCode.UNAVAILABLE, "queue full")
    well.used = silent.used = -1
    well.running = 1  # so that it is the last to be asked
    call = asyncio.ensure_future(predict(replicas, usual=0.3))
    silent.running, refusing.running = 1, 0
    await fakes[0].arrived.acquire()
    silent.running = 0
    fakes[0].gate.set()
    await call
    assert (refusing.failures, silent.failures, well.failures) == (1, 1, 0)
    fakes[1].gate.set()
    await replicas.aclose()


async def test_prepared_before_it_gets_calls(servings):
    """A replica is new, or was lost: it is made ready before others trust it."""
    fakes = await servings(2)
    prepare = Preparing()
    replicas = await replicas_of(fakes, prepare=prepare)
    assert replicas.left_out == 2
    await predict(replicas)  # nobody is ready, so anybody is asked
    await until(lambda: len(prepare.clients) == 2)
    prepare.gate.set()
    await until(lambda: not replicas.left_out)
    prepare.gate.clear()
    await fakes[0].stop()
    while not replicas.left_out:
        await predict(replicas, usual=0.0)
    await fakes[0].start(fakes[0].address)
    await until(lambda: len(prepare.clients) == 3)
    for _ in range(4):
        await predict(replicas)
    assert replicas.left_out == 1
    prepare.gate.set()
    await until(lambda: not replicas.left_out)
    await replicas.aclose()


async def test_one_that_is_being_prepared_is_better_than_none(servings):
    """When no other is there, calls go to who answers again, warm or not."""
    fakes = await servings(2)
    prepare = Preparing()
    prepare.gate.set()
    replicas = await replicas_of(fakes, prepare=prepare)
    await until(lambda: not replicas.left_out)
    prepare.gate.clear()
    for fake in fakes:
        await fake.stop()
    while replicas.left_out < 2:
        with pytest.raises(errors.BackendUnavailableError):
            await predict(replicas, usual=0.0)
    await fakes[0].start(fakes[0].address)
    first = next(iter(replicas._replicas.values()))
    await until(lambda: first.answers)
    assert replicas.left_out == 2
    await predict(replicas, usual=0.0)
    prepare.gate.set()
    await replicas.aclose()


async def test_one_that_was_silent_and_is_another_process_now(servings):
    """It is cold: what is done with a new replica is done with it too."""
    fakes = await servings(2)
    prepare = Preparing()
    prepare.gate.set()
    replicas = await replicas_of(fakes, prepare=prepare)
    await until(lambda: not replicas.left_out)
    first = next(iter(replicas._replicas.values()))
    fakes[0].gate = fakes[0].status_gate = asyncio.Event()
    for _ in range(3):
        replicas._failed(first, "silent", silent=True)
    assert (first.left_out, first.lost) == (True, False)
    await fakes[0].stop()
    await until(lambda: first.lost)
    fakes[0].gate = fakes[0].status_gate = None
    prepare.clients.clear()
    await fakes[0].start(fakes[0].address)
    await until(lambda: not first.left_out)
    assert prepare.clients == [first.client]
    await replicas.aclose()


async def test_a_defect_while_preparing_is_told(servings, caplog):
    """It keeps no replica from its calls."""
    fakes = await servings(2)

    async def prepare(_: ServingClient) -> None:
        raise MemoryError

    replicas = await replicas_of(fakes, prepare=prepare)
    await until(lambda: not replicas.left_out)
    assert "MemoryError" in caplog.text
    await replicas.aclose()


async def test_lost_while_it_was_prepared(servings):
    """What was prepared is gone: it is done again with who comes back."""
    fakes = await servings(2)
    prepare = Preparing()
    replicas = await replicas_of(fakes, prepare=prepare)
    await until(lambda: len(prepare.clients) == 2)
    first, second = replicas._replicas.values()
    replicas.renew()
    await fakes[1].stop()
    await until(lambda: not second.client.connected)
    prepare.gate.set()
    await until(lambda: not first.left_out)
    assert prepare.clients.count(first.client) == 1
    assert second.left_out
    await replicas.aclose()


async def test_a_refusal_on_a_client_that_was_replaced(two):
    """A call that runs while its client is replaced tells nothing of the new connection."""
    fakes, replicas = two
    fakes[0].gate = asyncio.Event()
    fakes[0].refuse = lambda _: (grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")
    call = asyncio.ensure_future(predict(replicas, usual=0.0))
    await fakes[0].arrived.acquire()
    replicas.renew()
    fakes[0].gate.set()
    await call  # it was made again on the other
    assert not any(replica.lost for replica in replicas._replicas.values())
    assert replicas.left_out == 0

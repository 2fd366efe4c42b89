"""Many TensorFlow Servings behind one gateway: killed, hung, new, gone, or without the model."""

import asyncio
import itertools
import socket

import grpc
import pytest

from gateway import errors
from gateway.tfserving import ModelChoice
from tests.gateway.tfserving.many import asked, predict, replicas_of, until


@pytest.fixture
async def three(servings):
    """Three fakes, and the replicas that stand for them."""
    fakes = await servings(3)
    replicas = await replicas_of([fake.address for fake in fakes])
    yield fakes, replicas
    await replicas.aclose()


async def test_the_one_with_the_fewest_calls_is_asked(three):
    """Calls spread over idle replicas in turn, and past one that is busy."""
    fakes, replicas = three
    for _ in range(6):
        await predict(replicas)
    assert asked(fakes) == [2, 2, 2]
    fakes[0].gate = asyncio.Event()
    stuck = asyncio.ensure_future(predict(replicas))
    await asyncio.sleep(0)
    for _ in range(6):
        await predict(replicas)
    assert asked(fakes) == [3, 5, 5]
    fakes[0].gate.set()
    await stuck


async def test_a_call_that_was_not_delivered_is_tried_on_another(three):
    """The caller notices nothing; after three in a row the replica gets no more for a while."""
    fakes, replicas = three
    fakes[0].abort = (grpc.StatusCode.UNAVAILABLE, "queue full")
    for _ in range(4):
        await predict(replicas)
    assert replicas.left_out == 0
    while replicas.left_out < 1:
        await predict(replicas)
    assert asked(fakes)[0] == 3
    for _ in range(4):
        await predict(replicas)
    assert asked(fakes)[0] == 3
    fakes[0].abort = None
    await until(lambda: not replicas.left_out)
    for _ in range(3):
        await predict(replicas)
    assert asked(fakes)[0] == 4


async def test_all_refuse(three):
    """When all are left out for having refused, they are asked all the same: it may be over."""
    fakes, replicas = three
    for fake in fakes:
        fake.abort = (grpc.StatusCode.RESOURCE_EXHAUSTED, "thread pool is full")
    while replicas.left_out < 3:
        with pytest.raises(errors.BackendUnavailableError, match="no room"):
            await predict(replicas)
    for fake in fakes:
        fake.abort = None
    assert replicas.left_out == 3
    await predict(replicas)


async def test_one_that_refuses_again_and_again(three, monkeypatch):
    """A replica that is let in and refuses as before waits twice as long for the next chance."""
    monkeypatch.setattr("gateway.tfserving.replica.PROBE_SECONDS", 0.02)
    fakes, replicas = three
    refusing = next(iter(replicas._replicas.values()))
    fakes[0].refuse = lambda _: (grpc.StatusCode.UNAVAILABLE, "queue full")
    for relapses in (1, 2, 3):
        replicas._retries = 10.0
        while not refusing.left_out:
            await predict(replicas)
        assert refusing._relapses == relapses
        await until(lambda: not refusing.left_out)
    fakes[0].refuse = lambda _: None
    while refusing.failures:
        assert refusing._relapses == 3
        await predict(replicas)
    assert refusing._relapses == 0


async def test_killed_and_back(three, servings):
    """A replica that is gone is left out; when it listens again, it is back."""
    fakes, replicas = three
    await fakes[1].stop()
    for _ in range(6):
        await predict(replicas)
    assert replicas.left_out == 1
    await fakes[1].start(fakes[1].address)
    await until(lambda: not replicas.left_out)
    for _ in range(3):
        await predict(replicas)
    assert asked(fakes)[1] > 0


async def test_none_left(three):
    """Then a call fails at once, and the first replica that returns is enough."""
    fakes, replicas = three
    for fake in fakes:
        await fake.stop()
    for _ in range(4):
        with pytest.raises(errors.BackendUnavailableError):
            await predict(replicas)
    while replicas.left_out < 3:
        with pytest.raises(errors.BackendUnavailableError):
            await predict(replicas)
    with pytest.raises(errors.BackendUnavailableError, match="no TensorFlow Serving"):
        await predict(replicas)
    await fakes[2].start(fakes[2].address)
    await until(lambda: replicas.left_out < 3)
    await predict(replicas)


async def test_a_model_that_some_lack(three):
    """Those that lack it are passed over for it, and only for it."""
    fakes, replicas = three
    del fakes[0].models["colors"]
    for _ in range(4):
        await predict(replicas)
    assert asked(fakes) == [1, 2, 2]
    assert replicas.left_out == 0
    for fake in fakes[1:]:
        fake.models.clear()
    for _ in range(2):
        with pytest.raises(errors.ModelNotFoundError):
            await predict(replicas)
    assert sum(asked(fakes)) == 8  # the second time one of them was asked, lest it has come back


async def test_a_version_that_is_not_there(three):
    """That a pinned version is missing says nothing of the model's others, nor of its status."""
    fakes, replicas = three
    pinned = ModelChoice("colors", 7)
    with pytest.raises(errors.ModelNotFoundError, match="version 7"):
        await predict(replicas, model=pinned)
    await predict(replicas)
    assert await replicas.status("colors", timeout=5)
    for fake in fakes:
        fake.models["colors:7"] = fake.models["colors"]
    for _ in range(9):  # one of them is asked all the same
        await predict(replicas, model=pinned)


async def test_a_model_that_only_a_lost_replica_had(three):
    """That it is unknown cannot be said while the one that may have it is away."""
    fakes, replicas = three
    for fake in fakes[1:]:
        fake.models.clear()
    await predict(replicas)
    await fakes[0].stop()
    for _ in range(3):
        with pytest.raises(errors.BackendUnavailableError):
            await predict(replicas)
    with pytest.raises(errors.ModelNotFoundError):  # what can be reached is there, and says so
        await replicas.status("colors", timeout=5)


async def test_names_of_models_are_not_kept_for_ever(three, monkeypatch):
    """However many are made up, what is remembered of them is bounded."""
    _, replicas = three
    monkeypatch.setattr("gateway.tfserving.replica.LACKS_KEPT", 3)
    calls = (replicas.metadata(ModelChoice(f"no-{n}"), timeout=5) for n in range(20))
    for failure in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(failure, errors.ModelNotFoundError)
    assert all(len(one._lacks) <= 3 for one in replicas._replicas.values())


async def test_one_that_hangs_is_left_out(three):
    """Three calls that ran out of time, and it gets no more until it answers."""
    fakes, replicas = three
    hung = fakes[0]
    hung.gate, hung.status_gate = asyncio.Event(), asyncio.Event()
    late = 0
    while late < 3:
        assert replicas.left_out == 0
        try:
            await predict(replicas, timeout=0.06)
        except errors.DeadlineExceededError:
            late += 1
    assert replicas.left_out == 1
    before = asked(fakes)[0]
    for _ in range(6):
        await predict(replicas)
    assert asked(fakes)[0] == before
    hung.gate.set()
    hung.status_gate.set()
    await until(lambda: not replicas.left_out)


@pytest.mark.parametrize("status", ["INTERNAL", "UNKNOWN", "DATA_LOSS"])
async def test_one_that_is_broken(three, monkeypatch, caplog, status):
    """Its calls are answered by others, it gets no more, and the log says which and why; let in
    again and still broken, one failure is enough."""
    monkeypatch.setattr("gateway.tfserving.replica.PROBE_SECONDS", 0.02)
    fakes, replicas = three
    broken = next(iter(replicas._replicas.values()))
    fakes[0].refuse = lambda _: (grpc.StatusCode[status], "CUDA_ERROR_ILLEGAL_ADDRESS")
    while not broken.left_out:
        await predict(replicas)
    assert asked(fakes)[0] == 3
    assert f"{broken.address} gets no calls" in caplog.text
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in caplog.text
    await until(lambda: not broken.left_out)
    while not broken.left_out:
        await predict(replicas)
    assert asked(fakes)[0] == 4
    fakes[0].refuse = lambda _: None
    while broken.failures:
        await predict(replicas)


async def test_one_that_fails_now_and_then(three):
    """A fifth of its calls fail: it is left out after some dozens. A twentieth: it is not."""
    fakes, replicas = three
    often = next(iter(replicas._replicas.values()))
    count = itertools.count(1)
    every = 20

    def refuse(_):
        return (grpc.StatusCode.INTERNAL, "a bit flipped") if next(count) % every == 0 else None

    fakes[0].refuse = refuse
    for _ in range(240):
        await predict(replicas)
    before = asked(fakes)[0]
    assert before >= 80
    every = 5
    while not often.left_out:
        await predict(replicas)
    assert asked(fakes)[0] <= before + 40


async def test_one_that_answers_nonsense(three):
    """As for one that says it is broken."""
    fakes, replicas = three
    fakes[0].models["colors"].detect = lambda images: {}
    while not replicas.left_out:
        await predict(replicas)


async def test_a_call_that_fails_everywhere(three):
    """It is the call that is at fault: two are asked, and none is left out for it."""
    fakes, replicas = three
    for fake in fakes:
        fake.abort = (grpc.StatusCode.INTERNAL, "bad kernel")
    for _ in range(30):
        with pytest.raises(errors.BackendAnswerInvalidError):
            await predict(replicas)
    assert 40 <= sum(asked(fakes)) <= 43  # as many are asked again as may be
    assert replicas.left_out == 0
    assert [(one.failures, one.unsound) for one in replicas._replicas.values()] == [(0, 0)] * 3


async def test_a_model_that_is_late_costs_the_others_nothing(three):
    """Calls of one model that run out of time are made good by answers of another."""
    fakes, replicas = three
    waits = asyncio.Event()
    for fake in fakes:
        fake.models["slow"] = fake.models["colors"]
    late = ModelChoice("slow")
    for _ in range(40):
        for fake in fakes:
            fake.gate = waits
        with pytest.raises(errors.DeadlineExceededError):
            await predict(replicas, model=late, timeout=0.002)
        for fake in fakes:
            fake.gate = None
        for _ in range(3):
            await predict(replicas)
    assert replicas.left_out == 0
    waits.set()


async def test_retries_are_few(three):
    """When calls fail everywhere, a tenth of them is retried, not all of them."""
    fakes, replicas = three
    replicas._retries = 0.0
    for fake in fakes:
        fake.abort = (grpc.StatusCode.UNAVAILABLE, "queue full")
    replicas._failed = lambda replica, why, **_: None
    for _ in range(50):
        with pytest.raises(errors.BackendUnavailableError):
            await predict(replicas)
    assert 53 <= sum(asked(fakes)) <= 55  # ten times a tenth is a little less than one


async def test_refusals_are_not_retried(three):
    """Nor is want of memory: another replica would be asked the same in vain."""
    fakes, replicas = three
    for status, details in [
        (grpc.StatusCode.INVALID_ARGUMENT, "bad"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OOM when allocating"),
    ]:
        for fake in fakes:
            fake.requests.clear()
            fake.abort = (status, details)
        with pytest.raises(errors.GatewayError):
            await predict(replicas)
        assert sum(asked(fakes)) == 1


async def test_a_single_replica_is_never_left_out(serving):
    """There is nobody else to ask."""
    replicas = await replicas_of([serving.address])
    serving.abort = (grpc.StatusCode.UNAVAILABLE, "gone")
    for _ in range(3):
        with pytest.raises(errors.BackendUnavailableError):
            await predict(replicas)
    serving.abort = None
    await predict(replicas)
    assert (replicas.count, replicas.left_out) == (1, 0)
    await replicas.aclose()


class Names:
    """A DNS of its own: names and the machines they stand for."""

    def __init__(self, monkeypatch, **machines):
        self.machines = machines
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", self.look_up)

    async def look_up(self, host, port, **_):
        if host not in self.machines:
            raise socket.gaierror
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, 0, 0, "", (ip, port))
            for ip in self.machines[host]
        ]


async def test_a_name_stands_for_many_and_is_looked_up_again(monkeypatch):
    """New machines are asked, those that are gone are not; a DNS that fails changes nothing."""
    monkeypatch.setattr("gateway.tfserving.replicas.RESOLVE_SECONDS", 0.01)
    monkeypatch.setattr("gateway.tfserving.names.LOOKS", 2)
    names = Names(monkeypatch, pool=["127.0.0.1", "127.0.0.2", "::1"], six=["::1"])
    replicas = await replicas_of(["pool:1", "unix:/tmp/no", "six:2", "[::1]:3", "unknown:1"])

    def known():
        return set(replicas._replicas)

    fixed = {"unix:/tmp/no", "[::1]:2", "[::1]:3"}
    assert known() == {"127.0.0.1:1", "127.0.0.2:1"} | fixed
    names.machines["pool"] = ["127.0.0.2", "127.0.0.3"]
    await until(lambda: known() == {"127.0.0.2:1", "127.0.0.3:1"} | fixed)
    del names.machines["pool"]
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert known() == {"127.0.0.2:1", "127.0.0.3:1"} | fixed
    await replicas.aclose()

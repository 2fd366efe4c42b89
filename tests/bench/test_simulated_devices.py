"""The kinds of device, in virtual time: when each of a few calls ends, to the nanosecond."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from batching.simulation import run_virtually
from bench import wire
from bench.simulated_devices import Device, make
from bench.simulated_serving import Behaviour, SimulatedServing, parse

KINDS = ["serial", "sharing", "cores:2", "amdahl", "merging", "sliced"]


def exactly(*ends: float) -> Any:
    """Return what compares equal to these times in ms."""
    return pytest.approx(ends, rel=0, abs=1e-6)


async def at(ms: float) -> None:
    """Return at ``ms`` of the virtual clock."""
    await asyncio.sleep(ms / 1000 - asyncio.get_running_loop().time())


async def ended(device: Device, start: float, n: int, model: str = "ssd") -> float:
    """Call at ``start`` ms; return when that ends, in ms."""
    await at(start)
    await device.call(model, n)
    return 1000 * asyncio.get_running_loop().time()


def ends(device: Device, *calls: tuple[Any, ...]) -> tuple[float, ...]:
    """Return when each of the calls ends; a call is its start in ms, its size, and its model."""

    async def main() -> list[float]:
        return await asyncio.gather(*(ended(device, *call) for call in calls))

    return tuple(run_virtually(main()))


def each(n: int) -> float:
    """Cost one ms an item."""
    return n / 1000


def call_and_item(n: int) -> float:
    """Cost 10 ms a call and 2 ms an item."""
    return (10 + 2 * n) / 1000


def test_serial_runs_one_after_the_other() -> None:
    """A call waits for those that came before it, and no longer."""
    assert ends(make("serial", each), (0, 10), (5, 10), (30, 5)) == exactly(10, 20, 35)


def test_serial_has_as_many_slots_as_it_is_given_at_the_time() -> None:
    """Two at once; a third slot counts for what comes after it, and so does its loss."""
    slots = 2
    device = make("serial", each, slots=lambda: slots)

    async def main() -> list[float]:
        nonlocal slots
        calls = [ended(device, *call) for call in ((0, 10), (0, 20), (5, 10), (7, 10), (8, 10))]
        running = asyncio.gather(*calls)
        await at(6)
        slots = 3
        await at(7.5)
        slots = 1
        return await running

    assert tuple(run_virtually(main())) == exactly(10, 20, 20, 17, 30)


def test_sharing_divides_one_device() -> None:
    """Each of k gets the k-th part, from the moment that the k-th comes until one ends."""
    assert ends(make("sharing", each), (0, 10), (4, 10), (6, 2)) == exactly(18, 22, 12)


def test_sharing_starts_anew_after_it_was_idle() -> None:
    """Nothing is left of calls that have ended, also when others come in that very moment."""
    calls = ((0, 10), (0, 10), (20, 4), (50, 6), (53, 3))
    assert ends(make("sharing", each), *calls) == exactly(20, 20, 24, 59, 59)


def test_cores_share_only_when_there_are_more_calls() -> None:
    """Two cores run two calls in the time of one, and three in one and a half times that."""
    device = make("cores:2", each)
    assert ends(device, (0, 12), (0, 12), (3, 8), (40, 5)) == exactly(16, 16, 15, 45)


def test_amdahl_gains_less_with_every_call() -> None:
    """Two together get 1.25 times, three 1.36 times what one gets."""
    assert ends(make("amdahl", each), (0, 10), (5, 10)) == exactly(13, 18)
    assert ends(make("amdahl", each), (0, 10), (0, 10), (0, 5)) == exactly(19, 19, 11)


def test_merging_makes_one_call_of_what_waits() -> None:
    """The first starts at once; two that wait end together, and pay for one call."""
    device = make("merging", call_and_item)
    assert ends(device, (0, 1), (2, 3), (5, 4), (20, 1)) == exactly(12, 36, 36, 48)


def test_merging_keeps_to_its_limit_and_to_the_order() -> None:
    """What does not fit any more begins the next call; one over the limit runs by itself."""
    device = make("merging", call_and_item, most=lambda: 6)
    calls = ((0, 1), (1, 3), (2, 4), (3, 2), (4, 9), (5, 1))
    assert ends(device, *calls) == exactly(12, 28, 50, 50, 78, 90)


def test_merging_leaves_models_apart() -> None:
    """Calls for two models run one after the other, in turns."""
    calls = ((0, 1), (1, 1, "ssd"), (2, 1, "tiny"), (3, 2, "ssd"))
    assert ends(make("merging", call_and_item), *calls) == exactly(12, 28, 40, 28)
    device = make("merging", call_and_item, most=lambda: 2)
    assert ends(device, *calls) == exactly(12, 24, 36, 50)


def test_sliced_works_half_of_the_time() -> None:
    """A call stands still from 50 to 100 ms; one that needs a whole slice ends with it."""
    calls = ((0, 30), (0, 30), (160, 10), (300, 50), (400, 100))
    assert ends(make("sliced", each), *calls) == exactly(30, 110, 210, 350, 550)


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("serial", 20),
        ("sharing", 20),
        ("cores:1", 20),
        ("amdahl", 18.4),
        ("merging", 20),
        ("sliced", 20),
    ],
)
def test_a_call_goes_on_when_its_client_has_left(kind: str, end: float) -> None:
    """A call of 10 ms is cancelled after 5; the next, at 6 ms, ends as if it had not been."""
    device = make(kind, each)

    async def main() -> float:
        first = asyncio.ensure_future(device.call("ssd", 10))
        second = asyncio.ensure_future(ended(device, 6, 10))
        await at(5)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        return await second

    assert run_virtually(main()) == pytest.approx(end, abs=1e-6)


def test_a_call_that_left_while_it_waited_is_merged() -> None:
    """The device does not learn that nobody waits for it."""
    device = make("merging", call_and_item)

    async def main() -> float:
        calls = [asyncio.ensure_future(ended(device, ms, 1)) for ms in (0, 1, 2)]
        await at(5)
        calls[1].cancel()
        return await calls[2]

    assert run_virtually(main()) == pytest.approx(12 + 14, abs=1e-6)


@pytest.mark.parametrize("change", [("cost", "0,3"), ("slow", "3")])
@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("serial", (10, 20, 50)),
        ("sharing", (24, 28, 50)),
        ("cores:2", (12, 14, 38)),
        ("amdahl", (18.1, 21.3, 43.8)),
        ("merging", (10, 70, 70)),
        ("sliced", (10, 20, 50)),
    ],
)
def test_the_cost_changes_while_it_runs(
    kind: str, times: tuple[float, ...], change: tuple[str, str]
) -> None:
    """From 5 ms on calls cost three times as much: those that come, or that are merged then."""
    serving = SimulatedServing(Behaviour(cost=(0, 1), device=kind))

    async def main() -> list[float]:
        running = asyncio.gather(*(run(serving, ms, 10) for ms in (0, 2, 6)))
        await at(5)
        serving.behaviour.change(*change)
        return await running

    assert tuple(run_virtually(main())) == exactly(*times)


async def run(serving: SimulatedServing, start: float, n: int) -> float:
    """Have the server's device run a call at ``start`` ms; return when that ends, in ms."""
    await at(start)
    await serving.run("ssd", n)
    return 1000 * asyncio.get_running_loop().time()


THREE = {  # when three calls of 40 ms end that come together
    "serial": (40, 80, 120),
    "sharing": (120, 120, 120),
    "cores:2": (60, 60, 60),
    "amdahl": (88, 88, 88),
    "merging": (40, 120, 120),
    "sliced": (40, 130, 220),
}


async def three(serving: SimulatedServing, start: float = 0) -> tuple[float, ...]:
    """Return when three calls of four pictures end, in ms after their start."""
    ends = await asyncio.gather(*(run(serving, start, 4) for _ in range(3)))
    return tuple(end - start for end in ends)


@pytest.mark.parametrize("kind", KINDS)
def test_the_flag_chooses_the_kind(kind: str) -> None:
    """And the server's calls run on it."""
    behaviour, _, _ = parse(["--device", kind, "--cost", "0,10"])
    assert run_virtually(three(SimulatedServing(behaviour))) == exactly(*THREE[kind])


def test_without_the_flag_it_is_serial() -> None:
    """As it was before there were other kinds; the other flags stand beside it."""
    behaviour, address, control = parse(["--cost", "0,10", "--devices", "2", "--control", "1"])
    assert (behaviour.device, behaviour.devices, control) == ("serial", 2, 1)
    assert address == "127.0.0.1:8500"
    assert run_virtually(three(SimulatedServing(behaviour))) == exactly(40, 40, 80)


class Answer:
    """Stands in for the connection on which the control port answers."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, data: bytes) -> None:
        """Take all of the answer."""
        self.text += data.decode()

    async def drain(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


async def ask(serving: SimulatedServing, body: str) -> tuple[int, dict[str, Any]]:
    """Post ``body`` to the control port; return the status and what it answers."""
    reader, answer = asyncio.StreamReader(), Answer()
    reader.feed_data(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    await serving.control(reader, answer)  # type: ignore[arg-type]
    head, _, text = answer.text.partition("\r\n\r\n")
    return int(head.split()[1]), json.loads(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_port_chooses_the_kind(kind: str) -> None:
    """And says which it is."""
    serving = SimulatedServing(Behaviour(cost=(0, 10), device="cores:7"))

    async def main() -> tuple[float, ...]:
        status, seen = await ask(serving, f"device={kind}")
        assert (status, seen["device"]) == (200, kind)
        return await three(serving)

    assert run_virtually(main()) == exactly(*THREE[kind])


def test_what_runs_ends_on_the_device_it_is_on() -> None:
    """Another kind takes what comes; the same kind named again is the same device."""
    serving = SimulatedServing(Behaviour(cost=(0, 10)))

    async def main() -> list[float]:
        running = asyncio.gather(*(run(serving, ms, 4) for ms in (0, 0, 10, 10, 30)))
        for ms in (5, 20):
            await at(ms)
            await ask(serving, "device=sharing")
        return await running

    assert tuple(run_virtually(main())) == exactly(40, 80, 120, 120, 130)


@pytest.mark.parametrize(
    "kind", ["quantum", "cores", "cores:", "cores:0", "cores:-1", "cores:two", "serial:2"]
)
def test_an_unknown_kind_is_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the control port, which leaves the device as it is, and by the flag."""
    serving = SimulatedServing(Behaviour(cost=(0, 10), device="merging"))

    async def main() -> tuple[float, ...]:
        status, seen = await ask(serving, f"device={kind}")
        assert (status, seen["message"]) == (400, f"no such kind of device: {kind}")
        return await three(serving)

    assert run_virtually(main()) == exactly(*THREE["merging"])
    with pytest.raises(SystemExit):
        parse([f"--device={kind}"])
    assert f"no such kind of device: {kind}\n" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "times"), [([], (1, 21, 41)), (["40"], (1, 41, 41))])
def test_the_largest_batch_bounds_what_is_merged(
    limit: list[str], times: tuple[float, ...]
) -> None:
    """32 pictures where no limit is set; the work is counted once, the calls as they came."""
    flags = [f"--max-batch-size={text}" for text in limit]
    behaviour, _, _ = parse(["--device", "merging", "--cost", "0,1", *flags])
    serving = SimulatedServing(behaviour)

    async def main() -> list[float]:
        return await asyncio.gather(*(run(serving, 0, n) for n in (1, 20, 20)))

    assert tuple(run_virtually(main())) == exactly(*times)
    assert serving.counts.batches == {1: 1, 20: 2}


def test_requests_are_merged_by_their_model() -> None:
    """The request says which model; of its three calls two are one, and cost as one."""
    serving = SimulatedServing(Behaviour(cost=(10, 2), device="merging"))
    picture = memoryview(bytes(64 * 64 * 3))

    async def predict(model: str) -> float:
        body = wire.predict_request(model, "inputs", (1, 64, 64, 3), [], [picture])
        context: Any = None  # is for refusals
        assert await serving.predict(body, context)
        return 1000 * asyncio.get_running_loop().time()

    async def main() -> list[float]:
        return await asyncio.gather(*map(predict, ("full", "tiny", "full", "tiny")))

    assert tuple(run_virtually(main())) == exactly(12, 26, 38, 26)
    assert serving.counts.busy_seconds == pytest.approx(0.038)
    assert serving.counts.calls == 4

"""TensorFlow Servings that are killed, stopped and restarted under the gateway's calls."""

import asyncio
import signal

NO_ANSWER_IN = 60  # seconds of request_timeout: what comes sooner did not wait for it
PATIENCE = 5  # seconds for what takes about one; the tests poll, and end as soon as it is so


async def test_the_only_one_is_killed(replica, spawn, ask, ready):
    """503 without waiting for the deadline, /readyz says why, and both end when it is back."""
    only = await replica()
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", only.address, "--models", "ssd",
        "--request-timeout", str(NO_ANSWER_IN),
    )  # fmt: skip
    url = await gateway.url()
    assert (await ask(url))[0] == 200
    await only.gets(signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        assert await ask(url) == (503, "backend_unavailable")
        assert await ready(url) == (503, "model 'ssd' is unreachable")
    await replica(only.port)
    async with asyncio.timeout(PATIENCE):
        while (await ready(url))[0] != 200:
            pass
        assert (await ask(url))[0] == 200


async def test_one_of_two_is_killed_in_mid_call(replica, spawn, ask, shows):
    """Nobody who was waiting for it sees more than a right answer that took longer."""
    replicas = [await replica(cost="300,0") for _ in range(2)]
    addresses = ",".join(one.address for one in replicas)
    gateway = await spawn("serve", "--port", "0", "--tfserving", addresses)
    url = await gateway.url()
    waiting = [asyncio.ensure_future(ask(url)) for _ in range(8)]
    working = [asyncio.ensure_future(one.works(0)) for one in replicas]
    await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
    victim = replicas[0] if working[0].done() else replicas[1]
    await victim.gets(signal.SIGKILL)
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
    await shows(url, "gateway_replicas_left_out 1.0")
    assert (await ask(url))[0] == 200
    for one in working:
        one.cancel()


async def test_stopped_in_mid_batch(replica, spawn, ask):
    """504 at the deadline, not when it goes on; once it does, answers are right again."""
    only = await replica(cost="200,0")
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", only.address, "--request-timeout", "1"
    )
    url = await gateway.url()
    assert (await ask(url))[0] == 200
    waiting = [asyncio.ensure_future(ask(url)) for _ in range(3)]
    await only.works(1)
    only.process.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*waiting) == [(504, "deadline_exceeded")] * 3
    only.process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE):
        while (await ask(url))[0] != 200:
            pass


async def test_all_are_restarted_one_after_the_other(replica, spawn, ask, shows):
    """While at least one is there, no request fails."""
    replicas = [await replica() for _ in range(2)]
    addresses = ",".join(one.address for one in replicas)
    gateway = await spawn("serve", "--port", "0", "--tfserving", addresses)
    url = await gateway.url()
    over = asyncio.Event()

    async def client() -> list[int]:
        statuses = [(await ask(url))[0]]
        while not over.is_set():
            statuses.append((await ask(url))[0])
        return statuses

    clients = [asyncio.ensure_future(client()) for _ in range(4)]
    for number, ending in ((0, signal.SIGTERM), (1, signal.SIGKILL)):
        await replicas[number].gets(ending)
        await shows(url, "gateway_replicas_left_out 1.0")
        await replica(replicas[number].port)
        await shows(url, "gateway_replicas_left_out 0.0")
    over.set()
    assert {status for statuses in await asyncio.gather(*clients) for status in statuses} == {200}

"""Every limit fires, is the one that fired, and harms nobody else."""

import asyncio
import base64
import gzip
import io
import json
import re
import struct
import zlib

import pytest
from PIL import Image


def body_of(image: str, model: str = "colors") -> bytes:
    return json.dumps({"model_name": model, "image": image}).encode()


async def test_max_body_bytes(start, photo):
    """A body of max_body_bytes passes, one byte more is 413, whether its length is told or not."""
    body = body_of(photo())
    gateway = await start(max_body_bytes=len(body))

    async def chunks(data: bytes):
        yield data[:100]
        yield data[100:]

    for data, status in [(body, 200), (body + b" ", 413)]:
        for sent in (data, chunks(data)):
            response = await gateway.post("/imageDetection", data=sent)
            assert response.status == status
            if status == 413:
                answer = await response.json()
                assert answer["code"] == "body_too_large"
                assert "max_body_bytes" in answer["message"]


async def test_max_body_bytes_is_not_cut_short_by_aiohttp(start):
    """A body above aiohttp's own default of 1 MiB is read."""
    gateway = await start()
    file = io.BytesIO()
    Image.effect_noise((1300, 1300), 100).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    assert len(image) > 1 << 20
    body = io.BytesIO(body_of(image))
    assert (await gateway.post("/imageDetection", data=body)).status == 200


def bomb(side: int) -> str:
    """A PNG whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
    return base64.b64encode(data).decode()


async def test_max_pixels(start, photo, ask):
    """A picture of max_pixels passes, one more is 413, and a bomb is refused by its header."""
    gateway = await start(max_pixels=64 * 48)
    assert (await ask(gateway, image=photo(size=(64, 48))))[0] == 200
    for image in (photo(size=(61, 51)), photo(size=(64, 49)), bomb(60_000)):
        status, answer = await ask(gateway, image=image)
        assert (status, answer["code"]) == (413, "image_too_large")


async def metrics(gateway) -> str:
    return await (await gateway.get("/metrics")).text()


async def test_max_queue_size(start, serving, photo, ask, shows):
    """Those that wait are counted, those with TensorFlow Serving are not; the next is 503."""
    gateway = await start(max_queue_size=2, max_batch_size=1, max_in_flight=1)
    assert (await ask(gateway))[0] == 200
    serving.gate = asyncio.Event()
    posts = []
    for n in range(3):  # one with TensorFlow Serving, two that wait
        posts.append(asyncio.ensure_future(ask(gateway, image=photo((10 * n, 0, 0)))))
        if n == 0:
            await serving.arrived.acquire()
            await serving.arrived.acquire()
        await shows(gateway, "gateway_requests_inside", n + 1)
    response = await gateway.post("/imageDetection", data=body_of("anything"))
    answer = await response.json()
    assert (response.status, answer["code"]) == (503, "overloaded")
    assert response.headers["Retry-After"] == "1"
    assert 'gateway_rejected_total{reason="max_queue_size"} 1.0' in await metrics(gateway)
    serving.gate.set()
    for n, (status, found) in enumerate(await asyncio.gather(*posts)):
        assert status == 200
        assert found["detections"][0]["class_id"] == n
    assert (await ask(gateway))[0] == 200


async def test_max_pending_bytes(start, serving, photo, ask, shows):
    """Decoding and decoded pictures count towards the memory allowed; one too many is 503 before
    it is decoded, and one that needs more than all of it is 413."""
    gateway = await start(max_pending_bytes=3 << 20)
    large = photo(size=(500, 500))  # 2 MB to decode, 750 kB then, and a few kB as a file
    serving.gate = asyncio.Event()
    first = asyncio.ensure_future(ask(gateway, image=large))
    await serving.arrived.acquire()
    status, answer = await ask(gateway, image=large)
    assert (status, answer["code"]) == (503, "overloaded")
    assert 'reason="max_pending_bytes"} 1.0' in await metrics(gateway)
    status, answer = await ask(gateway, image=photo(size=(700, 600)))
    assert (status, answer["code"]) == (413, "image_too_large")
    assert "max_pending_bytes" in answer["message"]
    small = asyncio.ensure_future(ask(gateway, image=photo(size=(50, 50))))
    await shows(gateway, "gateway_requests_inside", 2)
    serving.gate.set()
    assert [(await first)[0], (await small)[0]] == [200, 200]
    assert (await ask(gateway, image=large))[0] == 200
    assert "gateway_pending_bytes 0.0" in await metrics(gateway)


async def test_max_message_bytes_cuts_batches(start, serving, photo, ask):
    """A batch never grows beyond the message that TensorFlow Serving is to be sent."""
    gateway = await start(max_message_bytes=1 << 20, max_in_flight=1)
    images = [photo((n, 0, 0), size=(400, 300)) for n in range(6)]  # 360 kB each once decoded
    answers = await asyncio.gather(*(ask(gateway, image=image) for image in images))
    assert [status for status, _ in answers] == [200] * 6
    assert max(shape[0] for _, shape in serving.batches) <= 2


async def test_max_in_flight_and_max_batch_size(start, serving, ask, learn, shows):
    """Calls at a time, and pictures in a call, stay within their limits while more wait."""
    gateway = await start(max_batch_size=2, max_in_flight=2)
    await learn(gateway)
    while not serving.arrived.locked():
        await serving.arrived.acquire()
    serving.requests.clear()
    serving.gate = asyncio.Event()
    posts = [asyncio.ensure_future(ask(gateway)) for _ in range(9)]
    for _ in range(2):
        await serving.arrived.acquire()
    sent = [one.inputs["inputs"].tensor_shape.dim[0].size for one in serving.requests]
    await shows(gateway, "gateway_queue_depth", 9 - sum(sent))
    assert "gateway_batches_in_flight 2.0" in await metrics(gateway)
    assert len(serving.requests) == 2
    serving.gate.set()
    assert {status for status, _ in await asyncio.gather(*posts)} == {200}
    assert max(shape[0] for _, shape in serving.batches) == 2


async def test_request_timeout(start, serving, ask):
    """A request that has no answer at its deadline is 504, in the queue as well as in flight."""
    gateway = await start(request_timeout=0.3, max_in_flight=1, max_batch_size=1)
    assert (await ask(gateway))[0] == 200
    serving.gate = asyncio.Event()
    answers = await asyncio.gather(*(ask(gateway) for _ in range(3)))
    assert [(status, found["code"]) for status, found in answers] == [
        (504, "deadline_exceeded")
    ] * 3
    serving.gate.set()


async def test_request_timeout_of_a_body_that_trickles(start):
    """A body that is not there at the deadline is 408, and its place in the house is free."""
    gateway = await start(request_timeout=0.3)
    never = asyncio.Event()

    async def trickle():
        yield b'{"model_name"'
        await never.wait()

    response = await gateway.post("/imageDetection", data=trickle())
    assert (response.status, (await response.json())["code"]) == (408, "body_timeout")
    assert "gateway_requests_inside 0.0" in await metrics(gateway)


async def test_a_client_that_leaves_is_forgotten(start, serving, photo, ask, shows):
    """Its picture leaves the queue at once and is never sent."""
    gateway = await start(max_batch_size=1, max_in_flight=1)
    assert (await ask(gateway))[0] == 200
    serving.gate = asyncio.Event()
    await serving.arrived.acquire()
    first = asyncio.ensure_future(ask(gateway))
    await serving.arrived.acquire()
    gone = asyncio.ensure_future(ask(gateway, image=photo((200, 0, 0))))
    await shows(gateway, "gateway_requests_inside", 2)
    gone.cancel()
    await shows(gateway, "gateway_requests_inside", 1)
    serving.gate.set()
    assert (await first)[0] == 200
    assert (await ask(gateway))[0] == 200
    assert len(serving.batches) == 3
    assert 'gateway_requests_total{model="colors",status="499"} 1.0' in await metrics(gateway)


async def test_decode_threads(start, ask):
    """One thread is enough for many clients; they take turns."""
    gateway = await start(decode_threads=1)
    answers = await asyncio.gather(*(ask(gateway) for _ in range(20)))
    assert {status for status, _ in answers} == {200}


@pytest.mark.parametrize("limit", ["max_pixels", "max_body_bytes"])
async def test_what_is_refused_harms_nobody(start, photo, ask, limit):
    """Requests within the limits are answered while others exceed them."""
    gateway = await start(**{limit: 5000})
    good, bad = photo(size=(60, 60)), photo(size=(80, 80))
    if limit == "max_body_bytes":
        bad = "A" * 6000
    answers = await asyncio.gather(*(ask(gateway, image=i) for i in [good, bad] * 20))
    assert [status for status, _ in answers] == [200, 413] * 20


async def test_a_compressed_body_is_refused_unread(start, photo):
    """Content-Encoding is 415, and not inflated; "identity" says nothing and is taken."""
    gateway = await start()
    body = body_of(photo())
    headers = {"Content-Encoding": "gzip"}
    response = await gateway.post("/imageDetection", data=gzip.compress(body), headers=headers)
    answer = await response.json()
    assert (response.status, answer["code"]) == (415, "encoding_unsupported")
    headers = {"Content-Encoding": "identity"}
    assert (await gateway.post("/imageDetection", data=body, headers=headers)).status == 200


async def test_the_text_of_a_picture_counts_as_long_as_it_is_held(
    start, serving, photo, ask, shows
):
    """A small picture in a large file holds the memory of its text until it is answered."""
    gateway = await start()
    assert (await ask(gateway))[0] == 200
    await serving.arrived.acquire()
    serving.gate = asyncio.Event()
    image = photo() + " " * 300_000
    inside = asyncio.ensure_future(ask(gateway, image=image))
    await serving.arrived.acquire()
    text = await metrics(gateway)
    (held,) = re.findall(r"^gateway_pending_bytes (\S+)$", text, re.MULTILINE)
    assert float(held) >= 300_000
    serving.gate.set()
    assert (await inside)[0] == 200


async def test_what_was_announced_and_not_sent_holds_nobody_up(start, ask):
    """A client that announces a large body and sends nothing takes no room from the others."""
    gateway = await start(max_pending_bytes=1 << 20)
    address = gateway.server.host, gateway.server.port
    _, writer = await asyncio.open_connection(*address)
    writer.write(
        b"POST /imageDetection HTTP/1.1\r\nHost: gateway\r\nContent-Length: 1000000\r\n\r\n"
    )
    await writer.drain()
    assert (await ask(gateway))[0] == 200
    writer.close()
    await writer.wait_closed()


async def test_too_long_is_413_however_full_the_house_is(start, serving, photo, ask):
    """What can never pass is not told to come again."""
    gateway = await start(max_pending_bytes=1 << 20, max_body_bytes=1 << 21)
    assert (await ask(gateway))[0] == 200
    await serving.arrived.acquire()
    serving.gate = asyncio.Event()
    inside = asyncio.ensure_future(ask(gateway))
    await serving.arrived.acquire()
    response = await gateway.post("/imageDetection", data=io.BytesIO(b" " * ((1 << 21) + 1)))
    assert response.status == 413
    serving.gate.set()
    assert (await inside)[0] == 200


async def test_countless_values_in_a_body(gateway, ask):
    """A body of more values than a request needs is 413, and the next request is answered."""
    body = b'{"model_name": "colors", "image": [' + b"0," * 100_000 + b"0]}"
    response = await gateway.post("/imageDetection", data=body)
    answer = await response.json()
    assert (response.status, answer["code"]) == (413, "body_too_large")
    assert "outside its strings" in answer["message"]
    assert (await ask(gateway))[0] == 200

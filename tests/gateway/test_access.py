"""Keys: who may ask, for which models, within which limits; and what is told of them."""

import asyncio
import hashlib
import logging

import pytest
import yaml

from gateway.access import Access, new_key, read_keys
from gateway.app import reload
from gateway.errors import ForbiddenError, UnauthorizedError


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@pytest.fixture
def key_file(tmp_path):
    """Write a file of keys: for each secret the rest of its entry; its path."""
    path = tmp_path / "keys.yaml"

    def write(**entries: dict) -> str:
        keys = [{"name": f"of-{s}", "sha256": sha256(s), **more} for s, more in entries.items()]
        path.write_text(yaml.safe_dump(keys))
        return str(path)

    return write


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_new_key():
    """Its entry lets it in; no two are alike; it is 256 bits long."""
    (secret, key), (other, _) = new_key("camera-1"), new_key("camera-1")
    assert Access([key]).identify(secret) == key
    assert secret != other
    assert len(secret) >= 256 / 6
    assert secret not in str(key)
    with pytest.raises(ValueError, match="name"):
        new_key("two\nlines")


def test_the_whole_of_a_hash_counts(monkeypatch):
    """An entry is found by how its hash begins; the rest is compared in constant time."""
    compared = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("gateway.access.hmac.compare_digest", compare)
    monkeypatch.setattr("gateway.access.PREFIX", 0)
    secret, key = new_key("a")
    access = Access([key])
    assert access.identify(secret) == key
    with pytest.raises(UnauthorizedError, match="not known"):
        access.identify("another")
    assert compared == [key.sha256] * 2


def test_keys_are_told_apart():
    """Each is found by itself, and by nothing that is like it."""
    made = [new_key(name) for name in "abc"]
    access = Access([key for _, key in made])
    for secret, key in made:
        assert access.identify(secret) == key
    for wrong in ("x", made[0][0] + "x", made[0][1].sha256, "\udcff"):
        with pytest.raises(UnauthorizedError, match="not known"):
            access.identify(wrong)


def test_no_keys_and_none_that_is_good():
    """Without a file nobody needs a key; with an empty list nobody gets in."""
    assert not Access(None).needed
    assert Access([]).needed
    with pytest.raises(UnauthorizedError, match="is needed"):
        Access([]).identify("")


GOOD = sha256("good")


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ("{}", ["holds no list"]),
        ("", ["holds no list"]),
        ("- [", ["is not YAML, see line 1"]),
        (b"\xff\xfe\x00", ["is not YAML"]),
        ("- text", ["entry 1: "]),
        ("- {name: a}", ["entry 1 (a): sha256: "]),
        (f"- {{sha256: {GOOD}}}", ["entry 1: name: "]),
        ("- {name: a, sha256: plain}", ["entry 1 (a): sha256: "]),
        (f"- {{name: 'a b', sha256: {GOOD}}}", ["entry 1 (a b): name: "]),
        (f"- {{name: a, sha256: {GOOD}, model: [x]}}", ["entry 1 (a): model: Extra"]),
        (f"- {{name: a, sha256: {GOOD}, models: x}}", ["entry 1 (a): models: "]),
        (
            f"- {{name: a, sha256: {GOOD}, rate: 0}}\n- {{name: b, sha256: {'a' * 64}, share: 2}}",
            ["entry 1 (a): rate: ", "entry 2 (b): share: "],
        ),
        (
            f"- {{name: a, sha256: {GOOD}}}\n- {{name: a, sha256: {GOOD}}}",
            ["entry 2 (a): name: stands in entry 1", "entry 2 (a): sha256: stands in entry 1"],
        ),
    ],
)
def test_mistakes_in_the_file(tmp_path, content, problems):
    """All are told at once, each with its entry and field; no hash is."""
    file = tmp_path / "keys.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match="api_keys: ") as caught:
        read_keys(file)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert problem in line
    assert GOOD not in str(caught.value)
    assert "plain" not in str(caught.value)


def test_a_file_that_is_missing(tmp_path):
    """It is told by its name."""
    with pytest.raises(ValueError, match=r"cannot read .*nothing\.yaml"):
        read_keys(tmp_path / "nothing.yaml")


@pytest.fixture
def lines_logged(caplog):
    caplog.set_level(logging.DEBUG)
    return lambda: [one.request for one in caplog.records if hasattr(one, "request")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer("s3cret"), 200),
        ({"Authorization": "bearer  s3cret"}, 200),
        ({"X-API-Key": "s3cret"}, 200),
        ({"Authorization": "Basic s3cret", "X-API-Key": "s3cret"}, 200),
        ({}, 401),
        (bearer(""), 401),
        (bearer("wr0ng"), 401),
        ({"X-API-Key": "wr0ng"}, 401),
        ({"Authorization": "Basic s3cret"}, 401),
        (bearer("wr0ng") | {"X-API-Key": "s3cret"}, 401),
    ],
    ids=str,
)
async def test_over_http(start, ask, key_file, lines_logged, caplog, headers, status):
    """A key is taken from either header; the client's name is logged, what it sent is not."""
    gateway = await start(api_keys=key_file(s3cret={}), models={"colors": ""})
    for path in ("/imageDetection", "/models"):
        if path == "/models":
            response = await gateway.get(path, headers=headers)
            answered, answer = response.status, await response.json()
            assert ("WWW-Authenticate" in response.headers) == (status == 401)
        else:
            answered, answer = await ask(gateway, headers=headers)
        assert answered == status
        assert status == 200 or answer["code"] == "unauthorized"
        assert "cret" not in str(answer)
    assert lines_logged()[0].get("client") == ("of-s3cret" if status == 200 else None)
    logged = str([vars(one) for one in caplog.records]).replace("of-s3cret", "")
    assert "s3cret" not in logged
    assert "wr0ng" not in logged


async def test_what_needs_no_key(start, key_file, shows):
    """Health and metrics; and what is not there is not there for anybody."""
    gateway = await start(api_keys=key_file(s3cret={}))
    await shows(gateway, "gateway_replicas_left_out", 0)
    for path, status in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/x", 404)]:
        assert (await gateway.get(path)).status == status


async def test_refused_before_the_body_is_read(start, key_file):
    """Nobody without a key can make the gateway wait for a body."""
    gateway = await start(api_keys=key_file(s3cret={}))
    reader, writer = await asyncio.open_connection(gateway.server.host, gateway.server.port)
    writer.write(b"POST /imageDetection HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\n")
    assert b" 401 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_models_of_a_key(start, ask, key_file, serving, fake_model):
    """A key with a list of models is for no other, and is shown no other."""
    serving.models["other"] = fake_model()
    file = key_file(one={"models": ["colors", "later"]}, all={})
    gateway = await start(api_keys=file, models={"colors": "", "other": ""})
    assert (await ask(gateway, headers=bearer("one")))[0] == 200
    status, answer = await ask(gateway, headers=bearer("one"), model_name="other")
    assert (status, answer["code"]) == (403, "forbidden")
    assert "'other'" in answer["message"]
    assert (await ask(gateway, headers=bearer("all"), model_name="other"))[0] == 200

    async def models(secret: str, query: str = "") -> tuple[int, list[str]]:
        response = await gateway.get(f"/models{query}", headers=bearer(secret))
        found = (await response.json()).get("models", [])
        return response.status, [model["name"] for model in found]

    assert await models("one") == (200, ["colors"])
    assert await models("all") == (200, ["colors", "other"])
    assert await models("one", "?name=colors") == (200, ["colors"])
    assert await models("one", "?name=colors&name=other") == (403, [])


async def test_limits_of_a_key(start, ask, key_file):
    """A key's own rate wins over client_rate, for more or for less; each key has its own."""
    file = key_file(less={"rate": 0.001}, more={"rate": 3}, usual={})
    gateway = await start(api_keys=file, client_rate=2)

    async def burst(secret: str) -> list[int]:
        return [(await ask(gateway, headers=bearer(secret)))[0] for _ in range(4)]

    assert (await burst("less")).count(200) == 1
    assert (await burst("more"))[:3] == [200] * 3
    assert (await burst("usual"))[:2] == [200] * 2
    status, answer = await ask(gateway, headers=bearer("less"))
    assert (status, answer["code"]) == (429, "client_limit")
    assert "0.001 requests a second" in answer["message"]


async def test_share_of_a_key(start, serving, ask, key_file, shows):
    """As many requests inside as the key's share of max_queue_size."""
    gateway = await start(api_keys=key_file(two={"share": 0.2}), max_queue_size=10)
    serving.gate = asyncio.Event()
    inside = [asyncio.ensure_future(ask(gateway, headers=bearer("two"))) for _ in range(2)]
    await shows(gateway, "gateway_requests_inside", 2)
    status, answer = await ask(gateway, headers=bearer("two"))
    assert (status, answer["code"]) == (429, "client_limit")
    serving.gate.set()
    assert [status for status, _ in await asyncio.gather(*inside)] == [200] * 2


async def test_the_file_is_read_again(start, settings, ask, key_file, caplog):
    """A key that is gone is refused at once, a new one is good; a mistake changes nothing."""
    gateway = await start(api_keys=key_file(old={}))
    now = settings(api_keys=key_file(new={}))
    reload(gateway.app, now)
    assert (await ask(gateway, headers=bearer("old")))[0] == 401
    assert (await ask(gateway, headers=bearer("new")))[0] == 200
    key_file(third={"rate": -1})
    with pytest.raises(ValueError, match=r"entry 1 \(of-third\): rate"):
        reload(gateway.app, now)
    key_file(third={})
    with pytest.raises(ValueError, match="labels of model"):
        reload(gateway.app, settings(api_keys=now.api_keys, models={"colors": "missing.txt"}))
    assert (await ask(gateway, headers=bearer("third")))[0] == 401
    assert (await ask(gateway, headers=bearer("new")))[0] == 200
    with pytest.raises(ValueError, match="api_keys: is gone"):  # more likely lost than meant
        reload(gateway.app, settings())
    assert (await ask(gateway))[0] == 401
    assert "restart" not in caplog.text


def test_a_key_that_is_for_no_model():
    """An empty list is for none, which is not the same as no list."""
    _, key = new_key("a")
    key.check_model("any")
    with pytest.raises(ForbiddenError):
        key.model_copy(update={"models": frozenset()}).check_model("any")

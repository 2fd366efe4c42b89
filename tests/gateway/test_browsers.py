"""What browsers are told: headers on every answer, and which other origins may ask."""

import pytest

PAGE = "https://example.org"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-priority",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("POST", "/imageDetection", 400),
        ("GET", "/nothing", 404),
        ("GET", "/imageDetection", 405),
    ],
)
async def test_security_headers(gateway, method, path, status):
    """They stand on answers and on errors; no release of anything is told."""
    response = await gateway.request(method, path)
    assert response.status == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Server"] == "tfserving-gateway"
    assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_no_other_origin_by_default(gateway):
    """A preflight is answered as any method that is not taken."""
    response = await gateway.options("/imageDetection", headers=PREFLIGHT)
    assert response.status == 405
    assert not [name for name in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("origins", ["*", f"https://other.example:8443, {PAGE}"])
async def test_preflight(start, origins):
    """It names the method of the path and every header that the interface has, without a key."""
    gateway = await start(cors_origins=origins)
    response = await gateway.options("/imageDetection", headers=PREFLIGHT)
    assert response.status == 204
    everybody = origins == "*"
    assert response.headers["Access-Control-Allow-Origin"] == ("*" if everybody else PAGE)
    assert response.headers.get("Vary") == (None if everybody else "Origin")
    assert response.headers["Access-Control-Allow-Methods"] == "POST"
    assert set(response.headers["Access-Control-Allow-Headers"].split(", ")) == {
        "Authorization", "Content-Type", "X-API-Key", "X-Priority", "X-Request-ID",
        "X-Request-Timeout",
    }  # fmt: skip
    assert "Access-Control-Allow-Credentials" not in response.headers
    response = await gateway.options("/models", headers=PREFLIGHT)
    assert response.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    for path, headers in [("/nothing", PREFLIGHT), ("/models", {"Origin": PAGE})]:
        assert (await gateway.options(path, headers=headers)).status in (404, 405)


async def test_answers_to_another_origin(start):
    """Its pages can read answers and errors, with the headers that they need."""
    gateway = await start(cors_origins=PAGE)
    for path, status in [("/healthz", 200), ("/imageDetection", 400)]:
        method = gateway.get if status == 200 else gateway.post
        response = await method(path, headers={"Origin": PAGE})
        assert response.status == status
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert response.headers["Vary"] == "Origin"
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(
    "origin", ["https://example.com", "http://example.org", f"{PAGE}:444", f"{PAGE}.x.com", "null"]
)
async def test_origins_are_exact(start, origin):
    """Any other origin is told nothing, and caches are told that it depends."""
    gateway = await start(cors_origins=PAGE)
    for response in (
        await gateway.options("/imageDetection", headers={**PREFLIGHT, "Origin": origin}),
        await gateway.get("/healthz", headers={"Origin": origin}),
        await gateway.get("/healthz"),
    ):
        assert response.headers["Vary"] == "Origin"
        assert not [name for name in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    "origins", ["example.org", f"{PAGE}/", "https://Example.org", f"{PAGE},", "null", "https://*.x"]
)
def test_origins_at_fault(settings, origins):
    """What no browser would send is refused at the start."""
    with pytest.raises(Exception, match=r"cors_origins: is not SCHEME://HOST"):
        settings(cors_origins=origins)

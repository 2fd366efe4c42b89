"""The package as it is shipped: alone, without TensorFlow, and in its container."""

import asyncio
import base64
import io
import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from gateway.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> str:
    """An interpreter in whose environment the package was installed without extras."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)  # noqa: S603 - our own
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(ROOT)], check=True)  # noqa: S603 - our own
    return python


async def test_the_core_serves_without_tensorflow(alone, serving, photo_body, tmp_path):
    """Installed alone, outside the checkout: no TensorFlow, little memory, a request answered."""
    listing = subprocess.run(  # noqa: ASYNC221, S603 - our own, before anything is served
        [alone, "-m", "pip", "list", "--format=json"], check=True, capture_output=True
    ).stdout
    names = {package["name"].lower() for package in json.loads(listing)}
    assert not {name for name in names if "tensorflow" in name or name in {"torch", "keras"}}
    process = await asyncio.create_subprocess_exec(
        *(alone, "-m", "gateway", "serve", "--port", "0", "--tfserving", serving.address),
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        line = (await process.stderr.readline()).decode()
        url = re.search(r"http://[\w.:]+", line)[0]
        assert resident_kilobytes(process.pid) < 90_000, "idle memory"
        answer = await asyncio.to_thread(post, f"{url}/imageDetection", photo_body)
        assert answer["detections"][0]["class_id"] == 7
        check = json.loads(re.search(r"^    CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])
        port = url.rpartition(":")[2]
        health = await asyncio.create_subprocess_exec(alone, *check[1:], env={"APP_PORT": port})
        assert await health.wait() == 0
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


def resident_kilobytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


def post(url: str, body: bytes) -> dict:
    with urllib.request.urlopen(urllib.request.Request(url, body)) as response:  # noqa: S310 - http
        return json.loads(response.read())


@pytest.fixture
def photo_body() -> bytes:
    """A PNG of the colour (70, 0, 0), posted as JSON."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (70, 0, 0)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    return json.dumps({"model_name": "colors", "image": image}).encode()


def test_dockerfile():
    """Two stages, no extra, an ordinary user, exec form; its environment names real settings."""
    assert len(re.findall(r"^FROM ", DOCKERFILE, re.MULTILINE)) == 2
    assert "embedded" not in DOCKERFILE
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE, re.MULTILINE)
    for word in ("ENTRYPOINT", "CMD"):
        assert json.loads(re.search(rf"^{word} (.*)$", DOCKERFILE, re.MULTILINE)[1])
    known = {f"APP_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"APP_\w+", DOCKERFILE)) <= known | {
        "APP_TFSERVING_HOST",
        "APP_TFSERVING_PORT",
    }

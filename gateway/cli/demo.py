"""``demo``: an embedded model server with the digit detector, and the gateway in front of it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from gateway.cli.errors import CommandError
from gateway.cli.serve import serve
from gateway.logs import configure_logs
from gateway.settings import load_settings

__all__ = ["run"]

MODEL = "digits"
PHOTO = Path("samples/three-digits.jpg")


def run(host: str, port: str) -> int:
    """Run both until SIGTERM or SIGINT; returns 0."""
    if find_spec("tensorflow") is None:
        raise CommandError("the demo needs TensorFlow: pip install 'tfserving-gateway[embedded]'")
    asyncio.run(_run(_example(), host, port))
    return 0


def _example() -> Path:
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        example = root / "examples" / MODEL
        if (example / "model").is_dir():
            return example
    raise CommandError(f"the demo's model is not here: run it in a checkout, with examples/{MODEL}")


async def _run(example: Path, host: str, port: str) -> None:
    async with _model_server(example / "model") as address:
        settings = load_settings(
            {
                "tfserving": address,
                "host": host,
                "port": port,
                "workers": 1,
                "models": {MODEL: str(example / "labels.pbtxt")},
            }
        )
        configure_logs(settings.log_format)
        await serve(
            settings,
            lambda: settings,
            ready=lambda url: print(_invitation(example, url), flush=True),
        )


@asynccontextmanager
async def _model_server(base_path: Path) -> AsyncIterator[str]:
    """The embedded server in a process of its own; its address, once the model is loaded."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "backend", "--port", "0"),
        *("--model-base-path", str(base_path), "--model-name", MODEL),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the gateway alone, which then ends this one
    )
    copying = None
    try:
        assert process.stderr is not None  # noqa: S101 - tells mypy what PIPE means
        while line := (await process.stderr.readline()).decode().rstrip():
            print(f"model server: {line}", file=sys.stderr, flush=True)
            if line.startswith("listening on "):
                break
        else:
            raise CommandError("the model server did not start")
        copying = asyncio.ensure_future(_copy(process.stderr))
        yield line.removeprefix("listening on ")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        if copying is not None:
            await copying


async def _copy(lines: asyncio.StreamReader) -> None:
    async for line in lines:
        print(f"model server: {line.decode().rstrip()}", file=sys.stderr, flush=True)


def _invitation(example: Path, url: str) -> str:
    photo = os.path.relpath(example / PHOTO)
    body = f"""'{{"model_name": "{MODEL}", "image": "'$(base64 < {photo})'"}}'"""
    return (
        f"\nThe gateway listens on {url}. In another terminal, post a photograph:\n\n"
        f"  echo {body} | curl -s -d @- {url}/imageDetection\n\n"
        f"Metrics are at {url}/metrics. Ctrl-C ends the demo.\n"
    )

"""``detect``: post pictures to a gateway, print and draw what is found."""

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout

from gateway.cli.errors import CommandError
from gateway.cli.http import fetch_models, gateway_session, read_json
from gateway.imaging.annotate import Box, annotate

__all__ = ["run"]

AT_ONCE = 8
ROW = "{:<32} {:<16} {:>6}   {:>6} {:>6} {:>6} {:>6}"


@dataclass(frozen=True)
class DetectOptions:
    """The flags of the command."""

    images: Sequence[Path]
    url: str
    key_file: Path | None
    model: str | None
    threshold: float | None
    annotate: Path | None
    json: bool


def run(options: DetectOptions) -> int:
    """Print a table, or JSON lines; returns 1 if any picture failed, else 0."""
    if options.annotate is not None:
        try:
            options.annotate.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot make {options.annotate}: {error.strerror}") from error
    return asyncio.run(_run(options))


async def _run(options: DetectOptions) -> int:
    async with gateway_session(options.url, ClientTimeout(total=None), options.key_file) as session:
        request: dict[str, Any] = {"model_name": options.model or await _only_model(session)}
        if options.threshold is not None:
            request["threshold"] = options.threshold
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(path: Path) -> dict[str, Any]:
            async with slots:
                return await _detect(session, request, path)

        if not options.json:
            print(ROW.format("picture", "label", "score", "x1", "y1", "x2", "y2"))
        failures = 0
        for path, answering in [
            (path, asyncio.ensure_future(one(path))) for path in options.images
        ]:
            answer = await answering
            failures += "message" in answer
            if options.json:
                print(json.dumps({"image": str(path), **answer}))
            else:
                _print_rows(path, answer)
            if options.annotate is not None and "detections" in answer:
                _draw(path, answer["detections"], options.annotate)
    return 1 if failures else 0


async def _only_model(session: ClientSession) -> str:
    names = [model["name"] for model in await fetch_models(session)]
    if len(names) == 1:
        return str(names[0])
    raise CommandError(
        f"say which model with --model; the gateway has {', '.join(names) or 'none configured'}",
        status=2,
    )


async def _detect(session: ClientSession, request: dict[str, Any], path: Path) -> dict[str, Any]:
    """The gateway's answer, which has a ``message`` if the picture failed."""
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        return {"message": f"cannot read it: {error.strerror}", "code": "unreadable_file"}
    body = {**request, "image": base64.b64encode(data).decode()}
    async with session.post("/imageDetection", json=body) as response:
        return await read_json(response)


def _print_rows(path: Path, answer: dict[str, Any]) -> None:
    if "message" in answer:
        print(f"{path}: {answer['message']}", file=sys.stderr)
        return
    for found in answer["detections"]:
        box = (f"{edge:.3f}" for edge in found["hit_box"].values())
        print(ROW.format(path.name, _label(found), f"{found['score']:.3f}", *box))
    if not answer["detections"]:
        print(ROW.format(path.name, "(nothing)", "", "", "", "", "").rstrip())


def _label(found: dict[str, Any]) -> str:
    return found["class_label"] or f"class {found['class_id']}"


def _draw(path: Path, detections: Sequence[dict[str, Any]], directory: Path) -> None:
    boxes = [
        Box(
            **found["hit_box"],
            text=f"{_label(found)} {found['score']:.2f}",
            class_id=found["class_id"],
        )
        for found in detections
    ]
    target = directory / f"{path.stem}.detections.jpg"
    try:
        target.write_bytes(annotate(path.read_bytes(), boxes))
    except OSError as error:
        raise CommandError(f"cannot write {target}: {error.strerror}") from error

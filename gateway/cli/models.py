"""``models``: what TensorFlow Serving has, as a gateway sees it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import ClientTimeout

from gateway.cli.http import fetch_models, gateway_session

__all__ = ["run"]

ROW = "{:<20} {:<18} {:<20} {:<28} {:<8} {}"


def run(names: Sequence[str], *, url: str, key_file: Path | None) -> int:
    """Print a table; returns 1 if there is a problem with any of the models, else 0."""
    found = asyncio.run(_fetch(names, url, key_file))
    print(ROW.format("model", "versions", "signature", "input", "batches", "labels"))
    for model in found:
        print(_row(model))
    if not found:
        print("(none: name one, or configure them with --models)")
    return 1 if any("problem" in model for model in found) else 0


async def _fetch(names: Sequence[str], url: str, key_file: Path | None) -> list[dict[str, Any]]:
    async with gateway_session(url, ClientTimeout(total=30), key_file) as session:
        return await fetch_models(session, names)


def _row(model: dict[str, Any]) -> str:
    if "problem" in model:
        return f"{model['name']:<20} {model['problem']}"
    takes = model["input"]
    size = f"{takes['height']}x{takes['width']}" if takes["height"] else "any size"
    versions = ", ".join(f"{number} {state}" for number, state in model["versions"].items())
    return ROW.format(
        model["name"],
        versions,
        model["signature"],
        f"{takes['name']}: {takes['takes']}, {size}",
        "yes" if model["batches"] else "no",
        model["labels"] or "none",
    )

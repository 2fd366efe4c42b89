"""Processes of the command, stopped when the test ends."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest


class Process:
    """A running command; its standard error is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, pattern: str) -> re.Match[str]:
        """The first line from here on that has the pattern."""
        while line := (await self.process.stderr.readline()).decode():
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"ended without {pattern!r}: {''.join(self.lines)}")

    async def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        async for line in self.process.stderr:
            self.lines.append(line.decode())
        return await self.process.wait()

    async def url(self) -> str:
        """Where the gateway listens, once it does."""
        return (await self.line(r"listening on (http://[\w.:]+)"))[1]

    def children(self) -> list[Path]:
        """What /proc has of its child processes: a path exists while its process does."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [Path(f"/proc/{pid}") for pid in pids.split()]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


Spawn = Callable[..., Awaitable[Process]]


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Start ``python -m gateway`` (or another interpreter's) with arguments."""
    started: list[asyncio.subprocess.Process] = []

    async def run(*argv: str, python: str = sys.executable, **env: str) -> Process:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", "gateway", *argv),
            env={**kept, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return Process(process)

    yield run
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()

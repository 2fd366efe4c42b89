"""Servers under test as child processes: started, waited for, measured and stopped with all they
started themselves."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Cpu", "alive", "cpu", "descriptors", "free_port", "memory", "running", "tree", "waited"]

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parent.parent
LOGS = Path(__file__).parent / "results" / "logs"


class Cpu(NamedTuple):
    """CPU seconds of a process tree since its start."""

    user: float
    system: float


def free_port() -> int:
    """Return a TCP port of the loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat (proc(5)) that follow the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """Say whether the process runs; one that has ended and is not yet reaped does not."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def tree(pid: int) -> list[int]:
    """Return ``pid`` and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu(pid: int) -> Cpu:
    """Return the CPU time of the tree, with its children that have ended."""
    user = system = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            utime, stime, cutime, cstime = map(int, _stat(process)[11:15])
            user, system = user + utime + cutime, system + stime + cstime
    return Cpu(user / TICKS, system / TICKS)


def memory(pid: int) -> int:
    """Return the bytes that the tree keeps in memory, pages that are shared counted once (PSS)."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def descriptors(pid: int) -> int:
    """Return how many file descriptors the tree has open."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            total += len(list(Path(f"/proc/{process}/fd").iterdir()))
    return total


def waited(pid: int) -> float:
    """Return the seconds for which the main thread was ready to run and had no core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


@contextlib.contextmanager
def running(
    command: list[str], ready: str, *, env: Mapping[str, str] | None = None, wait: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` from the repository's root until the block ends.

    ``ready`` is a URL that answers, or HOST:PORT that accepts a connection, when the server is up.
    Output goes to a file under results/logs. Raises RuntimeError, with the end of that file, when
    the process ends or ``wait`` seconds pass before it is ready.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{time.strftime('%H%M%S')}-{free_port()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - commands are those of the bench itself
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(env or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_ready(process, ready, time.monotonic() + wait, log)
        yield process
    finally:
        _stop(process)


def _await_ready(process: subprocess.Popen[bytes], ready: str, until: float, log: Path) -> None:
    while not _answers(ready):
        if process.poll() is not None or time.monotonic() > until:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"process {process.pid} is not ready: {tail}")
        time.sleep(0.01)


def _answers(ready: str) -> bool:
    try:
        if ready.startswith("http"):
            with urllib.request.urlopen(ready, timeout=2):  # noqa: S310 - loopback
                return True
        host, _, port = ready.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except (OSError, urllib.error.HTTPError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process, and by their ids whichever of its descendants outlive it."""
    family = tree(process.pid)
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    for pid in family[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while any(map(alive, family)) and time.monotonic() < until:
        time.sleep(0.01)

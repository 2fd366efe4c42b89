"""Flame graph of the gateway under load (py-spy).

    python -m bench.profile --output bench/results/flame.svg
    python -m bench.profile --peer mosec --concurrency 64

Run it as a module: as a script this folder would come first on the path, and this file would stand
in for the standard library's ``profile``. Sampling needs the right to trace a child (ptrace).
"""

import argparse
import subprocess
import sys
import threading
from pathlib import Path

from bench import load, peers, servers
from bench.suite import FAST

__all__ = ["main"]


def record(pid: int, output: Path, seconds: float, *, native: bool) -> None:
    """Sample the tree of ``pid`` for ``seconds``; CalledProcessError if py-spy cannot."""
    spy = Path(sys.executable).with_name("py-spy")
    command = [str(spy), "record", "--pid", str(pid), "--duration", str(int(seconds))]
    command += ["--rate", "200", "--subprocesses", "--threads", "--output", str(output)]
    command += ["--native"] if native else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command


def main() -> None:
    """Load the gateway or a peer, and record it meanwhile."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("bench/results/flame.svg"))
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--cost", default=FAST, help="of the backend, a,b in ms")
    parser.add_argument("--model", default="ssd")
    parser.add_argument("--sizes", default="640x480")
    parser.add_argument("--native", action="store_true", help="see into C extensions; slower")
    parser.add_argument("--peer", choices=peers.NAMES, help="instead of the gateway")
    flags = parser.parse_args()
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        servers.backend(flags.cost) as behind,
        servers.peer(flags.peer, behind, flags.model)
        if flags.peer
        else servers.gateway(behind) as service,
    ):
        plan = service.plan(
            concurrency=flags.concurrency,
            seconds=flags.seconds + 1,
            warmup=2,
            model=flags.model,
            sizes=tuple(flags.sizes.split(",")),
        )
        spy = threading.Timer(
            2, record, (service.pid, flags.output, flags.seconds), {"native": flags.native}
        )
        spy.start()
        result = load.run(plan)
        spy.join()
    cpu = result["cpu_ms"]["total"]
    sys.stdout.write(f"{flags.output}: {result['throughput']:.0f}/s, {cpu:.2f} CPU ms a request\n")


if __name__ == "__main__":
    main()

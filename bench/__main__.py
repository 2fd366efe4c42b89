"""One run of the whole bench: floor, backend, gateway, peers; then the table and the plots.

python -m bench                  # short: some minutes, each target once
python -m bench --full           # sweeps, overload, 200,000 requests: about an hour
python -m bench --peers none     # without the peers, which are installed at first use
"""

import argparse
import json
import sys
from pathlib import Path

from bench import peers, report
from bench.peers.__main__ import install
from bench.suite import Suite

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, write results/latest.json and the plots beside it, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="take the time for everything")
    parser.add_argument(
        "--peers",
        default=",".join(peers.NAMES),
        help="with commas, or none (default %(default)s)",
    )
    parser.add_argument("--no-gateway", action="store_true", help="measure only what it is held to")
    parser.add_argument("--seconds", type=float, help="of each measurement (4, or 10 when full)")
    parser.add_argument("--output", type=Path, default=RESULTS / "latest.json")
    flags = parser.parse_args()
    names = [name for name in flags.peers.split(",") if name != "none"]
    if unknown := set(names) - set(peers.NAMES):
        parser.error(f"no such peers: {', '.join(sorted(unknown))}")
    for name in names:
        install(name)
    suite = Suite(full=flags.full, peers=names, gateway=not flags.no_gateway, seconds=flags.seconds)
    results = suite.run()
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(report.text(results))
    for file in report.plots(results, flags.output.parent):
        sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()

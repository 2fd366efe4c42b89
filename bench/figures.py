"""What the reports share: how figures are written, and how a run is reported from its JSON."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

__all__ = ["report_file", "save"]


def save(figure: Figure, directory: Path, name: str, *, dpi: int = 110) -> Path:
    """Write the figure as SVG and PNG, and close it; return the PNG."""
    directory.mkdir(parents=True, exist_ok=True)
    for suffix in ("svg", "png"):
        figure.savefig(directory / f"{name}.{suffix}", dpi=dpi)
    plt.close(figure)
    return directory / f"{name}.png"


def report_file(
    doc: str | None,
    text: Callable[[dict[str, Any]], str],
    plots: Callable[[dict[str, Any], Path], Iterable[Path]],
) -> None:
    """Print the table and write the plots of the run that the command line names."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--plots", type=Path, help="directory (default: beside the results)")
    flags = parser.parse_args()
    results = json.loads(flags.results.read_text())
    sys.stdout.write(text(results))
    for file in plots(results, flags.plots or flags.results.parent):
        sys.stdout.write(f"{file}\n")

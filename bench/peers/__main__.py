"""Makes the peers' environments: one virtual environment each, one at a time."""

import argparse
import shutil
import subprocess
import sys
import venv

from bench import peers

__all__ = ["install", "main"]


def install(name: str) -> None:
    """Make the environment of ``name`` unless it is there; CalledProcessError if pip fails."""
    if peers.installed(name):
        return
    home = peers.python(name).parent.parent
    wanted = peers.HERE / "requirements" / f"{name}.txt"
    sys.stderr.write(f"installing {name} into {home}\n")
    venv.create(home, with_pip=True, clear=True)
    pip = [str(peers.python(name)), "-m", "pip", "install", "--quiet", "-r", str(wanted)]
    subprocess.run(pip, check=True)  # noqa: S603 - our own requirements
    shutil.copy(wanted, home / "requirements.txt")


def main() -> None:
    """Install the peers that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(peers.NAMES))
    for name in parser.parse_args().names or peers.NAMES:
        if name not in peers.NAMES:
            parser.error(f"no such peer: {name}")
        install(name)


if __name__ == "__main__":
    main()

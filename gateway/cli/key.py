"""``key``: a new key for a client."""

import sys

import yaml

from gateway.access import new_key
from gateway.cli.errors import CommandError

__all__ = ["run"]


def run(name: str) -> int:
    """Print a new key's entry, and on the standard error the key itself; returns 0."""
    try:
        secret, key = new_key(name)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    entry = yaml.safe_dump([{"name": key.name, "sha256": key.sha256}], sort_keys=False)
    print(
        f"The key of {key.name}, for the client; it is shown this once:\n{secret}\n\n"
        "Its entry, for the file of api_keys:",
        file=sys.stderr,
        flush=True,
    )
    print(entry, end="")
    return 0

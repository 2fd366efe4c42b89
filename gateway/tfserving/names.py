"""What an address that is configured stands for: ``host:port`` or ``unix:/path``."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections import deque
from collections.abc import Sequence

__all__ = ["Addresses", "is_name", "look_up"]

log = logging.getLogger("gateway")

LOOKS = 5  # at the DNS, after which an address that was in none of them is gone


class Addresses:
    """Those that are configured, and the numbers that were found for the names among them."""

    def __init__(self, given: Sequence[str]) -> None:
        self.given = given
        self._found: dict[str, deque[list[str]]] = {}
        self._unknown: set[str] = set()  # names that the DNS did not know when last asked

    @property
    def may_change(self) -> bool:
        """Whether it makes sense to look again."""
        return any(map(is_name, self.given))

    async def look(self) -> list[str]:
        """Look all names up; the addresses that were found of late. A DNS that fails changes
        nothing."""
        for address in self.given:
            looks = self._found.setdefault(address, deque(maxlen=LOOKS))
            try:
                looks.append(await look_up(address))
                self._unknown.discard(address)
            except (OSError, UnicodeError) as error:  # then nothing is known to be gone
                if address not in self._unknown:
                    self._unknown.add(address)
                    log.error("the name in %s cannot be looked up: %s", address, error)
        lists = [found for looks in self._found.values() for found in looks]
        return list(dict.fromkeys(address for found in lists for address in found))

    def name_of(self, address: str) -> str | None:
        """The name that was looked up and gave ``address``, if it was not given as it is."""
        for given, looks in self._found.items():
            if is_name(given) and any(address in found for found in looks):
                return given.rpartition(":")[0]
        return None


def is_name(address: str) -> bool:
    """Whether it must be looked up: neither a path nor the number of a machine."""
    if address.startswith("unix:"):
        return False
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
        return False
    return True


async def look_up(address: str) -> list[str]:
    """The addresses, in numbers, that ``address`` stands for.

    Raises
    ------
    OSError, UnicodeError
        It stands for none now, or is no name at all.
    """
    if not is_name(address):
        return [address]
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    old = [f"{place[0]}:{port}" for family, *_, place in found if family == socket.AF_INET]
    new = [f"[{place[0]}]:{port}" for family, *_, place in found if family == socket.AF_INET6]
    return old or new  # a machine that has both is one replica, not two

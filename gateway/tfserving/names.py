"""What an address that is configured stands for: ``host:port`` or ``unix:/path``."""

import asyncio
import contextlib
import ipaddress
import socket

__all__ = ["is_name", "look_up"]


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

"""How much one source may ask for."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

NETWORK_BITS = 64
"""Of an IPv6 address: the rest is at the choice of whoever has the network."""


class Sources:
    """Counts the requests of each source address in the last second, in this process alone.

    The address is that of the connection: behind a proxy all that it passes on counts as one source, since what it
    says of others could be said by anyone.
    """

    def __init__(self, rate: int) -> None:
        """rate: requests a second."""
        self._limit = RateLimitItemPerSecond(rate)
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def admits(self, address: str) -> bool:
        """Count a request; False where it is one too many."""
        return self._window.hit(self._limit, source(address))


@lru_cache(maxsize=4096)
def source(address: str) -> str:
    """Give the name under which an address is counted."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:  # noqa: PLR2004 - the protocol's own number
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, NETWORK_BITS), strict=False))

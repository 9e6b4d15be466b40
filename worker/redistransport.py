"""kombu's Redis transport, mended: a worker whose broker goes away is to wait for it, not to end.

When a connection is lost, Celery still acknowledges what ends afterwards, and hands back what did not, over the channel
that it had. Both know how to bear a lost connection; but a channel whose connection was taken from it fails with an
AttributeError instead, which ends the worker (seen on celery 5.7.0 and kombu 5.7.0, with Redis killed while tasks ran).
The broker delivers such messages again by itself, and the ledger does not depend on them.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as original
from redis.exceptions import ConnectionError as ConnectionLost

SCHEMES = ("redis", "rediss")


class Channel(original.Channel):
    """A channel that says so when its connection is gone."""

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection is None or self.connection.client is None:
            raise ConnectionLost("this channel's connection to the broker is gone")
        return super()._connparams(*args, **kwargs)  # type: ignore[misc] # not in the stubs


class Transport(original.Transport):
    """The transport with that channel."""

    Channel = Channel


def install() -> None:
    """Have kombu use it for the URLs of Redis in this process."""
    for scheme in SCHEMES:
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"

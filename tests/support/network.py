"""A guard for the whole test process: whoever tries to reach anything but this machine fails its test."""

from __future__ import annotations

import ipaddress
import random
import socket
import sys
from typing import Any

_NAMES = frozenset({"", "localhost"})

NOWHERE = ".invalid"
"""The end of names that never exist (RFC 6761)."""

_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


class NotLoopback(RuntimeError):
    """A test tried to reach another machine."""


class LoopbackGuard:
    """Watches every socket of the process, by an audit hook, which cannot be taken away again but switched off.

    An attempt is refused on the spot and kept in `attempts`, as the code under test may swallow the refusal. What C
    libraries do on their own (libpq) it does not see.
    """

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.on = True
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in _EVENTS and not is_loopback(arguments[1]):
            self._refuse(f"{event.removeprefix('socket.')} to {arguments[1]!r}")
        if event == "socket.getaddrinfo" and str(arguments[0]).endswith(NOWHERE):
            # What a resolver would say, without asking one.
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if event == "socket.getaddrinfo" and not is_loopback((arguments[0], arguments[1])):
            self._refuse(f"looking up {arguments[0]!r}")

    def _refuse(self, attempt: str) -> None:
        self.attempts.append(attempt)
        raise NotLoopback(f"tests talk to loopback addresses only: {attempt}")


def is_loopback(address: Any) -> bool:
    """Whether a socket's address stays on this machine; unix sockets do."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host is None or not isinstance(host, str) or host in _NAMES:
        return True
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


def quiet_port() -> int:
    """A free port that no outgoing connection is given by chance: it stays free until somebody listens on it."""
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(20_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


GUARD = LoopbackGuard()
"""The process's one."""

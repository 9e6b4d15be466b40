"""Addresses that our own servers listen on: where they are found, and whether one is still free."""

from __future__ import annotations

import socket

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognized, not bound to
"""Addresses that listen everywhere, and where such a listener is found from this machine."""


def base_url(host: str, port: int) -> str:
    """Give the URL of a server that listens there, as it is reached from this machine."""
    found = EVERYWHERE.get(host, host)
    return f"http://{f'[{found}]' if ':' in found else found}:{port}"


def why_not(host: str, port: int) -> str | None:
    """Say why nothing can listen there; None where it can."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            # As servers do: what is left of connections that ended keeps nobody out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen()
    except OSError as error:
        return error.strerror or str(error)
    return None


def free_port() -> int:
    """Find a port of loopback that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

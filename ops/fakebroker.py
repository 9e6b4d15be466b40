"""A stand-in for Redis in pure Python, for the demo on a machine that has none; keeps nothing, never for production.

python -m ops.fakebroker --port 0
"""

import argparse
import signal
import socket
import sys
import threading
from types import FrameType

from fakeredis import TcpFakeServer


def main(arguments: list[str] | None = None) -> None:
    """Serve on loopback until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m ops.fakebroker", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="port on 127.0.0.1; 0 takes a free one and prints it")
    where.add_argument("--fd", type=int, help="number of an inherited socket that listens already")
    options = parser.parse_args(arguments)
    if options.fd is None:
        listener = socket.create_server(("127.0.0.1", options.port))
    else:
        listener = socket.socket(fileno=options.fd)
    serve(listener)


def serve(listener: socket.socket) -> None:
    """Serve on a listening socket until a signal comes."""
    address = listener.getsockname()
    server = TcpFakeServer(address, bind_and_activate=False)
    server.socket.close()
    server.socket, server.server_address = listener, address
    # A connection's thread ends with the process: a client that stays must not hold it.
    server.daemon_threads, server.block_on_close = True, False

    def stop(_number: int, _frame: FrameType | None) -> None:
        # shutdown() waits for the loop that this very thread runs.
        threading.Thread(target=server.shutdown).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    sys.stdout.write(
        f"STAND-IN for Redis (fakeredis) on {address[0]}:{address[1]}: nothing is kept, for the demo only\n"
    )
    sys.stdout.flush()
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()

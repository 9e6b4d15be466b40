"""The command line: `python -m sandbox`."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sandbox.faults import KINDS_HELP, Fault
from sandbox.options import Delay, Options
from sandbox.server import serve

T = TypeVar("T")

WRONG_USE = 2

_ABOUT = "A stand-in for a Letta server, to try the compactor on and to test it with. It is not Letta."

_EXAMPLES = f"""
examples:
  python -m sandbox --database sandbox.db --seed 40
  python -m sandbox --database sandbox.db --seed 40 --latency 0.05:0.02 --compact-latency 2
  python -m sandbox --database sandbox.db --fault compact:503:0.2 --fault compact:reset-after:0.1

faults:
{textwrap.fill(KINDS_HELP, 100, initial_indent="  ", subsequent_indent="  ")}

environment: STEP_COMPLETE_WEBHOOK (a URL that hears of every step), STEP_COMPLETE_KEY (sent to it as a bearer token).
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m sandbox", description=_ABOUT, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=_port, default=0, help="port to listen on; 0 takes a free one (default)")
    add("--database", type=Path, required=True, metavar="FILE", help="SQLite file that keeps everything")
    add("--seed", type=_count, default=0, metavar="N", help="make N conversations, if the file is empty")
    add("--seed-value", type=int, default=1, metavar="S", help="which ones: the same S, the same data (default: 1)")
    delay = _reading(Delay.parse)
    add("--latency", type=delay, default=Delay(), metavar="SECONDS[:JITTER]", help="wait before each request")
    add("--compact-latency", type=delay, default=Delay(), metavar="SECONDS[:JITTER]", help="the summarizer's time")
    add("--reply-latency", type=delay, default=Delay(), metavar="SECONDS[:JITTER]", help="the agents' time to answer")
    add("--reply-chars", type=_count, default=240, metavar="N", help="length of a reply (default: %(default)s)")
    add("--ping-interval", type=_seconds, default=20.0, metavar="SECONDS", help="pause between pings (default: 20)")
    add("--api-key", metavar="KEY", help="answer 401 to requests without this key")
    fault = _reading(Fault.parse)
    add("--fault", type=fault, action="append", default=[], metavar="ENDPOINT:KIND[:PROBABILITY]", help="see below")
    add("--fault-seed", type=int, default=1, metavar="S", help="the same S, the same faults (default: %(default)s)")
    return parser


def _reading(read: Callable[[str], T]) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _whole(text: str, least: int, most: int | None = None) -> int:
    if not text.isdigit() or int(text) < least or (most is not None and int(text) > most):
        upper = "" if most is None else f" and at most {most}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}{upper}")
    return int(text)


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _count(text: str) -> int:
    return _whole(text, 0)


def _seconds(text: str) -> float:
    delay = _reading(Delay.parse)(text)
    if not delay.seconds or delay.jitter:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds greater than 0")
    return delay.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox; returns 0 when it was told to stop, 1 when it could not run, and exits with 2 on wrong use."""
    given = _parser().parse_args(arguments)
    options = Options(
        database=given.database,
        seed=given.seed,
        seed_value=given.seed_value,
        latency=given.latency,
        compact_latency=given.compact_latency,
        reply_latency=given.reply_latency,
        reply_chars=given.reply_chars,
        ping_interval=given.ping_interval,
        api_key=given.api_key,
        faults=tuple(given.fault),
        fault_seed=given.fault_seed,
        webhook_url=os.environ.get("STEP_COMPLETE_WEBHOOK") or None,
        webhook_key=os.environ.get("STEP_COMPLETE_KEY") or None,
    )
    try:
        serve(options, given.host, given.port)
    except OSError as error:
        reason = error.strerror or error
        return _fail(f"cannot listen on {given.host} port {given.port}: {reason}; choose another --host or --port")
    except sqlite3.Error as error:
        return _fail(f"cannot use the database {given.database}: {error}; give --database a writable SQLite file")
    return 0


def _fail(message: str) -> int:
    print(f"sandbox: {message}", file=sys.stderr)  # noqa: T201 - the command line's error
    return 1


if __name__ == "__main__":
    sys.exit(main())

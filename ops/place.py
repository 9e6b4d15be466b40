"""The state directory as a place that one `compactor up` has to itself."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "up.lock"


class PlaceUnusable(Exception):
    """The state directory is another `up`'s at present, or cannot be written to; the message says what to do."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other ones out of a state directory for as long as the block runs.

    The lock is the system's and ends with the process, however that ends; the file means nothing. Raises
    PlaceUnusable.
    """
    try:
        file = (folder / LOCK_FILE).open("a", encoding="utf-8")
    except OSError as error:
        raise PlaceUnusable(f"COMPACTOR_STATE_DIR: {folder} cannot be written to: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlaceUnusable(
                f"another `compactor up` is running in {folder}: stop it, or choose another COMPACTOR_STATE_DIR"
            ) from None
        yield

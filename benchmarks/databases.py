"""The databases that the door is measured on, each as durable as an operator's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.support.postgres import fresh_schema, own_database, postgres_server

KINDS = ("sqlite", "postgresql")


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """An empty database of one kind, as a URL; it goes at the end."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'ledger.db'}"
        return
    with postgres_server() as server, own_database(server) as own, fresh_schema(own) as url:
        parts = make_url(url)
        # The tests' databases do not wait for the disk; what is answered 202 here has to.
        durable = parts.update_query_dict({"options": f"{parts.query['options']} -csynchronous_commit=on"})
        yield durable.render_as_string(hide_password=False)

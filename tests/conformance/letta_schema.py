"""Creates the tables of the real Letta; run by the cached environment's python, never by the project's.

Letta's migrations are not in its wheel, so the tables are made from its models. `LETTA_PG_URI` must name the database
(`postgresql+pg8000://...`): the models look at it to choose their column types.
"""

import importlib
import os
import pkgutil

import letta.orm  # type: ignore[import-not-found]
from letta.orm.base import Base  # type: ignore[import-not-found]
from sqlalchemy import create_engine, text

SEQUENCE = (
    "create sequence if not exists message_seq_id owned by messages.sequence_id",
    "alter table messages alter column sequence_id set default nextval('message_seq_id')",
)
"""The one thing that the models leave to a migration."""


def main() -> None:
    """Make the extension, the tables and the sequence."""
    for module in pkgutil.iter_modules(letta.orm.__path__):
        if not module.name.startswith("sqlite"):  # for SQLite alone, and needs a package that is not installed
            importlib.import_module(f"letta.orm.{module.name}")
    engine = create_engine(os.environ["LETTA_PG_URI"])
    with engine.begin() as connection:
        connection.execute(text("create extension if not exists vector"))
        Base.metadata.create_all(connection)
        for statement in SEQUENCE:
            connection.execute(text(statement))
    engine.dispose()


if __name__ == "__main__":
    main()

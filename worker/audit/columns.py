"""What the ledger's tables are made of: the types of their columns, and the metadata that they register with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Dialect, Index, MetaData, String, TypeDecorator, text
from sqlalchemy.dialects.postgresql import JSONB


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps no zone, so it is put off there and put on again."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: it would mean something else on each machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger takes aware datetimes only")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give every time back in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


DOCUMENT: JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
ID = String(140)
TRACE = String(60)
"""A W3C `traceparent`."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


def time(name: str, *, nullable: bool = True, primary_key: bool = False) -> Column[datetime]:
    """Give a column for a time."""
    return Column(name, UtcDateTime, nullable=nullable and not primary_key, primary_key=primary_key)


def partial_index(name: str, *columns: str, where: str, **options: Any) -> Index:
    """Give an index over the rows that a condition holds for; SQLite uses it for queries that say the same words."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where), **options)


def storable(words: str) -> str:
    """Give a stranger's text as every database can keep it: PostgreSQL takes no NUL, and UTF-8 no half of a pair."""
    return words.encode("utf-8", "replace").decode("utf-8").replace("\x00", "?")

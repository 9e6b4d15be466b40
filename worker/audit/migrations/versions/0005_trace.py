"""The trace that a row was begun in, so that whoever goes on with it goes on with the trace."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = ("events", "watches", "compactions")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("trace", sa.String(60)))

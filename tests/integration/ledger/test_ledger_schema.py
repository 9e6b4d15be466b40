"""The ledger's schema: made by migrations alone, and refused when it is not this release's."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from tests.support.happenings import watched
from tests.support.rows import NOW
from worker.audit import database as audit_database
from worker.audit.database import Database, SchemaMismatch, current, head, require_head, upgrade
from worker.audit.ledger import Ledger
from worker.audit.tables import metadata

TABLES = {"alembic_version", *metadata.tables}

HEAD = head()
NEXT_HEAD = f"{int(HEAD) + 1:04}"

NEXT = f"""
revision = "{NEXT_HEAD}"
down_revision = "{HEAD}"

def upgrade():
    pass
"""


FIRST_RELEASE = (
    "INSERT INTO conversations (agent_id, conversation_id, first_seen_at, last_seen_at) "
    "VALUES ('agent-1', 'conv-1', :at, :at)",
    "INSERT INTO compactions (id, agent_id, conversation_id, state, trigger, policy, policy_version, policy_body,"
    " asked, reason, sentence, settings, flags, planned_at) "
    "VALUES ('cmp-1', 'agent-1', 'conv-1', 'planned', 'cli', 'default', '0', '{}', false,"
    " 'over_trigger', 'over it', '{}', '[]', :at)",
)

SECOND_RELEASE = (
    "UPDATE compactions SET state = 'succeeded', outcome = 'compacted', heartbeats = 3, finished_at = :at",
    "INSERT INTO scans (id, trigger, policy, policy_version, policy_body, state, listed, reasons, started_at,"
    " finished_at) VALUES ('scan-1', 'cli', 'default', '0', '{}', 'finished', 7, '{}', :at, :at)",
)


@pytest.fixture
def empty(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to be a release with one migration more."""
    folder = tmp_path / "migrations"
    shutil.copytree(audit_database.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / f"{NEXT_HEAD}_next.py").write_text(NEXT)
    monkeypatch.setattr(audit_database, "MIGRATIONS", folder)


def tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(inspect(connection).get_table_names())


def test_upgrading_from_nothing_makes_every_table(empty: Database) -> None:
    assert current(empty) is None
    assert upgrade(empty) == (None, head())
    assert tables(empty) == TABLES
    assert current(empty) == head()


def test_a_ledger_of_the_first_release_is_upgraded_with_what_is_in_it(empty: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(audit_database.MIGRATIONS))
    config.attributes["database"] = empty
    command.upgrade(config, "0001")
    with empty.write() as connection:
        for statement in FIRST_RELEASE:
            connection.execute(text(statement), {"at": NOW})
    with pytest.raises(SchemaMismatch, match="at schema 0001, older than"):
        require_head(empty)
    assert upgrade(empty) == ("0001", head())
    kept = Ledger(empty).compactions.get("cmp-1")
    assert kept is not None
    assert (kept.state, kept.attempts, kept.planned_at) == ("planned", 0, NOW)
    with empty.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_ledger_from_before_webhooks_keeps_its_scans_and_closed_rows_and_takes_events(empty: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(audit_database.MIGRATIONS))
    config.attributes["database"] = empty
    command.upgrade(config, "0002")
    with empty.write() as connection:
        for statement in (*FIRST_RELEASE, *SECOND_RELEASE):
            connection.execute(text(statement), {"at": NOW})
    assert upgrade(empty) == ("0002", head())
    ledger = Ledger(empty)
    scan, compaction = ledger.scans.get("scan-1"), ledger.compactions.get("cmp-1")
    assert scan is not None
    assert compaction is not None
    assert (scan.state, scan.listed, compaction.state, compaction.heartbeats) == ("finished", 7, "succeeded", 3)
    event = watched(ledger)
    assert (event.state, event.conversation_id) == ("watched", "conv-1")


def test_upgrading_twice_changes_nothing(empty: Database) -> None:
    upgrade(empty)
    assert upgrade(empty) == (head(), head())
    assert tables(empty) == TABLES


def test_upgrades_of_three_processes_at_once_all_succeed(empty: Database, database_url: str) -> None:
    script = "import sys; from worker.audit.database import *; upgrade(Database(sys.argv[1]))"
    racers = [
        subprocess.Popen([sys.executable, "-c", script, database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [racer.communicate(timeout=60)[1] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], errors
    assert tables(empty) == TABLES
    with empty.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [head()]


def test_the_migrations_make_exactly_the_tables_that_the_code_knows(empty: Database) -> None:
    upgrade(empty)
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        assert compare_metadata(context, metadata) == []


def test_the_comparison_of_the_schema_would_notice_a_missing_index(empty: Database) -> None:
    upgrade(empty)
    with empty.write() as connection:
        connection.execute(text("DROP INDEX uq_compactions_open"))
    with empty.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert [difference[0] for difference in differences] == ["add_index"]


def test_the_lock_on_a_conversation_covers_open_rows_alone(empty: Database) -> None:
    upgrade(empty)
    with empty.read() as connection:
        index = next(
            index for index in inspect(connection).get_indexes("compactions") if index["name"] == "uq_compactions_open"
        )
    dialect = empty.engine.dialect.name
    condition = str(index["dialect_options"][f"{dialect}_where"])
    assert index["unique"]
    assert index["column_names"] == ["agent_id", "conversation_id"]
    assert ("planned" in condition, "running" in condition, "succeeded" in condition) == (True, True, False)


def test_the_migrations_are_one_line_forwards() -> None:
    revisions = list(ScriptDirectory(str(audit_database.MIGRATIONS)).walk_revisions())
    assert [revision.revision for revision in reversed(revisions)] == [
        f"{number:04}" for number in range(1, len(revisions) + 1)
    ]
    assert [revision.revision for revision in revisions if hasattr(revision.module, "downgrade")] == []


def test_an_empty_database_is_refused_with_the_command_to_run(empty: Database, database_url: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"has no schema yet: run `compactor db upgrade`"):
        require_head(empty)
    with pytest.raises(SchemaMismatch):
        Ledger.open(database_url)


def test_a_ledger_at_head_is_opened(empty: Database, database_url: str) -> None:
    upgrade(empty)
    ledger = Ledger.open(database_url)
    assert list(ledger.conversations.listing()) == []
    ledger.close()


def test_an_older_schema_is_refused_with_the_command_to_run(
    empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    upgrade(empty)
    request.getfixturevalue("next_release")
    with pytest.raises(SchemaMismatch, match=rf"at schema {HEAD}, older than {NEXT_HEAD}: run `compactor db upgrade`"):
        require_head(empty)
    assert upgrade(empty) == (HEAD, NEXT_HEAD)
    require_head(empty)


def test_a_newer_schema_is_refused_and_not_touched(empty: Database) -> None:
    upgrade(empty)
    with empty.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    for refuse in (require_head, upgrade):
        with pytest.raises(SchemaMismatch, match=r"at schema 0999, which this release does not know: it is newer") as e:
            refuse(empty)
        assert "compactor db upgrade" in str(e.value)
    assert current(empty) == "0999"


def test_an_upgrade_that_fails_leaves_the_schema_as_it_was(
    empty: Database, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    upgrade(empty)
    request.getfixturevalue("next_release")
    broken = tmp_path / "migrations" / "versions" / f"{NEXT_HEAD}_next.py"
    broken.write_text(
        NEXT.replace(
            "    pass", "    op.execute('CREATE TABLE half_done (id INTEGER)')\n    raise ArithmeticError"
        ).replace("\nrevision", "from alembic import op\nrevision", 1)
    )
    with pytest.raises(ArithmeticError):
        upgrade(empty)
    assert current(empty) == HEAD
    assert tables(empty) == TABLES

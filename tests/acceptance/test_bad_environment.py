"""Settings that are nonsense, a database that is down, a broker that is away: told in a sentence, nothing lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ops.broker import BrokerUnavailable, choose_broker
from tests.acceptance.terminal import OURS, ROOT, Terminal, bare_environment, open_terminal
from tests.support.needs import missing
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import POLICY, deployed, wait_until
from worker.audit.database import Database, upgrade
from worker.audit.ledger import Ledger
from worker.audit.records import Scan, ScanState, State
from worker.settings import Settings

SECRET = "geheim-4711"

NONSENSE = [
    ("LETTA_BASE_URL", "nonsense", "must be an http:// or https:// address"),
    ("LETTA_BASE_URL", "ftp://127.0.0.1/", "must be an http:// or https:// address"),
    ("LETTA_BASE_URL", "http://127.0.0.1:99999", "must be an http:// or https:// address"),
    ("LETTA_BASE_URL", "http://[::1", "must be an http:// or https:// address"),
    ("LETTA_BASE_URL", f"http://joe:{SECRET}@127.0.0.1", "LETTA_API_KEY"),
    ("LETTA_SLIDING_WINDOW", "sideways", "allowed: evict, keep"),
    ("LETTA_DEFAULT_CONVERSATIONS", "perhaps", "must be true or false"),
    ("LETTA_COMPACT_TIMEOUT", "-1", "greater than 0"),
    ("LETTA_COMPACT_TIMEOUT", "soon", "must be a number"),
    ("LETTA_COMPACT_TIMEOUT", "inf", "must be a finite number"),
    ("LETTA_SERVER_LIMIT", "nan", "must be a finite number"),
    ("LETTA_READ_TIMEOUT", "0", "greater than 0"),
    ("COMPACTOR_DATABASE_URL", "ledger.db", "write sqlite:///file or postgresql://"),
    ("COMPACTOR_DATABASE_URL", "mysql://127.0.0.1/x", "the ledger runs on sqlite and postgresql"),
    ("COMPACTOR_DATABASE_URL", "sqlite://", "must name a file"),
    ("COMPACTOR_DATABASE_URL", f"postgresql://joe:{SECRET}@127.0.0.1:port/x", "write sqlite:///file or postgresql://"),
    ("COMPACTOR_DATABASE_URL", f"postgresql://joe:ge@{SECRET}@127.0.0.1/x", "write it as %40"),
    ("COMPACTOR_BROKER_URL", "127.0.0.1:6379", "redis://localhost:6379/0"),
    ("COMPACTOR_BROKER_URL", "amqp://127.0.0.1", "a broker is one of redis://"),
    ("COMPACTOR_BROKER_URL", f"redis://:{SECRET}/x@127.0.0.1:6379", "percent-encode the password"),
    ("COMPACTOR_CONCURRENCY", "many", "must be a whole number"),
    ("COMPACTOR_CONCURRENCY", "0", "greater than or equal to 1"),
    ("COMPACTOR_PAGE_SIZE", "1e3", "must be a whole number"),
    ("COMPACTOR_RECONCILE_EVERY", "0", "greater than or equal to 1"),
    ("COMPACTOR_LOG_LEVEL", "loud", "allowed: DEBUG, INFO, WARNING, ERROR"),
]

NUMBERS = sorted(
    str(field.alias) for field in Settings.model_fields.values() if field.annotation is float or field.annotation is int
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path_factory.mktemp("server"), seed=8) as running:
        yield running


@pytest.fixture
def terminal(tmp_path: Path, server: Sandbox) -> Iterator[Terminal]:
    """A terminal where everything is right but for what a test changes; the broker alone is away."""
    (tmp_path / "policy.toml").write_text(POLICY)
    right = {
        "LETTA_BASE_URL": server.base_url,
        "COMPACTOR_STATE_DIR": str(tmp_path / "state"),
        "COMPACTOR_BROKER_URL": f"redis://:{SECRET}@127.0.0.1:{dead_port()}/0",
    }
    with open_terminal(tmp_path, right) as typed:
        yield typed


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def scans_of(terminal: Terminal) -> list[Scan]:
    ledger = Ledger.open(f"sqlite:///{terminal.environment['COMPACTOR_STATE_DIR']}/ledger.db")
    try:
        return ledger.scans.recent(10)
    finally:
        ledger.close()


@contextmanager
def started(command: str, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "celery", "-A", *command.split()]
    process = subprocess.Popen(
        argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_nonsense_in_the_environment_is_told_by_the_variable_and_never_shows_a_secret(terminal: Terminal) -> None:
    for variable, value, named in NONSENSE:
        said = terminal("doctor", expect=2, **{variable: value})
        assert said.err.startswith(f"compactor: {variable}: "), said.text
        assert named in said.err
        assert SECRET not in said.text


def test_no_number_may_be_endless_or_none(terminal: Terminal) -> None:
    for variable in NUMBERS:
        for value in ("inf", "nan", "-5"):
            said = terminal("doctor", expect=2, **{variable: value})
            assert said.err.startswith(f"compactor: {variable}: must be "), said.text


def test_all_that_is_wrong_with_the_environment_is_told_at_once(terminal: Terminal) -> None:
    said = terminal("scan", expect=2, COMPACTOR_CONCURRENCY="many", LETTA_READ_TIMEOUT="never")
    assert [line.split(": ")[1] for line in said.err.splitlines()] == ["LETTA_READ_TIMEOUT", "COMPACTOR_CONCURRENCY"]


def test_without_a_server_every_command_that_asks_one_says_how_to_name_it(terminal: Terminal) -> None:
    terminal("db", "upgrade", expect=0)
    for arguments in (["scan"], ["scan", "--dry-run"], ["compact", "conv-1"]):
        said = terminal(*arguments, expect=2, LETTA_BASE_URL="")
        assert "LETTA_BASE_URL is not set: name the Letta server, such as http://localhost:8283" in said.err
    assert "LETTA_BASE_URL is not set" in terminal("doctor", expect=1, LETTA_BASE_URL="").out


def test_a_server_that_does_not_listen_is_told_and_leaves_nothing_open(terminal: Terminal) -> None:
    terminal("db", "upgrade", expect=0)
    nobody = f"http://127.0.0.1:{dead_port()}"
    for arguments in (["scan", "--dry-run"], ["compact", "conv-5054fb3c-5b85-4720-8a84-8fa0b0f06c84"]):
        said = terminal(*arguments, expect=1, LETTA_BASE_URL=nobody)
        assert "the server could not be reached" in said.err
    said = terminal("doctor", expect=1, LETTA_BASE_URL=nobody)
    assert f"is the server at {nobody} up? LETTA_BASE_URL names it" in said.out
    assert terminal("audit", "export", expect=0).out == ""


def test_a_key_that_no_header_can_carry_is_told_without_showing_it(terminal: Terminal) -> None:
    terminal("db", "upgrade", expect=0)
    key = f"{SECRET}\nX-Evil: 1"
    for arguments, status in ((["scan", "--dry-run"], 2), (["compact", "conv-1"], 2), (["doctor"], 1)):
        said = terminal(*arguments, expect=status, LETTA_API_KEY=key)
        assert "LETTA_API_KEY has characters that no key has" in said.text
        assert SECRET not in said.text


def test_a_state_directory_that_cannot_be_made_or_written_to_is_told(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "odd" / "up.lock").mkdir(parents=True)
    for folder, named in (
        ("file", "cannot be made"),
        ("file/below", "cannot be made"),
        ("odd", "cannot be written to"),
    ):
        said = terminal("up", "--once", expect=2, COMPACTOR_STATE_DIR=str(tmp_path / folder))
        assert said.err.startswith(f"compactor: COMPACTOR_STATE_DIR: {tmp_path / folder} {named}: ")


def test_a_database_that_cannot_be_used_is_told_by_every_command(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, however long one looks at it" * 50)
    (tmp_path / "folder.db").mkdir()
    dead = f"postgresql://joe:{SECRET}@127.0.0.1:{dead_port()}/ledger"
    cases = {
        dead: "Connection refused",
        f"sqlite:///{tmp_path}/file/ledger.db": "cannot be made",
        f"sqlite:///{tmp_path}/folder.db": "unable to open",
        f"sqlite:///{tmp_path}/file": "file is not a database",
    }
    for url, named in cases.items():
        for arguments in (
            ["db", "upgrade"],
            ["scan"],
            ["scan", "--dry-run"],
            ["compact", "conv-1"],
            ["audit", "list"],
            ["audit", "show", "compaction-1"],
            ["audit", "export"],
            ["audit", "stats"],
            ["conversations"],
            ["up", "--once"],
        ):
            said = terminal(*arguments, expect=1, COMPACTOR_DATABASE_URL=url)
            assert said.err.startswith("compactor: the ledger"), said.text
            assert named in said.err
            assert SECRET not in said.text
        said = terminal("doctor", expect=1, COMPACTOR_DATABASE_URL=url)
        assert f"wrong  {'ledger':<14} the ledger" in said.out
        assert "check COMPACTOR_DATABASE_URL" in said.out
        assert SECRET not in said.text


def test_a_schema_that_is_missing_or_newer_is_refused_with_the_command_to_run(
    terminal: Terminal, database_url: str
) -> None:
    commands = (["scan"], ["scan", "--dry-run"], ["compact", "conv-1"], ["audit", "list"], ["conversations"])
    for arguments in commands:
        said = terminal(*arguments, expect=2, COMPACTOR_DATABASE_URL=database_url)
        assert "has no schema yet: run `compactor db upgrade`" in said.err
    terminal("db", "upgrade", expect=0, COMPACTOR_DATABASE_URL=database_url)
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    for arguments in (*commands, ["db", "upgrade"]):
        said = terminal(*arguments, expect=2, COMPACTOR_DATABASE_URL=database_url)
        assert "is at schema 9999, which this release does not know: it is newer" in said.err
    assert "is at schema 9999" in terminal("doctor", expect=1, COMPACTOR_DATABASE_URL=database_url).out


def test_worker_and_beat_end_with_status_2_and_a_sentence_where_they_cannot_start(
    server: Sandbox, tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    upgrade(database)
    database.close()
    right = bare_environment() | {
        "LETTA_BASE_URL": server.base_url,
        "COMPACTOR_BROKER_URL": redis_url,
        "COMPACTOR_STATE_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    worker, beat = "worker worker", "scheduler beat"
    cases = [
        (worker, {"COMPACTOR_CONCURRENCY": "many"}, "COMPACTOR_CONCURRENCY: must be a whole number"),
        (beat, {"COMPACTOR_RECONCILE_EVERY": "often"}, "COMPACTOR_RECONCILE_EVERY: must be a whole number"),
        (worker, {"LETTA_BASE_URL": ""}, "LETTA_BASE_URL is not set"),
        (worker, {"COMPACTOR_BROKER_URL": ""}, "COMPACTOR_BROKER_URL is not set"),
        (beat, {"COMPACTOR_BROKER_URL": f"amqp://:{SECRET}@127.0.0.1"}, "COMPACTOR_BROKER_URL: has the scheme 'amqp'"),
        (worker, {"COMPACTOR_POLICY_FILE": "nowhere.toml"}, "nowhere.toml: there is no such file"),
        (beat, {"COMPACTOR_POLICY_FILE": "nowhere.toml"}, "nowhere.toml: there is no such file"),
        (worker, {"COMPACTOR_STATE_DIR": str(tmp_path / "empty")}, "run `compactor db upgrade`"),
        (worker, {"COMPACTOR_STATE_DIR": str(tmp_path / "file")}, "cannot be made"),
        (
            worker,
            {"COMPACTOR_DATABASE_URL": f"postgresql://joe:{SECRET}@127.0.0.1:{dead_port()}/x"},
            "is not available: connection failed",
        ),
        (worker, {"LETTA_API_KEY": f"{SECRET} {SECRET}"}, "LETTA_API_KEY has characters that no key has"),
    ]

    def run(command: str, wrong: dict[str, str]) -> tuple[int, str]:
        environment = {name: value for name, value in (right | wrong).items() if value}
        with started(command, tmp_path, environment) as process:
            said = process.communicate(timeout=60)[0]
        return process.returncode, said

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(run, [command for command, _, _ in cases], [wrong for _, wrong, _ in cases]))
    for (command, wrong, named), (status, said) in zip(cases, ended, strict=True):
        assert status == 2, f"{command} with {wrong} ended with {status}:\n{said}"
        assert named in said
        assert "Traceback" not in said
        assert SECRET not in said


def test_what_is_ordered_while_the_broker_is_away_is_recorded_and_begins_by_itself_once_it_is_back(
    server: Sandbox, sqlite_url: str, tmp_path: Path
) -> None:
    try:
        broker = choose_broker(None, tmp_path)
    except BrokerUnavailable as error:
        missing(f"no Redis to start: {error}")
    assert broker.command is not None
    settings = {"COMPACTOR_RECONCILE_EVERY": "1", "LETTA_DEFAULT_CONVERSATIONS": "false"}
    with deployed(
        tmp_path, letta_url=server.base_url, broker_url=broker.url, database_url=sqlite_url, **settings
    ) as service:
        ours = {name: value for name, value in service.environment.items() if name.startswith(OURS)}
        with open_terminal(tmp_path, ours) as typed:
            said = typed("scan", expect=1)
            assert "is in the ledger, but the broker is away: it begins by itself once the broker is back" in said.err
            decisions = typed("scan", "--dry-run", "--policy", "eager", "--json", expect=0).json()["decisions"]
            wanted = next(row["conversation_id"] for row in decisions if row["decision"] == "compact")
            said = typed("compact", wanted, expect=1)
            assert "is in the ledger, but the broker is away" in said.err
            assert "broker" in typed("doctor", expect=1).out
        ledger = service.ledger()
        [scan] = ledger.scans.recent(10)
        assert scan.state == ScanState.RUNNING
        assert [row.state for row in service.rows()] == [State.PLANNED]

        redis = subprocess.Popen(broker.command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            service.worker()
            service.beat()
            wait_until(lambda: _state(ledger, scan.id) == ScanState.FINISHED, 60, service.logs)
            wait_until(service.all_closed, 60, service.logs)
            assert {row.state for row in service.rows()} == {State.SUCCEEDED}
            assert all(counts["effective"] == 1 for counts in server.compactions().values())
            assert "Traceback" not in service.logs()
        finally:
            for process in service.processes:
                process.kill()
            os.kill(redis.pid, signal.SIGTERM)
            redis.wait(20)
            broker.close()
            ledger.close()


def _state(ledger: Ledger, scan_id: str) -> str:
    scan = ledger.scans.get(scan_id)
    assert scan is not None
    return scan.state

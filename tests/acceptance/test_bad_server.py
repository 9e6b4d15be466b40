"""A server that answers what it should not: told in a sentence, and one conversation never stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.terminal import OURS, Terminal, open_terminal
from tests.support.redis import fresh_database
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import POLICY, Service, deployed, wait_until
from worker.audit.records import OPEN_STATES, ScanState

KEY = "right-key-4711"

KINDS = {
    "html": ["answered 200 with an HTML page instead of JSON", "LETTA_BASE_URL"],
    "truncated": ["answered 200", "JSON that is cut off"],
    "401": ["answered 401", "the key was not accepted; check LETTA_API_KEY"],
    "403": ["answered 403", "the key is not allowed to do this"],
    "404": ["answered 404", "not found"],
    "429": ["answered 429", "too many requests"],
    "500": ["answered 500", "the server failed"],
}

RETRY_AFTER = 3.0

NOBODY = "conv-5054fb3c-5b85-4720-8a84-8fa0b0f06c84"
NO_AGENT = "agent-5054fb3c-5b85-4720-8a84-8fa0b0f06c84"

Fault = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path_factory.mktemp("server"), seed=60, api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_server: str, server: Sandbox) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    settings = {
        "COMPACTOR_RECONCILE_EVERY": "1",
        "COMPACTOR_LOOK_AGAIN_AFTER": "2",
        "LETTA_SERVER_LIMIT": "5",
        "LETTA_DEFAULT_CONVERSATIONS": "false",
    }
    with (
        fresh_database(redis_server) as broker,
        deployed(
            folder,
            letta_url=server.base_url,
            broker_url=broker,
            database_url=f"sqlite:///{folder}/ledger.db",
            key=KEY,
            policy=POLICY.replace('idle_for = "2m"', 'idle_for = "30m"'),
            **settings,
        ) as made,
    ):
        made.worker()
        made.beat()
        yield made


@pytest.fixture(scope="module")
def terminal(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    ours = {name: value for name, value in service.environment.items() if name.startswith(OURS)}
    with open_terminal(service.folder, ours) as typed:
        yield typed


@pytest.fixture(autouse=True)
def faultless(server: Sandbox) -> Iterator[None]:
    server.set_faults()
    yield
    server.set_faults()


def due(terminal: Terminal) -> list[str]:
    """The conversations that a scan would compact now."""
    decisions = terminal("scan", "--dry-run", "--json", expect=0).json()["decisions"]
    return [row["conversation_id"] for row in decisions if row["decision"] == "compact"]


def nothing_is_open(service: Service) -> bool:
    return all(row.state not in OPEN_STATES for row in service.rows())


def shown(text: str) -> Callable[[str], bool]:
    return lambda part: part in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_that_cannot_be_read_fails_the_scan_with_a_sentence_and_plans_nothing(
    server: Sandbox, service: Service, terminal: Terminal, kind: str
) -> None:
    before = service.rows()
    server.set_faults(f"conversations:{kind}")

    for arguments in (["scan", "--dry-run"], ["scan", "--wait"]):
        said = terminal(*arguments, expect=1)
        assert all(map(shown(said.err), ["GET /v1/conversations/", *KINDS[kind]])), said.err
    said = terminal("doctor", expect=1)
    assert all(map(shown(said.out), ["wrong  letta key", "->", *KINDS[kind]])), said.out

    ledger = service.ledger()
    [scan] = ledger.scans.recent(1)
    ledger.close()
    assert scan.state == ScanState.FAILED
    assert scan.finished_at is not None
    assert all(map(shown(str(scan.sentence)), ["could not be listed", *KINDS[kind]])), scan.sentence
    assert service.rows() == before
    assert KEY not in service.logs()


@pytest.mark.parametrize("kind", KINDS)
def test_one_conversation_that_cannot_be_measured_stops_no_other(
    server: Sandbox, terminal: Terminal, kind: str
) -> None:
    before = terminal("scan", "--dry-run", "--json", expect=0).json()["decisions"]
    bad = next(row["conversation_id"] for row in before if row["decision"] == "compact")
    fault: Fault = {"endpoint": "context", "kind": kind, "conversation_id": bad}
    server.set_faults(fault)

    said = terminal("scan", "--dry-run", "--json", expect=0)
    after = {row["conversation_id"]: row for row in said.json()["decisions"]}

    others = {row["conversation_id"]: row["decision"] for row in before if row["conversation_id"] != bad}
    assert {id_: row["decision"] for id_, row in after.items() if id_ != bad} == others
    if kind == "404":
        # A server without an overview: its messages are measured instead.
        assert after[bad]["usage"] is not None
    else:
        assert after[bad]["reason"] == "unreadable"
        assert all(map(shown(after[bad]["sentence"]), KINDS[kind])), after[bad]
        assert all(map(shown(said.err), [bad, *KINDS[kind]])), said.err
        said = terminal("compact", bad, expect=1)
        assert all(map(shown(said.err), KINDS[kind])), said.err


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_that_cannot_be_retrieved_is_not_compacted_by_hand(
    server: Sandbox, service: Service, terminal: Terminal, kind: str
) -> None:
    before = service.rows()
    server.set_faults(f"conversation:{kind}")
    said = terminal("compact", due_id := due(terminal)[0], expect=1)
    assert all(map(shown(said.err), [due_id, *KINDS[kind]])), said.err
    assert service.rows() == before


def test_a_wrong_key_is_told_by_every_command_and_never_shown(terminal: Terminal) -> None:
    wrong = "wrong-key-4712"
    for arguments in (["scan", "--dry-run"], ["compact", NOBODY], ["doctor"]):
        said = terminal(*arguments, expect=1, LETTA_API_KEY=wrong)
        assert "answered 401 (the key was not accepted; check LETTA_API_KEY)" in said.text
        assert wrong not in said.text
        assert KEY not in said.text
    said = terminal("doctor", expect=1, LETTA_API_KEY="")
    assert "set LETTA_API_KEY to a key that this server accepts" in said.out


def test_what_nobody_could_measure_is_told_at_the_end_of_the_scan(
    server: Sandbox, service: Service, terminal: Terminal
) -> None:
    before = service.rows()
    server.set_faults("context:401")
    said = terminal("scan", "--wait", expect=1)
    assert "unreadable" in said.out
    assert "conversations that were to be measured could be" in said.err
    assert "answered 401 (the key was not accepted; check LETTA_API_KEY)" in said.err
    assert "more could not be measured; `compactor conversations --reason unreadable`" in said.err
    shown_rows = terminal("conversations", "--reason", "unreadable", "--json", expect=0).json()
    assert all("answered 401" in row["sentence"] for row in shown_rows)
    assert service.rows() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["compact", NOBODY],
            ["404", NOBODY],
        ),
        (["compact", NO_AGENT], ["404", "agent-5054fb3c"]),
        (["compact", "default", "--agent", NO_AGENT], ["404", "agent-5054fb3c"]),
        (["compact", "conv-nope"], ["conv-nope", "422"]),
        (["compact", "../../etc/passwd"], ["'../../etc/passwd' is not an id"]),
        (["compact", ""], ["'' is not an id"]),
        (["audit", "show", "no-such"], ["there is no compaction no-such in the ledger", "compactor audit list"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_an_id_that_does_not_exist_is_named(terminal: Terminal, arguments: list[str], named: list[str]) -> None:
    said = terminal(*arguments, expect=1)
    assert all(map(shown(said.err), named)), said.err


def test_a_conversation_of_another_agent_is_told_so(terminal: Terminal) -> None:
    said = terminal("compact", wanted := due(terminal)[0], "--agent", "agent-of-nobody", expect=1)
    assert f"{wanted} belongs to agent-" in said.err
    assert "not to agent-of-nobody" in said.err


def test_compactions_that_go_wrong_in_every_way_each_come_to_their_own_true_end(
    server: Sandbox, service: Service, terminal: Terminal
) -> None:
    wanted = due(terminal)
    assert len(wanted) > len(KINDS)
    bad = dict(zip(KINDS, wanted, strict=False))
    faults: list[Fault] = [
        {"endpoint": "compact", "kind": kind, "conversation_id": id_, "times": 1, "retry_after": RETRY_AFTER}
        for kind, id_ in bad.items()
    ]
    server.set_faults(*faults)

    said = terminal("scan", "--wait", expect=1)

    wait_until(lambda: nothing_is_open(service), 60, service.logs)
    rows = {row["conversation_id"]: row for row in service.export()}
    assert set(rows) == set(wanted)
    effective = {id_: counts["effective"] for id_, counts in server.compactions().items()}
    for id_ in set(wanted) - set(bad.values()):
        assert (rows[id_]["state"], rows[id_]["attempts"], effective[id_]) == ("succeeded", 1, 1)
    ends = {kind: (rows[id_]["state"], rows[id_]["outcome"], effective.get(id_, 0)) for kind, id_ in bad.items()}
    assert ends == {
        "html": ("succeeded", "compacted", 1),
        "truncated": ("succeeded", "recovered", 1),
        "401": ("failed", "http_401", 0),
        "403": ("failed", "http_403", 0),
        "404": ("refused", "not_found", 0),
        "429": ("succeeded", "compacted", 1),
        "500": ("succeeded", "compacted", 1),
    }
    for kind in ("401", "403", "404"):
        assert all(map(shown(rows[bad[kind]]["error"]), KINDS[kind])), rows[bad[kind]]
    for kind in ("401", "403"):
        assert all(map(shown(said.out), [bad[kind], *KINDS[kind]])), said.out
    for kind in ("html", "429", "500"):
        assert rows[bad[kind]]["attempts"] == 2
    assert "Traceback" not in service.logs()
    assert KEY not in service.logs()


def test_an_empty_server_is_nothing_to_be_afraid_of(terminal: Terminal, tmp_path: Path, redis_url: str) -> None:
    with (
        running_sandbox(tmp_path, seed=0) as empty,
        deployed(
            tmp_path, letta_url=empty.base_url, broker_url=redis_url, database_url=f"sqlite:///{tmp_path}/ledger.db"
        ) as service,
    ):
        ours = {name: value for name, value in service.environment.items() if name.startswith(OURS)}
        service.worker()
        for arguments in (["scan", "--dry-run"], ["scan", "--wait"]):
            assert "0 conversations looked at: none" in terminal(*arguments, expect=0, **ours).out
        assert "conversations can be listed" in terminal("doctor", expect=0, **ours).out
        for arguments in (["audit", "list"], ["audit", "stats"], ["conversations"]):
            assert terminal(*arguments, expect=0, **ours).out.strip()
        assert service.rows() == []

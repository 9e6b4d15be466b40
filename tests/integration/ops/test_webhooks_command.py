"""`compactor webhooks` and what the doctor says of webhooks, on a ledger that the service itself has written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ops import webhookcheck
from ops.findings import Finding
from ops.webhookviews import show_deliveries, show_events
from tests.acceptance.terminal import Terminal, open_terminal
from tests.support.rows import closed
from worker.audit.announcer import Announcer
from worker.audit.database import Database, upgrade
from worker.audit.deliveries import Delivery
from worker.audit.events import Arrival, Event, Source
from worker.audit.ledger import Ledger
from worker.audit.records import DeliveryState, State
from worker.clock import utc_now
from worker.settings import Settings

TOKEN = "a-token-in-a-url"
ENDPOINT = f"https://hooks.example:8443/services/{TOKEN}?key={TOKEN}"
LEASE = timedelta(minutes=1)
OWNER = "worker-a"
NOWHERE = "http://127.0.0.1:9"
SECRET = "whsec_" + "A" * 43 + "="
ABOUT_NOTHING = "msg-00000000-0000-4000-8000-000000000000"


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with closing(Database(url)) as database:
        upgrade(database)
    return url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with closing(Ledger.open(url, Announcer((ENDPOINT,)))) as opened:
        yield opened


@pytest.fixture(scope="module")
def any_terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    with open_terminal(tmp_path_factory.mktemp("terminal"), {}) as typed:
        yield typed


@pytest.fixture
def terminal(any_terminal: Terminal, tmp_path: Path, url: str) -> Terminal:
    any_terminal.environment = {
        "COMPACTOR_DATABASE_URL": url,
        "COMPACTOR_STATE_DIR": str(tmp_path / "state"),
        "LETTA_BASE_URL": NOWHERE,
    }
    return any_terminal


def settings(url: str, **more: str) -> Settings:
    return Settings.model_validate({"COMPACTOR_DATABASE_URL": url, "COMPACTOR_STATE_DIR": "none", **more})


def received(ledger: Ledger, key: str, *, ago: timedelta = timedelta(), **more: Any) -> str:
    arrival = Arrival(more.pop("source", Source.LETTA), key, **more)
    [receipt] = ledger.events.receive([arrival], now=utc_now() - ago)
    return receipt.event_id


def taken(ledger: Ledger, key: str, **more: Any) -> Event:
    event_id = received(ledger, key, **more)
    [event] = ledger.events.claim([event_id], now=utc_now(), owner=OWNER, lease=LEASE)
    return event


def delivery(ledger: Ledger, state: DeliveryState, error: str = "it answered 500") -> Delivery:
    """Make a delivery the way the service does: by closing a compaction."""
    now = utc_now()
    closed(ledger, State.SUCCEEDED, f"conv-{state}", now=now)
    one = ledger.deliveries.claim_due(now=now, owner=OWNER, lease=LEASE, limit=1)[0]
    if state is DeliveryState.DELIVERED:
        ledger.deliveries.delivered(one.id, owner=OWNER, status=200, now=now)
    else:
        again = None if state is DeliveryState.DEAD else now + timedelta(hours=2)
        ledger.deliveries.failed(one.id, owner=OWNER, status=500, error=error, next_at=again, now=now)
    found = ledger.deliveries.get(one.id)
    assert found is not None
    assert found.state == state
    return found


def found(checked: Iterator[Finding], name: str) -> Finding:
    return next(finding for finding in checked if finding.name == name)


def test_events_are_listed_with_what_they_are_about_and_what_became_of_them(terminal: Terminal, ledger: Ledger) -> None:
    step = taken(ledger, "step-1", ago=timedelta(minutes=3))
    ledger.events.close(step.id, owner=OWNER, reason="below_trigger", sentence="far below it", usage=0.3, now=utc_now())
    asked = taken(ledger, "order-1", source=Source.SIGNED, conversation_id="conv-1", ago=timedelta(minutes=2))
    ledger.events.fail(asked.id, owner=OWNER, reason="not_found", sentence="there is none", now=utc_now())
    received(ledger, "order-2", source=Source.SIGNED, agent_id="agent-7")

    said = terminal("webhooks", "events", expect=0).out
    lines = [line.split() for line in said.splitlines() if re.match(r" *(now|\d+[sm]) ", line)]

    assert [line[1:5] for line in lines] == [
        ["signed", "agent-7", "received", "-"],
        ["signed", "conv-1", "failed", "not_found"],
        ["letta", "step-1", "done", "below_trigger"],
    ]
    assert [line[0] for line in lines][1:] == ["2m", "3m"]
    assert " ".join(lines[1]).endswith("there is none")
    assert "conv-1: there is none" in said
    assert "step-1" not in terminal("webhooks", "events", "--state", "failed", expect=0).out


def test_a_narrow_terminal_shows_why_an_event_failed_and_the_whole_id_of_a_delivery_that_did(ledger: Ledger) -> None:
    event = taken(ledger, "step-1")
    ledger.events.fail(event.id, owner=OWNER, reason="not_found", sentence="there is none", now=utc_now())
    dead = delivery(ledger, DeliveryState.DEAD)
    narrow = Console(file=StringIO(), width=80)

    show_events(narrow, ledger.events.recent(9))
    show_deliveries(narrow, ledger.deliveries.recent(9))

    assert isinstance(narrow.file, StringIO)
    lines = [line.rstrip() for line in narrow.file.getvalue().splitlines()]
    assert "step-1: there is none" in lines
    assert f"{dead.id}: it answered 500" in lines
    assert all(len(line) <= 80 for line in lines)


def test_events_for_programs_are_an_array_without_the_service_s_own_columns(terminal: Terminal, ledger: Ledger) -> None:
    assert terminal("webhooks", "events", "--json", expect=0).json() == []
    taken(ledger, "step-1")
    received(ledger, "step-2")

    rows = terminal("webhooks", "events", "--json", expect=0).json()

    assert [row["key"] for row in rows] == ["step-2", "step-1"]
    assert not {"lease_owner", "lease_until"} & set(rows[0])
    assert [row["key"] for row in terminal("webhooks", "events", "--limit", "1", "--json", expect=0).json()] == [
        "step-2"
    ]
    assert terminal("webhooks", "events", "--state", "done", expect=0).out.startswith("no event")


def test_watched_conversations_show_when_they_are_due_how_many_events_and_what_holds_them_back(
    terminal: Terminal, ledger: Ledger
) -> None:
    assert terminal("webhooks", "waiting", expect=0).out == "no conversation is watched\n"
    now = utc_now()
    for number in range(3):
        event = taken(ledger, f"step-{number}")
        ledger.watches.watch(
            event, [("agent-1", "conv-1")], policy="default", usage=0.91, due_at=now, owner=OWNER, now=now
        )
    assert "now" in terminal("webhooks", "waiting", expect=0).out
    [watch] = ledger.watches.due(now=now, owner=OWNER, lease=LEASE, limit=9)
    until = now + timedelta(minutes=9, seconds=59)
    ledger.watches.put_off(watch, owner=OWNER, due_at=until, reason="active_run", sentence="a run is under way")

    said = terminal("webhooks", "waiting", expect=0).out
    [row] = terminal("webhooks", "waiting", "--json", expect=0).json()

    assert re.search(r"conv-1 +default +in 9m +█+.* 0\.91 +3 +active_run +a run is under way", said), said
    assert (row["events"], row["reason"], row["attempts"]) == (3, "active_run", 1)
    assert not {"lease_owner", "revision"} & set(row)


def test_deliveries_show_the_host_of_an_endpoint_and_never_the_rest_of_it(terminal: Terminal, ledger: Ledger) -> None:
    for state in DeliveryState:
        delivery(ledger, state)

    said = terminal("webhooks", "deliveries", expect=0)
    rows = terminal("webhooks", "deliveries", "--json", expect=0)

    assert TOKEN not in said.text + rows.text
    assert said.out.count("https://hooks.example:8443/...") == len(DeliveryState)
    assert {row["endpoint"] for row in rows.json()} == {"https://hooks.example:8443/..."}
    assert {row["body"]["type"] for row in rows.json()} == {"compaction.succeeded"}
    assert re.search(r"compaction\.succeeded .* pending +1 +in 1h", said.out), said.out


def test_deliveries_of_one_state_are_shown_alone(terminal: Terminal, ledger: Ledger) -> None:
    delivery(ledger, DeliveryState.DELIVERED)
    dead = delivery(ledger, DeliveryState.DEAD)

    said = terminal("webhooks", "deliveries", "--state", "dead", expect=0).out

    assert f"{dead.id}: it answered 500" in said
    assert "delivered" not in said


def test_dead_deliveries_are_due_again_after_a_replay_and_others_are_left_alone(
    terminal: Terminal, ledger: Ledger
) -> None:
    done, dead = delivery(ledger, DeliveryState.DELIVERED), delivery(ledger, DeliveryState.DEAD)

    assert terminal("webhooks", "replay", "--dead", expect=0).out == "1 delivery is due again now\n"

    due = ledger.deliveries.claim_due(now=utc_now(), owner=OWNER, lease=LEASE, limit=9)
    assert [one.id for one in due] == [dead.id]
    assert (due[0].attempts, due[0].body) == (1, dead.body)
    assert ledger.deliveries.get(done.id) == done
    assert terminal("webhooks", "replay", "--dead", "--json", expect=0).json() == {"replayed": 0, "unknown": []}


def test_a_replay_by_id_takes_delivered_ones_leaves_pending_ones_and_names_unknown_ones(
    terminal: Terminal, ledger: Ledger
) -> None:
    done, pending = delivery(ledger, DeliveryState.DELIVERED), delivery(ledger, DeliveryState.PENDING)

    said = terminal("webhooks", "replay", done.id, pending.id, ABOUT_NOTHING, done.id, expect=1)

    assert said.out.splitlines() == [
        "1 delivery is due again now",
        "not yet delivered or dead, and left as they were: 1",
    ]
    assert f"not in the ledger: {ABOUT_NOTHING}; see `compactor webhooks deliveries" in said.err
    assert ledger.deliveries.get(pending.id) == pending
    again = ledger.deliveries.get(done.id)
    assert again is not None
    assert again.state == DeliveryState.PENDING


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["events", "--state", "odd"], ["--state", "odd", "received"]),
        (["events", "--limit", "0"], ["--limit"]),
        (["deliveries", "--state", "odd"], ["--state", "odd", "dead"]),
        (["replay"], ["ids of deliveries, or --dead"]),
        (["replay", ABOUT_NOTHING, "--dead"], ["ids of deliveries, or --dead"]),
        (["send"], ["--conversation or --agent"]),
        (["send", "--conversation", "conv-1", "--agent", "agent-1"], ["--conversation or --agent"]),
        (["send", "--agent", "agent-1"], ["COMPACTOR_WEBHOOK_SECRETS is not set", "compactor webhooks secret"]),
    ],
    ids=" ".join,
)
def test_wrong_use_is_a_sentence_and_status_2(terminal: Terminal, arguments: list[str], names: list[str]) -> None:
    said = terminal("webhooks", *arguments, expect=2)
    assert not said.out
    assert all(name in said.err for name in names), said.err


@pytest.mark.parametrize("address", ["nonsense", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none_is_refused(terminal: Terminal, address: str) -> None:
    terminal.environment["COMPACTOR_WEBHOOK_SECRETS"] = SECRET
    said = terminal("webhooks", "send", "--agent", "agent-1", "--url", address, expect=2)
    assert "--url is no http:// or https:// address" in said.err


def test_a_door_that_is_not_there_is_a_sentence_without_what_may_be_a_password(terminal: Terminal) -> None:
    terminal.environment["COMPACTOR_WEBHOOK_SECRETS"] = SECRET
    said = terminal("webhooks", "send", "--agent", "agent-1", "--url", f"http://me:{TOKEN}@127.0.0.1:9", expect=1)
    assert "the door at http://127.0.0.1:9/... cannot be reached" in said.err
    assert TOKEN not in said.text
    assert SECRET not in said.text


def test_a_new_secret_is_one_that_the_settings_take_and_each_one_is_another(terminal: Terminal, url: str) -> None:
    said = terminal("webhooks", "secret", expect=0)
    secret = said.out.strip()
    taken_as = settings(url, COMPACTOR_WEBHOOK_SECRETS=secret, COMPACTOR_NOTIFY_SECRET=secret)
    assert [one.get_secret_value() for one in taken_as.webhook_secrets] == [secret]
    assert len(said.err.splitlines()) == 1
    assert "COMPACTOR_WEBHOOK_SECRETS" in said.err
    assert terminal("webhooks", "secret", expect=0).out.strip() != secret


def test_the_doctor_tells_which_keys_are_set_and_never_a_key(url: str) -> None:
    [off] = webhookcheck.door(settings(url))
    assert (off.fine, off.sentence.split(":")[0]) == (True, "off")

    keyed = settings(
        url, STEP_COMPLETE_KEY=TOKEN, COMPACTOR_WEBHOOK_SECRETS=f"{SECRET} {SECRET}", COMPACTOR_WEBHOOK_PORT="9"
    )
    [away] = webhookcheck.door(keyed)

    assert (away.fine, away.needed) == (False, False)
    assert "nobody answers at http://127.0.0.1:9" in away.sentence
    assert "STEP_COMPLETE_KEY, 2 signing secrets" in away.sentence
    assert "python -m scheduler.webhook" in away.remedy
    assert TOKEN not in str(away)
    assert SECRET not in str(away)


def test_the_doctor_finds_events_that_nobody_looks_into(url: str, ledger: Ledger) -> None:
    assert found(webhookcheck.webhooks(settings(url)), "events").fine
    received(ledger, "step-1", ago=timedelta(minutes=50))
    fresh = found(webhookcheck.webhooks(settings(url)), "events")
    assert (fresh.fine, fresh.sentence) == (True, "1 wait for a worker, the oldest for 50m")

    taken(ledger, "step-2", ago=timedelta(hours=3))

    old = found(webhookcheck.webhooks(settings(url)), "events")
    assert (old.fine, old.needed, old.sentence) == (False, True, "2 wait for a worker, the oldest for 3h")
    assert "compactor webhooks events --state received" in old.remedy


def test_the_doctor_finds_dead_deliveries_and_no_others(url: str, ledger: Ledger) -> None:
    delivery(ledger, DeliveryState.PENDING)
    assert found(webhookcheck.webhooks(settings(url)), "deliveries").fine
    delivery(ledger, DeliveryState.DEAD)
    dead = found(webhookcheck.webhooks(settings(url)), "deliveries")
    assert not dead.fine
    assert dead.sentence.startswith("1 are dead")
    assert "compactor webhooks replay --dead" in dead.remedy
    assert TOKEN not in str(dead)

"""A request that is signed and sent to a real door: by `webhooks send`, and as the README shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ops import door, webhookcheck
from tests.acceptance.terminal import Terminal, open_terminal
from tests.integration.ops.test_webhooks_command import NOWHERE, SECRET
from tests.support.network import quiet_port
from tests.support.rows import closed
from tests.support.service import Service, deployed
from tests.unit.docs.generated import README
from tests.unit.docs.markdown import blocks, section
from worker.audit.announcer import Announcer
from worker.audit.events import Event
from worker.audit.ledger import Ledger
from worker.audit.records import State
from worker.clock import utc_now
from worker.settings import Settings

CONVERSATION = "conv-5054fb3c-5b85-4720-8a84-8fa0b0f06c84"
AGENT = "agent-5054fb3c-5b85-4720-8a84-8fa0b0f06c84"
NEW, STRANGE = door.new_secret(), door.new_secret()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("door")
    with deployed(
        folder,
        letta_url=NOWHERE,
        broker_url=redis_server,
        database_url=f"sqlite:///{folder / 'ledger.db'}",
        STEP_COMPLETE_KEY="the-servers-key",
        COMPACTOR_WEBHOOK_SECRETS=f"{SECRET} {NEW}",
        COMPACTOR_WEBHOOK_PORT=str(quiet_port()),
    ) as there:
        there.door()
        yield there


@pytest.fixture(scope="module")
def any_terminal(service: Service) -> Iterator[Terminal]:
    with open_terminal(service.folder, {}) as typed:
        yield typed


@pytest.fixture
def terminal(service: Service, any_terminal: Terminal) -> Terminal:
    ours = ("COMPACTOR_", "LETTA_", "STEP_")
    any_terminal.environment = {name: value for name, value in service.environment.items() if name.startswith(ours)}
    return any_terminal


@pytest.fixture
def elsewhere(service: Service) -> Iterator[str]:
    """Another server, which sends everybody on to the door."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(307)
            self.send_header("Location", f"{door.address(settings(service))}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def latest(service: Service) -> Event:
    with closing(service.ledger()) as ledger:
        return ledger.events.recent(1)[0]


def settings(service: Service) -> Settings:
    return Settings.load(service.environment, directory=service.folder)


def test_a_request_that_was_sent_is_an_event(service: Service, terminal: Terminal) -> None:
    note = "closed the ticket, ü"
    said = terminal("webhooks", "send", "--conversation", CONVERSATION, "--policy", "eager", "--reason", note, expect=0)

    event = latest(service)
    assert f"{event.id} is taken" in said.out
    assert (event.source, event.conversation_id, event.policy, event.note) == ("signed", CONVERSATION, "eager", note)
    assert CONVERSATION in terminal("webhooks", "events", expect=0).out


def test_the_answer_for_programs_is_the_doors_own(service: Service, terminal: Terminal) -> None:
    answer = terminal("webhooks", "send", "--agent", AGENT, "--json", expect=0).json()
    event = latest(service)
    assert answer == {"event_id": event.id, "follow": f"/compactions/{event.id}"}
    assert (event.conversation_id, event.agent_id) == (None, AGENT)


def test_a_door_is_found_by_its_address_with_or_without_the_path(service: Service, terminal: Terminal) -> None:
    where = door.address(settings(service))
    for url in (f"{where}/", f"{where}{door.COMPACTION}"):
        terminal("webhooks", "send", "--agent", AGENT, "--url", url, expect=0, COMPACTOR_WEBHOOK_PORT="9")


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        ([], {"COMPACTOR_WEBHOOK_SECRETS": STRANGE}, "answered 401: it did not take the signature"),
        (["--policy", "nope"], {}, "there is no such policy; there are default, eager"),
        (["--url", "{where}/elsewhere"], {}, "answered 404: there is no such page"),
    ],
    ids=["a strange secret", "an unknown policy", "another page"],
)
def test_a_refusal_is_a_sentence_and_writes_no_event(
    service: Service, terminal: Terminal, arguments: list[str], more: dict[str, str], says: str
) -> None:
    before = latest(service).id
    where = door.address(settings(service))
    arguments = [argument.format(where=where) for argument in arguments]

    said = terminal("webhooks", "send", "--agent", AGENT, *arguments, expect=1, **more)

    assert f"the door at {where}/... " in said.err
    assert says in said.err
    assert all(secret not in said.text for secret in (SECRET, NEW, STRANGE))
    assert latest(service).id == before


def test_a_secret_that_is_being_rotated_in_signs_as_well_as_the_old_one(service: Service, terminal: Terminal) -> None:
    terminal("webhooks", "send", "--agent", AGENT, expect=0, COMPACTOR_WEBHOOK_SECRETS=NEW)


def test_a_redirect_is_not_followed(service: Service, terminal: Terminal, elsewhere: str) -> None:
    before = latest(service).id
    said = terminal("webhooks", "send", "--agent", AGENT, "--url", elsewhere, expect=1)
    assert "answered 307: that is not what a door answers" in said.err
    assert latest(service).id == before


def test_the_doctor_says_where_the_door_is_and_which_keys_it_has(service: Service) -> None:
    [there] = webhookcheck.door(settings(service))
    assert there.fine
    assert there.sentence == f"{door.address(settings(service))} answers; set: STEP_COMPLETE_KEY, 2 signing secrets"


def test_the_doctor_is_not_taken_in_by_another_server_on_the_doors_port(service: Service, elsewhere: str) -> None:
    port = elsewhere.rpartition(":")[2]
    [other] = webhookcheck.door(settings(service).with_values({"COMPACTOR_WEBHOOK_PORT": port}))
    assert not other.fine
    assert "is not the door" in other.sentence


def test_the_example_in_the_readme_is_taken(service: Service) -> None:
    [example] = blocks(section(README.read_text(encoding="utf-8"), "From anyone else"), "python")
    port = service.environment["COMPACTOR_WEBHOOK_PORT"]
    done = subprocess.run(
        [sys.executable, "-c", example.replace(":8484/", f":{port}/")],
        env=os.environ | {"CONVERSATION": CONVERSATION, "SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert latest(service).id in done.stdout


def test_the_body_in_the_readme_has_what_an_outgoing_webhook_has(service: Service) -> None:
    [example] = blocks(section(README.read_text(encoding="utf-8"), "To others"), "json")
    with closing(Ledger.open(service.database_url, Announcer(("http://127.0.0.1:9/",)))) as ledger:
        closed(ledger, State.SUCCEEDED, now=utc_now())
        real = json.loads(ledger.deliveries.recent(1)[0].body)
    shown = json.loads(example)
    assert set(shown) == set(real)
    assert set(shown["data"]) == set(real["data"])
    assert {name for name, value in shown["data"].items() if isinstance(value, list)} == {
        name for name, value in real["data"].items() if isinstance(value, list)
    }

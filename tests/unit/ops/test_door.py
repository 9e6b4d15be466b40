"""The door as an operator sees it, and its place among the processes of one machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ops import door
from ops.broker import choose_broker
from ops.children import Site, children
from ops.process import Child
from worker.settings import Settings

SECRET = door.new_secret()
KEYS = {"STEP_COMPLETE_KEY": "the-servers-key", "COMPACTOR_WEBHOOK_SECRETS": SECRET}
USUAL_PORT = 8484


@pytest.fixture
def usual_port_is_taken() -> Iterator[None]:
    with suppress(OSError), socket.create_server(("127.0.0.1", USUAL_PORT)):
        yield
        return
    yield  # by somebody else, which is as good


def settings(**given: str) -> Settings:
    return Settings.model_validate({"COMPACTOR_STATE_DIR": "none", **given})


def started(folder: Path, *, sandbox: bool, stays: bool = True, **given: str) -> list[Child]:
    letta, broker_url = "http://127.0.0.1:9", "redis://127.0.0.1:9/0"
    read = settings(LETTA_BASE_URL=letta, COMPACTOR_BROKER_URL=broker_url, **given)
    database = folder / "sandbox.db" if sandbox else None
    broker = choose_broker(broker_url, folder)
    return children(Site(read, broker, read.environment(), database, stays=stays))


def test_it_opens_after_the_worker_and_closes_before_it_and_after_beat(tmp_path: Path) -> None:
    names = [child.name for child in started(tmp_path, sandbox=True, **KEYS)]
    assert [name for name in names if name != "flower"] == ["sandbox", "worker", "door", "beat"]


@pytest.mark.parametrize(
    ("given", "opens"),
    [
        ({}, False),
        ({"STEP_COMPLETE_KEY": "the-servers-key"}, True),
        ({"COMPACTOR_WEBHOOK_SECRETS": SECRET}, True),
        ({"COMPACTOR_WEBHOOK_OPEN": "true"}, True),
    ],
    ids=["nothing", "the server's key", "a secret", "open"],
)
def test_it_opens_where_anything_is_set_that_it_could_let_in(
    tmp_path: Path, given: dict[str, str], *, opens: bool
) -> None:
    assert ("door" in {child.name for child in started(tmp_path, sandbox=False, **given)}) is opens


def test_the_sandbox_is_told_where_the_door_is_and_which_key_it_takes(tmp_path: Path) -> None:
    given = KEYS | {"COMPACTOR_WEBHOOK_HOST": "0.0.0.0", "COMPACTOR_WEBHOOK_PORT": "8500"}  # noqa: S104
    [sandbox] = [child for child in started(tmp_path, sandbox=True, **given) if child.name == "sandbox"]
    assert sandbox.env == {
        "STEP_COMPLETE_WEBHOOK": "http://127.0.0.1:8500/webhooks/letta/step-complete",
        "STEP_COMPLETE_KEY": "the-servers-key",
    }


def test_a_process_that_is_not_the_door_does_not_make_it_ready(tmp_path: Path) -> None:
    [opening] = [
        child for child in started(tmp_path, sandbox=False, COMPACTOR_WEBHOOK_PORT="9", **KEYS) if child.name == "door"
    ]
    assert opening.ready is not None
    with pytest.raises(door.DoorUnreachable):
        opening.ready()


def test_beside_a_sandbox_it_gets_the_keys_that_are_missing() -> None:
    chosen = door.for_a_trial(settings(COMPACTOR_WEBHOOK_PORT="8500"))
    assert set(chosen) == set(KEYS)
    assert settings(**chosen).webhook_secrets
    assert len(chosen["STEP_COMPLETE_KEY"]) >= door.KEY_BYTES
    assert door.for_a_trial(settings(COMPACTOR_WEBHOOK_PORT="8500")) != chosen


def test_beside_a_sandbox_it_keeps_the_keys_that_are_set() -> None:
    assert door.for_a_trial(settings(COMPACTOR_WEBHOOK_PORT="8500", **KEYS)) == {}


@pytest.mark.usefixtures("usual_port_is_taken")
def test_beside_a_sandbox_it_moves_where_the_usual_port_is_taken() -> None:
    moved = settings(**door.for_a_trial(settings(**KEYS)))
    assert moved.webhook_port != USUAL_PORT
    socket.create_server(("127.0.0.1", moved.webhook_port)).close()


@pytest.mark.usefixtures("usual_port_is_taken")
def test_a_port_that_was_asked_for_is_kept_even_where_it_is_taken() -> None:
    assert door.for_a_trial(settings(COMPACTOR_WEBHOOK_PORT=str(USUAL_PORT), **KEYS)) == {}


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1", "http://127.0.0.1:8500"),
        ("0.0.0.0", "http://127.0.0.1:8500"),  # noqa: S104
        ("::", "http://[::1]:8500"),
        ("compactor.internal", "http://compactor.internal:8500"),
    ],
)
def test_its_address_is_one_that_can_be_reached_from_here(host: str, found: str) -> None:
    assert door.address(settings(COMPACTOR_WEBHOOK_HOST=host, COMPACTOR_WEBHOOK_PORT="8500")) == found


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "no key"),
        (KEYS, "STEP_COMPLETE_KEY, 1 signing secret"),
        ({"COMPACTOR_WEBHOOK_SECRETS": f"{SECRET} {SECRET}"}, "2 signing secrets"),
        ({"COMPACTOR_WEBHOOK_OPEN": "true"}, "open to this machine without a key"),
    ],
    ids=["none", "both", "two secrets", "open"],
)
def test_its_keys_are_counted_and_never_shown(given: dict[str, str], told: str) -> None:
    assert door.keys(settings(**given)) == told

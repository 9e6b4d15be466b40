"""The door as an operator runs it: killed under load, without its broker, without its database, told to stop."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import redis
from kombu.transport.redis import Channel
from psycopg import sql
from sqlalchemy.engine import URL

from tests.faults.servers import OwnRedis
from tests.support.door import NOBODY, RunningDoor, running_door
from tests.support.postgres import admin_of, own_database
from tests.support.service import deployed, wait_until
from tests.support.signing import BEARER, COMPACTION, KEYS, STEP_COMPLETE, new_id, signed
from worker.broker import IN_BULK
from worker.names import SCAN_QUEUE

SENDERS = 8
PATIENCE = 60.0
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused


class Load:
    """Senders that go on until they are told to stop; `taken` holds the events of every 202 that they saw."""

    def __init__(self, door: RunningDoor) -> None:
        self.taken: dict[str, str] = {}
        self.others: set[int] = set()
        self._door, self._over = door, threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with self._door.http() as http:
            while not self._over.is_set():
                step_id = new_id("step")
                try:
                    answer = http.post(STEP_COMPLETE, json={"step_id": step_id}, headers=BEARER)
                except httpx.TransportError:
                    self._over.wait(0.02)
                    continue
                if answer.status_code == 202:
                    self.taken[step_id] = answer.json()["event_id"]
                else:
                    self.others.add(answer.status_code)


def kept(door: RunningDoor) -> dict[str, str]:
    """What stands in the ledger: each event's key and id."""
    ledger = door.service.ledger()
    try:
        return {event.key: event.id for event in ledger.events.recent(1_000_000)}
    finally:
        ledger.close()


def enqueued(door: RunningDoor) -> bool:
    """Whether every event has been handed on."""
    ledger = door.service.ledger()
    try:
        events = ledger.events.recent(1_000_000)
        return bool(events) and all(event.enqueued_at is not None for event in events)
    finally:
        ledger.close()


def handed_on(broker: redis.Redis) -> set[str]:
    """The ids in the messages that wait in the broker."""
    waiting = f"compactor:{SCAN_QUEUE}{Channel.sep}{IN_BULK}"
    messages = [json.loads(message) for message in broker.lrange(waiting, 0, -1)]
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    return {event_id for body in bodies for event_id in body[0][0]}


def send(door: RunningDoor, http: httpx.Client) -> httpx.Response:
    return http.post(STEP_COMPLETE, json={"step_id": new_id("step")}, headers=BEARER)


def test_what_was_answered_202_is_in_the_ledger_however_often_the_door_is_killed(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    with running_door(tmp_path, broker_url=redis_url, database_url=database_url) as door:
        with Load(door) as load:
            for _ in range(3):
                seen = len(load.taken)
                wait_until(lambda seen=seen: len(load.taken) >= seen + 150, PATIENCE, door.service.logs)  # type: ignore[misc]
                door.process.kill()
                door.restart()
            seen = len(load.taken)
            wait_until(lambda: len(load.taken) > seen, PATIENCE, door.service.logs)
        in_ledger = kept(door)
        assert not {step: event for step, event in load.taken.items() if in_ledger.get(step) != event}
        assert not load.others
        assert "Traceback" not in door.service.logs()


def test_told_to_stop_it_answers_what_is_under_way_and_hands_on_what_is_committed(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    with running_door(tmp_path, broker_url=redis_url, database_url=database_url) as door:
        with Load(door) as load:
            wait_until(lambda: len(load.taken) >= 200, PATIENCE, door.service.logs)
            assert door.process.stop() == 0
        in_ledger = kept(door)
        assert in_ledger == load.taken
        assert not load.others
        with redis.Redis.from_url(redis_url) as client:
            assert handed_on(client) == set(in_ledger.values())
        assert "Traceback" not in door.service.logs()


def test_without_a_broker_events_are_taken_and_they_are_handed_on_when_it_is_back(
    sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "redis").mkdir()
    broker = OwnRedis(tmp_path / "redis")
    try:
        with running_door(tmp_path, broker_url=broker.url, database_url=sqlite_url) as door, door.http() as http:
            taken = [send(door, http) for _ in range(20)]
            assert {answer.status_code for answer in taken} == {202}
            assert http.get("/readyz").json() == {"status": "here", "database": "here", "broker": "away"}
            broker.start()
            wait_until(lambda: enqueued(door), PATIENCE, door.service.logs)
            with broker.client() as client:
                assert handed_on(client) == {answer.json()["event_id"] for answer in taken}
            wait_until(lambda: http.get("/readyz").json()["broker"] == "here", PATIENCE, door.service.logs)
            assert "Traceback" not in door.service.logs()
    finally:
        broker.close()


def test_without_its_database_it_says_when_to_come_again_and_comes_back_by_itself(
    postgres_server: URL, redis_url: str, tmp_path: Path
) -> None:
    with own_database(postgres_server) as database:
        url = database.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        name = sql.Identifier(str(database.database))
        with running_door(tmp_path, broker_url=redis_url, database_url=url) as door, door.http() as http:
            assert send(door, http).status_code == 202
            assert http.get("/readyz").status_code == 200
            with admin_of(postgres_server) as admin:
                admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database.database]
                )
                for _ in range(3):
                    answer = send(door, http)
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                body = b'{"agent_id": "%s"}' % new_id("agent").encode()
                assert http.post(COMPACTION, content=body, headers=signed(body)).status_code == 503
                assert http.get(f"/compactions/{new_id('evt')}", headers=BEARER).status_code == 503
                wait_until(lambda: http.get("/readyz").status_code == 503, PATIENCE, door.service.logs)
                assert http.get("/healthz").status_code == 200
                admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
            wait_until(lambda: send(door, http).status_code == 202, PATIENCE, door.service.logs)
            wait_until(lambda: http.get("/readyz").status_code == 200, PATIENCE, door.service.logs)
            assert "Traceback" not in door.service.logs()
            assert door.service.logs().count("are answered 503 until") == 1


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"STEP_COMPLETE_KEY": "", "COMPACTOR_WEBHOOK_SECRETS": ""}, "neither STEP_COMPLETE_KEY nor"),
        ({"COMPACTOR_WEBHOOK_OPEN": "true", "COMPACTOR_WEBHOOK_HOST": EVERYWHERE}, "0.0.0.0 is not loopback"),
        ({"COMPACTOR_WEBHOOK_HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1 port"),
        ({"COMPACTOR_WEBHOOK_SECRETS": "whsec_short"}, "COMPACTOR_WEBHOOK_SECRETS"),
        ({"COMPACTOR_BROKER_URL": ""}, "COMPACTOR_BROKER_URL is not set"),
        ({"COMPACTOR_POLICY_FILE": "none.toml"}, "there is no such file"),
        ({"COMPACTOR_DATABASE_URL": "sqlite:///empty.db"}, "has no schema yet"),
    ],
)
def test_what_it_cannot_run_on_is_told_in_a_sentence_and_ends_it_with_status_2(
    sqlite_url: str, tmp_path: Path, settings: dict[str, str], why: str
) -> None:
    with deployed(
        tmp_path, letta_url=NOBODY, broker_url="redis://127.0.0.1:9/0", database_url=sqlite_url, **KEYS
    ) as service:
        done = subprocess.run(
            [sys.executable, "-m", "scheduler.webhook"],
            env=service.environment | settings,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert all(line.startswith("compactor: ") for line in done.stderr.splitlines())
    assert not any(secret in done.stderr for secret in (*KEYS.values(), "whsec_short"))


def test_a_port_that_is_taken_is_told_in_a_sentence(redis_url: str, sqlite_url: str, tmp_path: Path) -> None:
    with (
        running_door(tmp_path, broker_url=redis_url, database_url=sqlite_url) as door,
        pytest.raises(AssertionError, match=r"ended with 2 before it was ready:\ncompactor: the door cannot listen"),
    ):
        door.service.door()


def test_a_head_without_an_end_is_cut_off(redis_url: str, sqlite_url: str, tmp_path: Path) -> None:
    with running_door(tmp_path, broker_url=redis_url, database_url=sqlite_url) as door:
        host, port = door.base_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as line:
            line.sendall(b"POST /webhooks/compaction HTTP/1.1\r\nHost: x\r\nx-long: ")
            with pytest.raises(ConnectionError):
                line.sendall(b"a" * 10_000_000)
        with socket.create_connection((host, int(port)), timeout=30) as silent:
            assert silent.recv(100) == b""
        with door.http() as http:
            assert send(door, http).status_code == 202


@pytest.mark.parametrize(
    ("request_", "remainder"),
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n", id="a line break after an answer"),
        pytest.param(
            b"POST /webhooks/compaction HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{",
            b"x",
            id="a body after its refusal",
        ),
    ],
)
def test_a_connection_is_not_kept_for_what_is_no_request(
    redis_url: str, sqlite_url: str, tmp_path: Path, request_: bytes, remainder: bytes
) -> None:
    with running_door(tmp_path, broker_url=redis_url, database_url=sqlite_url) as door:
        host, port = door.base_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as line:
            line.sendall(request_)
            assert line.recv(10_000).startswith(b"HTTP/1.1 ")
            line.sendall(remainder)
            while line.recv(10_000):
                pass

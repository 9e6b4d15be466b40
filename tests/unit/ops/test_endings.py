"""How a supervisor in a process of its own ends: by signals, and by being killed outright."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.guardian import read_children

DRIVER = """
import json, sys, time
from pathlib import Path
from ops.childlog import ChildLog
from ops.process import Child
from ops.supervisor import Supervisor, log_names

folder, waiting, specs = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
journal = folder / "journal"

def started(name):
    return lambda: f"start {name}" in journal.read_text()

children = [Child(s["name"], s["argv"], grace=s["grace"], ready=started(s["name"])) for s in specs]
supervisor = Supervisor(children, ChildLog(folder / "log", log_names(children)))
try:
    with supervisor:
        pids = {"guardian": supervisor._guardian.pid} | {one.name: one.pid for one in supervisor.status()}
        (folder / "pids.new").write_text(json.dumps(pids))
        (folder / "pids.new").rename(folder / "pids")
        if waiting == "wait":
            supervisor.wait()
        else:
            time.sleep(600)
except KeyboardInterrupt:
    print("KeyboardInterrupt", end=" ")
print(supervisor.interrupted_by.name)
"""

SLOW_TO_END = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.5), print("gave all back"), sys.exit(0)))
open({journal!r}, "a").write("start worker\\n")
while True: time.sleep(60)
"""


class Driver:
    """A process that supervises the children."""

    def __init__(self, workshop, children, waiting="wait", preexec=()):
        self.folder = workshop.folder
        specs = [{"name": child.name, "argv": list(child.argv), "grace": child.grace} for child in children]
        argv = [*preexec, sys.executable, "-c", DRIVER, str(self.folder), waiting, json.dumps(specs)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def pids(self) -> dict[str, int]:
        path: Path = self.folder / "pids"
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            assert self.process.poll() is None
            time.sleep(0.02)
        return json.loads(path.read_text())

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def ends(self) -> str:
        return self.process.communicate(timeout=20)[0].strip()


@pytest.fixture
def drive(workshop) -> Iterator[object]:
    drivers = []

    def start(*children, **options) -> Driver:
        drivers.append(Driver(workshop, children, **options))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.process.kill()
        driver.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_of_the_three_signals_leads_to_the_orderly_stop(workshop, drive, gone, number):
    driver = drive(workshop.obedient("broker"), workshop.obedient("worker"))
    pids = driver.pids()
    driver.send(number)
    assert driver.ends() == number.name
    assert workshop.journal()[2:] == ["stop worker", "stop broker"]
    assert all(gone(pid, 0.5) for pid in pids.values())


def test_a_signal_ends_other_code_in_the_block_with_a_keyboard_interrupt_after_which_all_are_stopped(
    workshop, drive, gone
):
    driver = drive(workshop.obedient("worker"), waiting="sleep")
    pids = driver.pids()
    driver.send(signal.SIGTERM)
    assert driver.ends() == "KeyboardInterrupt SIGTERM"
    assert all(gone(pid, 0.5) for pid in pids.values())


def test_a_signal_during_the_start_stops_what_was_started(workshop, drive):
    never_ready = workshop.child("slow", "import time; time.sleep(600)", grace=5)
    driver = drive(workshop.obedient("broker"), never_ready)
    deadline = time.monotonic() + 20
    while not workshop.written("start broker")() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    driver.send(signal.SIGINT)
    assert driver.ends() == "KeyboardInterrupt SIGINT"
    assert workshop.journal() == ["start broker", "stop broker"]


def test_a_second_ctrl_c_hurries_the_stop(workshop, drive, gone):
    driver = drive(workshop.stubborn("stubborn", grace=300))
    pids = driver.pids()
    driver.send(signal.SIGINT)
    time.sleep(0.8)
    assert driver.process.poll() is None
    driver.send(signal.SIGINT)
    assert driver.ends() == "SIGINT"
    assert all(gone(pid, 0.5) for pid in pids.values())
    assert workshop.lines("up")[-2] == "stubborn did not end at once"


def test_two_signals_at_the_same_time_are_one_wish(workshop, drive):
    driver = drive(workshop.child("worker", SLOW_TO_END.format(journal=str(workshop.journal_path)), grace=20))
    driver.pids()
    driver.send(signal.SIGINT)
    driver.send(signal.SIGTERM)
    driver.ends()
    assert workshop.lines("worker") == ["gave all back"]


def test_a_supervisor_under_nohup_survives_the_terminal(workshop, drive):
    driver = drive(workshop.obedient("worker"), preexec=("nohup",))
    driver.pids()
    driver.send(signal.SIGHUP)
    time.sleep(0.5)
    assert driver.process.poll() is None
    driver.send(signal.SIGTERM)
    assert driver.ends().endswith("SIGTERM")


def test_a_supervisor_killed_outright_leaves_no_process_and_they_still_end_in_reverse_order(workshop, drive, gone):
    children = [workshop.obedient("broker"), workshop.stubborn("stubborn", grace=0.5), workshop.obedient("beat")]
    driver = drive(*children)
    pids = driver.pids()
    driver.send(signal.SIGKILL)
    grandchild = int(next(line for line in workshop.journal() if line.startswith("pid")).split()[1])
    assert all(gone(pid, 10) for pid in [*pids.values(), grandchild])
    assert workshop.journal()[-2:] == ["stop beat", "stop broker"]


def test_a_guardian_killed_by_somebody_is_replaced_and_still_knows_the_children(workshop, drive, gone):
    driver = drive(workshop.obedient("worker"))
    pids = driver.pids()
    os.kill(pids["guardian"], signal.SIGKILL)
    time.sleep(0.5)
    driver.send(signal.SIGKILL)
    assert gone(pids["worker"], 10)


def test_a_guardian_does_not_listen_to_the_signals_that_end_others(workshop, drive, gone):
    driver = drive(workshop.obedient("worker"))
    pids = driver.pids()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pids["guardian"], number)
    assert not gone(pids["guardian"], 0.3)
    driver.send(signal.SIGTERM)
    driver.ends()
    assert gone(pids["guardian"], 1)


def test_the_guardians_notes_leave_what_was_not_crossed_out():
    assert read_children(["+10 5.0\n", "+11 2.5\n", "-10\n", "+12 1\n", "-99\n"]) == {11: 2.5, 12: 1.0}

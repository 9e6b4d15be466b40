import os
import re
import signal
import time

import pytest

from ops.process import Child
from ops.supervisor import Backoff, State, SupervisorError, log_names


def test_children_start_in_order_each_when_the_one_before_is_ready(workshop):
    first_is_ready_at = []

    def ready():
        if not workshop.written("start first")() or "start second" in workshop.journal():
            return False
        first_is_ready_at.append(workshop.journal())
        return True

    children = [
        workshop.obedient("first", ready=ready),
        workshop.obedient("second", ready=workshop.written("start second")),
    ]
    with workshop.supervisor(*children):
        assert workshop.journal() == ["start first", "start second"]
    assert first_is_ready_at == [["start first"]]


def test_children_stop_in_reverse_order(workshop):
    names = ["broker", "worker", "beat"]
    with workshop.supervisor(*(workshop.obedient(name, ready=workshop.written(f"start {name}")) for name in names)):
        pass
    assert workshop.journal()[3:] == ["stop beat", "stop worker", "stop broker"]
    assert workshop.lines("up")[3:] == [f"{name} ended with exit code 0" for name in reversed(names)]


def test_a_child_that_never_gets_ready_is_an_error_with_its_last_lines_and_the_others_are_stopped(workshop, gone):
    def never():
        raise ConnectionError("connection refused")

    slow = workshop.child(
        "slow", "print('cannot bind: in use')\nimport time; time.sleep(60)", ready=never, ready_within=0.5
    )
    supervisor = workshop.supervisor(workshop.obedient("first", ready=workshop.written("start first")), slow)
    with pytest.raises(SupervisorError) as caught, supervisor:
        pass
    assert str(caught.value) == (
        "slow was not ready within 0.5 s (connection refused). Its last lines:\n  cannot bind: in use"
    )
    assert workshop.journal() == ["start first", "stop first"]
    assert {one.state for one in supervisor.status()} == {State.STOPPED}


def test_a_child_that_dies_before_it_is_ready_is_an_error_at_once_with_its_exit_code(workshop):
    dying = workshop.child("dying", "print('no such policy'); raise SystemExit(3)", ready=lambda: False)
    began = time.monotonic()
    with pytest.raises(SupervisorError) as caught, workshop.supervisor(dying):
        pass
    assert str(caught.value) == "dying ended with exit code 3 before it was ready. Its last lines:\n  no such policy"
    assert time.monotonic() - began < 5


def test_a_program_that_does_not_exist_is_an_error_that_names_it(workshop):
    missing = Child("worker", ("no-such-program-here",))
    with pytest.raises(SupervisorError, match=r"^worker could not be started: no-such-program-here: No such file"):
        workshop.supervisor(missing).__enter__()


def test_what_dies_is_started_again_with_a_growing_delay_and_its_exit_code_is_said(workshop):
    crashing = workshop.child("crashing", "raise SystemExit(7)")
    with workshop.supervisor(crashing) as supervisor:
        assert supervisor.run_until(lambda: supervisor.status()[0].restarts >= 5, timeout=20)
    said = [line for line in workshop.lines("up") if "starting it again" in line]
    assert all(line.startswith("crashing ended with exit code 7 after 0 s") for line in said)
    delays = [float(re.search(r"in ([\d.]+) s$", line)[1]) for line in said]
    assert delays[:5] == [0.05, 0.1, 0.2, 0.4, 0.4]


def test_a_child_killed_from_outside_runs_again_under_a_new_pid(workshop):
    with workshop.supervisor(workshop.obedient("one", ready=workshop.written("start one"))) as supervisor:
        before = supervisor.status()[0]
        kill_hard(before.pid)

        def back() -> bool:
            now = supervisor.status()[0]
            return now.state is State.RUNNING and now.restarts == 1

        assert supervisor.run_until(back, timeout=20)
        after = supervisor.status()[0]
    assert after.pid not in {None, before.pid}
    assert "one was killed by SIGKILL after 0 s; starting it again in 0.05 s" in workshop.lines("up")


def test_a_child_that_need_not_come_back_stays_dead(workshop):
    with workshop.supervisor(workshop.child("once", "print('done')", restart=False)) as supervisor:
        assert supervisor.run_until(lambda: supervisor.status()[0].state is State.DEAD, timeout=20)
        status = supervisor.status()[0]
    assert (status.pid, status.uptime, status.restarts) == (None, 0.0, 0)


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace_with_its_grandchildren(workshop, gone):
    child = workshop.stubborn("stubborn", grace=0.4, ready=lambda: any("pid" in line for line in workshop.journal()))
    with workshop.supervisor(child) as supervisor:
        pid = supervisor.status()[0].pid
        began = time.monotonic()
    took = time.monotonic() - began
    assert 0.4 <= took < 5
    grandchild = int(workshop.journal()[1].split()[1])
    assert gone(pid, 0)
    assert gone(grandchild, 2)
    assert workshop.lines("up")[-2:] == ["stubborn did not end in 0.4 s", "stubborn was killed by SIGKILL"]


def test_a_grandchild_does_not_outlive_its_parent_that_was_killed(workshop, gone):
    child = workshop.stubborn("parent", ready=lambda: any("pid" in line for line in workshop.journal()), grace=0.1)
    with workshop.supervisor(child, backoff=Backoff(first=60)) as supervisor:
        grandchild = int(workshop.journal()[1].split()[1])
        kill_hard(supervisor.status()[0].pid)
        assert gone(grandchild, 5)


def test_run_until_gives_up_after_its_time(workshop):
    with workshop.supervisor() as supervisor:
        assert not supervisor.run_until(lambda: False, timeout=0.2)
        assert supervisor.interrupted_by is None


def test_an_exception_in_the_block_stops_the_children_and_passes_through(workshop, gone):
    supervisor = workshop.supervisor(workshop.obedient("one", ready=workshop.written("start one")))
    pids = []

    def fail() -> None:
        pids.append(supervisor.status()[0].pid)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), supervisor:
        fail()
    assert gone(pids[0], 0)


def test_the_environment_is_added_to_and_not_replaced(workshop, monkeypatch):
    monkeypatch.setenv("FROM_OUTSIDE", "kept")
    script = "import os; print(os.environ['FROM_OUTSIDE'], os.environ['ADDED'])"
    with workshop.supervisor(workshop.child("env", script, env={"ADDED": "too"}, restart=False)) as supervisor:
        supervisor.run_until(lambda: supervisor.status()[0].state is State.DEAD, timeout=20)
    assert workshop.lines("env") == ["kept too"]


def test_the_environment_of_a_child_is_in_no_repr():
    assert "hunter2" not in repr(Child("worker", ("x",), env={"LETTA_API_KEY": "hunter2"}))


def test_the_status_table_shows_every_child(workshop):
    with workshop.supervisor(workshop.obedient("one"), workshop.obedient("two")) as supervisor:
        table = supervisor.status_table()
    assert list(table.columns[0].cells) == ["one", "two"]
    assert table.row_count == 2


def test_two_children_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two processes of one name among: up, a, a"):
        log_names([Child("a", ("x",)), Child("a", ("y",))])


@pytest.mark.parametrize(
    ("previous", "lived", "delay"), [(0, 0, 1), (1, 0.2, 2), (2, 59, 4), (16, 1, 30), (30, 1, 30), (30, 60, 1)]
)
def test_the_delay_doubles_up_to_half_a_minute_and_starts_over_after_a_minute_of_life(previous, lived, delay):
    assert Backoff().after(previous, lived) == delay


def kill_hard(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)

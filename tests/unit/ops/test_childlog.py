import io

import pytest
from rich.console import Console

from ops import childlog
from ops.childlog import ChildLog
from ops.supervisor import State


def test_the_lines_of_two_chatty_children_stay_whole(workshop):
    script = (
        "import sys\nfor n in range(2000):\n  sys.stdout.write(f'{who} {{n}} '); sys.stdout.write('x' * 80 + chr(10))"
    )
    chatty = [workshop.child(who, script.format(who=who), restart=False) for who in ("left", "right")]
    screen = io.StringIO()
    supervisor = workshop.supervisor(*chatty)
    workshop.log._console = Console(file=screen, width=40)
    with supervisor:
        assert supervisor.run_until(lambda: all(one.state is State.DEAD for one in supervisor.status()), timeout=30)
    expected = {who: [f"{who} {n} {'x' * 80}" for n in range(2000)] for who in ("left", "right")}
    assert {who: workshop.lines(who) for who in expected} == expected
    shown = screen.getvalue().splitlines()
    for who, lines in expected.items():
        assert [line for line in shown if line.startswith(who)] == [f"{who:<5} | {line}" for line in lines]


def test_the_name_has_a_colour_on_a_terminal_and_none_elsewhere(tmp_path):
    screens = {terminal: io.StringIO() for terminal in (True, False)}
    for terminal, screen in screens.items():
        console = Console(file=screen, force_terminal=terminal, color_system="standard" if terminal else None)
        log = ChildLog(tmp_path, ["beat", "worker"], console)
        log.write("beat", "tick [bold]42[/bold]")
        log.close()
    assert screens[False].getvalue() == "beat   | tick [bold]42[/bold]\n"
    assert screens[True].getvalue() == "\x1b[36mbeat   | \x1b[0mtick [bold]42[/bold]\n"


def test_control_sequences_of_a_child_do_not_reach_the_terminal(tmp_path):
    screen = io.StringIO()
    log = ChildLog(tmp_path, ["worker"], Console(file=screen))
    log.write("worker", "title \x1b]0;owned\x07 \x1b[2J \x9b2J\ttab")
    log.close()
    assert not set("\x1b\x07\x9b") & set(screen.getvalue())
    assert "[2J" in screen.getvalue()


def test_a_file_is_emptied_at_the_start_and_stamped_with_the_time(tmp_path):
    for text in ("yesterday", "today"):
        log = ChildLog(tmp_path, ["worker"])
        log.write("worker", text)
        log.close()
    content = (tmp_path / "worker.log").read_text()
    assert content.endswith(" today\n")
    assert content.count("\n") == 1
    assert content[:2] == "20"


def test_a_file_that_grew_too_large_is_rotated_once(tmp_path, monkeypatch):
    monkeypatch.setattr(childlog, "MAX_FILE_BYTES", 1000)
    log = ChildLog(tmp_path, ["worker"])
    for number in range(200):
        log.write("worker", f"line {number}")
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["worker.log", "worker.log.1"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert "line 199" in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("closed file")])
def test_a_terminal_that_went_away_stops_nobody(tmp_path, error, capsys):
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise error

    log = ChildLog(tmp_path, ["worker"], Console(file=Gone()))
    log._console.on_broken_pipe = lambda: (_ for _ in ()).throw(SystemExit(1))  # as rich's, but leaves pytest's stdout
    log.write("worker", "first")
    log.write("worker", "second")
    log.close()
    assert (tmp_path / "worker.log").read_text().count("\n") == 2


@pytest.mark.skipif(not childlog.Path("/dev/full").exists(), reason="needs /dev/full (Linux)")
def test_a_full_disk_stops_nobody_and_prints_no_traceback(tmp_path, capfd):
    (tmp_path / "worker.log").symlink_to("/dev/full")
    log = ChildLog(tmp_path, ["worker"])
    log.write("worker", "lost")
    log.close()
    assert capfd.readouterr() == ("", "")
    assert log.tail("worker") == ["lost"]


def test_the_tail_holds_the_last_lines_only(tmp_path):
    log = ChildLog(tmp_path, ["worker"])
    for number in range(100):
        log.write("worker", str(number))
    log.close()
    assert log.tail("worker") == [str(number) for number in range(100 - childlog.TAIL_LINES, 100)]


def test_a_line_without_an_end_is_cut_and_nothing_of_it_is_lost(workshop):
    with workshop.supervisor(workshop.child("long", "print('y' * 200_000, end='')", restart=False)) as supervisor:
        supervisor.run_until(lambda: supervisor.status()[0].state is State.DEAD, timeout=20)
    assert sum(map(len, workshop.lines("long"))) == 200_000
    assert max(map(len, workshop.lines("long"))) == 65_536


def test_bytes_that_are_no_text_are_shown_as_such(workshop):
    script = "import sys; sys.stdout.buffer.write(b'caf\\xe9\\r\\n')"
    with workshop.supervisor(workshop.child("odd", script, restart=False)) as supervisor:
        supervisor.run_until(lambda: supervisor.status()[0].state is State.DEAD, timeout=20)
    assert workshop.lines("odd") == ["caf\N{REPLACEMENT CHARACTER}"]

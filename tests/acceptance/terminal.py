"""A terminal to type many commands into: the real command line in processes of its own, without its start-up each time.

One process imports the command line once and forks for each command, so that a command has its own environment, its own
output and its own end, and costs a fraction of a second instead of seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]

OURS = ("COMPACTOR_", "LETTA_", "STEP_COMPLETE_")

SECONDS = 120
"""How long any one command may take."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    command: str
    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.out + self.err

    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        try:
            return json.loads(self.out)
        except ValueError:
            raise AssertionError(f"{self.command} did not print JSON alone:\n{self.out[:2000]}") from None


class Terminal:
    """Types commands. environment: what every one of them runs with, until a command says otherwise."""

    def __init__(self, process: subprocess.Popen[str], environment: Mapping[str, str]) -> None:
        self._process = process
        self.environment = dict(environment)

    def __call__(self, *arguments: str, expect: int | None = None, **more: str) -> Said:
        """Run `compactor` with these arguments. more: variables for this command; an empty one is unset.

        Whatever it ends with, a traceback in what it prints is an AssertionError.
        """
        environment = {name: value for name, value in (self.environment | more).items() if value}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, environment]) + "\n")
        self._process.stdin.flush()
        said = Said(f"compactor {' '.join(arguments)}", **json.loads(self._process.stdout.readline()))
        assert "Traceback" not in said.text, f"{said.command} showed a traceback:\n{said.text}"
        if expect is not None:
            assert said.status == expect, f"{said.command} ended with {said.status}, not {expect}:\n{said.text}"
        return said


@contextmanager
def open_terminal(folder: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Open a terminal in a folder; it closes with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.terminal"],
        cwd=folder,
        env=bare_environment() | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Terminal(process, environment)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        process.wait(SECONDS)


def bare_environment() -> dict[str, str]:
    """Give the environment without anything that the service reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def _serve() -> None:
    from ops.cli import main  # noqa: PLC0415 - the import is what this process saves the others

    for line in sys.stdin:
        arguments, environment = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                _become(main, arguments, environment, out.fileno(), err.fileno())
            _, status = os.waitpid(child, 0)
            answer = {"status": os.waitstatus_to_exitcode(status), "out": _whole(out), "err": _whole(err)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _whole(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def _become(main: Any, arguments: list[str], environment: dict[str, str], out: int, err: int) -> NoReturn:
    """Turn the forked process into the command, as a shell would have started it."""
    signal.alarm(SECONDS)
    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ.update(environment)
        sys.argv = ["compactor", *arguments]
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as the interpreter itself would
        traceback.print_exc()
    finally:
        # What the interpreter does at its end: a thread that was left behind holds the command, as it would there.
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()

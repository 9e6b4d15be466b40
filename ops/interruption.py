"""The signals that ask for the end: the first for an orderly one, a second for a quick one."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What leads to the orderly stop."""

SAME_WISH_SECONDS = 0.5
"""A signal this soon after the first is the same wish: a terminal and a parent process may both send one."""


class Interruption:
    """Remembers which signal came, and whether a second one did.

    While `raising` is set the first signal also raises KeyboardInterrupt in the main thread, as Python's own does.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.hurried = False
        self.raising = False
        self._came_at = 0.0
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def install(self) -> None:
        """Listen, when in the main thread (elsewhere Python does not allow it)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            # A signal that is ignored was meant to be: nohup, or a shell's background job.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._came)

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            with suppress(TypeError):  # a handler that Python did not install
                signal.signal(number, handler)
        self._before.clear()

    def check(self) -> None:
        """Raise KeyboardInterrupt when a signal has come."""
        if self.signal:
            raise KeyboardInterrupt

    def _came(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._came_at = signal.Signals(number), now
            if self.raising:
                self.raising = False
                raise KeyboardInterrupt
        elif now - self._came_at > SAME_WISH_SECONDS:
            self.hurried = True

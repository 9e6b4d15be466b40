"""The policy file on disk: read at the start, read again when it changes, and the last good one kept."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from worker.policy.forecast import SlidingWindow
from worker.policy.load import PolicyError, load
from worker.policy.rules import PolicyBook

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None


def read_policy(path: Path, server: SlidingWindow) -> PolicyBook:
    """Read a policy file. Raises PolicyError, for a file that cannot be read as for one that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PolicyError(str(path), ["there is no such file; name one in COMPACTOR_POLICY_FILE"]) from None
    except UnicodeDecodeError:
        raise PolicyError(str(path), ["is not UTF-8 text"]) from None
    except OSError as error:
        raise PolicyError(str(path), [f"cannot be read: {error.strerror or type(error).__name__}"]) from None
    return load(text, source=str(path), server=server)


class PolicyFile:
    """The policies in force. A file that turns bad while we run changes nothing but the log."""

    def __init__(self, path: Path, server: SlidingWindow) -> None:
        """Read the file; raises PolicyError, for a service does not start on a bad one."""
        self._path, self._server = path, server
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._book = read_policy(path, server)
        self.problem: PolicyError | None = None

    def book(self) -> PolicyBook:
        """Give the policies in force: the file's, or where it is bad by now, the last good ones."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
            return self._book

    def _reload(self) -> None:
        try:
            self._book = read_policy(self._path, self._server)
        except PolicyError as error:
            self.problem = error
            logger.error("the policy file changed and is refused; the last good one stays in force: %s", error)  # noqa: TRY400
        else:
            self.problem = None
            logger.info("the policy file changed: %s is in force now", self._path)

    def _look(self) -> _Stamp:
        """Tell one state of the file from another without reading it; an editor may replace it within a second."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

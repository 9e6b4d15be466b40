"""An endpoint for outgoing webhooks that checks their signatures and answers as a test tells it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests, 32 bytes.").decode()
TOKEN = "token-that-nobody-may-see"

Behaviour = Callable[["Taken"], "int | tuple[int, dict[str, str]] | None"]
"""The status, and headers, for a webhook; None never answers."""


@dataclass(frozen=True)
class Taken:
    """One webhook as it came in, its signature verified."""

    path: str
    id: str
    body: str
    headers: dict[str, str]
    nth: int
    """How often this one came, this time included."""

    @property
    def document(self) -> dict[str, Any]:
        """Its body, read."""
        read: dict[str, Any] = json.loads(self.body)
        return read


@dataclass
class Receiver:
    """What came. forged: what did not verify; called: the path of every GET; behaviour: by the path's first part."""

    port: int = 0
    taken: list[Taken] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    at_once: dict[str, int] = field(default_factory=dict)
    most_at_once: dict[str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, name: str = "ok") -> str:
        """An endpoint; each name has its own behaviour."""
        return f"http://127.0.0.1:{self.port}/{name}/{TOKEN}?key={TOKEN}"

    def of(self, name: str) -> list[Taken]:
        """What came to one endpoint."""
        with self.lock:
            return [one for one in self.taken if one.path.startswith(f"/{name}/")]


@contextmanager
def receiver(secret: str = SECRET, *, any_age: bool = False) -> Iterator[Receiver]:
    """Listen on a free port of loopback; what hangs is let go at the end.

    any_age: whether signatures of a clock that is not this machine's verify too.
    """
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            name = self.path.split("/")[1]
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            headers = {key.lower(): value for key, value in self.headers.items()}
            with state.lock:
                state.at_once[name] = state.at_once.get(name, 0) + 1
                state.most_at_once[name] = max(state.most_at_once.get(name, 0), state.at_once[name])
            try:
                self._answer(name, body, headers)
            finally:
                with state.lock:
                    state.at_once[name] -= 1

        def do_GET(self) -> None:
            with state.lock:
                state.called.append(self.path)
            status = state.behaviour.get(self.path.split("/")[1], lambda _: 200)(None)  # type: ignore[arg-type]
            self.send_response(status if isinstance(status, int) else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def _answer(self, name: str, body: str, headers: dict[str, str]) -> None:
            try:
                _verify(secret, body, headers, any_age=any_age)
            except Exception as error:
                state.forged.append(f"{self.path}: {error}")
            with state.lock:
                nth = 1 + sum(one.id == headers["webhook-id"] and one.path == self.path for one in state.taken)
                taken = Taken(self.path, headers["webhook-id"], body, headers, nth)
                state.taken.append(taken)
            told = state.behaviour.get(name, lambda _: 204)(taken)
            if told is None:
                state.over.wait(60)
                self.close_connection = True
                return
            status, more = told if isinstance(told, tuple) else (told, {})
            self.send_response(status)
            for key, value in more.items():
                self.send_header(key, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            del request, client_address

    server = Server(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _verify(secret: str, body: str, headers: dict[str, str], *, any_age: bool) -> None:
    """Raise what tells that a signature is not right."""
    if not any_age:
        Webhook(secret).verify(body, headers)
        return
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    if Webhook(secret).sign(headers["webhook-id"], at, body) != headers["webhook-signature"]:
        raise WebhookVerificationError("it is another's")

"""A proxy before a server that answers chosen compactions itself, as a server does that repeats what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass
class Echo:
    """url: where it listens; answers: by conversation, once each, the status and the body of a compaction's answer."""

    url: str
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def instead(self, method: str, path: str) -> tuple[int, bytes] | None:
        """Give what a request is answered with instead."""
        parts = path.partition("?")[0].strip("/").split("/")
        return self.answers.pop(parts[-2], None) if method == "POST" and parts[-1] == "compact" else None


@contextmanager
def echoing(server: str) -> Iterator[Echo]:
    """Stand before a server."""
    echo = Echo("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            answer = echo.instead(self.command, self.path)
            if answer is None:
                headers = {"authorization": self.headers.get("authorization", ""), "content-type": "application/json"}
                with httpx.Client(trust_env=False, timeout=60.0) as http:
                    found = http.request(self.command, f"{server}{self.path}", content=body, headers=headers)
                answer = found.status_code, found.content
            self.send_response(answer[0])
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        do_GET = do_POST = do_DELETE = do_PATCH = _pass  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    echo.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield echo
    finally:
        running.shutdown()
        running.server_close()
        thread.join()

"""A stand-in for the model provider: OpenAI's API on loopback, just as much of it as Letta calls.

It is the only part of the real server's surroundings that is not real, because no model can be reached from a test.
It answers deterministically: a summary quotes the transcript it was given, a chat answers what it was asked. Its
latency, its failures and the length of its replies are set while it runs.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = ("gpt-4o-mini", "gpt-4.1")
"""The ids offered by `GET /v1/models`. 4o-mini is the agents' model, 4.1 another one to name in settings."""

EMBEDDING_FLOATS = 1536
"""What Letta expects of OpenAI's default embedding model."""

SUMMARY_MARK = "Summary of the conversation so far."
"""How every summary of this stand-in begins, so that a test can tell it from any other text."""

QUOTED_CHARS = 200
"""How much of the transcript a summary quotes."""


@dataclass(frozen=True)
class Answer:
    """What the model says, and the tool it calls, if any."""

    text: str
    tool: str | None = None

    @property
    def finish_reason(self) -> str:
        """Why the model stopped, in OpenAI's words."""
        return "tool_calls" if self.tool else "stop"

    def tool_calls(self) -> list[dict[str, Any]]:
        """The call as OpenAI sends it; no entry when no tool is called."""
        if self.tool is None:
            return []
        function = {"name": self.tool, "arguments": "{}"}
        return [{"index": 0, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}]


@dataclass
class ModelStandin:
    """The knobs and the counters of a running stand-in; change the knobs at any time."""

    base_url: str = ""
    latency: float = 0.0
    """Seconds before a chat answer."""
    summary_latency: float = 0.0
    """Seconds before a summary, instead of `latency`."""
    summary_chars: int = 400
    """The summary is cut to this many characters."""
    fail_status: int | None = None
    """When set, completions are answered with this HTTP status."""
    failures_left: int | None = None
    """How many more completions fail with `fail_status`; None means all of them."""
    reply: str | None = None
    """What the assistant answers; None makes it answer with what it was asked."""
    tool_call: str | None = None
    """When set, the next chat answer also calls the tool of this name, without arguments."""
    chats: int = 0
    summaries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def reset(self) -> None:
        """Back to no latency, no failure, echoing replies. The counters go on counting."""
        self.latency = self.summary_latency = 0.0
        self.fail_status = self.failures_left = self.reply = self.tool_call = None
        self.summary_chars = 400

    def answer(self, request: dict[str, Any]) -> Answer | int:
        """Count the call, wait its latency, and give the model's answer, or the HTTP status it fails with."""
        summarizing = is_summary_request(request)
        with self._lock:
            if summarizing:
                self.summaries += 1
            else:
                self.chats += 1
            failing = self.fail_status is not None and self.failures_left != 0
            if failing and self.failures_left is not None:
                self.failures_left -= 1
            tool, self.tool_call = (None, self.tool_call) if summarizing or failing else (self.tool_call, None)
        time.sleep(self.summary_latency if summarizing else self.latency)
        if failing and self.fail_status is not None:
            return self.fail_status
        last = last_user_text(request)
        if summarizing:
            return Answer(f"{SUMMARY_MARK} It began: {last[:QUOTED_CHARS]}"[: self.summary_chars])
        return Answer(self.reply if self.reply is not None else f"You said: {last}", tool)


def texts(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content or [] if isinstance(part, dict))


def last_user_text(request: dict[str, Any]) -> str:
    """What the last user message of a completion request says."""
    asked = [texts(message.get("content")) for message in request["messages"] if message.get("role") == "user"]
    return asked[-1] if asked else ""


def is_summary_request(request: dict[str, Any]) -> bool:
    """Whether Letta asks for a summary: its summarizer's system prompt says so, an agent's never does here."""
    system = [texts(message.get("content")) for message in request["messages"] if message.get("role") in SYSTEM_ROLES]
    return any("summar" in text.lower() for text in system) and not any("<memory_blocks>" in text for text in system)


SYSTEM_ROLES = frozenset({"system", "developer"})


def usage(request: dict[str, Any], text: str) -> dict[str, Any]:
    """Token figures at four bytes a token, as Letta itself estimates them."""
    prompt, completion = len(json.dumps(request["messages"])) // 4, len(text) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion_json(request: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """A whole answer, as OpenAI sends one when `stream` is off."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool:
        message["tool_calls"] = answer.tool_calls()
    choice = {"index": 0, "finish_reason": answer.finish_reason, "message": message}
    return envelope(request, "chat.completion") | {"choices": [choice], "usage": usage(request, answer.text)}


def completion_chunks(request: dict[str, Any], answer: Answer) -> Iterator[str]:
    """The same answer in pieces, one server-sent event for each, the last with the usage."""
    head = envelope(request, "chat.completion.chunk")
    third = max(1, len(answer.text) // 3)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": answer.text[start : start + third]} for start in range(0, len(answer.text), third)]
    if answer.tool:
        deltas.append({"tool_calls": answer.tool_calls()})
    for delta in deltas:
        yield json.dumps(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield json.dumps(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish_reason}]})
    yield json.dumps(head | {"choices": [], "usage": usage(request, answer.text)})
    yield "[DONE]"


def envelope(request: dict[str, Any], kind: str) -> dict[str, Any]:
    """What every completion object has around its choices."""
    return {"id": "chatcmpl-standin", "object": kind, "created": int(time.time()), "model": request["model"]}


class _Handler(BaseHTTPRequestHandler):
    """One connection of the stand-in; kept alive, as the official client expects."""

    protocol_version = "HTTP/1.1"
    standin: ModelStandin

    def do_GET(self) -> None:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "standin"} for name in MODELS]
        self._send_json(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if self.path.endswith("/embeddings"):
            inputs = request["input"] if isinstance(request["input"], list) else [request["input"]]
            vector = [0.0] * (EMBEDDING_FLOATS - 1) + [1.0]
            data = [{"object": "embedding", "index": at, "embedding": vector} for at, _ in enumerate(inputs)]
            self._send_json(200, {"object": "list", "data": data, "model": request["model"], "usage": {}})
            return
        answer = self.standin.answer(request)
        if isinstance(answer, int):
            error = {"message": "the stand-in was told to fail", "type": "standin", "code": None}
            self._send_json(answer, {"error": error})
        elif request.get("stream"):
            self._send_events(completion_chunks(request, answer))
        else:
            self._send_json(200, completion_json(request, answer))

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_events(self, events: Iterator[str]) -> None:
        data = "".join(f"data: {event}\n\n" for event in events).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the counters tell what was asked."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left (Letta being stopped) is no error of the stand-in."""


@contextmanager
def running_standin() -> Iterator[ModelStandin]:
    """A stand-in on a free loopback port, in a thread of its own, until the block ends."""
    standin = ModelStandin()
    handler = type("Handler", (_Handler,), {"standin": standin})
    server = _Server(("127.0.0.1", 0), handler)
    standin.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, name="model-standin", daemon=True)
    thread.start()
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

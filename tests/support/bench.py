"""One conversation on a Letta server that a test holds in its hand, and the service that works on it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.support.rows import AGENT, MEASURED, NOW, OWNER, order
from worker.audit.compactions import Intent
from worker.audit.database import Database, upgrade
from worker.audit.ledger import Ledger
from worker.audit.records import Compaction
from worker.heart import Heart
from worker.letta.client import Letta
from worker.letta.timeouts import Timeouts
from worker.loop import LettaLoop
from worker.policy.forecast import SlidingWindow
from worker.policy.rules import Policy
from worker.policyfile import PolicyFile
from worker.service import Service, announcer
from worker.settings import Settings
from worker.vigil import Vigil

CONVERSATION = "conv-1"
COPY = "conv-copy"
WINDOW = 10_000
POLICY = Policy(min_messages=3, idle_for=timedelta(minutes=2), cooldown=timedelta(hours=1))
SUMMARY = "What was said."

Answer = Callable[[httpx.Request], httpx.Response]


@dataclass
class FakeLetta:
    """A conversation and how the server answers about it. answers: by endpoint, instead of the server's own."""

    ids: list[str] = field(default_factory=lambda: ["message-sys", *(f"message-{n}" for n in range(1, 21))])
    tokens_a_message: int = 400
    last_message_at: datetime = NOW - timedelta(hours=1)
    summary_form: str = "summary_message"
    posts: list[Any] = field(default_factory=list)
    effects: int = 0
    forks: int = 0
    deleted: list[str] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    arrivals: list[str] = field(default_factory=list)
    """Messages that came later than the others."""

    hangs_at: str = ""
    """The endpoint that never answers."""
    hanging: threading.Event = field(default_factory=threading.Event)

    async def serve(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, or keep it waiting."""
        if _endpoint(request) == self.hangs_at:
            self.hanging.set()
            await asyncio.sleep(600)
        return self.handle(request)

    def compact(self) -> httpx.Response:
        """Take effect: the older half leaves, a summary comes."""
        before, self.effects = len(self.ids), self.effects + 1
        self.ids = [self.ids[0], f"message-summary-{self.effects}", *self.ids[before // 2 :]]
        figures = {"num_messages_before": before, "num_messages_after": len(self.ids), "summary": SUMMARY}
        return httpx.Response(200, json=figures)

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        endpoint = _endpoint(request)
        if endpoint == "compact":
            self.posts.append(json.loads(request.content))
        if endpoint in self.answers:
            return self.answers[endpoint](request)
        own: dict[str, Callable[[httpx.Request], Any]] = {
            "fork": self._fork,
            "delete": self._delete,
            "context": lambda _: self._overview(),
            "messages": self._messages,
            "conversation": lambda _: self._conversation(),
            "conversations": lambda _: [self._conversation() | {"in_context_message_ids": []}],
        }
        if endpoint == "compact":
            return self.compact()
        return httpx.Response(200, json=own[endpoint](request) if endpoint in own else [])

    def _fork(self, _: httpx.Request) -> dict[str, Any]:
        self.forks += 1
        return {"id": COPY, "agent_id": AGENT}

    def _delete(self, request: httpx.Request) -> dict[str, Any]:
        self.deleted.append(request.url.path.rsplit("/", 1)[-1])
        return {}

    def _messages(self, request: httpx.Request) -> list[dict[str, Any]]:
        rows = [self.listed(id_) for id_ in self.ids]
        return rows if request.url.params.get("order") == "asc" else rows[::-1]

    def _conversation(self) -> dict[str, Any]:
        at = self.last_message_at.isoformat()
        return {"id": CONVERSATION, "agent_id": AGENT, "in_context_message_ids": self.ids, "last_message_at": at}

    def _overview(self) -> dict[str, Any]:
        tokens = self.tokens_a_message * (len(self.ids) - 1)
        return {
            "context_window_size_max": WINDOW,
            "context_window_size_current": tokens + 100,
            "num_messages": len(self.ids),
            "num_tokens_system": 100,
            "num_tokens_messages": tokens,
            "messages": [
                {"id": id_, "role": _role(id_), "content": [{"type": "text", "text": "x" * 100}],
                 "created_at": self._date(id_)}
                for id_ in self.ids
            ],
        }  # fmt: skip

    def listed(self, id_: str) -> dict[str, Any]:
        """A message as the list shows it."""
        row = {"id": id_, "date": self._date(id_), "content": "x" * 100, "message_type": f"{_role(id_)}_message"}
        if "summary" not in id_:
            return row
        if self.summary_form == "summary_message":
            return row | {"message_type": "summary_message", "summary": SUMMARY, "content": None}
        told = f"Note: prior messages are hidden. The following is a summary of the previous messages:\n {SUMMARY}"
        packed = json.dumps({"type": "system_alert", "message": told, "time": "now"})
        return row | {"message_type": "user_message", "content": packed}

    def _date(self, id_: str) -> str:
        return (NOW + timedelta(hours=1) if id_ in self.arrivals else NOW - timedelta(hours=1)).isoformat()


def _endpoint(request: httpx.Request) -> str:
    path = request.url.path.strip("/").split("/")[1:]
    if path[-1] in {"compact", "fork", "messages", "context", "runs", "conversations", "agents"}:
        return path[-1]
    return "delete" if request.method == "DELETE" else path[0].removesuffix("s")


def _role(id_: str) -> str:
    if id_ == "message-sys":
        return "system"
    number = id_.rpartition("-")[2]
    return "user" if "summary" in id_ or not number.isdigit() or int(number) % 2 else "assistant"


@dataclass
class Outbox:
    """Keeps what was handed out."""

    sent: list[tuple[str, float]] = field(default_factory=list)
    messages: list[list[str]] = field(default_factory=list)
    """The ids of events, message by message."""
    away: bool = False
    """Whether the broker takes no event."""

    def scan(self, scan_id: str) -> None:
        self.sent.append((scan_id, 0))

    def page(self, scan_id: str, number: int) -> None:
        self.sent.append((f"{scan_id}/{number}", 0))

    def compaction(self, compaction_id: str, *, told: str, delay: float = 0) -> bool:
        del told
        self.sent.append((compaction_id, delay))
        return True

    def events(self, event_ids: Sequence[str]) -> bool:
        if not self.away:
            self.messages.append(list(event_ids))
        return not self.away


@dataclass
class Time:
    """A wall clock that may be set and a monotonic one that may not. wall: ahead of NOW; steady: in seconds."""

    wall: timedelta = timedelta()
    steady: float = 0.0

    def now(self) -> datetime:
        return NOW + self.wall

    def passes(self, seconds: float) -> None:
        """Let both go on."""
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds


@dataclass(frozen=True)
class Bench:
    """The service on a ledger of its own, its server, its time."""

    service: Service
    letta: FakeLetta
    time: Time
    outbox: Outbox

    def row(self, compaction_id: str) -> Compaction:
        """The row as it is now."""
        row = self.service.ledger.compactions.get(compaction_id)
        assert row is not None
        return row

    def plan(self, policy: Policy = POLICY, conversation_id: str = CONVERSATION) -> str:
        """A planned row's id."""
        asked = replace(order(conversation_id), policy_body=policy.body(), settings={"mode": "sliding_window"})
        planning = self.service.ledger.compactions.plan(asked, now=self.time.now())
        assert planning.compaction_id is not None
        return planning.compaction_id

    def claimed(self, owner: str = OWNER, policy: Policy = POLICY) -> Compaction:
        """A row that a worker holds."""
        row = self.service.ledger.compactions.claim(
            self.plan(policy), now=self.time.now(), owner=owner, lease=self.service.lease
        )
        assert row is not None
        return row

    def posted(self, owner: str = OWNER) -> Compaction:
        """A row whose worker has committed its intent, and perhaps POSTed."""
        row = self.claimed(owner)
        intent = Intent({"mode": "sliding_window"}, MEASURED, 0.4, "over", tuple(self.letta.ids), NOW)
        self.service.ledger.compactions.intend(
            row.id, intent, owner=owner, now=self.time.now(), lease=self.service.lease
        )
        return self.row(row.id)

    def left(self) -> Compaction:
        """A row whose answer was lost, left by its worker to be looked at."""
        row = self.posted()
        self.service.ledger.compactions.leave(row.id, "the answer was lost", owner=OWNER, look_at=self.time.now())
        self.time.passes(1)
        return row

    def in_another_process(self) -> Service:
        """The service as another process has it: another name, a vigil of its own, nothing in its care."""
        heart = Heart(self.service.ledger, "process-2", timedelta(hours=1), self.time.now)
        return replace(self.service, owner="process-2", heart=heart, vigil=Vigil(lambda: self.time.steady))


@contextmanager
def bench(folder: Path, **settings: str) -> Iterator[Bench]:
    """Open a service on a fresh SQLite ledger and a fake server; the heart beats once an hour, if not told more."""
    policy_file = folder / "policy.toml"
    policy_file.write_text("[policies.default]\n")
    environment = {"LETTA_BASE_URL": "http://letta.test", "COMPACTOR_STATE_DIR": str(folder)} | settings
    read = Settings.load({"COMPACTOR_POLICY_FILE": str(policy_file), **environment}, directory=folder)
    database = Database(read.ledger_url)
    upgrade(database)
    ledger = Ledger(database, announcer(read))
    letta, time, outbox = FakeLetta(), Time(), Outbox()

    @asynccontextmanager
    async def connect() -> Any:
        transport = httpx.MockTransport(letta.serve)
        async with httpx.AsyncClient(base_url="http://letta.test", transport=transport) as http:
            yield Letta(http, Timeouts())

    service = Service(
        settings=read,
        ledger=ledger,
        policies=PolicyFile(policy_file, SlidingWindow.EVICT),
        loop=LettaLoop(connect),
        outbox=outbox,
        owner="process-1",
        measuring=asyncio.Semaphore(4),
        heart=Heart(ledger, "process-1", timedelta(hours=1), time.now),
        vigil=Vigil(lambda: time.steady),
        now=time.now,
    )
    try:
        yield Bench(service, letta, time, outbox)
    finally:
        service.close()

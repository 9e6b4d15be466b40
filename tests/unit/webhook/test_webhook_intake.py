"""Group commit and handing on: what is committed together, what is answered, and what waits for whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from scheduler.door import publisher as publishing
from scheduler.door.intake import BATCH, Intake, NotTaken
from scheduler.door.lane import Lane
from scheduler.door.publisher import MESSAGE, Publisher
from scheduler.door.readiness import Look
from scheduler.door.sources import Sources, source
from worker.audit.database import LedgerUnavailable
from worker.audit.events import Arrival, Receipt, Source

pytestmark = pytest.mark.anyio


def arrival(number: int) -> Arrival:
    return Arrival(Source.LETTA, f"step-{number}")


class Book:
    """A ledger that keeps what it is given, and holds its breath when told."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()
        self.error: Callable[[Sequence[Arrival]], Exception | None] = lambda _: None

    def receive(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        assert self.free.wait(30)
        error = self.error(arrivals)
        if error is not None:
            raise error
        known = {key for batch in self.batches for key in batch}
        self.batches.append([one.key for one in arrivals])
        return [Receipt(f"evt-{one.key}", is_new=one.key not in known) for one in arrivals]


@asynccontextmanager
async def taking(
    book: Book, committed: Callable[[Sequence[str]], None] = lambda _: None, **limits: Any
) -> AsyncIterator[Intake]:
    intake = Intake(book.receive, committed, Lane("test-ledger"), **limits)
    task = asyncio.create_task(intake.run())
    try:
        yield intake
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - threads are waited for, which set no event of the loop's
            await asyncio.sleep(0.005)


async def test_what_comes_during_a_commit_is_committed_together_and_each_gets_its_own_receipt() -> None:
    book, told = Book(), list[str]()
    async with taking(book, told.extend) as intake:
        book.free.clear()
        first = asyncio.create_task(intake.take(arrival(-1)))
        await asyncio.sleep(0)
        rest = [asyncio.create_task(intake.take(arrival(number))) for number in range(BATCH + 10)]
        await asyncio.sleep(0)
        assert not first.done()
        book.free.set()
        receipts = await asyncio.gather(first, *rest)
    assert [receipt.event_id for receipt in receipts] == [f"evt-step-{number}" for number in range(-1, BATCH + 10)]
    assert max(map(len, book.batches)) <= BATCH
    assert len(book.batches) <= 4
    assert told == [receipt.event_id for receipt in receipts]


async def test_what_was_known_is_answered_and_not_handed_on_again() -> None:
    book, told = Book(), list[str]()
    async with taking(book, told.extend) as intake:
        first, second = await intake.take(arrival(1)), await intake.take(arrival(1))
    assert first.event_id == second.event_id
    assert told == [first.event_id]


async def test_when_there_is_no_room_the_sender_is_told_to_come_again_soon() -> None:
    book = Book()
    async with taking(book, room=3) as intake:
        book.free.clear()
        tasks = [asyncio.create_task(intake.take(arrival(number))) for number in range(20)]
        await until(lambda: sum(task.done() for task in tasks) >= 10)
        book.free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, NotTaken)]
    assert {refusal.retry_after for refusal in refused} == {1}
    assert sum(map(len, book.batches)) == len(answers) - len(refused)


async def test_who_waits_too_long_is_told_to_come_again_and_the_commit_still_counts() -> None:
    book = Book()
    async with taking(book, patience=0.05) as intake:
        book.free.clear()
        with pytest.raises(NotTaken):
            await intake.take(arrival(1))
        book.free.set()
        await until(lambda: bool(book.batches))
    assert book.batches == [["step-1"]]


async def test_a_ledger_that_is_away_takes_nothing_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    book = Book()
    book.error = lambda _: LedgerUnavailable("it is away")
    async with taking(book) as intake:
        for number in range(3):
            with pytest.raises(NotTaken):
                await intake.take(arrival(number))
        book.error = lambda _: None
        with caplog.at_level("INFO"):
            assert (await intake.take(arrival(9))).is_new
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


async def test_one_that_the_database_chokes_on_takes_no_other_down() -> None:
    book = Book()
    book.error = lambda batch: ValueError("no") if any(one.key == "step-3" for one in batch) else None
    async with taking(book) as intake:
        book.free.clear()
        tasks = [asyncio.create_task(intake.take(arrival(number))) for number in range(6)]
        await asyncio.sleep(0)
        book.free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, ValueError) for answer in answers] == [number == 3 for number in range(6)]


class Broker:
    """Takes messages, or does not."""

    def __init__(self) -> None:
        self.messages: list[list[str]] = []
        self.tries = 0
        self.is_there = True

    def send(self, ids: Sequence[str]) -> bool:
        self.tries += 1
        if self.is_there:
            self.messages.append(list(ids))
        return self.is_there


@asynccontextmanager
async def handing_on(broker: Broker, noted: list[str], **limits: Any) -> AsyncIterator[Publisher]:
    publisher = Publisher(broker.send, noted.extend, Lane("test-ledger"), **limits)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_ids_go_out_in_messages_of_a_hundred_in_their_order_and_are_noted_then() -> None:
    broker, noted = Broker(), list[str]()
    ids = [f"evt-{number}" for number in range(2 * MESSAGE + 50)]
    async with handing_on(broker, noted) as publisher:
        publisher.add(ids)
        await until(lambda: len(noted) == len(ids))
    assert [len(message) for message in broker.messages] == [MESSAGE, MESSAGE, 50]
    assert noted == ids == [one for message in broker.messages for one in message]


async def test_while_the_broker_is_away_ids_are_kept_in_order_and_sent_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(publishing, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(publishing, "LONGEST_PAUSE", 0.02)
    broker, noted = Broker(), list[str]()
    broker.is_there = False
    async with handing_on(broker, noted, room=5) as publisher:
        publisher.add(["a", "b"])
        await until(lambda: broker.tries >= 3)
        assert not noted
        publisher.add(["c", "d", "e", "f", "g"])
        publisher.add(["h"])
        broker.is_there = True
        await until(lambda: len(noted) == 5)
    assert noted == ["a", "b", "c", "d", "e"]
    assert caplog.text.count("left to the sweep") == 1


async def test_a_note_that_fails_stops_nothing() -> None:
    broker, noted = Broker(), list[str]()

    def note(ids: Sequence[str]) -> None:
        noted.extend(ids)
        raise LedgerUnavailable("it is away")

    publisher = Publisher(broker.send, note, Lane("test-ledger"))
    publisher.add(["a"])
    await publisher.flush()
    publisher.add(["b"])
    await publisher.flush()
    assert broker.messages == [["a"], ["b"]] == [[one] for one in noted]


async def test_a_look_is_taken_once_however_many_ask_and_one_that_hangs_or_fails_counts_as_away() -> None:
    looks: list[int] = []
    free = threading.Event()

    def answers() -> bool:
        looks.append(1)
        return free.wait(30)

    hanging = Look("hanging", answers, patience=0.05)
    assert await asyncio.gather(*(hanging.is_there() for _ in range(20))) == [False] * 20
    assert await hanging.is_there() is False
    assert len(looks) == 1
    free.set()
    async with asyncio.timeout(30):
        while not await hanging.is_there():
            pass

    def fails() -> bool:
        raise OSError("gone")

    assert await Look("failing", fails).is_there() is False


async def test_each_source_has_its_own_count_and_a_whole_ipv6_network_is_one_source() -> None:
    sources = Sources(2)
    assert [sources.admits("192.0.2.1") for _ in range(4)] == [True, True, False, False]
    assert sources.admits("192.0.2.2")
    assert source("2001:db8::1") == source("2001:db8::ffff:1") != source("2001:db8:0:1::1")
    assert source("::ffff:192.0.2.1") == source("192.0.2.1")
    assert source("fe80::1%eth0") == source("fe80::2")

from __future__ import annotations

import random

import pytest

from sandbox.endpoints import ENDPOINTS, UNKNOWN, endpoint_of
from sandbox.faults import Fault, Faults
from sandbox.options import Delay

COMPACT = endpoint_of("POST", "/v1/conversations/conv-1/compact")
SEND = endpoint_of("POST", "/v1/conversations/conv-1/messages")


def test_every_endpoint_is_recognised_by_its_own_path() -> None:
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{", "").replace("}", "")
        assert endpoint_of(endpoint.method, path) is endpoint
        assert endpoint_of(endpoint.method, path.rstrip("/")) is endpoint
    assert endpoint_of("GET", "/v1/nonsense") is UNKNOWN


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("compact:503:0.2", Fault("compact", "503", 0.2)),
        ("any:reset", Fault("any", "reset")),
        ("compact:hang:3", Fault("compact", "hang:3")),
        ("compact:hang:0.5:0.25", Fault("compact", "hang:0.5", 0.25)),
        ("send:502-after", Fault("send", "502-after")),
    ],
)
def test_a_fault_is_read_from_the_command_line(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("compact", "is not a fault"),
        ("compact:503:often", "is not a probability"),
        ("compact:503:1.5", "between 0 and 1"),
        ("compact:200", "there is no fault '200'"),
        ("compact:hang", "there is no fault 'hang'"),
        ("compakt:503", "there is no endpoint 'compakt'"),
        ("compact:503:0.1:7", "is not a fault"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fault.parse(text)


def test_the_same_seed_throws_the_same_dice() -> None:
    rules = (Fault("compact", "503", 0.3),)

    def struck(seed: int) -> list[bool]:
        faults = Faults(rules, seed)
        return [faults.pick(COMPACT, set()) is not None for _ in range(200)]

    assert struck(7) == struck(7)
    assert struck(7) != struck(8)
    assert 40 < sum(struck(7)) < 80


def test_a_fault_strikes_only_as_often_as_it_may() -> None:
    faults = Faults((Fault("compact", "500", times=2),), 1)
    assert [faults.pick(COMPACT, set()) is not None for _ in range(4)] == [True, True, False, False]
    assert faults.shown()[0]["struck"] == 2
    assert faults.shown()[0]["times"] == 0


def test_a_fault_strikes_only_its_endpoint_and_its_conversation() -> None:
    faults = Faults((Fault("compact", "500", conversation_id="conv-1"),), 1)
    assert faults.pick(SEND, {"conv-1"}) is None
    assert faults.pick(COMPACT, {"conv-2"}) is None
    assert faults.pick(COMPACT, {"conv-1", "agent-1"}) is not None


def test_a_delay_stays_within_its_jitter_and_never_below_nothing() -> None:
    rng = random.Random(1)
    picked = [Delay.parse("0.05:0.1").pick(rng) for _ in range(200)]
    assert min(picked) == 0.0
    assert 0.1 < max(picked) <= 0.15
    assert Delay.parse("2").pick(rng) == 2.0


@pytest.mark.parametrize("text", ["", "soon", "1:2:3", "-1", "nan", "1:"])
def test_a_delay_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a delay"):
        Delay.parse(text)

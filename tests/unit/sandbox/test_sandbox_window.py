from __future__ import annotations

from typing import Any

import pytest

from sandbox import tokens
from sandbox.messages import Stored, message
from sandbox.window import cut

WINDOW = 16_000


def told(roles: str, chars: int = 300) -> list[Stored]:
    """Messages by their initials: s system, u user, a assistant, t tool, p pending approval."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "p": "approval"}
    made = []
    for number, initial in enumerate(roles):
        fields: dict[str, Any] = {"step_id": f"step-{number}"}
        if initial in "tp":
            fields["tool_returns"] = [{"func_response": "{}", "tool_call_id": "call"}]
            fields["tool_calls"] = [{"id": "call", "function": {}}] if initial == "p" else None
        made.append(message(f"message-{number}", names[initial], f"{number} ".ljust(chars, "x"), **fields))
    return made


def kept(messages: list[Stored], mode: str, percentage: float, window: int = WINDOW) -> list[str]:
    decided = cut(messages, mode, percentage, window, tokens.against_goal)
    assert [*decided.evicted, *decided.kept] == messages[1:]
    return [one["id"] for one in decided.kept]


PAIRS = told("s" + "ua" * 20)


@pytest.mark.parametrize(
    ("percentage", "first_kept"), [(0.05, 6), (0.1, 8), (0.3, 16), (0.5, 24), (0.7, 32), (0.85, 38)]
)
def test_the_cut_evicts_ten_per_cent_more_than_it_was_asked_to(percentage: float, first_kept: int) -> None:
    assert kept(PAIRS, "sliding_window", percentage)[0] == f"message-{first_kept}"


@pytest.mark.parametrize("percentage", [0.9, 0.95, 1.0, 1.5, -1.0])
def test_a_percentage_that_leaves_no_room_for_a_cut_wipes_everything(percentage: float) -> None:
    decided = cut(PAIRS, "sliding_window", percentage, WINDOW, tokens.against_goal)
    assert (decided.kept, decided.mode_used) == ([], "all")


def test_a_context_that_is_too_full_for_the_goal_is_cut_further_in_steps_of_ten_per_cent() -> None:
    # 0.2 of 41 messages is the first try; what is left fits 0.9 of the window only after two steps more.
    full = told("s" + "ua" * 20, chars=480)
    total = tokens.against_goal(full)
    assert kept(full, "sliding_window", 0.1, window=total)[0] == "message-8"
    assert kept(full, "sliding_window", 0.1, window=int(total * 0.75))[0] == "message-16"


def test_the_cut_falls_on_an_assistant_searched_backwards() -> None:
    # 0.6 of 11 is 7, a tool's answer; the assistant that called the tool is at 6.
    messages = told("suauauatuau")
    assert messages[7]["role"] == "tool"
    assert kept(messages, "sliding_window", 0.5)[0] == "message-6"


def test_an_approval_that_carries_tool_calls_can_be_the_cut() -> None:
    messages = told("suauaupuuuu")
    assert kept(messages, "sliding_window", 0.5)[0] == "message-6"


def test_without_any_assistant_everything_is_wiped() -> None:
    assert kept(told("suuuuuuu"), "sliding_window", 0.3) == []


def test_a_pending_approval_survives_a_full_wipe() -> None:
    assert kept(told("suauap"), "all", 0.3) == ["message-5"]


def test_the_call_that_a_pending_approval_belongs_to_survives_with_it() -> None:
    messages = told("suauap")
    messages[4]["step_id"] = messages[5]["step_id"]
    assert kept(messages, "all", 0.3) == ["message-4", "message-5"]


def test_the_mode_of_its_own_words_is_cut_alike() -> None:
    decided = cut(PAIRS, "self_compact_sliding_window", 0.3, WINDOW, tokens.against_goal)
    assert decided.mode_used == "self_compact_sliding_window"
    assert len(decided.kept) == 25


def test_all_keeps_nothing() -> None:
    assert kept(PAIRS, "all", 0.3) == []
    assert kept(PAIRS, "self_compact_all", 0.3) == []

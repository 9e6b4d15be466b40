"""Contexts to compact, and the server's sliding window told once more, plainly: what a forecast is held against."""

from __future__ import annotations

from hypothesis import strategies as st

from worker.policy.snapshot import ContextMessage


def message(index: int, role: str, tokens: int = 100, *, calls: bool = False) -> ContextMessage:
    return ContextMessage(f"message-{index}", role, 0 if role == "system" else tokens, calls)


def dialogue(pairs: int, tokens: int = 88) -> list[ContextMessage]:
    """A system message, then questions and answers in turn."""
    roles = ["system", *["user", "assistant"] * pairs]
    return [message(index, role, tokens) for index, role in enumerate(roles)]


def retold(messages: list[ContextMessage], share: float, *, window: int, fixed: int, margin: float) -> int | None:
    """The server's search for its cut, as LETTA.md tells it: how many messages stay behind it, None for a wipe."""
    count = len(messages)
    tries = 0
    stay: list[ContextMessage] | None = None
    evict = share
    while evict < 1.0:
        tries += 1
        evict += 0.10
        stay = None
        for at in range(min(round(evict * count), count - 1), 0, -1):
            one = messages[at]
            if one.role == "assistant" or (one.role == "approval" and one.has_tool_calls):
                stay = messages[at:]
                break
        if stay is not None and int((fixed + sum(one.tokens for one in stay)) * margin) < (1 - share) * window:
            break
    # Past the end of its tries, with no place to cut, or with nothing but the last message (or a pending approval
    # and the one before it) left, the server evicts everything.
    waits = count > 0 and messages[-1].role == "approval"
    if tries == 0 or evict >= 1.0 or stay is None or len(stay) <= (2 if waits else 1):
        return None
    return len(stay)


ROLES = ["user", "assistant", "tool", "calls", "approval", "answer", "summary", "system"]


@st.composite
def contexts(draw: st.DrawFn) -> list[ContextMessage]:
    """Any sequence of roles, tool calls and approvals among them; sensible ones and senseless ones."""
    messages = [message(0, "system")]
    for index, role in enumerate(draw(st.lists(st.sampled_from(ROLES), max_size=60)), start=1):
        tokens = draw(st.integers(0, 2_000))
        if role == "calls":
            messages.append(message(index, "assistant", tokens, calls=True))
        elif role in {"approval", "answer"}:
            messages.append(message(index, "approval", tokens, calls=role == "approval"))
        else:
            messages.append(ContextMessage(f"message-{index}", role, tokens))
    return messages

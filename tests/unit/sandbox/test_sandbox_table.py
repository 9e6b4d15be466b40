"""The table of percentages that was seen on a real server, reproduced to the message and nearly to the token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SEEN = {
    0.05: (37, 3_714),
    0.1: (35, 3_538),
    0.3: (27, 2_834),
    0.5: (19, 2_131),
    0.7: (11, 1_426),
    0.85: (5, 897),
    0.9: (2, 680),
    1.0: (2, 680),
    "all": (2, 680),
}
"""By percentage (or mode): messages and tokens after; 41 messages and 4,110 tokens before."""

# Nobody kept the texts of that run. These lengths follow from the differences between its figures.
SYSTEM_CHARS, USER_CHARS, REPLY_CHARS, CLIP_CHARS = 2_080, 542, 91, 60


def test_each_percentage_leaves_what_it_left_on_the_real_server(start: Callable[..., Any]) -> None:
    box = start("--reply-chars", str(REPLY_CHARS))
    agent = box.agent(system="x" * SYSTEM_CHARS)
    conversation = box.conversation(agent)
    for number in range(20):
        box.send(conversation, {"role": "user", "content": f"message {number} ".ljust(USER_CHARS, ".")})
    overview = box.overview(agent, conversation)
    assert overview["num_messages"] == 41
    assert abs(overview["context_window_size_current"] / 4_110 - 1) < 0.02

    for asked, (messages, tokens) in SEEN.items():
        copy = box.http.post(f"/v1/conversations/{conversation}/fork").json()["id"]
        settings = {"mode": "all"} if asked == "all" else {"mode": "sliding_window", "sliding_window_percentage": asked}
        answer = box.compact(copy, clip_chars=CLIP_CHARS, **settings).json()
        assert (asked, answer["num_messages_before"], answer["num_messages_after"]) == (asked, 41, messages)
        after = box.overview(agent, copy)
        assert after["num_messages"] == messages
        assert abs(after["context_window_size_current"] / tokens - 1) < 0.02, asked

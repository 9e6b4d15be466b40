from __future__ import annotations

import base64
import gzip
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.support.leaks import Search

MARK = 'mark-of-a-"secret"/ü+7'


def packed(text: str) -> str:
    """A message as the broker keeps it: its body in base64, in JSON."""
    body = json.dumps([["cmp-1"], {"why": text}, {}])
    return json.dumps({"body": base64.b64encode(body.encode()).decode(), "headers": {}})


LEAKS: dict[str, Callable[[str], bytes | str]] = {
    "as it is": lambda mark: f"it said {mark}.",
    "in JSON": lambda mark: json.dumps({"a": [mark]}),
    "as Python prints it": lambda mark: repr({"a": mark}),
    "in a URL": lambda mark: f"GET /?q={quote(mark, safe='')}",
    "in HTML": lambda mark: mark.replace('"', "&quot;"),
    "in a message of the broker": packed,
    "in a header": lambda mark: "Basic " + base64.b64encode(f"user:{mark}".encode()).decode(),
    "in base64 for URLs": lambda mark: base64.urlsafe_b64encode(f"user:{mark}".encode()).decode().rstrip("="),
    "in a pickle": lambda mark: pickle.dumps({"a": mark}),
    "compressed": lambda mark: gzip.compress(mark.encode()),
    "packed twice": lambda mark: base64.b64encode(packed(mark).encode()),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS.keys())
def test_a_leak_is_found_in_whatever_form_it_was_written(leak: Callable[[str], bytes | str]) -> None:
    search = Search({"the secret": MARK, "another": "that-is-nowhere"})
    search.through("the log", leak(MARK))
    assert search.found == ["the secret in the log"]


def test_what_does_not_hold_it_is_clean_and_was_looked_through() -> None:
    search = Search({"the secret": MARK})
    for leak in LEAKS.values():
        search.through("the log", leak("something else"))
    assert search.found == []
    assert search.places["the log"] > 200

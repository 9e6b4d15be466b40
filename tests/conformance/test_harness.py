"""The machinery around the real server: how it fails, since people meet it when it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.conformance import letta_cache, real_letta
from tests.conformance.letta_cache import BuildError, LettaCache
from tests.conformance.model_standin import SUMMARY_MARK, ModelStandin, running_standin

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}
SUMMARY = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "Write a summary of what follows."},
        {"role": "user", "content": "[user] the bill was wrong"},
    ],
}


@pytest.fixture
def standin() -> Iterator[ModelStandin]:
    with running_standin() as running:
        yield running


def ask(standin: ModelStandin, request: Mapping[str, object]) -> httpx.Response:
    return httpx.post(f"{standin.base_url}/chat/completions", json=request, trust_env=False)


def test_a_build_that_fails_says_where_why_and_what_to_do_and_leaves_nothing_marked_as_ready(tmp_path: Path) -> None:
    cache = LettaCache(tmp_path / "cache")
    cache.folder.mkdir()
    (cache.folder / "venv.ready").touch()  # but the environment is gone
    with pytest.raises(BuildError, match="is no virtual environment; delete") as failure:
        letta_cache.build(cache)
    assert str(cache.folder) in str(failure.value)
    assert not cache.is_ready


def test_a_python_that_is_too_new_is_told_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letta_cache, "TOO_NEW", (3, 0))
    cache = LettaCache(tmp_path / "cache")
    with pytest.raises(BuildError, match=r"needs a Python older than 3\.0"):
        letta_cache.build(cache)
    assert not (cache.folder / "venv").exists()


def test_of_two_builders_the_second_waits_and_finds_everything_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[LettaCache] = []

    def slowly(cache: LettaCache) -> None:
        time.sleep(0.3)
        built.append(cache)

    monkeypatch.setattr(letta_cache, "build_environment", slowly)
    monkeypatch.setattr(letta_cache, "build_database", lambda _: None)
    cache = LettaCache(tmp_path / "cache")
    builders = [threading.Thread(target=letta_cache.build, args=(cache,)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert built == [cache]
    assert cache.is_ready


def test_a_server_that_does_not_come_up_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    cache = LettaCache(tmp_path / "cache")
    cache.letta.parent.mkdir(parents=True)
    cache.letta.write_text("#!/bin/sh\necho no room for a port\nexit 3\n")
    cache.letta.chmod(0o755)
    with (
        pytest.raises(RuntimeError, match=r"(?s)ended with status 3 .*no room for a port"),
        real_letta.letta_process(cache, tmp_path, {}),
    ):
        pytest.fail("it cannot have come up")


def test_a_word_that_the_program_does_not_know_is_answered_with_the_ones_that_it_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert real_letta.main(["rebuild"]) == 2
    assert "build the cache" in capsys.readouterr().err


def test_the_stand_in_echoes_chats_quotes_in_summaries_and_counts_both(standin: ModelStandin) -> None:
    said = ask(standin, CHAT).json()["choices"][0]["message"]["content"]
    summed = ask(standin, SUMMARY).json()["choices"][0]["message"]["content"]
    assert said == "You said: hello there"
    assert summed == f"{SUMMARY_MARK} It began: [user] the bill was wrong"
    assert (standin.chats, standin.summaries) == (1, 1)


def test_the_stand_in_streams_the_same_answer_and_its_usage(standin: ModelStandin) -> None:
    whole = ask(standin, CHAT).json()
    streamed = ask(standin, CHAT | {"stream": True}).text
    assert streamed.endswith("data: [DONE]\n\n")
    assert f'"prompt_tokens": {whole["usage"]["prompt_tokens"]}' in streamed


def test_the_stand_in_fails_as_often_as_it_was_told_to(standin: ModelStandin) -> None:
    standin.fail_status, standin.failures_left = 429, 2
    assert [ask(standin, CHAT).status_code for _ in range(3)] == [429, 429, 200]


def test_the_stand_in_takes_the_time_it_was_told_to(standin: ModelStandin) -> None:
    standin.summary_latency = 0.3
    start = time.monotonic()
    ask(standin, CHAT)
    middle = time.monotonic()
    ask(standin, SUMMARY)
    assert time.monotonic() - middle >= 0.3 > middle - start

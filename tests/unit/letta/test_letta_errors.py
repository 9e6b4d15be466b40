"""What each failure of an exchange becomes, and what no error ever shows."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from worker.contract.compaction import CompactionRequest
from worker.letta import errors as tree
from worker.letta.client import Letta
from worker.letta.errors import LettaError
from worker.letta.timeouts import Timeouts

pytestmark = pytest.mark.anyio

Do = Callable[[Letta], Awaitable[Any]]

PROMPT = "THE-SECRET-PROMPT"


def get(letta: Letta) -> Awaitable[Any]:
    return letta.list_conversations()


def post(letta: Letta) -> Awaitable[Any]:
    return letta.compact("conv-1", CompactionRequest.model_validate({"compaction_settings": {"prompt": PROMPT}}))


async def fault(server: Any, do: Do) -> LettaError:
    with pytest.raises(LettaError) as caught:
        await do(server.letta)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + str(error) + repr(error)
    assert server.key not in shown
    assert PROMPT not in shown
    assert error.__cause__ is None
    assert error.__context__ is None
    return error


STATUSES = [
    # status, class, retryable, outcome of a POST known
    (300, tree.RedirectRefused, False, True),
    (307, tree.RedirectRefused, False, True),
    (400, tree.BadRequest, False, True),
    (401, tree.Unauthorized, False, True),
    (402, tree.LettaStatusError, False, True),
    (403, tree.Forbidden, False, True),
    (404, tree.NotFound, False, True),
    (408, tree.LettaStatusError, True, False),
    (409, tree.Conflict, True, True),
    (410, tree.LettaStatusError, False, True),
    (418, tree.LettaStatusError, False, True),
    (422, tree.Unprocessable, False, True),
    (425, tree.LettaStatusError, True, True),
    (429, tree.RateLimited, True, True),
    (499, tree.LettaStatusError, False, False),
    (500, tree.ServerError, True, False),
    (502, tree.ServerError, True, False),
    (503, tree.ServerError, True, False),
    (504, tree.ServerError, True, False),
]


@pytest.mark.parametrize(("status", "kind", "retryable", "known"), STATUSES)
async def test_each_status_is_an_error_of_its_own_kind(
    server: Any, status: int, kind: type[LettaError], *, retryable: bool, known: bool
) -> None:
    server.answers_with({"detail": "because"}, status=status)
    of_post = await fault(server, post)
    assert type(of_post) is kind
    assert (of_post.retryable, of_post.outcome_known, of_post.status) == (retryable, known, status)
    assert (of_post.method, of_post.path) == ("POST", "/v1/conversations/conv-1/compact")
    assert str(of_post).startswith(f"POST /v1/conversations/conv-1/compact: answered {status}")
    of_get = await fault(server, get)
    assert type(of_get) is kind
    assert (of_get.retryable, of_get.outcome_known) == (retryable, True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503])
async def test_an_html_page_is_named_as_one_and_not_shown(server: Any, status: int) -> None:
    server.answers_with(status=status, html="<html><body>nginx says no</body></html>")
    error = await fault(server, post)
    assert "an HTML page instead of JSON" in str(error)
    assert "nginx" not in str(error)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"null", b'{"detail": 7}', b"\xff\xfe", b"[" * 100_000])
async def test_an_error_with_a_body_of_no_use_is_still_the_statuss_error(server: Any, body: bytes) -> None:
    server.answers_with(status=500, content=body)
    error = await fault(server, post)
    assert type(error) is tree.ServerError
    assert len(str(error)) < 450


async def test_a_refusal_to_compact_is_told_by_the_servers_words(server: Any) -> None:
    words = (
        "Summarization failed to reduce the number of messages. You may not have enough messages to compact.",
        "No in-context messages found for this conversation.",
    )
    for detail in words:
        server.answers.clear()
        server.answers_with({"detail": detail}, status=400)
        error = await fault(server, post)
        assert isinstance(error, tree.BadRequest)
        assert error.nothing_to_compact
        assert detail in str(error)


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_other_refusals_are_not_taken_for_nothing_to_compact(server: Any, status: int) -> None:
    detail = "The request to the LLM model provider was invalid." if status == 400 else "No in-context messages found"
    server.answers_with({"detail": detail}, status=status)
    error = await fault(server, post)
    assert isinstance(error, tree.LettaStatusError)
    assert not error.nothing_to_compact


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Mon, 23 Nov 2026 04:22:00 GMT", "date": "Mon, 23 Nov 2026 04:21:00 GMT"}, 60.0),
        ({"retry-after": "Mon, 23 Nov 2026 04:20:00 GMT", "date": "Mon, 23 Nov 2026 04:21:00 GMT"}, 0.0),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": "inf"}, 86_400.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read_in_seconds_and_as_a_date(
    server: Any, headers: dict[str, str], seconds: float | None
) -> None:
    server.answers_with({"detail": "slow down"}, status=429, headers=headers)
    assert (await fault(server, get)).retry_after == seconds


async def test_a_date_in_retry_after_is_understood_without_the_servers_clock(server: Any) -> None:
    server.answers_with({}, status=429, headers={"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"})
    assert (await fault(server, get)).retry_after == 0.0


async def test_a_503_that_says_when_to_come_again_has_done_nothing(server: Any) -> None:
    server.answers_with({}, status=503, headers={"retry-after": "2"})
    error = await fault(server, post)
    assert (error.outcome_known, error.retry_after) == (True, 2.0)


async def test_trouble_with_the_models_provider_is_not_put_down_to_our_key(server: Any) -> None:
    body = {"error": {"type": "llm_authentication", "message": "Authentication failed.", "detail": "bad key"}}
    server.answers_with(body, status=401)
    error = await fault(server, post)
    assert isinstance(error, tree.Unauthorized)
    assert error.kind == "llm_authentication"
    assert "LETTA_API_KEY" not in str(error)
    assert "Authentication failed. bad key" in str(error)


async def test_a_refused_key_names_the_setting(server: Any) -> None:
    server.answers_with({"detail": "Unauthorized"}, status=401)
    assert "check LETTA_API_KEY" in str(await fault(server, get))


async def test_a_server_that_echoes_the_key_does_not_get_it_into_the_error(server: Any) -> None:
    server.answers_with({"detail": f"no such key: {server.key}"}, status=401)
    error = await fault(server, get)
    assert "no such key: [key]" in str(error)


async def test_a_redirect_is_not_followed_and_its_target_is_named_without_its_query(server: Any) -> None:
    server.answers_with(status=302, html="", headers={"location": f"https://evil.test/login?token={server.key}"})
    error = await fault(server, get)
    assert isinstance(error, tree.RedirectRefused)
    assert "redirects to https://evil.test/login, which is not followed" in str(error)
    assert [request.url.host for request in server.requests] == ["letta.test"]


async def test_a_malformed_redirect_is_refused_like_any_other(server: Any) -> None:
    server.answers_with(status=308, html="")
    assert "redirects to an unnamed place" in str(await fault(server, get))


BODIES = [
    (b"<!doctype html><html></html>", "with an HTML page instead of JSON; is LETTA_BASE_URL"),
    (b'{"summary": "It bega', "not JSON, or JSON that is cut off"),
    (b"", "with nothing instead of JSON"),
    (b"ok", "not JSON"),
    (b"\xff\xff", "not JSON"),
    (b"[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("body", "words"), BODIES)
async def test_a_success_that_is_not_json_is_an_error_and_a_posts_outcome_is_unknown(
    server: Any, body: bytes, words: str
) -> None:
    server.answers_with(content=body)
    error = await fault(server, post)
    assert isinstance(error, tree.LettaProtocolError)
    assert words in str(error)
    assert (error.outcome_known, error.retryable, error.status) == (False, False, 200)
    assert error.body == body.decode("utf-8", "replace")
    assert (await fault(server, get)).outcome_known


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "the answer is not a CompactionResponse: must be a table, not a list"),
        ({"summary": "x"}, "num_messages_after: is required; num_messages_before: is required"),
        ({"summary": PROMPT, "num_messages_after": "x", "num_messages_before": 1}, "num_messages_after: must be"),
    ],
)
async def test_a_success_of_another_shape_names_the_fields_and_keeps_the_body(
    server: Any, document: Any, words: str
) -> None:
    server.answers_with(document)
    error = await fault(server, post)
    assert isinstance(error, tree.LettaProtocolError)
    assert words in str(error)
    assert not error.outcome_known
    assert error.body


@pytest.mark.parametrize("document", [{}, {"conversations": []}, None, "x", 3])
async def test_a_list_that_is_no_list_is_an_error(server: Any, document: Any) -> None:
    server.answers_with(document)
    error = await fault(server, get)
    assert isinstance(error, tree.LettaProtocolError)
    assert "not a list" in str(error)


async def test_an_empty_list_is_an_empty_page(server: Any) -> None:
    server.answers_with([])
    assert await server.letta.list_conversations() == []


EXCEPTIONS: list[tuple[Exception, type[LettaError], bool]] = [
    # exception, class, outcome of a POST known
    (httpx.ConnectError("refused"), tree.LettaUnreachable, True),
    (httpx.ConnectTimeout("slow"), tree.LettaUnreachable, True),
    (httpx.ProxyError("no"), tree.LettaUnreachable, True),
    (httpx.PoolTimeout("full"), tree.LettaTimeout, True),
    (httpx.ReadTimeout("slow"), tree.LettaTimeout, False),
    (httpx.WriteTimeout("slow"), tree.LettaTimeout, False),
    (httpx.ReadError("reset"), tree.LettaConnectionLost, False),
    (httpx.WriteError("reset"), tree.LettaConnectionLost, False),
    (httpx.CloseError("reset"), tree.LettaConnectionLost, False),
    (httpx.RemoteProtocolError("cut"), tree.LettaConnectionLost, False),
    (httpx.DecodingError("not gzip"), tree.LettaProtocolError, False),
]


@pytest.mark.parametrize(("raised", "kind", "known"), EXCEPTIONS, ids=lambda v: getattr(v, "__name__", repr(v)))
async def test_each_failure_of_the_connection_says_whether_the_outcome_is_known(
    server: Any, raised: Exception, kind: type[LettaError], *, known: bool
) -> None:
    server.fails_with(raised)
    of_post = await fault(server, post)
    assert type(of_post) is kind
    assert of_post.outcome_known is known
    assert of_post.retryable is (kind is not tree.LettaProtocolError)
    of_get = await fault(server, get)
    assert type(of_get) is kind
    assert of_get.outcome_known


async def test_nothing_is_sent_twice(server: Any) -> None:
    for answer in (httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.ReadError("x")):
        server.answers.clear()
        server.fails_with(answer)
        for do in (get, post):
            server.requests.clear()
            await fault(server, do)
            assert len(server.requests) == 1
    for status in (409, 429, 500, 503):
        server.answers.clear()
        server.requests.clear()
        server.answers_with({}, status=status, headers={"retry-after": "0"})
        await fault(server, post)
        assert len(server.requests) == 1


async def test_a_call_ends_within_its_own_time_out_even_when_the_transport_never_does() -> None:
    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with httpx.AsyncClient(base_url="http://letta.test", transport=httpx.MockTransport(never)) as http:
        letta = Letta(http, Timeouts(read=0.05, compact=0.05))
        with pytest.raises(tree.LettaTimeout, match=r"no answer within 0\.05 s") as of_get:
            await get(letta)
        with pytest.raises(tree.LettaTimeout) as of_post:
            await post(letta)
    assert of_get.value.outcome_known
    assert not of_post.value.outcome_known


async def test_a_cancelled_call_is_cancelled_and_not_an_error_of_ours() -> None:
    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with httpx.AsyncClient(base_url="http://letta.test", transport=httpx.MockTransport(never)) as http:
        task = asyncio.create_task(Letta(http).compact("conv-1"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def classes(kind: type[LettaError]) -> list[type[LettaError]]:
    return [kind, *(inner for child in kind.__subclasses__() for inner in classes(child))]


async def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"── (\w+)", tree.__doc__ or "")
    assert sorted(drawn) == sorted(kind.__name__ for kind in classes(LettaError) if kind is not LettaError)

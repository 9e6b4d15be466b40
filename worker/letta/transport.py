"""httpx's interface over aiohttp's connections: cheap at any number of them, and honest about what failed.

httpx's own pool is scanned on every request, so one shared client slows down as its connections grow; over aiohttp's
it does not. `httpx-aiohttp` names failures so coarsely that a connection lost after a POST looks like one that never
came about (0.2.0: both are ConnectTimeout), and aiohttp itself repeats a GET or DELETE whose connection broke (3.14).
Both are put right here: nothing is sent twice, and the exception's class says whether anything was sent.

Environment variables for proxies and `.netrc` are not read here: settings have one reader. `proxy` is an argument.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib import metadata

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from worker.letta.timeouts import Timeouts

KEEP_ALIVE = 4.0
"""Seconds that an idle connection is kept: less than the 5 s after which uvicorn, and so a Letta server, closes its
end, because a POST on a connection that is closed at that moment has an unknown outcome."""


def open_http(
    base_url: str, api_key: str | None = None, *, timeouts: Timeouts | None = None, proxy: str | None = None
) -> httpx.AsyncClient:
    """Return the process's one HTTP client; use and close it on one event loop.

    `base_url` is the server's address without `/v1`. Raises ValueError, which names the setting and never the key.
    """
    limits = timeouts or Timeouts()
    headers = {"User-Agent": f"letta-compactor/{metadata.version('compactor')}", "Accept": "application/json"}
    if api_key:
        if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ValueError("LETTA_API_KEY has characters that no key has (spaces, line ends or non-ASCII letters)")
        headers["Authorization"] = f"Bearer {api_key}"
    return httpx.AsyncClient(
        base_url=_checked(base_url),
        headers=headers,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx.Timeout(limits.read, connect=limits.connect),
        transport=Transport(proxy=httpx.Proxy(proxy) if proxy else None),
        follow_redirects=False,
        trust_env=False,
    )


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
    except httpx.InvalidURL as error:
        raise ValueError(f"LETTA_BASE_URL is not a URL: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("LETTA_BASE_URL must begin with http:// or https:// and name a host")
    if url.userinfo:
        raise ValueError("LETTA_BASE_URL must not carry a user or password; the key goes into LETTA_API_KEY")
    if url.query or url.fragment:
        raise ValueError("LETTA_BASE_URL must end with its host or path, without ? or #")
    if url.path.endswith("/v1"):
        raise ValueError("LETTA_BASE_URL must be given without /v1")
    return url


class _Lost(aiohttp.ClientError):
    """A connection that broke after the request may have left; a name that aiohttp does not repeat requests for."""


async def _never_repeat(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Lost(str(error)) from error


class Transport(AiohttpTransport):
    """AiohttpTransport with no limit on connections, no cookies, no repeats, and true names for failures."""

    def get_client(self) -> aiohttp.ClientSession:
        """Make the session; called in the event loop, at the first request."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=self.ssl_context)
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), middlewares=(_never_repeat,)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, once."""
        with _true_names():
            response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - for the type checker
        response.stream = _Stream(response.stream)
        return response


class _Stream(httpx.AsyncByteStream):
    """A body whose failures have their true names too."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _true_names():
            async for chunk in self._stream:
                yield chunk

    async def aclose(self) -> None:
        with _true_names():
            await self._stream.aclose()


@contextmanager
def _true_names() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientError | OSError):
            raise _rename(cause) from None
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise _rename(error) from None


def _rename(error: BaseException) -> httpx.TransportError:
    words = str(error)
    match error:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(words)
        case aiohttp.ServerTimeoutError():
            return httpx.ReadTimeout(words)
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return httpx.ConnectError(words)
        case aiohttp.ClientHttpProxyError():
            # Its text carries the proxy's answer; the status says enough.
            return httpx.ProxyError(f"the proxy answered {error.status}")
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError("the answer was not HTTP")
        case _:
            return httpx.ReadError(words)

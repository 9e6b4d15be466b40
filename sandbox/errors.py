"""The errors of the API and the bodies with which the server answers them."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

_EXAMPLE = "123e4567-e89b-42d3-8456-426614174000"
_REWRITTEN = ("agent_id", "step_id")
"""The parameters whose problems the real server puts into plainer words."""


class ApiError(Exception):
    """An error with the status that it is answered with; its text becomes the body's `detail`."""

    status = 500


class NotFound(ApiError):
    """There is no such thing, or not any more: 404."""

    status = 404


class BadRequest(ApiError):
    """The request makes no sense as things are: 400."""

    status = 400


class Unprocessable(ApiError):
    """The request is not one that the API knows: 422."""

    status = 422


class Unavailable(ApiError):
    """The server lacks what it would need for this: 503."""

    status = 503


class DatabaseRefused(ApiError):
    """The database would not run the query: 500, with a body that does not say why."""

    def __str__(self) -> str:
        return "A database error occurred."


def install(app: FastAPI) -> None:
    """Teach the application to answer our errors and FastAPI's own as the real server does."""
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)


async def _answer_api_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, ApiError) else ApiError.status
    return JSONResponse({"detail": str(error)}, status)


async def _answer_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    """Answer 422 with the list of problems as one text, which is what the real server sends."""
    problems = list(error.errors()) if isinstance(error, RequestValidationError) else []
    examples: set[str] = set()
    for problem in problems:
        name = problem["loc"][-1]
        if problem["loc"][0] == "path" and name in _REWRITTEN:
            kind = name.removesuffix("_id")
            problem["msg"] = f"String should match pattern '{kind}-{{uuid4}}'"
            problem["type"] = "string_pattern_mismatch"
            examples.add(f"{kind}-{_EXAMPLE}")
    body: dict[str, object] = {"trace_id": "", "detail": repr(problems)}
    if examples:
        body["examples"] = sorted(examples)
    return JSONResponse(body, 422)

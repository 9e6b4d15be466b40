"""The door held against its own OpenAPI: no 5xx, no answer that is not described, with keys and without."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from requests import Request, Session
from schemathesis import Case, GenerationMode

from scheduler.door.ids import WEBHOOK_ID
from tests.support.door import RunningDoor, running_door
from tests.support.postgres import fresh_schema
from tests.support.redis import fresh_database
from tests.support.signing import BEARER, COMPACTION, SECRET, STEP_COMPLETE, STRANGERS_SECRET, signed

EXAMPLES = 60


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def door(
    request: pytest.FixtureRequest, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningDoor]:
    """One door for the module, on each database."""
    folder = tmp_path_factory.mktemp("door")
    with fresh_database(redis_server) as broker_url:
        if request.param == "sqlite":
            with running_door(folder, broker_url=broker_url, database_url=f"sqlite:///{folder}/ledger.db") as running:
                yield running
        else:
            server = request.getfixturevalue("postgres_server")
            with (
                fresh_schema(server) as url,
                running_door(folder, broker_url=broker_url, database_url=url) as running,
            ):
                yield running


@pytest.fixture(scope="module")
def api(door: RunningDoor) -> Any:
    """What the door says of itself."""
    return schemathesis.openapi.from_url(f"{door.base_url}/openapi.json")


REQUEST = {"method", "url", "headers", "data", "json", "params", "cookies", "files"}

PAGES = [
    ("POST", STEP_COMPLETE),
    ("POST", COMPACTION),
    ("GET", "/compactions/{followed_id}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
]

KEYED = [page for page in PAGES if page[1] not in {"/healthz", "/readyz"}]

each_mode = pytest.mark.parametrize("mode", list(GenerationMode))

EVERY = [(page, mode) for page in PAGES for mode in GenerationMode if page in KEYED or mode is GenerationMode.POSITIVE]
"""A probe takes nothing that could be wrong."""


def check(api: Any, page: tuple[str, str], mode: GenerationMode, holds: Callable[[Case], None]) -> None:
    """Try a page with bodies, headers and ids that its description allows, or that it does not."""
    method, path = page
    cases = api[path][method].as_strategy(generation_mode=mode)

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(case=cases)
    def run(case: Case) -> None:
        holds(case)

    run()


def own(case: Case, secret: str = SECRET) -> dict[str, str]:
    """The headers of somebody who holds a secret, for the bytes that the case sends; wrong ones of its own it keeps."""
    if case.path != COMPACTION:
        return dict(BEARER)
    parts = {name: value for name, value in case.as_transport_kwargs().items() if name in REQUEST}
    body = Session().prepare_request(Request(**parts | {"headers": {}})).body or b""
    right = signed(body.encode() if isinstance(body, str) else bytes(body), secret=secret)
    given_headers = dict(case.headers or {})
    return {name: right[name] for name, form in FORMS.items() if re.fullmatch(form, str(given_headers.get(name, "")))}


FORMS = {"webhook-id": WEBHOOK_ID, "webhook-timestamp": "[1-9][0-9]{0,11}", "webhook-signature": "[ -~]+"}


def test_every_page_is_described(api: Any) -> None:
    assert {(method.upper(), path) for path, item in api.raw_schema["paths"].items() for method in item} == set(PAGES)


@pytest.mark.parametrize(("page", "mode"), EVERY)
def test_whoever_holds_the_keys_gets_what_is_described(
    api: Any, page: tuple[str, str], mode: GenerationMode, door: RunningDoor
) -> None:
    answers: set[int] = set()

    def holds(case: Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and "policy" in case.body:
            # Which policies there are is no matter of the description.
            case.body["policy"] = "eager"
        answers.add(case.call_and_validate(headers=own(case)).status_code)

    check(api, page, mode, holds)
    assert door.process.popen.poll() is None
    # With what the description allows, the pages were really reached.
    assert mode is GenerationMode.NEGATIVE or answers & {200, 202, 404}


@each_mode
@pytest.mark.parametrize("page", KEYED)
def test_whoever_holds_no_key_is_refused_as_is_described(api: Any, page: tuple[str, str], mode: GenerationMode) -> None:
    def holds(case: Case) -> None:
        assert case.call_and_validate(headers={"Authorization": "Bearer no"}).status_code not in {200, 202, 404}

    check(api, page, mode, holds)


@each_mode
def test_a_stranger_who_signs_is_refused_as_is_described(api: Any, mode: GenerationMode) -> None:
    def holds(case: Case) -> None:
        assert case.call_and_validate(headers=own(case, STRANGERS_SECRET)).status_code != 202

    check(api, ("POST", COMPACTION), mode, holds)

"""The contract against the API's reference text: the text is parsed, and every field and value of it is looked up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from worker.contract.compaction import CompactionRequest, CompactionResponse

REFERENCE = Path(os.environ.get("COMPACTOR_REFERENCE") or Path(__file__).with_name("letta-conversations-api.txt"))

PROVIDERS = [
    *("openai", "anthropic", "google_ai", "google_vertex", "azure", "xai", "zai", "groq", "deepseek", "together"),
    *("bedrock", "openrouter", "chatgpt_oauth"),
]

BEYOND_THE_REFERENCE = {
    "mode": {"self_compact_all", "self_compact_sliding_window"},
    "effort": {"xhigh", "max"},
}

_CLASS = re.compile(r"class (\w+):$")
_FIELD = re.compile(r"([a-z][a-z0-9_]*): ((?:Optional|Literal|Dict|str|int|float|bool)\b.*)$")
_VALUE = re.compile(r'"([^"]+)"$')
_MORE = re.compile(r"(\d+) more")


@dataclass
class Entry:
    """A class or a field of the reference, in the order of the text, which has no indentation to tell who owns it."""

    name: str
    type: str | None = None
    values: list[str] = field(default_factory=list)


def entries() -> list[Entry]:
    text = REFERENCE.read_text(encoding="utf-8")
    lines = text[text.index("class CompactionRequest:") :].splitlines()
    found: list[Entry] = []
    for line in filter(None, (line.strip() for line in lines)):
        if match := _CLASS.match(line):
            found.append(Entry(match[1]))
        elif match := _FIELD.match(line):
            found.append(Entry(match[1], match[2]))
        elif match := _VALUE.match(line):
            found[-1].values.append(match[1])
    for entry in found:
        _complete(entry)
    return found


def _complete(entry: Entry) -> None:
    """Take a value list from the type where no list follows, and check a list that follows against the type."""
    if entry.type is None or "Literal" not in entry.type:
        assert not entry.values, f"{entry.name} has values but is no Literal"
        return
    in_type = re.findall(r'"([^"]+)"', entry.type)
    more = _MORE.search(entry.type)
    if entry.values:
        assert len(entry.values) == len(in_type) + (int(more[1]) if more else 0), entry
        assert set(in_type) <= set(entry.values)
    else:
        assert more is None, f"{entry.name} is cut short and no list follows"
        entry.values = in_type


def branches(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return branches(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return [branch for arg in get_args(annotation) for branch in branches(arg)]
    return [annotation]


def models(annotation: Any) -> list[type[BaseModel]]:
    return [kind for kind in branches(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]


def values(annotation: Any) -> set[str]:
    found: set[str] = set()
    for kind in branches(annotation):
        if get_origin(kind) is Literal:
            found |= set(get_args(kind))
        elif isinstance(kind, type) and issubclass(kind, Enum):
            found |= {member.value for member in kind}
    return found


class Scope:
    """A model that is being read, and which of its fields the text has named."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self.named: set[str] = set()


def tag_of(text: list[Entry], position: int) -> str:
    return next(entry.values[0] for entry in text[position:] if entry.name == "provider_type")


def read(text: list[Entry], root: type[BaseModel]) -> Iterator[tuple[Scope, Entry, Any]]:
    """Yield each field of the text with the scope it belongs to and our annotation of it.

    A field belongs to the innermost open model that has one of that name which the text has not named yet.
    """
    stack = [Scope(root)]
    union: list[type[BaseModel]] = []
    for position, entry in enumerate(text):
        if entry.type is None:
            if entry.name.endswith("ModelSettings"):
                tag = tag_of(text, position)
                stack = stack[: next(i for i, s in enumerate(stack) if s.model.__name__ == "CompactionSettings") + 1]
                settings = models(stack[-1].model.model_fields["model_settings"].annotation)
                stack.append(
                    Scope(next(m for m in settings if values(m.model_fields["provider_type"].annotation) == {tag}))
                )
            else:
                stack.append(Scope(next(model for model in union if model.__name__ == entry.name)))
            continue
        while stack and (entry.name not in stack[-1].model.model_fields or entry.name in stack[-1].named):
            stack.pop()
        assert stack, f"the reference's field {entry.name} has no place in the contract"
        scope = stack[-1]
        scope.named.add(entry.name)
        annotation = scope.model.model_fields[entry.name].annotation
        yield scope, entry, annotation
        inner = models(annotation)
        if len(inner) == 1:
            stack.append(Scope(inner[0]))
        elif inner and entry.name != "model_settings":
            union = inner


def request_text() -> list[Entry]:
    text = entries()
    names = [entry.name for entry in text]
    assert names[0] == "CompactionRequest"
    return text[1 : names.index("CompactionResponse")]


def response_text() -> list[Entry]:
    text = entries()
    return text[[entry.name for entry in text].index("CompactionResponse") + 1 :]


def test_the_parser_finds_the_thirteen_providers_and_their_fields() -> None:
    text = request_text()
    classes = [entry.name for entry in text if entry.type is None and entry.name.endswith("ModelSettings")]
    tags = [entry.values[0] for entry in text if entry.name == "provider_type"]
    assert len(classes) == 13
    assert tags == PROVIDERS
    assert sum(entry.type is not None for entry in text) >= 13 * 4


def test_no_field_of_the_reference_is_missing_in_the_request() -> None:
    scopes = {id(scope): scope for scope, _, _ in read(request_text(), CompactionRequest)}
    providers = [scope for scope in scopes.values() if "provider_type" in scope.model.model_fields]
    assert len(providers) == 13


def test_no_value_of_the_reference_is_missing_and_only_the_sdks_are_added() -> None:
    checked = 0
    for scope, entry, annotation in read(request_text(), CompactionRequest):
        if entry.values:
            ours = values(annotation)
            where = f"{scope.model.__name__}.{entry.name}"
            assert set(entry.values) <= ours, where
            assert ours - set(entry.values) <= BEYOND_THE_REFERENCE.get(entry.name, set()), where
            checked += 1
    assert checked >= 13 * 2


def test_no_provider_has_a_field_that_the_reference_does_not_give_it() -> None:
    named: dict[type[BaseModel], set[str]] = {}
    for scope, _, _ in read(request_text(), CompactionRequest):
        named.setdefault(scope.model, set()).update(scope.named)
    assert len(named) >= 13
    for model, fields in named.items():
        ours = set(model.model_fields) - ({"agent_id"} if model is CompactionRequest else set())
        assert ours == fields, model.__name__


def test_plain_fields_have_the_types_of_the_reference() -> None:
    plain = {"str": str, "int": int, "float": float, "bool": bool}
    checked = 0
    for scope, entry, annotation in read(request_text(), CompactionRequest):
        kind = re.sub(r"^Optional\[(.*)\]$", r"\1", str(entry.type))
        if kind in plain:
            assert plain[kind] in branches(annotation), f"{scope.model.__name__}.{entry.name}"
            checked += 1
    assert checked >= 13 * 3


def test_the_response_has_the_references_fields() -> None:
    fields = {entry.name: entry.type for entry in response_text()}
    assert fields == {"num_messages_after": "int", "num_messages_before": "int", "summary": "str"}
    assert set(CompactionResponse.model_fields) == set(fields)


def test_the_parser_notices_a_list_that_is_cut_short() -> None:
    with pytest.raises(AssertionError):
        _complete(Entry("effort", 'Optional[Literal["low", 2 more]]', ["low", "high"]))

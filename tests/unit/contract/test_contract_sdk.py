"""The contract against the published SDK's types: what letta-client 1.12.1 knows, it knows, no more and no less."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal, get_args, get_origin

import pytest
from letta_client.types.conversations import compaction_response, message_compact_params
from pydantic import BaseModel, TypeAdapter, ValidationError

from worker.contract.compaction import CompactionRequest, CompactionResponse
from worker.contract.providers import AnyModelSettings, ModelSettings


def sdk_settings() -> dict[str, Any]:
    """Return the SDK's typed dict of each provider, by its tag."""
    kinds = get_args(message_compact_params.CompactionSettingsModelSettings)
    return {get_args(typing.get_type_hints(kind)["provider_type"])[0]: kind for kind in kinds}


def our_settings() -> dict[str, type[BaseModel]]:
    return {get_args(model.model_fields["provider_type"].annotation)[0]: model for model in get_args(AnyModelSettings)}


def alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in {typing.Union, types.UnionType}:
        return [inner for arg in get_args(hint) for inner in alternatives(arg)]
    if get_origin(hint) is typing.Annotated:
        return alternatives(get_args(hint)[0])
    return [hint]


def literals(hint: Any) -> set[str]:
    found: set[str] = set()
    for kind in alternatives(hint):
        if get_origin(kind) is Literal:
            found |= set(get_args(kind))
        elif isinstance(kind, type) and hasattr(kind, "__members__"):
            found |= {str(member.value) for member in kind.__members__.values()}
    return found


def is_typed_dict(kind: Any) -> bool:
    # Not typing.is_typeddict: the SDK's come from typing_extensions, which that does not know.
    return hasattr(kind, "__total__")


def our_models(hint: Any) -> list[type[BaseModel]]:
    return [kind for kind in alternatives(hint) if isinstance(kind, type) and issubclass(kind, BaseModel)]


def compare(theirs: Any, ours: type[BaseModel], path: str) -> int:
    """Compare names, values and nested types; return how many fields were compared."""
    hints = typing.get_type_hints(theirs)
    assert set(hints) == set(ours.model_fields), path
    compared = 0
    for name, hint in hints.items():
        annotation = ours.model_fields[name].annotation
        assert literals(hint) == literals(annotation), f"{path}.{name}"
        nested = [kind for kind in alternatives(hint) if is_typed_dict(kind)]
        mine = our_models(annotation)
        assert len(nested) == len(mine), f"{path}.{name}"
        if name != "model_settings":
            for inner_theirs, inner_mine in zip(nested, mine, strict=True):
                compared += compare(inner_theirs, inner_mine, f"{path}.{name}")
        compared += 1
    return compared


def test_the_sdks_seventeen_providers_are_the_contracts() -> None:
    assert set(sdk_settings()) == set(our_settings())
    assert len(sdk_settings()) == 17


@pytest.mark.parametrize("tag", sorted(sdk_settings()))
def test_each_providers_fields_and_values_are_the_sdks(tag: str) -> None:
    assert compare(sdk_settings()[tag], our_settings()[tag], tag) >= 4


def test_the_requests_fields_and_values_are_the_sdks() -> None:
    assert compare(message_compact_params.MessageCompactParams, CompactionRequest, "request") >= 9


def test_the_response_has_the_sdks_fields() -> None:
    theirs = set(compaction_response.CompactionResponse.model_fields)
    assert theirs == set(CompactionResponse.model_fields)


@pytest.mark.parametrize("tag", sorted(sdk_settings()))
def test_null_is_taken_exactly_where_the_sdk_takes_it(tag: str) -> None:
    settings: TypeAdapter[Any] = TypeAdapter(ModelSettings)
    for name, hint in typing.get_type_hints(sdk_settings()[tag]).items():
        if name == "provider_type":
            continue
        document = {"provider_type": tag, name: None}
        if type(None) in alternatives(hint):
            assert settings.validate_python(document).body() == document
        else:
            with pytest.raises(ValidationError):
                settings.validate_python(document)

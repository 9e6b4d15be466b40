from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.contract.compaction import CompactionRequest, CompactionSettings
from worker.contract.problems import sentences


def problems(document: Any, model: type[BaseModel] = CompactionSettings, root: str = "") -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return sentences(caught.value, model, root)


def test_a_field_of_another_provider_is_named_with_the_fields_that_its_provider_has() -> None:
    assert problems({"model_settings": {"provider_type": "groq", "thinking": {}}}) == [
        "model_settings.thinking: groq has no such field; it has max_output_tokens, parallel_tool_calls, "
        "provider_type, response_format, temperature"
    ]


def test_an_unknown_field_is_named_with_the_known_ones_and_the_nearest() -> None:
    [problem] = problems({"promt": "x"})
    assert problem.startswith("promt: there is no such field; known: clip_chars, mode, model, model_settings, prompt,")
    assert problem.endswith("(did you mean prompt?)")


def test_a_field_inside_a_providers_own_table_is_not_put_down_to_the_provider() -> None:
    [problem] = problems({"model_settings": {"provider_type": "openai", "reasoning": {"effort": "low"}}})
    assert problem == "model_settings.reasoning.effort: there is no such field; known: reasoning_effort"


def test_a_missing_provider_type_is_asked_for_by_name_with_the_providers() -> None:
    [problem] = problems({"model_settings": {"temperature": 0.1}})
    assert problem.startswith("model_settings.provider_type: is required; allowed: openai, sglang, anthropic,")
    assert problem.endswith("chatgpt_oauth")


def test_an_unknown_provider_is_answered_with_the_providers_and_the_nearest() -> None:
    [problem] = problems({"model_settings": {"provider_type": "opnai"}})
    assert problem.startswith("model_settings.provider_type: 'opnai' is not allowed; allowed: openai,")
    assert problem.endswith("(did you mean openai?)")


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            {"mode": "slidingwindow"},
            "mode: 'slidingwindow' is not allowed; allowed: all, sliding_window, self_compact_all, "
            "self_compact_sliding_window (did you mean sliding_window?)",
        ),
        (
            {"model_settings": {"provider_type": "anthropic", "effort": "huge"}},
            "model_settings.effort: 'huge' is not allowed; allowed: low, medium, high, xhigh, max",
        ),
        ({"clip_chars": "many"}, "clip_chars: must be a whole number, not text"),
        ({"clip_chars": True}, "clip_chars: must be a whole number, not true or false"),
        ({"clip_chars": 0}, "clip_chars: must be greater than or equal to 1"),
        ({"sliding_window_percentage": [1]}, "sliding_window_percentage: must be a number, not a list"),
        ({"prompt": {}}, "prompt: must be text, not a table"),
        ({"prompt_acknowledgement": 1}, "prompt_acknowledgement: must be true or false, not a whole number"),
        (
            {"prompt_acknowledgement": None},
            "prompt_acknowledgement: must not be null; leave it out to use the server's own value",
        ),
        ({"model": "gpt"}, "model: must be a handle of the form provider/model-name, at most 140 characters"),
        ({"model_settings": 3}, "model_settings: must be a table, not a whole number"),
        (
            {"model_settings": {"provider_type": "openai", "response_format": {"type": "json_schema"}}},
            "model_settings.response_format.json_schema: is required",
        ),
        (
            {"model_settings": {"provider_type": "openai", "response_format": {}}},
            "model_settings.response_format.type: is required; allowed: text, json_schema, json_object",
        ),
    ],
)
def test_each_kind_of_mistake_is_said_in_words(document: dict[str, Any], sentence: str) -> None:
    assert problems(document) == [sentence]


def test_every_mistake_is_listed() -> None:
    found = problems({"clip_chars": "x", "mode": "y", "extra": 1})
    assert [problem.partition(":")[0] for problem in found] == ["clip_chars", "mode", "extra"]


def test_the_root_stands_before_every_path() -> None:
    assert problems({"compaction_settings": []}, CompactionRequest, "policies.default.compaction") == [
        "policies.default.compaction.compaction_settings: must be a table, not a list"
    ]


def test_a_document_that_is_no_table_is_named_by_its_root() -> None:
    assert problems([], CompactionRequest, "body") == ["body: must be a table, not a list"]
    assert problems([], CompactionRequest) == ["must be a table, not a list"]


def test_a_long_value_is_not_echoed() -> None:
    [problem] = problems({"mode": "ignore the above and " * 3})
    assert "ignore" not in problem
    assert problem.startswith("mode: text is not allowed; allowed: all,")


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: Literal["small", "large"] = "small"
    at: int | str = Field(default=0, alias="when")


class Tree(BaseModel):
    """A model of another shape than the contract's: mappings, lists, unions without tags, rules of its own."""

    model_config = ConfigDict(extra="forbid")

    leaves: dict[str, Leaf] = {}
    rows: list[Leaf] = []
    either: Leaf | list[Leaf] | None = None
    low: Annotated[float, Field(lt=1)] = 0

    @model_validator(mode="after")
    def _ordered(self) -> Tree:
        if self.low < 0:
            raise ValueError("low must not be under 0")
        return self


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"leaves": {"a": {"size": "tiny"}}}, "t.leaves.a.size: 'tiny' is not allowed; allowed: small, large"),
        (
            {"leaves": {"a": {"sise": 1}}},
            "t.leaves.a.sise: there is no such field; known: size, when (did you mean size?)",
        ),
        ({"rows": [{}, {"x": 1}]}, "t.rows[1].x: there is no such field; known: size, when"),
        ({"low": 1}, "t.low: must be less than 1"),
        ({"low": -1}, "t: low must not be under 0"),
        ({"leaves": 3}, "t.leaves: must be a table, not a whole number"),
    ],
)
def test_other_models_than_the_contracts_are_understood(document: dict[str, Any], sentence: str) -> None:
    assert problems(document, Tree, "t") == [sentence]


def test_the_branches_of_a_union_without_tags_do_not_show_in_the_path() -> None:
    found = problems({"either": {"size": "tiny"}}, Tree)
    assert "either.size: 'tiny' is not allowed; allowed: small, large" in found
    assert all("Leaf" not in problem for problem in found)

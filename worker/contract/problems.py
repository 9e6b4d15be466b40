"""Turn a pydantic ValidationError into plain sentences for an operator.

Each is `path: what is wrong`, with the allowed values or fields where there is a list of them. Inputs are never
echoed, as they may be prompts or secrets, except short words where a word of a fixed list was expected.
Works for any pydantic model, so the policy file's loader uses it too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_WORD = re.compile(r"[\w.\-/]{1,40}")
"""What may be echoed: the shape of an enumeration's value, and no longer than any of them."""

_QUOTED = re.compile(r"'([^']*)'")


def sentences(error: ValidationError, model: type[BaseModel], root: str = "") -> list[str]:
    """List what is wrong in `error`, one sentence each, in the order of the input.

    `model` is the model that was validated (known fields are read from it); `root` is put before every path, such as
    `policies.default.compaction`.
    """
    return [_sentence(detail, model, root) for detail in error.errors(include_url=False)]


def _sentence(detail: ErrorDetails, model: type[BaseModel], root: str) -> str:
    place = _Place(model)
    for step in detail["loc"]:
        place.enter(step)
    complaint, appended = _complaint(detail, place)
    path = _joined(root, [*place.path, *([appended] if appended else [])])
    return f"{path}: {complaint}" if path else complaint


class _Place:
    """Where in the model an error is: the path as an operator writes it, and the type that is expected there."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.path: list[str | int] = []
        self.expected: tuple[Any, ...] = (model,)
        self.owner: type[BaseModel] | None = None
        self.tag: str | None = None
        """The tag by which `owner` was chosen out of a union."""
        self._entered: str | None = None

    def enter(self, step: str | int) -> None:
        """Go one element of pydantic's `loc` deeper; elements that only name a union's branch leave the path alone."""
        models = [kind for kind in self.expected if _is_model(kind)]
        tagged = _tagged(models, step) if len(models) > 1 else None
        if tagged is not None:
            self.expected, self._entered = (tagged,), str(step)
            return
        if isinstance(step, str) and _names_branch(self.expected, step):
            return
        self.owner = models[0] if len(models) == 1 else None
        self.tag, self._entered = self._entered, None
        self.path.append(step)
        self.expected = tuple(inner for kind in self.expected for inner in _inside(kind, step))


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _branches(annotation: Any) -> tuple[Any, ...]:
    """Unwrap Annotated and unions down to plain types."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _branches(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return tuple(branch for arg in get_args(annotation) for branch in _branches(arg))
    return (annotation,)


def _inside(kind: Any, step: str | int) -> tuple[Any, ...]:
    """Return what may stand at `step` of a value of type `kind`."""
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            if step in {name, field.alias, field.validation_alias}:
                return _branches(field.annotation)
        return ()
    args = get_args(kind)
    if not args or get_origin(kind) is Literal:
        return ()
    # A mapping's values, or a sequence's items: the last argument in either (tuples of one type each included).
    return _branches(args[-1] if args[-1] is not Ellipsis else args[0])


def _tagged(models: Sequence[type[BaseModel]], tag: str | int) -> type[BaseModel] | None:
    """Return the union's member that has `tag` as the single value of one of its fields."""
    for model in models:
        for field in model.model_fields.values():
            if get_origin(field.annotation) is Literal and get_args(field.annotation) == (tag,):
                return model
    return None


def _names_branch(expected: Sequence[Any], step: str) -> bool:
    """Tell whether `step` is pydantic's own name of a branch in a union without tags."""
    if len(expected) < 2:  # noqa: PLR2004
        return False
    if any(_is_model(kind) and step in kind.model_fields for kind in expected):
        return False
    names = {getattr(kind, "__name__", "") for kind in expected}
    return step in names or "[" in step or "(" in step


def _complaint(detail: ErrorDetails, place: _Place) -> tuple[str, str | None]:
    """Return what is wrong, and a path element to append where pydantic's own path stops too early."""
    context = detail.get("ctx", {})
    kind = detail["type"]
    given = detail["input"]
    if kind == "extra_forbidden":
        return _unknown_field(str(detail["loc"][-1]), place), None
    if kind == "missing":
        return "is required", None
    if kind == "union_tag_not_found":
        allowed = _tags(place, context)
        return f"is required; allowed: {', '.join(allowed)}", _QUOTED.sub(r"\1", str(context["discriminator"]))
    if kind == "union_tag_invalid":
        allowed = _QUOTED.findall(str(context["expected_tags"]))
        field = _QUOTED.sub(r"\1", str(context["discriminator"]))
        return _not_allowed(context["tag"], allowed), field
    if kind in {"literal_error", "enum"}:
        return _not_allowed(given, _allowed(place, context)), None
    return _other(detail), None


def _unknown_field(name: str, place: _Place) -> str:
    if place.owner is None:
        return "there is no such field"
    known = sorted(field.alias or name for name, field in place.owner.model_fields.items())
    whose = f"{place.tag} has no such field; it has " if place.tag else "there is no such field; known: "
    return f"{whose}{', '.join(known)}{_did_you_mean(name, known)}"


def _tags(place: _Place, context: dict[str, Any]) -> list[str]:
    field = _QUOTED.sub(r"\1", str(context["discriminator"]))
    fields = [kind.model_fields.get(field) for kind in place.expected if _is_model(kind)]
    return [str(value) for known in fields if known is not None for value in get_args(known.annotation)]


def _allowed(place: _Place, context: dict[str, Any]) -> list[str]:
    """Return the values of the Literal or the Enum at this place, else those that pydantic's text lists."""
    values: list[str] = []
    for kind in place.expected:
        if get_origin(kind) is Literal:
            values += [str(value) for value in get_args(kind)]
        elif isinstance(kind, type) and hasattr(kind, "__members__"):
            values += [str(member.value) for member in kind.__members__.values()]
    return values or _QUOTED.findall(str(context.get("expected", "")))


def _not_allowed(given: Any, allowed: Sequence[str]) -> str:
    if isinstance(given, str) and _WORD.fullmatch(given):
        return f"{given!r} is not allowed; allowed: {', '.join(allowed)}{_did_you_mean(given, allowed)}"
    return f"{_noun(given)} is not allowed; allowed: {', '.join(allowed)}"


def _did_you_mean(given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a table",
    "model": "a table",
    "mapping": "a table",
}


def _other(detail: ErrorDetails) -> str:
    base, _, rest = detail["type"].partition("_")
    if base in _WANTED and rest in {"type", "parsing", "from_float", "attributes_type"}:
        return f"must be {_WANTED[base]}, not {_noun(detail['input'])}"
    if detail["type"] == "string_pattern_mismatch":
        return f"does not have the form {detail['ctx']['pattern']}"
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^\w+ should (be|have)", r"must \1", text).replace(" after validation", "")


_NOUNS = (
    (bool, "true or false"),  # before int, of which it is a subclass
    (int, "a whole number"),
    (float, "a number"),
    (str, "text"),
    (dict, "a table"),
    (list, "a list"),
    (tuple, "a list"),
)


def _noun(value: Any) -> str:
    """Name the kind of `value`, as TOML and JSON know kinds."""
    if value is None:
        return "null"
    for kind, noun in _NOUNS:
        if isinstance(value, kind):
            return noun
    return type(value).__name__


def _joined(root: str, path: Sequence[str | int]) -> str:
    text = root
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text

"""What every request model shares: strict, frozen, and sending only what was set."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Request(BaseModel):
    """A body, or a part of one, that is sent to the API.

    Unknown fields, wrong types and non-finite numbers are errors; inputs never show in an error's text, because
    a field may hold a prompt.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    def body(self) -> dict[str, Any]:
        """Return the JSON object to send: the fields that were set, and an explicit null where null was set."""
        return self.model_dump(mode="json", exclude_unset=True)


_T = TypeVar("_T")


def _refuse_null(value: _T | None) -> _T:
    if value is None:
        raise PydanticCustomError("null_given", "must not be null; leave it out to use the server's own value")
    return value


Omittable = Annotated[_T | None, AfterValidator(_refuse_null)]
"""A field that may be left out (then it is None here and not sent) but that the API does not take as null."""

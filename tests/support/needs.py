"""What happens to a test whose server is nowhere to be had."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test, saying how to get what it needs; in CI, which skips nothing, fail it."""
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(f"CI skips nothing: {reason}", pytrace=False)
    pytest.skip(reason)

"""What every part of the settings has in common, and how a URL is taken apart."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Some settings, frozen. Fields are named by their environment variable (the `alias`).

    Secrets are `SecretStr`: neither repr nor a log shows them, nor does an error show what was given.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


def url_parts(url: str) -> SplitResult | None:
    """Take a URL apart; None for one whose host or port is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is reached from this machine alone; a name other than localhost is not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

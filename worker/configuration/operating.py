"""What operators see of the service, and who is let in to see it."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from worker.configuration.part import Part, url_parts

LOGIN = re.compile(r"[!-9;-~]+:[!-~]{8,}")
"""A login for HTTP's basic authentication, in the characters that every browser sends alike."""

PREFIX = re.compile(r"[\w.-]+(?:/[\w.-]+)*", re.ASCII)


SCHEDULE = "{schedule}"
"""Where a heartbeat's URL takes the schedule's name."""


class OperatingSettings(Part):
    """Logs, Flower's pages, metrics, and the sign of life."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="COMPACTOR_LOG_LEVEL", description="How much the processes log."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        alias="COMPACTOR_LOG_FORMAT",
        description="How they log: `json`, an object a line, or `text` to be read. `auto` is text on a terminal, under "
        "`up` and for the command line, JSON elsewhere.",
    )
    flower_auth: SecretStr | None = Field(
        None,
        alias="COMPACTOR_FLOWER_AUTH",
        description="The login of Flower's pages, as `user:password`. Without one they are served on loopback alone; "
        "`up` makes one up and prints it.",
    )
    flower_host: str = Field(
        "127.0.0.1", alias="COMPACTOR_FLOWER_HOST", description="The address that Flower listens on."
    )
    flower_port: int = Field(
        5555, ge=1, le=65535, alias="COMPACTOR_FLOWER_PORT", description="The port that Flower listens on."
    )
    flower_url_prefix: str = Field(
        "",
        alias="COMPACTOR_FLOWER_URL_PREFIX",
        description="The path that Flower is served under behind a proxy, such as `flower`.",
    )
    metrics_host: str = Field(
        "127.0.0.1", alias="COMPACTOR_METRICS_HOST", description="The address that `/metrics` listens on."
    )
    metrics_port: int = Field(
        9484, ge=1, le=65535, alias="COMPACTOR_METRICS_PORT", description="The port that `/metrics` listens on."
    )

    heartbeat_url: str | None = Field(
        None,
        # Whoever knows it can send the sign of life.
        repr=False,
        alias="COMPACTOR_HEARTBEAT_URL",
        description="A URL that is called (GET) when a schedule's scan has finished, for a dead man's switch; "
        f"`{SCHEDULE}` in it stands for the schedule's name.",
    )

    @field_validator("heartbeat_url")
    @classmethod
    def _heartbeat_is_http(cls, value: str | None) -> str | None:
        parts = None if value is None else url_parts(value.replace(SCHEDULE, "nightly"))
        if value is not None and (parts is None or parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must be an http:// or https:// address")
        return value

    @field_validator("flower_auth")
    @classmethod
    def _login_is_one(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not LOGIN.fullmatch(value.get_secret_value()):
            raise ValueError(
                "must be user:password in printable ASCII without spaces, the password of at least 8 characters"
            )
        return value

    @field_validator("flower_url_prefix")
    @classmethod
    def _prefix_is_a_path(cls, value: str) -> str:
        path = value.strip("/")
        if path and not PREFIX.fullmatch(path):
            raise ValueError("must be a path of letters, digits and . _ -, such as flower")
        return path

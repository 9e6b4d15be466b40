"""What operators see of the service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.configuration.part import Part


class OperatingSettings(Part):
    """Logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="COMPACTOR_LOG_LEVEL", description="How much the processes log."
    )

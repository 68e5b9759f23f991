"""What Envoy's documents have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

Document = dict[str, Any]

TYPE = "type.googleapis.com/"
ADS: Document = {"ads": {}, "resource_api_version": "V3"}


def duration(time: timedelta) -> str:
    """`time` as Envoy's documents have it."""
    return f"{time.total_seconds():f}s"

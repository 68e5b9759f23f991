"""The kinds of value as types for the schema: each reads, writes and describes itself in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from segue.manifest import values


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read, what an error says was expected, how it is written as JSON (None: as it is)."""

    read: Callable[[Any], Any]
    expected: str
    write: Callable[[Any], str] | None = None
    json: Callable[[], CoreSchema] = core_schema.str_schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What pydantic is to do with a field of this kind."""
        write = self.write and core_schema.plain_serializer_function_ser_schema(
            self.write, return_schema=core_schema.str_schema(), when_used="json"
        )
        return core_schema.no_info_plain_validator_function(
            self.read, serialization=write, json_schema_input_schema=self.json()
        )


@dataclass(frozen=True, slots=True)
class Many:
    """What an error says was expected where a list or a mapping belongs."""

    expected: str


class Section(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


_DURATION = "a duration such as 500ms, 30s, 10m or 24h"
_STATUSES = "a status such as 200 or a range such as 200-399"

Text = Annotated[str, Kind(values.text, "text")]
Command = Annotated[str, Kind(values.text, "a command")]
Program = Annotated[str, Kind(values.command, "a command")]
File = Annotated[str, Kind(values.text, "a path")]
User = Annotated[str, Kind(values.text, "the name of a user")]
InnerFolder = Annotated[str, Kind(values.inner_folder, "a folder inside the source, such as uploads")]
Variable = Annotated[str, Kind(values.variable, "a name of letters, digits and underscores")]
Flag = Annotated[bool, Kind(values.flag, "true or false", json=core_schema.bool_schema)]
Count = Annotated[int, Kind(values.count, "a whole number from 1 to 10000", json=core_schema.int_schema)]
Number = Annotated[int, Kind(values.number, "a whole number from 0 to 10000", json=core_schema.int_schema)]
Duration = Annotated[timedelta, Kind(values.duration, _DURATION, values.duration_text)]
SomeTime = Annotated[timedelta, Kind(values.some_time, _DURATION, values.duration_text)]
Statuses = Annotated[tuple[int, int], Kind(values.statuses, _STATUSES, values.statuses_text)]
ServiceName = Annotated[str, Kind(values.service_name, "at most 40 small letters, digits and dashes, such as shop")]
Listen = Annotated[str, Kind(values.listen, "host:port such as 127.0.0.1:8080")]
Host = Annotated[str, Kind(values.host_pattern, '"*", example.com or "*.example.com"')]
UrlPath = Annotated[str, Kind(values.url_path, "a path that begins with /")]
RoutePath = Annotated[str, Kind(values.route_path, "a path that begins with /")]
SignalName = Annotated[str, Kind(values.signal, f"one of {', '.join(values.SIGNALS)}")]

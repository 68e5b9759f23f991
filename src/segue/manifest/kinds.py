"""The kinds of value as types for the schema: each reads, writes and describes itself in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from segue.manifest import amounts, asking, commands, values


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


def one_of(*words: str) -> Kind:
    """The kind of a value that is one of `words`."""
    return Kind(partial(amounts.word, words), f"{', '.join(words[:-1])} or {words[-1]}")


class Section(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


_DURATION = "a duration such as 500ms, 30s, 10m or 24h"
_SHARE = "a share such as 10%, 0.5% or 1/3"
_STATUSES = "a status such as 200 or a range such as 200-399"

Text = Annotated[str, Kind(values.text, "text")]
Command = Annotated[str, Kind(commands.script, "a command")]
CheckCommand = Annotated[str, Kind(partial(commands.script, known=("url",)), "a command")]
Program = Annotated[str, Kind(commands.program, "a command")]
File = Annotated[str, Kind(values.text, "a path")]
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

Share = Annotated[Fraction, Kind(amounts.some_part, _SHARE, amounts.part_text)]
Rest = Annotated[Fraction, Kind(amounts.less_than_all, f"{_SHARE}, less than 100%", amounts.part_text)]
Chance = Annotated[Fraction, Kind(amounts.chance, "a chance above 0% and below 100%, such as 1%", amounts.part_text)]
Excess = Annotated[Fraction, Kind(amounts.excess, "a percentage such as 9% or 150%", amounts.part_text)]
Ratio = Annotated[float, Kind(amounts.ratio, "a number from 1 to 1000, such as 1.5", json=core_schema.float_schema)]
LogShare = Annotated[Fraction, Kind(amounts.log_share, "off, on, or a share such as 1%", amounts.log_share_text)]
Size = Annotated[int, Kind(amounts.size, "a number of bytes such as 0, 512k, 10m or 1g", amounts.size_text)]
Spoken = Annotated[Literal["http1", "http2", "grpc"], one_of("http1", "http2", "grpc")]
Pattern = Annotated[str, Kind(amounts.pattern, "a regular expression such as 'ERROR|Traceback'")]
Address = Annotated[str, Kind(asking.address, "an address such as https://ci.example.com/ask?version={version}")]
Base = Annotated[str, Kind(asking.base, "an address such as http://127.0.0.1:9090")]
Query = Annotated[str, Kind(asking.query, "a query in PromQL")]
Real = Annotated[float, Kind(asking.number, "a number such as 0.05", json=core_schema.float_schema)]
Worse = Annotated[Literal["higher", "lower"], one_of("higher", "lower")]
Per = Annotated[Literal["share", "version"], one_of("share", "version")]
Sticky = Annotated[str, Kind(amounts.sticky, "none, cookie or header:NAME")]
Known = Annotated[str, Kind(amounts.known, "cookie or header:NAME")]
HeaderName = Annotated[str, Kind(amounts.header, "the name of a header, such as X-Country")]
Approval = Annotated[Literal["auto", "manual"], one_of("auto", "manual")]
Capacity = Annotated[Literal["proportional", "full"], one_of("proportional", "full")]
Course = Annotated[Literal["continue", "hold", "rollback"], one_of("continue", "hold", "rollback")]
OnCancel = Annotated[Literal["continue", "rollback"], one_of("continue", "rollback")]

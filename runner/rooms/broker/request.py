"""What the agent may ask of the model API: parsed, checked and rebuilt from an allow-list. TRUSTED, hostile input.

The body is never forwarded. It is parsed with caps, every field must be named here, and the JSON that leaves
is made from the models below: no server tools, MCP servers, containers, files, images, documents or URLs.
Fields that only identify the caller (metadata) are accepted and left out.
Source: the Messages API reference, https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.core.base.errors import GloveboxError
from trainer.wire import strict_json

MAX_DEPTH = 40  # JSON schemas of tools nest
_CODES = {
    "extra_forbidden": "field_not_allowed",
    "union_tag_invalid": "type_not_allowed",
    "union_tag_not_found": "type_missing",
    "literal_error": "value_not_allowed",
    "missing": "field_missing",
}
Text = Annotated[str, Field(max_length=4 << 20)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class RequestRefused(GloveboxError):
    """The body is not what we forward; `what` is a closed code, `where` a path of known fields and indexes."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class CacheControl(_Part):
    """A cache breakpoint; the hour-long cache has another price and is not offered."""

    type: Literal["ephemeral"]
    ttl: Literal["5m"] = "5m"


class TextBlock(_Part):
    type: Literal["text"]
    text: Text
    cache_control: CacheControl | None = None
    citations: None = Field(default=None, exclude=True)


class Thinking(_Part):
    type: Literal["thinking"]
    thinking: Text
    signature: Text


class RedactedThinking(_Part):
    type: Literal["redacted_thinking"]
    data: Text


class ToolUse(_Part):
    type: Literal["tool_use"]
    id: Id
    name: Id
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolResult(_Part):
    type: Literal["tool_result"]
    tool_use_id: Id
    content: Text | Annotated[list[TextBlock], Field(fail_fast=True)] = ""
    is_error: bool = False
    cache_control: CacheControl | None = None


Block = Annotated[
    TextBlock | Thinking | RedactedThinking | ToolUse | ToolResult,
    Field(discriminator="type"),
]


class Message(_Part):
    role: Literal["user", "assistant"]
    content: Text | Annotated[list[Block], Field(max_length=2000, fail_fast=True)]


class Tool(_Part):
    """A tool the agent runs itself; anything with another type runs on the API's side."""

    type: Literal["custom"] | None = None
    name: Id
    description: Text = ""
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: CacheControl | None = None


class Choice(_Part):
    type: Literal["auto", "any", "tool", "none"]
    name: Id | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(_Part):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputConfig(_Part):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class CountRequest(_Part):
    """POST /v1/messages/count_tokens; free of charge."""

    model: Annotated[str, Field(max_length=100)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=2000, fail_fast=True)]
    system: Text | Annotated[list[TextBlock], Field(fail_fast=True)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Choice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


class MessagesRequest(CountRequest):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    stream: bool = False
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    stop_sequences: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=16)] | None = None
    metadata: Any = Field(default=None, exclude=True)


RequestT = TypeVar("RequestT", bound=CountRequest)


def parse(body: bytes, model: type[RequestT], max_bytes: int) -> RequestT:
    """The request in `body`; raises RequestRefused with a closed code."""
    try:
        value = strict_json.loads(body, max_bytes=max_bytes, max_depth=MAX_DEPTH)
    except strict_json.StrictJsonError as error:
        raise RequestRefused(error.reason) from None
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        # Of a union's alternatives the one that fitted furthest says best what is wrong.
        found = error.errors(include_url=False, include_context=False, include_input=False)
        first = max(found, key=lambda one: len(one["loc"]))
        path = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
        raise RequestRefused(_CODES.get(first["type"], "bad_value"), where=_place(path)) from None


def rebuild(request: CountRequest) -> bytes:
    """The body that leaves: only fields that were given, in the order of the models."""
    return json.dumps(request.model_dump(mode="json", exclude_unset=True), separators=(",", ":")).encode()


def _place(path: tuple[int | str, ...]) -> str:
    """Only field names of ours and numbers: a key inside a tool's input is the agent's own text."""
    known = _names(MessagesRequest)
    return ".".join(str(part) for part in path if isinstance(part, int) or part in known)


def _names(model: type[BaseModel]) -> set[str]:
    parts = (Message, Tool, Choice, ThinkingConfig, OutputConfig, CacheControl, TextBlock, ToolUse, ToolResult)
    return set(model.model_fields).union(*(part.model_fields for part in parts))

"""The Messages API as far as an agent may speak it: every field that leaves, or is left out. TRUSTED, hostile input.

Three kinds. A field with a plain type is forwarded. One marked `_LEFT_OUT` is what clients send of themselves and what
means nothing here or would change the bill: it is accepted, counted and not forwarded. Everything else is refused,
by its name if that is in KNOWN.
Sources: the Messages API reference, https://platform.claude.com/docs/en/api/messages, and the types of the SDK.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

Text = Annotated[str, Field(max_length=4 << 20)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,256}$")]  # as clients make them; the API may want less
_LEFT_OUT: Any = Field(default=None, exclude=True)


def _local(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema whose references stay within it: whoever checks it must not fetch anything."""
    todo: list[Any] = [schema]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            for name in ("$ref", "$dynamicRef"):
                if isinstance(value.get(name), str) and not value[name].startswith("#"):
                    raise ValueError("a reference to somewhere else")
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return schema


_Schema = Annotated[dict[str, Any], AfterValidator(_local)]
_Examples = Annotated[list[dict[str, Any]], Field(max_length=64)]
# Names of the API's that a refusal may repeat: what is behind them runs, or fetches, on the API's side.
KNOWN = frozenset({
    "mcp_servers", "container", "speed", "inference_geo", "fallbacks", "fallback_credit_token", "betas", "compaction",
    "thread", "billing_policy", "user_profile_id", "workspace_id", "task_budget", "allowed_callers",
    "caller", "source", "file_id", "citations", "toolset_name", "max_uses", "allowed_domains", "blocked_domains",
    "user_location", "output_format",
})  # fmt: skip
# Beta headers that change the form of requests and answers and neither prices nor what runs where.
BETAS = frozenset({
    "interleaved-thinking-2025-05-14", "fine-grained-tool-streaming-2025-05-14", "structured-outputs-2025-11-13",
    "token-efficient-tools-2025-02-19", "effort-2025-11-24", "thinking-display-updates-2026-08-18",
    "mid-conversation-output-config-2026-07-01", "mid-conversation-system-2026-04-07",
    "thinking-binding-controls-2026-08-01",
    "model-context-window-exceeded-2025-08-26",
})  # fmt: skip


class Part(BaseModel):
    """What every part has in common: no other fields, no conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class CacheControl(Part):
    """A cache breakpoint; the hour-long cache has another price, and becomes the one of five minutes."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = _LEFT_OUT
    scope: Literal["global", "organization", "workspace"] | None = _LEFT_OUT


class TextBlock(Part):
    type: Literal["text"]
    text: Text
    cache_control: CacheControl | None = None
    citations: Annotated[list[Any], Field(max_length=0)] | None = _LEFT_OUT


class Thinking(Part):
    type: Literal["thinking"]
    thinking: Text
    signature: Text


class RedactedThinking(Part):
    type: Literal["redacted_thinking"]
    data: Text


class Caller(Part):
    """Who called a tool: the model itself, which is what happens anyway."""

    type: Literal["direct"]


class ToolUse(Part):
    type: Literal["tool_use"]
    id: Id
    name: Id
    input: dict[str, Any]
    caller: Caller | None = _LEFT_OUT
    cache_control: CacheControl | None = None


class ToolResult(Part):
    type: Literal["tool_result"]
    tool_use_id: Id
    content: Text | Annotated[list[TextBlock], Field(fail_fast=True)] = ""
    is_error: bool = False
    cache_control: CacheControl | None = None


Block = Annotated[
    TextBlock | Thinking | RedactedThinking | ToolUse | ToolResult,
    Field(discriminator="type"),
]


class JsonFormat(Part):
    """An answer that is JSON of this schema."""

    type: Literal["json_schema"]
    schema_: Annotated[_Schema, Field(alias="schema")]


Effort = Literal["low", "medium", "high", "xhigh", "max"]


class EffortOnly(Part):
    effort: Effort | None = None


class OutputConfig(EffortOnly):
    format: JsonFormat | None = None


class Message(Part):
    """A turn; those of the system, which clients put between others, are text."""

    role: Literal["user", "assistant", "system"]
    content: Text | Annotated[list[Block], Field(max_length=2000, fail_fast=True)]
    output_config: EffortOnly | None = None
    clear_at: Literal["next_user_message", "never"] | None = _LEFT_OUT

    @model_validator(mode="after")
    def _text_of_the_system(self) -> Message:
        blocks = [] if isinstance(self.content, str) else self.content
        if self.role == "system" and not all(isinstance(block, TextBlock) for block in blocks):
            raise ValueError("a system message is text")
        return self


class _AnyTool(Part):
    strict: bool | None = None
    cache_control: CacheControl | None = None
    input_examples: _Examples | None = None
    defer_loading: bool | None = _LEFT_OUT
    allowed_callers: list[Literal["direct"]] | None = _LEFT_OUT


class CustomTool(_AnyTool):
    """A tool of the agent's own."""

    type: Literal["custom"] | None = None
    name: Id
    description: Text = ""
    input_schema: _Schema
    eager_input_streaming: bool | None = None


class BashTool(_AnyTool):
    """A tool whose form the model knows and which the agent runs, as the next two."""

    type: Literal["bash_20241022", "bash_20250124"]
    name: Literal["bash"]


class EditorTool(_AnyTool):
    type: Literal["text_editor_20241022", "text_editor_20250124", "text_editor_20250429", "text_editor_20250728"]
    name: Literal["str_replace_editor", "str_replace_based_edit_tool"]
    max_characters: Annotated[int, Field(ge=1)] | None = None


class MemoryTool(_AnyTool):
    type: Literal["memory_20250818"]
    name: Literal["memory"]


def _kind(value: Any) -> str:
    """Which of the four; whatever is neither of ours is held to the first, which names what its type may be."""
    named = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    kind = named.rsplit("_", 1)[0] if isinstance(named, str) else ""
    return kind if kind in ("bash", "text_editor", "memory") else "custom"


Tool = Annotated[
    Annotated[CustomTool, Tag("custom")]
    | Annotated[BashTool, Tag("bash")]
    | Annotated[EditorTool, Tag("text_editor")]
    | Annotated[MemoryTool, Tag("memory")],
    Discriminator(_kind),
]


class Choice(Part):
    type: Literal["auto", "any", "tool", "none"]
    name: Id | None = None
    disable_parallel_tool_use: bool | None = None


class BlockBinding(Part):
    """What becomes of a thinking block that does not belong to its conversation."""

    prefix_mismatch_behavior: Literal["error", "drop_block"] | None = None


class ThinkingConfig(Part):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    display: Literal["summarized", "omitted", "updates"] | None = None
    block_binding: BlockBinding | None = None


class CountRequest(Part):
    """POST /v1/messages/count_tokens; free of charge."""

    model: Annotated[str, Field(max_length=100)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=2000, fail_fast=True)]
    system: Text | Annotated[list[TextBlock], Field(fail_fast=True)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: Choice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    context_management: Any = _LEFT_OUT


class MessagesRequest(CountRequest):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    stream: Annotated[bool, BeforeValidator(lambda value: False if value is None else value)] = False
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    stop_sequences: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=16)] | None = None
    metadata: Any = _LEFT_OUT
    service_tier: Literal["auto", "standard_only"] | None = _LEFT_OUT
    diagnostics: Any = _LEFT_OUT

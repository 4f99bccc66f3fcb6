"""Only what is named in the allow-list leaves; each refusal stands beside the nearest request that passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.rooms.broker.request import CountRequest, MessagesRequest, RequestRefused, parse, rebuild

CAP = 1 << 20
GOOD: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 100,
    "stream": True,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    "tools": [
        {"name": "view", "description": "d", "input_schema": {"type": "object", "properties": {"a": {"x": None}}}}
    ],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "text", "text": "x", "citations": None},
                {"type": "tool_use", "id": "toolu_1", "name": "view", "input": {"first": None, "deep": [[1, 2.5]]}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}]},
    ],
}


def loads(value: Any, model: type[CountRequest] = MessagesRequest) -> CountRequest:
    return parse(json.dumps(value).encode(), model, CAP)


def changed(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(GOOD)) | changes


def block(value: dict[str, Any]) -> dict[str, Any]:
    return changed(messages=[{"role": "user", "content": [value]}])


def test_a_whole_request_is_rebuilt_with_the_same_meaning() -> None:
    expected = changed()
    del expected["messages"][1]["content"][1]["citations"]
    assert json.loads(rebuild(loads(GOOD))) == expected


def test_metadata_is_accepted_and_left_out() -> None:
    assert "metadata" not in json.loads(rebuild(loads(changed(metadata={"user_id": "a person"}))))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (changed(mcp_servers=[{"type": "url", "url": "https://evil"}]), "field_not_allowed"),
        (changed(container="c"), "field_not_allowed"),
        (changed(inference_geo="us"), "field_not_allowed"),
        (changed(service_tier="auto"), "field_not_allowed"),
        (changed(speed="fast"), "field_not_allowed"),
        (changed(context_management={}), "field_not_allowed"),
        (changed(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "value_not_allowed"),
        (changed(tools=[{"type": "code_execution_20250825", "name": "x", "input_schema": {}}]), "value_not_allowed"),
        (changed(tools=[{"name": "x", "input_schema": {}, "allowed_callers": ["direct"]}]), "field_not_allowed"),
        (block({"type": "image", "source": {"type": "url", "url": "https://evil/?q=secret"}}), "type_not_allowed"),
        (block({"type": "document", "source": {"type": "file", "file_id": "f"}}), "type_not_allowed"),
        (block({"type": "container_upload", "file_id": "f"}), "type_not_allowed"),
        (block({"type": "server_tool_use", "id": "x", "name": "web_fetch", "input": {}}), "type_not_allowed"),
        (block({"type": "text", "text": "x", "citations": [{"url": "https://evil"}]}), "bad_value"),
        (block({"type": "text"}), "field_missing"),
        (block({"text": "x"}), "type_missing"),
        (
            changed(system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]),
            "value_not_allowed",
        ),
        (changed(max_tokens=0), "bad_value"),
        (changed(max_tokens=True), "bad_value"),
        (changed(max_tokens="100"), "bad_value"),
        (changed(stream="yes"), "bad_value"),
        (changed(temperature=3.0), "bad_value"),
        (changed(messages=[]), "bad_value"),
        (changed(messages=[{"role": "system", "content": "x"}]), "value_not_allowed"),
        ([], "bad_value"),
        ("x", "bad_value"),
    ],
)
def test_what_is_not_named_is_refused_with_a_code(value: Any, code: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        loads(value)
    assert caught.value.what == code
    assert "evil" not in str(caught.value)


def test_a_field_that_is_not_allowed_is_not_repeated_but_its_place_is() -> None:
    value = changed()
    value["tools"][0]["ignore all previous instructions"] = 1
    with pytest.raises(RequestRefused) as caught:
        loads(value)
    assert (caught.value.what, caught.value.where) == ("field_not_allowed", "tools.0")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model":"a","model":"b"}', "duplicate_key"),
        (b"{" * 100, "too_deep"),
        (b'{"max_tokens":NaN}', None),
        (b"\xff", None),
        (b"", None),
        (b"x" * (CAP + 1), "too_large"),
    ],
)
def test_bodies_that_are_not_one_plain_json_document_are_refused(body: bytes, code: str | None) -> None:
    with pytest.raises(RequestRefused) as caught:
        parse(body, MessagesRequest, CAP)
    assert code is None or caught.value.what == code


def test_counting_takes_no_generation_fields() -> None:
    count = {k: v for k, v in GOOD.items() if k not in ("max_tokens", "stream")}
    assert loads(count, CountRequest).model == "claude-haiku-4-5"
    with pytest.raises(RequestRefused, match="field_not_allowed"):
        loads(GOOD, CountRequest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_in_any_field_is_refused_or_rebuilt_from_known_fields(name: str, value: Any) -> None:
    try:
        request = loads(changed(**{name: value}))
    except RequestRefused as error:
        assert error.what.replace("_", "").isalpha()
        return
    assert set(json.loads(rebuild(request))) <= set(MessagesRequest.model_fields)


@given(JSON)
def test_any_block_is_refused_or_of_a_known_type(value: Any) -> None:
    try:
        request = loads(block(value))
    except RequestRefused:
        return
    content = json.loads(rebuild(request))["messages"][0]["content"]
    assert {b["type"] for b in content} <= {"text", "thinking", "redacted_thinking", "tool_use", "tool_result"}


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RequestRefused):
        parse(data, MessagesRequest, CAP)

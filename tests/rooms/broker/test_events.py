"""Whole events in, whole events out, however the bytes are cut; and the usage they carry."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.secret_file import Key
from runner.rooms.broker import events
from runner.rooms.broker.budget import Usage


def event(**value: object) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


STREAM = (
    event(
        type="message_start", message={"usage": {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 1}}
    )
    + b": keep-alive\n\n"
    + event(type="content_block_delta", delta={"text": "\n\n"})
    + event(type="message_delta", usage={"output_tokens": 33})
    + event(type="message_stop")
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    reader, out = events.Events(), b""
    edges = [0, *sorted(cuts), len(STREAM)]
    for a, b in itertools.pairwise(edges):
        out += b"".join(reader.feed(STREAM[a:b]))
    assert out == STREAM
    assert reader.usage == Usage(input=9, cache_read=5, output=33)


def test_a_stream_that_was_cut_off_has_no_usage() -> None:
    reader = events.Events()
    reader.feed(STREAM[: STREAM.index(b"event: message_stop")])
    assert reader.usage is None


def test_a_later_report_never_lowers_an_earlier_one() -> None:
    reader = events.Events()
    reader.feed(STREAM.replace(b'"output_tokens": 33', b'"output_tokens": 0, "input_tokens": 0'))
    assert reader.usage == Usage(input=9, cache_read=5, output=1)


@pytest.mark.parametrize(
    "data",
    [b"data: {no\n\n", b'data: {"a":1,"a":2}\n\n', b"data: " + b"[" * 100 + b"\n\n", b"x" * (events.MAX_EVENT + 1)],
)
def test_what_is_not_an_event_is_malformed(data: bytes) -> None:
    with pytest.raises(events.MalformedAnswer):
        events.Events().feed(data)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"input_tokens": 1},
        {"input_tokens": 1, "output_tokens": -1},
        {"input_tokens": True, "output_tokens": 1},
    ],
)
def test_usage_that_cannot_be_billed_is_unknown(usage: object) -> None:
    assert events.usage(usage) is None
    assert events.usage({"input_tokens": 1, "output_tokens": 0, "cache_read_input_tokens": None}) == Usage(input=1)


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_malformed(data: bytes) -> None:
    try:
        events.Events().feed(data)
    except events.MalformedAnswer as error:
        assert str(error).replace("_", "").isalpha()


SECRET = "sk-ant-api03-" + "Ab3/x9_-" * 8


def deltas(text: str, size: int, name: str = "text") -> list[bytes]:
    cut = [text[at : at + size] for at in range(0, len(text), size)]
    return [event(type="content_block_delta", index=0, delta={"type": "d", name: part}) for part in cut]


@pytest.mark.parametrize("size", [1, 5, 19, 40])
@pytest.mark.parametrize("name", ["text", "partial_json", "thinking"])
def test_a_key_spread_over_events_ends_the_stream_before_it_is_out(size: int, name: str) -> None:
    reader, out = events.Events(Key(SECRET)), b""
    with pytest.raises(events.MalformedAnswer, match="secret"):
        for one in deltas(f"my key is {SECRET}.", size, name):
            out += b"".join(reader.feed(one))
    told = "".join(json.loads(line[5:])["delta"][name] for line in out.split(b"\n") if line.startswith(b"data:"))
    assert not any(SECRET[at : at + 20] in told for at in range(len(SECRET) - 19))


def test_a_key_in_one_event_is_blanked_and_what_all_keys_begin_with_passes() -> None:
    reader = events.Events(Key(SECRET))
    (whole,) = reader.feed(event(type="content_block_delta", delta={"text": SECRET}))
    assert b"[key]" in whole
    assert SECRET.encode() not in whole
    assert reader.feed(event(type="content_block_delta", delta={"text": "they begin with sk-ant-api03-"}))


def test_a_key_in_escapes_is_blanked_or_refused() -> None:
    written = "".join(rf"\u{ord(c):04X}" if at % 2 else c for at, c in enumerate(SECRET)).replace("/", r"\/")
    assert SECRET in json.loads(f'"{written}"')
    body = f'{{"content": [{{"text": "{written}"}}]}}'.encode()
    assert events.without(Key(SECRET), body, 1 << 20) == b'{"content": [{"text": "[key]"}]}'
    part = "".join(rf"\u{ord(c):04x}" for c in SECRET[10:40])
    with pytest.raises(events.MalformedAnswer, match="secret"):
        events.without(Key(SECRET), f'{{"a": {{"{part}": 1}}}}'.encode(), 1 << 20)


WAYS = {
    "comments": lambda part: f": {part}\n\n".encode(),
    "ids": lambda part: f"id: {part}\n".encode() + event(type="ping"),
    "a name of an event": lambda part: f"event: {part}\n".encode() + event(type="ping").partition(b"\n")[2],
    "a byte order mark": lambda part: "\ufeffdata: {}\n\n".replace("{}", part).encode(),
    "padded": lambda part: event(type="content_block_delta", delta={"text": part, "z": "x" * 9000}),
    "types": lambda part: event(type="content_block_delta", delta={"type": part}),
    "names": lambda part: event(type="content_block_delta", delta={part: 1}),
    "nested": lambda part: event(type="content_block_delta", delta={"citation": {"cited_text": part}}),
    "a list": lambda part: event(type="content_block_delta", delta=[part]),
    "blocks": lambda part: event(type="content_block_start", content_block={"type": "text", "text": part}),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_a_stream_lets_the_key_out_piece_by_piece(way: str) -> None:
    reader, out = events.Events(Key(SECRET)), b""
    with contextlib.suppress(events.MalformedAnswer):
        for at in range(0, len(SECRET), 19):
            out += b"".join(reader.feed(WAYS[way](SECRET[at : at + 19])))
    assert not any(SECRET[at : at + 20].encode() in out for at in range(len(SECRET) - 19))
    told = {SECRET[at : at + 19] for at in range(0, len(SECRET) - 19, 19) if SECRET[at : at + 19].encode() in out}
    assert len(told) <= 1


def test_alternating_blocks_do_not_let_it_out_either() -> None:
    reader = events.Events(Key(SECRET))
    with pytest.raises(events.MalformedAnswer, match="secret"):
        for number, at in enumerate(range(0, len(SECRET), 19)):
            reader.feed(event(type="content_block_delta", index=number % 2, delta={"text": SECRET[at : at + 19]}))
    body = json.dumps({"content": [{"type": "text", "text": SECRET[at : at + 19]} for at in range(0, len(SECRET), 19)]})
    with pytest.raises(events.MalformedAnswer, match="secret"):
        events.without(Key(SECRET), body.encode(), 1 << 20)


def test_what_a_line_can_hold_besides_name_and_data_is_not_relayed() -> None:
    (told,) = events.Events().feed(b"retry: 1\r\nid: 7\r\nevent: ping\r\n: hm\r\ndata: {}\r\n\r\n")
    assert told == b"event: ping\ndata: {}\n\n"
    assert events.Events().feed(b": anything\n\n") == [events.KEEP_ALIVE]


def test_many_small_events_in_one_piece_are_cut_in_one_pass() -> None:
    assert len(events.Events().feed(b": \n\n" * 400_000)) == 400_000  # ten seconds and more, when each was cut off anew

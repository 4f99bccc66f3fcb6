"""Server-sent events of a streamed answer: whole events only, and the usage they report. TRUSTED.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html and the Messages API's streaming page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from runner.core.airlock import invisible
from runner.core.base.secret_file import Key
from runner.rooms.broker.budget import Usage
from trainer.wire import strict_json

MAX_EVENT = 4 << 20
MAX_SAID = 1 << 10  # characters of what was said before in one place: longer than any key
MAX_PLACES = 256
KEEP_ALIVE = b": keep-alive\n\n"
_NAME = re.compile(rb"event: ?[a-z_]{1,40}")
Path = tuple[str, ...]
ERRORS = (  # kinds of the API's own; any other is an api_error
    *("invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large"),
    *("rate_limit_error", "api_error", "timeout_error", "overloaded_error"),
)
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_FIELDS = {
    "input": "input_tokens",
    "cache_write": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
    "output": "output_tokens",
}


class MalformedAnswer(Exception):
    """The API's answer is not what it promises to send."""


class Events:
    """Cuts a byte stream into whole events and keeps the usage they carry."""

    def __init__(self, key: Key | None = None) -> None:
        self._key = key  # must not leave, however many events it is spread over
        self._said: dict[Path, str] = {}
        self._rest = b""
        self._counts: dict[str, int] = {}
        self._output = False  # the count of what was written has come
        self._stopped = False  # and is the last one
        self.finished = False
        self.shown = 0  # characters of what the model wrote
        self.error: str | None = None  # type of an error event within the stream

    def feed(self, data: bytes) -> list[bytes]:
        """Whole events in `data` and what was left over; raises MalformedAnswer."""
        return list(self.each(data))

    def each(self, data: bytes) -> Iterator[bytes]:
        """Like feed, one by one: those before a malformed one are told, however the bytes were cut."""
        seen = max(0, len(self._rest) - 3)  # an end may straddle two pieces; what was searched is not searched again
        self._rest += data
        begin = 0
        for match in _END.finditer(self._rest, seen):
            event, begin = self._rest[begin : match.end()], match.end()
            yield self._passed(self._key.scrub(event) if self._key else event)
        self._rest = self._rest[begin:]
        if len(self._rest) > MAX_EVENT:
            raise MalformedAnswer("event_too_large")

    @property
    def usage(self) -> Usage | None:
        """What was billed; None until the stream has said all of it."""
        return usage(self._counts) if self._output and (self.finished or self._stopped) else None

    @property
    def begun(self) -> Usage | None:
        """What it had said was billed so far, input above all; None before its first event."""
        return usage({"output_tokens": 0} | self._counts)

    def _passed(self, event: bytes) -> bytes:
        """The event as it is relayed: its name and its data; whatever else a line can hold is nobody's business."""
        lines = event.splitlines()
        data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        if not data:
            return KEEP_ALIVE
        value = _object(b"\n".join(data))
        self._read(value)
        if value.get("type") == "error":
            return error_event(self.error or "api_error", _said(value))
        return b"".join(line + b"\n" for line in lines if line.startswith(b"data:") or _NAME.fullmatch(line)) + b"\n"

    def _hear(self, value: dict[str, Any]) -> None:
        """Raise MalformedAnswer if the key is said, all at once or piece by piece in one place of many events."""
        for place, text in strings(value):
            said = self._said.get(place, "") + text
            if self._key and self._key.echoed(said):
                raise MalformedAnswer("secret")
            self._said[place] = said[-MAX_SAID:]
        if len(self._said) > MAX_PLACES:
            raise MalformedAnswer("too_many_fields")

    def _read(self, value: dict[str, Any]) -> None:
        self._hear(value)
        kind = value.get("type")
        if kind == "message_start":
            self._count(_dict(value.get("message")).get("usage"))
        elif kind == "message_delta":
            self._count(value.get("usage"))
            self._output = _counts(_dict(value.get("usage")).get("output_tokens"))
            self._stopped = self._output and isinstance(_dict(value.get("delta")).get("stop_reason"), str)
        elif kind == "content_block_delta":
            delta = _dict(value.get("delta")).items()
            self.shown += sum(len(text) for name, text in delta if name != "type" and isinstance(text, str))
        elif kind == "message_stop":
            self.finished = True
        elif kind == "error":
            kind = _dict(value.get("error")).get("type")
            self.error = kind if kind in ERRORS else "api_error"

    def _count(self, found: Any) -> None:
        # Later reports are cumulative: they replace earlier ones, and never lower them.
        for name, value in _dict(found).items():
            if name in _FIELDS.values() and _counts(value):
                self._counts[name] = max(value, self._counts.get(name, 0))


def strings(value: Any, place: Path = ()) -> Iterator[tuple[Path, str]]:
    """(place, text) of all text in a decoded value, names too; the items of a list are in one place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield (*place, "names"), name
            yield from strings(inner, (*place, name[:40]))
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, place)


def usage(found: Any) -> Usage | None:
    """The usage object of a message; None if it lacks what is billed."""
    counts = _dict(found)
    values = {ours: counts.get(theirs) or 0 for ours, theirs in _FIELDS.items()}
    if "output_tokens" not in counts or "input_tokens" not in counts:
        return None
    if not all(type(value) is int and 0 <= value < 10**9 for value in values.values()):
        return None
    return Usage(**values)


def without(key: Key, body: bytes, max_bytes: int) -> bytes:
    """A whole answer without the key; raises MalformedAnswer if it is no object, or says the key in another way."""
    body = key.scrub(body)
    said: dict[Path, list[str]] = {}
    for place, text in strings(_object(body, max_bytes)):
        said.setdefault(place, []).append(text)
    if any(key.echoed("".join(texts)) for texts in said.values()):
        raise MalformedAnswer("secret")
    return body


def usage_of(body: bytes, max_bytes: int) -> Usage | None:
    """The usage of a whole (not streamed) answer; raises MalformedAnswer."""
    return usage(_object(body, max_bytes).get("usage"))


def error_of(body: bytes) -> str:
    """The message of an error answer, one printable line; raises MalformedAnswer."""
    return _said(_object(body))


def error_event(kind: str, message: str) -> bytes:
    """The event with which a stream ends that is not whole."""
    error = {"type": "error", "error": {"type": kind, "message": message}}
    return b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"


def _said(error: dict[str, Any]) -> str:
    message = _dict(error.get("error")).get("message")
    text = invisible.blanked(message) if isinstance(message, str) else ""
    return "".join(c if c.isprintable() else " " for c in text)[:300]


def _object(data: bytes, max_bytes: int = MAX_EVENT) -> dict[str, Any]:
    try:
        value = strict_json.loads(data, max_bytes=max_bytes, max_depth=64)
    except strict_json.StrictJsonError as error:
        raise MalformedAnswer(error.reason) from None
    if not isinstance(value, dict):
        raise MalformedAnswer("not_an_object")
    return value


def _counts(value: Any) -> bool:
    return type(value) is int and value >= 0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

"""The fault battery: every way in which an answer of the API has gone wrong, or may, and what each may cost.

`costs` says what the call is priced as, and so between what its price must lie:

    free    the API said no, or was never reached
    known   what it reported
    begun   its input as the stream had said, its output by time or by what was shown
    timed   the stream had said nothing yet: its input at the worst, its output by time or by what was shown
    worst   all that was held
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any, Literal

from tests.standin.mischief import (
    END,
    INPUT,
    OPEN,
    RESET,
    SHUT,
    UNREAD,
    WHOLE,
    Step,
    drip,
    head,
    sse,
    start,
    stop,
    text,
)
from tests.standin.mischief import whole as answer

MARK = "words-of-the-upstream"  # in whatever must not be repeated to the agent
TOLD = "one line that people may read"  # what an API says of its own refusal; it may
LATER = 30.0  # seconds: longer than the broker waits
GOOD = start() + text("ok") + stop() + END
BROKEN = r"broken_[A-Za-z]+"


@dataclass(frozen=True)
class Fault:
    """What the server does, and what must follow."""

    steps: list[Step]
    costs: Literal["free", "known", "begun", "timed", "worst"]
    outcome: str  # in the log: a pattern
    status: int  # that the agent gets
    stream: bool = True  # as it was asked
    output: int = 0  # tokens that are billed, at least
    input: int = INPUT


def _json(value: Any, status: str = "200 OK", **more: str) -> list[Step]:
    return [answer(json.dumps(value).encode(), status, **more)]


def _error(kind: Any, message: Any, **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "detail": MARK}


def _early(steps: list[Step], outcome: str = BROKEN, **more: Any) -> Fault:
    """It goes wrong before the API has said what the prompt costs."""
    return Fault(steps, "timed", outcome, 502, **more)


def _late(*steps: Step, outcome: str = BROKEN, output: int = 1, status: int = 200) -> Fault:
    """It goes wrong in a stream that has begun."""
    return Fault([head(), start(), *steps], "begun", outcome, status, output=output)


def _told(*events: bytes, outcome: str = "ok", output: int = 2, costs: Any = "known", status: int = 200) -> Fault:
    """A stream that comes to its end."""
    return Fault([head() + b"".join(events)], costs, outcome, status, output=output)


def _refusal(status: str, body: bytes = b"", **more: Any) -> Fault:
    return Fault([answer(body, status, **more)], "free", f"status_{status[:3]}", _passed(int(status[:3])))


def _passed(status: int) -> int:
    return status if status in (400, 401, 403, 404, 413, 429, 500, 502, 503, 504, 529) else 502


def _whole(steps: list[Step], outcome: str = "malformed", costs: Any = "worst", status: int = 502) -> Fault:
    """An answer that was asked for in one piece: the API may have written all of it."""
    return Fault(steps, costs, outcome, status, stream=False, output=32_000 if costs == "worst" else 2)


BEFORE = {
    "hangs up on the request": _early([UNREAD, 0.3, RESET]),
    "reads and hangs up": _early([0.0]),
    "resets before a header": _early([RESET]),
    "never answers": _early([LATER]),
    "half a header": _early([b"HTTP/1.1 200 OK\r\ncontent-ty"]),
    "headers a byte at a time": _early(drip(head() * 9, 0.1), "too_long"),
    "headers without end": _early([b"HTTP/1.1 200 OK\r\n" + f"x-a: {MARK}\r\n".encode() * 20_000]),
    "no HTTP": _early([f"SSH-2.0-{MARK}\r\n\r\n".encode()]),
    "two lengths": _early([head(content_length="5\r\ncontent-length: 6") + b"hello!"]),
    "headers and nothing else": _early([head()], "malformed"),
    "another protocol": _early([head("101 Switching", upgrade=MARK)]),
    "no content": _early([head("204 No Content")], "status_204"),
    "a redirect": _early([answer(MARK.encode(), "302 Found", location="/v1/messages")], "status_302"),
    "a gateway that gave up": Fault([answer(b"", "504 Gateway Timeout")], "timed", "status_504", 504),
    "a proxy that gave up": Fault([answer(b"", "408 Request Timeout")], "timed", "status_408", 502),
}
REFUSALS = {
    "400 with a reason": _refusal("400 Bad", json.dumps(_error("invalid_request_error", TOLD, more=MARK)).encode()),
    "400 with control characters": _refusal(
        "400 Bad", json.dumps(_error("e", f"{TOLD}\n\x1b[2J\u202e" + "x" * 9000 + MARK)).encode()
    ),
    "401 as a page": _refusal("401 Unauthorized", f"<html>{MARK}</html>".encode(), kind="text/html"),
    "413 with a kind of its own": _refusal("413 Large", json.dumps(_error(MARK, TOLD)).encode()),
    "429 for a while": _refusal("429 Slow", b"{}", retry_after="0.3"),
    "429 for ever": _refusal("429 Slow", b"{}", retry_after="99999999"),
    "429 in words": _refusal("429 Slow", b"{}", retry_after=MARK),
    "500 as a page": _refusal(f"500 {MARK}", MARK.encode() * 9, kind="text/html"),
    "500 as a list": _refusal("500 Error", json.dumps([MARK]).encode()),
    "503 without a word": _refusal("503 Away"),
    "529 overloaded": _refusal("529 Overloaded", json.dumps(_error("overloaded_error", TOLD)).encode()),
    "an error without end": Fault([head("500 Error"), *[MARK.encode() * 999] * 99], "free", "status_500", 500),
    "an error a byte at a time": Fault([head("500 Error"), *drip(b" " * 99, 0.1)], "free", "too_long", 500),
    "an error that stops": Fault([head("500 Error", content_length="99"), b"{", LATER], "free", BROKEN, 500),
}
CUT = {
    "ends after message_start": _late(outcome="malformed"),
    "ends after an empty block": _late(OPEN, outcome="malformed"),
    "ends in the text": _late(OPEN, text("a" * 40), outcome="malformed", output=40),
    "ends in an event": _late(OPEN, text("a" * 40)[:-20], outcome="malformed"),
    "ends before it says what was written": _late(OPEN, text("ok"), SHUT, outcome="malformed", output=2),
    "ends before message_stop": _told(start(), OPEN, text("ok"), SHUT, stop()),
    "resets after message_start": _late(0.05, RESET),
    "resets in the text": _late(OPEN, text("a" * 9000), 0.05, RESET, output=9000),
    "falls silent after message_start": _late(LATER),
    "falls silent in the text": _late(OPEN, text("a" * 40), LATER, output=40),
    "pings for ever": _late(OPEN, *[sse(type="ping"), 0.2] * 99, outcome="too_long"),
    "an event a byte at a time": _late(*drip(text("a" * 99), 0.1), outcome="too_long"),
    "chunks that are none": Fault(
        [head(transfer_encoding="chunked"), b"%x\r\n" % len(start()) + start() + b"\r\nzz\r\n"], "begun", BROKEN, 200
    ),
    "chunks without the last": Fault(
        [head(transfer_encoding="chunked"), b"%x\r\n" % len(start()) + start() + b"\r\n"], "begun", BROKEN, 200
    ),
    "shorter than it said": Fault([head(content_length="9999"), start()], "begun", BROKEN, 200),
}
GARBAGE = {
    "an event that is no JSON": _late(b"data: {" + MARK.encode() + b"\n\n", outcome="malformed"),
    "an event that is no text": _late(b'data: {"a": "\xff\xfe"}\n\n', outcome="malformed"),
    "an event that says it twice": _late(b'data: {"type": "ping", "type": "error"}\n\n', outcome="malformed"),
    "an event too deep": _late(b"data: " + b"[" * 9000 + b"]" * 9000 + b"\n\n", outcome="malformed"),
    "an event too large": _late(b"data: " + b" " * (5 << 20), outcome="malformed"),
    "more than may come": _late(OPEN, *[text("a" * (1 << 20))] * 7, outcome="malformed", output=32_000),
    "an end of another API": _late(OPEN, text("ok"), b"data: [DONE]\n\n", outcome="malformed", output=2),
    "a page": Fault([answer(MARK.encode(), kind="text/html")], "worst", "malformed", 502),
    "one piece for a stream": Fault(_json(WHOLE), "known", "malformed", 502, output=2),
    "one piece for a stream, cost unknown": Fault(
        _json(WHOLE | {"usage": {}}), "worst", "malformed", 502, output=32_000
    ),
    "packed, unasked": Fault(
        [answer(gzip.compress(GOOD), kind="text/event-stream", content_encoding="gzip")],
        "known",
        "ok",
        200,
        output=2,
    ),
    "packed, but not": _early([head(content_encoding="gzip"), b"no gzip at all"]),
    "packed twice": _early([head(content_encoding="gzip, gzip"), gzip.compress(gzip.compress(GOOD))], "malformed"),
    "packed to a thousandth": _early(
        [head(content_encoding="gzip"), gzip.compress(b"data: " + b"a" * (64 << 20))], "malformed"
    ),
    "an error first": Fault(
        [head() + sse(**_error("overloaded_error", TOLD))], "timed", "stream_overloaded_error", 200
    ),
    "an error in the text": _late(
        OPEN, text("a" * 40), sse(**_error("api_error", TOLD, more=MARK)), outcome="stream_api_error", output=40
    ),
    "an error of a kind of its own": _late(sse(**_error(MARK, TOLD)), outcome="stream_api_error"),
    "an error in no words": _late(sse(**_error({MARK: 1}, [MARK])), outcome="stream_api_error"),
}
USAGE = {
    "begins without message_start": _told(OPEN, text("ok"), SHUT, stop(), END, outcome="malformed", costs="timed"),
    "begins twice": _told(start(), start(input_tokens=2), OPEN, text("ok"), SHUT, stop(), END),
    "begins without a count": _told(
        sse(type="message_start", message={"usage": None}), text("ok"), stop(), END, outcome="malformed", costs="timed"
    ),
    "counts in words": _told(start(input_tokens="60"), text("ok"), stop(), END, outcome="malformed", costs="timed"),
    "says nothing of what was written": _told(start(), text("ok"), sse(type="message_delta", usage={}), END,
                                              outcome="malformed", costs="begun"),
    "writes less than nothing": _told(start(), text("a" * 40), stop(output_tokens=-9), END,
                                      outcome="malformed", costs="begun", output=40),
    "prompts less than nothing": _told(start(input_tokens=-60), text("ok"), stop(), END,
                                       outcome="malformed", costs="timed"),
    "shrinks": _told(start(output_tokens=30), text("ok"), stop(output_tokens=1, input_tokens=0), END, output=30),
    "has no prompt": _told(start(input_tokens=0), text("ok"), stop(), END, costs="timed"),
    "has written nothing and shown it": _told(start(output_tokens=0), text("a" * 40), stop(output_tokens=0), END,
                                              costs="begun", output=40),
    "is a million times too much": _told(start(input_tokens=10**8), text("ok"), stop(), END, costs="worst"),
    "is more than any number": _told(start(input_tokens=10**12), text("ok"), stop(), END,
                                     outcome="malformed", costs="timed"),
    "goes on after its end": _told(start(), text("ok"), stop(), END, text("a" * 40)),
}  # fmt: skip
WHOLE_ANSWERS = {
    "one piece, cut off": _whole([answer(json.dumps(WHOLE).encode())[:-9]], BROKEN),
    "one piece that stops": _whole([answer(json.dumps(WHOLE).encode())[:-9], LATER], BROKEN),
    "one piece a byte at a time": _whole(drip(answer(json.dumps(WHOLE).encode()), 0.1), "too_long"),
    "one piece of nothing": _whole([answer(b"")]),
    "one piece that is a list": _whole(_json([MARK])),
    "one piece that is no JSON": _whole([answer(MARK.encode())]),
    "one piece too large": _whole([answer(json.dumps(WHOLE | {"x": MARK * 400_000}).encode())]),
    "one piece without usage": _whole(_json(WHOLE | {"usage": None}), "ok", status=200),
    "one piece without a prompt": _whole(_json(WHOLE | {"usage": {"input_tokens": 0, "output_tokens": 2}}), "ok", status=200),
    "one piece, less than nothing": _whole(_json(WHOLE | {"usage": {"input_tokens": 1, "output_tokens": -2}}), "ok", status=200),
    "one piece, a million times too much": _whole(
        _json(WHOLE | {"usage": {"input_tokens": 10**8, "output_tokens": 2}}), "ok", status=200
    ),
    "a stream for one piece": _whole([head() + GOOD]),
    "never answers with one piece": _whole([LATER], BROKEN),
}  # fmt: skip
FAULTS: dict[str, Fault] = BEFORE | REFUSALS | CUT | GARBAGE | USAGE | WHOLE_ANSWERS

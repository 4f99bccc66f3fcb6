"""What goes wrong at the API costs what it can have cost, is told in a few words of ours, and stops nothing."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runner.core.evidence.spending import NANO, spent
from runner.rooms.broker.budget import OVERHEAD_TOKENS
from runner.rooms.broker.upstream import NOTICED
from tests.rooms.broker.battery import CUT, FAULTS, GARBAGE, MARK, TOLD, USAGE, Fault
from tests.rooms.broker.conftest import KEY, Brokered, Start, starting
from tests.standin.mischief import INPUT, UNREAD, Mischief, whole

MOST = 32_000  # tokens of output: at the worst case a call is 16 cents, and a night 300 calls
ASKED = {"model": "claude-haiku-4-5", "max_tokens": MOST, "messages": [{"role": "user", "content": "hi " * 80}]}
SAYS, WRITES, CACHES = 1000, 5000, 1250  # nano-dollars for a token of input, of output, and for the dearest of a prompt
KINDS = {"invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
         "rate_limit_error", "api_error", "timeout_error", "overloaded_error"}  # fmt: skip
OURS = re.compile(
    r"glovebox: (the model API failed \()?(broken_[A-Za-z]+|malformed|too_long|cannot_connect|stream_[a-z_]+|status_\d+)\)?"
)
LIMITS = {"call_seconds": "3.0", "idle_seconds": "1.5", "experiment__dollars": "50.0", "experiment__requests": "1000"}
PAUSES = {"failures": "100", "open_seconds": "0.01", "longest_seconds": "0.3"}


@pytest.fixture(scope="module")
def api() -> Iterator[Mischief]:
    with Mischief() as mischief:
        yield mischief


@pytest.fixture(scope="module")
def broker(api: Mischief, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokered]:
    """One for all faults: what one leaves behind, the next would meet."""
    with starting(tmp_path_factory.mktemp("battery")) as make:
        yield make(upstream=api.url, response_bytes=str(6 << 20), **LIMITS, **PAUSES)


def calls(broker: Brokered) -> list[dict[str, Any]]:
    return [entry["data"] for entry in broker.log() if entry["kind"] == "call"]


def bounds(call: dict[str, Any], fault: Fault) -> tuple[int, int]:
    """Between what its price must lie: what is billed at least, and what it can have been at most."""
    least = fault.input * SAYS + fault.output * WRITES
    shown = math.ceil((call["seconds"] + NOTICED + 0.1) * 400)
    timed = min(MOST, max(shown, fault.output)) * WRITES
    prompt = (call["request_bytes"] + OVERHEAD_TOKENS) * CACHES
    most = {
        "known": least,
        "begun": INPUT * SAYS + timed,
        "timed": prompt + timed,
        "worst": prompt + MOST * WRITES,
        "free": 0,
    }
    return (0 if fault.costs == "free" else least), most[fault.costs]


def complaint(reply: httpx2.Response) -> dict[str, Any] | None:
    """The error in an answer: the whole of it, or the last event of a stream; None if there is none."""
    text = reply.text
    if reply.status_code == 200:
        if "event: error" not in text:
            return None
        text = text[text.rindex("event: error") :].split("data: ", 1)[1]
    found: dict[str, Any] = json.loads(text)
    assert set(found) == {"type", "error"}
    assert set(found["error"]) == {"type", "message"}
    return dict(found["error"])


def waits(fault: Fault) -> bool:
    """Whether the server takes more than a moment."""
    return sum(step for step in fault.steps if isinstance(step, float)) > 0.1


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_priced_told_and_over(broker: Brokered, api: Mischief, name: str) -> None:
    fault = FAULTS[name]
    before, asked = len(calls(broker)), len(api.bodies)
    api.faults.append(fault.steps)
    reply = broker.post(ASKED | {"stream": fault.stream})
    (call,) = calls(broker)[before:]
    assert re.fullmatch(fault.outcome, call["outcome"]), call
    least, most = bounds(call, fault)
    assert least <= call["nano_dollars"] <= most
    assert len(api.bodies) - asked <= 1  # nothing was tried again, or followed
    assert reply.status_code == fault.status
    error = complaint(reply)
    assert (error is None) is (call["outcome"] == "ok")
    if error is not None:
        assert error["type"] in KINDS
        assert OURS.fullmatch(error["message"]) or error["message"].startswith(TOLD) or not error["message"]
        assert len(error["message"]) <= 300
        assert error["message"].isprintable()
        assert MARK not in reply.text + str(reply.headers)
    assert KEY not in reply.text
    time.sleep(0.4 if "429" in call["outcome"] else 0.0)  # which pauses, but no longer than policy says
    assert broker.post(ASKED).json()["content"] == [{"type": "text", "text": "ok"}]
    assert calls(broker)[-1]["nano_dollars"] == INPUT * SAYS + 2 * WRITES


@pytest.mark.parametrize(
    "upstream", ["https://127.0.0.1:{}", "https://model.invalid", "http://127.0.0.1:1"], ids=["tls", "dns", "closed"]
)
def test_an_api_that_cannot_be_reached_costs_nothing(start: Start, api: Mischief, upstream: str) -> None:
    broker = start(upstream=upstream.format(api.url.rsplit(":", 1)[1]), **LIMITS, **PAUSES)
    for _ in range(2):
        if "https://127" in upstream:
            api.faults.append([UNREAD, whole(MARK.encode(), "400 Speak plainly")])
        reply = broker.post(ASKED | {"stream": True})
        error = complaint(reply)
        assert reply.status_code == 502
        assert error is not None
        assert OURS.fullmatch(error["message"])
    assert {(call["outcome"], call["nano_dollars"]) for call in calls(broker)} == {("cannot_connect", 0)}


def test_a_night_of_broken_streams_has_a_budget_left(start: Start, api: Mischief) -> None:
    """Seven ended one with 44 of 50 dollars left: each was priced as 32,000 tokens of output."""
    broker = start(upstream=api.url, night__dollars="50.0", **LIMITS, **{**PAUSES, "longest_seconds": "0.01"})
    streams = {**CUT, **GARBAGE, **USAGE}
    breaks = [name for name, fault in streams.items() if fault.costs == "begun" and not waits(fault)]
    names = [breaks[number % len(breaks)] for number in range(200)]
    for name in names:
        api.faults.append(FAULTS[name].steps)
        while broker.post(ASKED | {"stream": True}).status_code == 529:
            pass
        time.sleep(0.02)  # after a hundred in a row, and then after each, it pauses for half of that
    found = calls(broker)
    assert len(found) == 200
    priced = [bounds(call, FAULTS[name]) for call, name in zip(found, names, strict=True)]
    total = sum(call["nano_dollars"] for call in found)
    assert sum(least for least, _ in priced) <= total <= sum(most for _, most in priced)
    left = spent(broker.state / "spent.sqlite", "t")
    assert left is not None
    assert round(left["dollars"] * NANO) == total
    assert total < 8 * NANO  # of 50, a third of it for streams that had shown all they may
    assert broker.post(ASKED).status_code == 200


def test_the_battery_is_whole() -> None:
    assert len(FAULTS) >= 44
    assert {fault.costs for fault in FAULTS.values()} == {"free", "known", "begun", "timed", "worst"}

"""One call to the model API, from the network to its line in the log. TRUSTED.

Whatever happens, a call is settled once: from the reported usage, at nothing if the API refused it or was never
reached, else at the most that it can have cost by then (`_at_most`). No call is retried here. The pieces are produced
by a generator, which may be driven from several tasks, so its time limit is checked whenever something arrives and each
silence is limited by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from runner.core.base import faults, files
from runner.core.base.errors import GloveboxError
from runner.core.base.secret_file import Key
from runner.core.evidence.audit_chain import AuditLog
from runner.core.policy.broker import Broker
from runner.rooms.broker import events
from runner.rooms.broker.breaker import Breaker
from runner.rooms.broker.budget import Meter, Usage

VERSION = "2023-06-01"
MAX_ERROR = 64 << 10
NOTICED = 5.0  # seconds in which the API learns that nobody listens any more
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL)
DOUBTFUL = (408, 499, 504, 524)  # somebody between gave up waiting: the model may have written all the same
_FOR_PEOPLE = {  # what it refuses, and what to do
    401: ("does not accept the key", "write one that is valid into secrets/anthropic_api_key of the bench"),
    403: ("does not let this key do that", "see what the key's workspace may use, where it was made"),
    404: ("knows no model {model}", "name another in policies/agent.yaml and policies/broker.yaml"),
}


@dataclass
class Call:
    """One admitted call; `path` is a constant of ours, never the agent's."""

    path: str
    body: bytes
    model: str
    reservation: int
    betas: str = ""  # of the anthropic-beta header, those we know
    left_out: dict[str, int] = field(default_factory=dict)  # what was given and not forwarded, by name
    most: Usage | None = None  # that it can cost: what was reserved
    streamed: bool = False
    begun: Usage | None = None  # what the API had said of its cost when it broke
    shown: int = 0  # characters of what was written
    began: float = field(default_factory=time.monotonic)
    status: int = 0
    usage: Usage | None = None
    refused: bool = False  # there is no answer: the API said no
    response: Any = field(default_factory=hashlib.sha256)
    response_bytes: int = 0
    kept: list[bytes] = field(default_factory=list)
    outcome: str = "ok"

    def heard(self, reader: events.Events) -> None:
        """What the stream has said so far of its cost."""
        self.usage, self.begun, self.shown = reader.usage, reader.begun, reader.shown

    @property
    def free(self) -> bool:
        """Whether nothing is billed: the API itself refused."""
        return self.refused and self.status >= 400 and self.status not in DOUBTFUL

    @property
    def broke(self) -> bool:
        """Whether an answer began and did not end as it should, by the API's doing."""
        return self.status == 200 and self.outcome not in ("ok", "agent_left")


class Upstream:
    """The way to the model API."""

    def __init__(
        self, policy: Broker, meter: Meter, log: AuditLog, key: Key, client: httpx.AsyncClient, bodies: Path
    ) -> None:
        self.policy, self.meter, self.log, self.key, self.client, self.bodies = policy, meter, log, key, client, bodies
        self.breaker = Breaker(policy.breaker)
        self._said: set[int] = set()

    async def pieces(self, call: Call, done: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """The API's answer, piece by piece; once begun it settles the call and calls `done`, however it ends."""
        sent = True
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self.policy.call_seconds):
                    answer = await stack.enter_async_context(self._asked(call))
                call.status = answer.status_code
                arriving = _arriving(answer, call, self.policy.call_seconds)
                if call.status == 200:
                    pieces = _streamed if "event-stream" in answer.headers.get("content-type", "") else _whole
                    async for piece in pieces(arriving, call, self.policy.response_bytes, self.key):
                        yield self._passed(call, piece)
                else:
                    call.refused, call.outcome = True, f"status_{call.status}"
                    self._api_failed(call, _retry_after(answer))
                    yield self.key.scrub(await _capped(arriving, MAX_ERROR))
        except TimeoutError:
            call.outcome = "too_long"
        except _NOT_SENT:
            sent, call.outcome = False, "cannot_connect"
        except httpx.HTTPError as error:
            call.outcome = f"broken_{type(error).__name__}"
        except events.MalformedAnswer:
            call.outcome = "malformed"
        except (GeneratorExit, asyncio.CancelledError):
            if call.outcome == "ok":
                call.outcome = "agent_left"
            raise
        finally:
            try:
                self._settle(call, sent)
            finally:
                done()
        if call.broke:
            yield events.error_event("api_error", f"glovebox: {call.outcome}")

    def _asked(self, call: Call) -> AbstractAsyncContextManager[httpx.Response]:
        return self.client.stream(
            "POST", self.policy.upstream + call.path, content=call.body, headers=self._headers(call)
        )

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {"anthropic-version": VERSION, "content-type": "application/json"}
        if self.policy.auth == "bearer":
            headers["authorization"] = f"Bearer {self.key.reveal()}"
        elif self.policy.auth == "x-api-key":
            headers["x-api-key"] = self.key.reveal()
        headers["accept-encoding"] = "identity"  # a few bytes of gzip could stand for all we are to look through
        return headers | ({"anthropic-beta": call.betas} if call.betas else {})

    def _passed(self, call: Call, piece: bytes) -> bytes:
        call.response.update(piece)
        call.response_bytes += len(piece)
        if self.policy.log_bodies:
            call.kept.append(piece)
        return piece

    def _api_failed(self, call: Call, retry_after: float | None) -> None:
        if call.status == 429 or call.status >= 500:
            self.breaker.failed(retry_after)
        else:
            self.breaker.succeeded()  # it answers, and says that the request is wrong
            self._say(call)

    def _say(self, call: Call) -> None:
        """To people, once, what only they can mend; in our words, none of the API's."""
        if call.status in _FOR_PEOPLE and call.status not in self._said:
            self._said.add(call.status)
            what, fix = _FOR_PEOPLE[call.status]
            error = GloveboxError(f"the model's API {what.format(model=call.model)} ({call.status})", fix=fix)
            print(f"glovebox broker: {error}", file=sys.stderr, flush=True)

    def _settle(self, call: Call, sent: bool) -> None:
        if call.outcome == "ok":
            self.breaker.succeeded()
        elif call.outcome == "agent_left":
            self.breaker.released()
        elif not call.refused:
            self.breaker.failed()
        if call.path.endswith("count_tokens"):
            call.usage = Usage()  # counting is free
        elif call.usage and not _can_be(call.usage, call.shown):
            call.usage = None
        faults.reach("broker.answered")
        known = Usage() if call.free or not sent else call.usage
        at_most = None if known else _at_most(call, self.policy.models[call.model].tokens_per_second)
        cost = self.meter.settle(call.reservation, known, at_most)
        self._write(call, cost)

    def _write(self, call: Call, cost: int) -> None:
        if self.policy.log_bodies:
            _keep(self.bodies, call.body, b"".join(call.kept))
        data = {
            "tag": self.meter.tag,
            "path": call.path,
            "model": call.model,
            "outcome": call.outcome,
            "request_sha256": hashlib.sha256(call.body).hexdigest(),
            "request_bytes": len(call.body),
            "response_sha256": call.response.hexdigest(),
            "response_bytes": call.response_bytes,
            "usage": None if call.usage is None else call.usage.__dict__,
            "left_out": call.left_out,
            "nano_dollars": cost,
            "seconds": round(time.monotonic() - call.began, 3),
        }
        self.log.append("call", data)


def _can_be(usage: Usage, shown: int) -> bool:
    """Whether it can be what was billed: no prompt is empty, and what was shown was written."""
    return usage.tokens > usage.output and (usage.output > 0 or not shown)


def _at_most(call: Call, rate: int) -> Usage | None:
    """What a call of unknown cost can have cost: its input as the API said, and as much output as there was time for,
    or as was shown, if that is more (a token is at least a character).

    An answer that is not streamed is written to its end, whoever listens: None, its worst case.
    """
    if call.most is None or not call.streamed:
        return None
    begun = call.begun if call.begun and call.begun.tokens > call.begun.output else call.most  # no prompt is empty
    seconds = time.monotonic() - call.began + NOTICED
    written = max(math.ceil(seconds * rate), call.shown, call.begun.output if call.begun else 0)
    return replace(begun, output=min(call.most.output, written))


async def _arriving(answer: httpx.Response, call: Call, seconds: float) -> AsyncIterator[bytes]:
    """The body's bytes; raises TimeoutError at what comes after a call's time, and MalformedAnswer if they are packed
    in more than one way: a few bytes could stand for all the memory there is."""
    if "," in answer.headers.get("content-encoding", ""):
        raise events.MalformedAnswer("packed")
    async for data in answer.aiter_bytes():
        if time.monotonic() - call.began > seconds:
            raise TimeoutError
        yield data


async def _streamed(arriving: AsyncIterator[bytes], call: Call, cap: int, key: Key) -> AsyncIterator[bytes]:
    if not call.streamed:
        raise events.MalformedAnswer("streamed")  # its reader expects one document
    reader, total = events.Events(key), 0
    async for data in arriving:
        total += len(data)
        if total > cap:
            raise events.MalformedAnswer("too_large")
        for event in reader.each(data):
            call.heard(reader)
            yield event
    if reader.error is not None:
        call.outcome = f"stream_{reader.error}"
    elif call.usage is None:
        raise events.MalformedAnswer("incomplete")


async def _whole(arriving: AsyncIterator[bytes], call: Call, cap: int, key: Key) -> AsyncIterator[bytes]:
    asked, call.streamed = call.streamed, False
    body = await _capped(arriving, cap)
    if len(body) >= cap:
        raise events.MalformedAnswer("too_large")
    body = events.without(key, body, cap)
    call.usage = events.usage_of(body, cap)
    if asked:
        raise events.MalformedAnswer("not_streamed")  # its reader expects events
    yield body


async def _capped(arriving: AsyncIterator[bytes], cap: int) -> bytes:
    body = bytearray()
    async for piece in arriving:
        body += piece
        if len(body) >= cap:
            break
    return bytes(body[:cap])


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        seconds = float(answer.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e6 else None


def _keep(folder: Path, *bodies: bytes) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for body in bodies:
        files.write(folder / hashlib.sha256(body).hexdigest(), body, mode=0o600)

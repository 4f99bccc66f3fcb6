"""The broker's HTTP side: two endpoints, each call checked, priced, relayed, settled and logged. TRUSTED.

    POST /v1/messages   POST /v1/messages/count_tokens   GET /healthz

Order of one call: byte cap, allow-list (request.py), model price, breaker, reservation (budget.py), then the
network. Streams are relayed event by event. Whatever happens, the reservation is settled: from the reported
usage, at nothing if the API refused the call, else at its worst case. No call is retried here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runner.audit import AuditLog
from runner.broker import events
from runner.broker import request as requests
from runner.broker.breaker import Breaker
from runner.broker.budget import OVERHEAD_TOKENS, BudgetExhausted, Meter, Usage
from runner.broker.key import Key
from runner.policy import Broker

VERSION = "2023-06-01"
MAX_ERROR = 64 << 10
_REFUSAL_PAUSE = 0.5  # seconds before a refusal is answered, so that a loop cannot flood the log
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass
class Call:
    """One call, from the agent's request to its line in the log."""

    path: str
    body: bytes
    model: str
    began: float = field(default_factory=time.monotonic)
    reservation: int | None = None
    status: int = 0
    usage: Usage | None = None
    refused: bool = False  # the API said no: nothing is billed
    response: Any = field(default_factory=hashlib.sha256)
    response_bytes: int = 0
    kept: list[bytes] = field(default_factory=list)
    outcome: str = "ok"


class Relay:
    """Everything a call needs; `app` serves it."""

    def __init__(
        self, policy: Broker, meter: Meter, log: AuditLog, key: Key, client: httpx.AsyncClient, bodies: Path
    ) -> None:
        self.policy, self.meter, self.log, self.key, self.client, self.bodies = policy, meter, log, key, client, bodies
        self.breaker = Breaker(policy.breaker)
        self._busy = 0
        routes = [
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count, methods=["POST"]),
            Route("/healthz", self._health, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"ok": True})

    async def _messages(self, request: Request) -> Response:
        return await self._relay(request, requests.MessagesRequest)

    async def _count(self, request: Request) -> Response:
        return await self._relay(request, requests.CountRequest)

    async def _relay(self, request: Request, model: type[requests.CountRequest]) -> Response:
        if self._busy >= self.policy.concurrent:
            return _error(429, "glovebox: too many calls at once", 1.0)
        self._busy += 1
        admitted: tuple[Call, bool] | Response | None = None
        try:
            admitted = await self._admit(request, model)
        finally:
            if not isinstance(admitted, tuple):
                self._busy -= 1
        if isinstance(admitted, Response):
            return admitted
        call, streamed = admitted
        answer = self._pieces(call)  # from its first step on it settles the call, whatever happens
        head = await anext(answer, b"")
        if call.status != 200 or call.outcome != "ok":
            return await self._failure(call, head, answer)
        return _Relayed(head, answer, "text/event-stream" if streamed else "application/json")

    async def _admit(self, request: Request, model: type[requests.CountRequest]) -> tuple[Call, bool] | Response:
        """The call with its reservation, or why there is none."""
        body = await _read(request, self.policy.request_bytes)
        if body is None:
            return await self._refuse(413, "too_large")
        try:
            asked = requests.parse(body, model, self.policy.request_bytes)
        except requests.RequestRefused as error:
            return await self._refuse(400, error.what, error.where)
        price = self.policy.models.get(asked.model)
        if price is None:
            return await self._refuse(404, "model_not_allowed")
        most = asked.max_tokens if isinstance(asked, requests.MessagesRequest) else 0
        if most > price.max_tokens:
            return await self._refuse(400, "max_tokens_above_policy")
        pause = self.breaker.wait()
        if pause > 0:
            return await self._refuse(529, "breaker_open", retry_after=pause)
        call = Call(request.url.path, requests.rebuild(asked), asked.model)
        try:
            free = not isinstance(asked, requests.MessagesRequest)
            bound = 0 if free else len(call.body) + OVERHEAD_TOKENS
            call.reservation = self.meter.reserve(asked.model, bound, most)
        except BudgetExhausted as error:
            self.breaker.released()
            return await self._refuse(403, f"budget_{error.reason}")
        return call, bool(getattr(asked, "stream", False))

    async def _pieces(self, call: Call) -> AsyncGenerator[bytes, None]:
        """The API's answer, piece by piece, to the end; settles the call however it ends."""
        sent = True
        try:
            async with asyncio.timeout(self.policy.call_seconds):
                headers = {"x-api-key": self.key.reveal(), "anthropic-version": VERSION}
                headers["content-type"] = "application/json"
                url = self.policy.upstream + call.path
                async with self.client.stream("POST", url, content=call.body, headers=headers) as answer:
                    call.status = answer.status_code
                    if call.status == 200:
                        pieces = _streamed if "event-stream" in answer.headers.get("content-type", "") else _whole
                        async for piece in pieces(answer, call, self.policy.response_bytes):
                            yield self._passed(call, piece)
                    else:
                        call.refused = True
                        call.outcome = f"status_{call.status}"
                        self._api_failed(call, _retry_after(answer))
                        yield self.key.scrub(await _capped(answer, MAX_ERROR))
        except _NOT_SENT:
            sent, call.outcome = False, "cannot_connect"
        except (httpx.HTTPError, TimeoutError) as error:
            call.outcome = f"broken_{type(error).__name__}"
        except events.MalformedAnswer:
            call.outcome = "malformed"
        except (GeneratorExit, asyncio.CancelledError):
            call.outcome = "agent_left"
            raise
        finally:
            self._settle(call, sent)
            self._busy -= 1
        if call.status == 200 and (call.outcome == "malformed" or call.outcome.startswith("broken")):
            yield _broken(call.outcome)

    def _passed(self, call: Call, piece: bytes) -> bytes:
        piece = self.key.scrub(piece)
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

    def _settle(self, call: Call, sent: bool) -> None:
        nothing = call.refused or not sent
        if call.path.endswith("count_tokens") and call.usage is None:
            call.usage = Usage()
        usage = Usage() if nothing else call.usage
        cost = self.meter.settle(call.reservation or 0, usage)
        if call.outcome == "ok":
            self.breaker.succeeded()
        elif call.outcome == "agent_left":
            self.breaker.released()
        elif not call.refused:
            self.breaker.failed()
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
            "nano_dollars": cost,
            "seconds": round(time.monotonic() - call.began, 3),
        }
        self.log.append("call", data)

    async def _failure(self, call: Call, head: bytes, answer: AsyncGenerator[bytes, None]) -> Response:
        """The API's own refusal, reduced to its type, its message and when to come back; or that it is away."""
        await answer.aclose()
        if not call.refused:
            return _error(502, f"glovebox: the model API failed ({call.outcome})", self.breaker.policy.open_seconds)
        try:
            told = events.error_of(head)
        except events.MalformedAnswer:
            told = ""
        pause = self.breaker.left()
        return _error(call.status if call.status in _ERRORS else 502, told, pause or None)

    async def _refuse(self, status: int, reason: str, where: str = "", retry_after: float | None = None) -> Response:
        """An answer of our own; the reason is a closed code."""
        await asyncio.sleep(_REFUSAL_PAUSE)
        self.log.append("refused", {"tag": self.meter.tag, "reason": reason, "where": where[:200]})
        return _error(status, f"glovebox: {reason}" + (f" at {where}" if where else ""), retry_after)


async def _read(request: Request, cap: int) -> bytes | None:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > cap:
                return None
    except ClientDisconnect:
        return None
    return bytes(body)


async def _streamed(answer: httpx.Response, call: Call, cap: int) -> AsyncIterator[bytes]:
    reader, total = events.Events(), 0
    async for data in answer.aiter_bytes():
        total += len(data)
        if total > cap:
            raise events.MalformedAnswer("too_large")
        for event in reader.feed(data):
            call.usage = reader.usage
            yield event
    if reader.error is not None:
        call.outcome = f"stream_{reader.error}"
    elif call.usage is None:
        raise events.MalformedAnswer("incomplete")


async def _whole(answer: httpx.Response, call: Call, cap: int) -> AsyncIterator[bytes]:
    body = await _capped(answer, cap)
    if len(body) >= cap:
        raise events.MalformedAnswer("too_large")
    call.usage = events.usage_of(body, cap)
    yield body


async def _capped(answer: httpx.Response, cap: int) -> bytes:
    body = bytearray()
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) >= cap:
            break
    return bytes(body[:cap])


class _Relayed(StreamingResponse):
    """A streamed answer whose source is closed, and so settled, when the agent leaves."""

    def __init__(self, head: bytes, rest: AsyncGenerator[bytes, None], media: str) -> None:
        super().__init__(_after(head, rest), media_type=media)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()


async def _after(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in rest:
        yield piece


def _broken(outcome: str) -> bytes:
    """The event with which a stream that broke ends, so that it is not taken for a whole one."""
    error = {"type": "error", "error": {"type": "api_error", "message": f"glovebox: {outcome}"}}
    return b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        seconds = float(answer.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e6 else None


def _error(status: int, message: str, retry_after: float | None = None) -> Response:
    body = {"type": "error", "error": {"type": _ERRORS.get(status, "api_error"), "message": message[:500]}}
    headers = {} if retry_after is None else {"retry-after": str(max(1, round(retry_after)))}
    return JSONResponse(body, status_code=status, headers=headers)


def _keep(folder: Path, *bodies: bytes) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for body in bodies:
        path = folder / hashlib.sha256(body).hexdigest()
        path.write_bytes(body)
        path.chmod(0o600)

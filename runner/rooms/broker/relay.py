"""The broker's front: two endpoints for the agent, each call checked before it may cost anything. TRUSTED.

    POST /v1/messages   POST /v1/messages/count_tokens   GET /healthz

Another API's path is answered by one clear line.
Order: number of calls, byte cap, allow-list (request.py), model price, breaker, reservation (budget.py); only
then the network (upstream.py). Refusals are answered slowly and logged sparsely: a loop of them fills nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runner.core.base import faults
from runner.rooms.broker import events, fields
from runner.rooms.broker import request as requests
from runner.rooms.broker.budget import OVERHEAD_TOKENS, BudgetExhausted, worst_case
from runner.rooms.broker.upstream import Call, Upstream

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
_REFUSAL_PAUSE = 0.5  # seconds before a refusal is answered
_BODY_SECONDS = 30.0  # for a request to arrive
_LAST_PIECES = 5.0  # for what was written to be read, after a call's time
_DATED = re.compile(r"(.+)[-@]20\d{6}")  # a model's name with the day of its release
_OTHERS = ("/v1/chat/completions", "/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings")
_OTHER_API = "glovebox: this is the Messages API and no other: POST /v1/messages (docs/agent.md, Other agents)"
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


class Relay:
    """Admits calls; `app` serves it."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.policy = upstream, upstream.policy
        self._busy = 0
        self._refusals: Counter[str] = Counter()
        routes = [
            Route(MESSAGES, self._messages, methods=["POST"]),
            Route(COUNT, self._count, methods=["POST"]),
            Route("/healthz", self._health, methods=["GET"]),
            *(Route(path, self._other, methods=["POST"]) for path in _OTHERS),
        ]
        self.app = Starlette(routes=routes)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"ok": True})

    async def _other(self, _: Request) -> Response:
        await asyncio.sleep(_REFUSAL_PAUSE)
        return _error(404, _OTHER_API)

    async def _messages(self, request: Request) -> Response:
        return await self._relay(request, MESSAGES, fields.MessagesRequest)

    async def _count(self, request: Request) -> Response:
        return await self._relay(request, COUNT, fields.CountRequest)

    async def _relay(self, request: Request, path: str, model: type[fields.CountRequest]) -> Response:
        if self._busy >= self.policy.concurrent:
            return _error(429, "glovebox: too many calls at once", 1.0)
        self._busy += 1
        admitted: tuple[Call, bool] | Response | None = None
        try:
            admitted = await self._admit(request, path, model)
        finally:
            if not isinstance(admitted, tuple):
                self._done()
        if isinstance(admitted, Response):
            return admitted
        call, streamed = admitted
        answer = self.upstream.pieces(call, self._done)
        head = await anext(answer, b"")
        if call.status != 200 or call.broke:
            return await self._failure(call, head, answer)
        media = "text/event-stream" if streamed else "application/json"
        return _Relayed(head, answer, media, self.policy.call_seconds + _LAST_PIECES)

    def _done(self) -> None:
        self._busy -= 1

    async def _admit(
        self, request: Request, path: str, model: type[fields.CountRequest]
    ) -> tuple[Call, bool] | Response:
        """The call with its reservation, or why there is none."""
        body = await _read(request, self.policy.request_bytes)
        if body is None:
            return await self._refuse(413, "too_large_or_too_slow")
        try:
            asked = await asyncio.to_thread(requests.parse, body, model, self.policy.request_bytes)
        except requests.RequestRefused as error:
            return await self._refuse(400, error.what, error.where, allowed=error.fix)
        listed = self._listed(asked.model)
        if listed is None:
            return await self._refuse(404, "model_not_allowed", allowed=", ".join(self.policy.models))
        price = self.policy.models[listed]
        asked = requests.clamped(asked.model_copy(update={"model": listed}), price.max_tokens)
        most = asked.max_tokens if isinstance(asked, fields.MessagesRequest) else 0
        pause = self.upstream.breaker.wait()
        if pause > 0:
            return await self._refuse(529, "breaker_open", retry_after=pause)
        try:
            leaving = requests.rebuild(asked)
            tokens = len(leaving) + OVERHEAD_TOKENS if most else 0  # counting is free
            worst = worst_case(price, tokens, most)
            number = self.upstream.meter.reserve(asked.model, tokens, most)
            faults.reach("broker.reserved")
        except BudgetExhausted as error:
            self.upstream.breaker.released()
            return await self._refuse(403, f"budget_{error.reason}")
        except BaseException:
            self.upstream.breaker.released()
            raise
        forwarded, dropped = requests.betas(request.headers.get("anthropic-beta", ""))
        left_out = requests.left_out(asked) | ({"betas": dropped} if dropped else {})
        streamed = bool(getattr(asked, "stream", False))
        return Call(path, leaving, listed, number, forwarded, left_out, worst, streamed), streamed

    def _listed(self, model: str) -> str | None:
        """The name under which a model has a price: its own, or that without a date."""
        names = [model, *(match[1] for match in (_DATED.fullmatch(model),) if match)]
        return next((name for name in names if name in self.policy.models), None)

    async def _failure(self, call: Call, head: bytes, answer: AsyncGenerator[bytes, None]) -> Response:
        """The API's own refusal, reduced to its type, its message and when to come back; or that it is away."""
        await answer.aclose()
        if not call.refused:
            return _error(502, f"glovebox: the model API failed ({call.outcome})", self.policy.breaker.open_seconds)
        try:
            told = events.error_of(head)
            if self.upstream.key.echoed(told):  # some gateways repeat a key, all but a few characters
                told = ""
        except events.MalformedAnswer:
            told = ""
        pause = self.upstream.breaker.left()
        return _error(call.status if call.status in _ERRORS else 502, told, pause or None)

    async def _refuse(
        self, status: int, reason: str, where: str = "", retry_after: float | None = None, allowed: str = ""
    ) -> Response:
        """An answer of our own; the reason is a closed code, and what is allowed are words of fields.py or policy."""
        await asyncio.sleep(_REFUSAL_PAUSE)
        self._refusals[reason] += 1
        times = self._refusals[reason]
        if times & (times - 1) == 0:  # the first, second, fourth, eighth...: a flood is a few lines
            data = {"tag": self.upstream.meter.tag, "reason": reason, "where": where[:200], "times": times}
            self.upstream.log.append("refused", data)
        told = (f" at {where}" if where else "") + (f" (allowed: {allowed})" if allowed else "")
        return _error(status, f"glovebox: {reason}{told}", retry_after)


async def _read(request: Request, cap: int) -> bytes | None:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > cap:
                    return None
    except (ClientDisconnect, TimeoutError):
        return None
    return bytes(body)


class _Relayed(StreamingResponse):
    """A streamed answer whose source is closed, and so settled, when the agent leaves, or reads no more for so long."""

    def __init__(self, head: bytes, rest: AsyncGenerator[bytes, None], media: str, seconds: float) -> None:
        super().__init__(_after(head, rest), media_type=media)
        self._rest, self._seconds = rest, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            return  # unfinished, so the connection is closed
        finally:
            await self._rest.aclose()


async def _after(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in rest:
        yield piece


def _error(status: int, message: str, retry_after: float | None = None) -> Response:
    body = {"type": "error", "error": {"type": _ERRORS.get(status, "api_error"), "message": message[:500]}}
    headers = {} if retry_after is None else {"retry-after": str(max(1, round(retry_after)))}
    return JSONResponse(body, status_code=status, headers=headers)

"""The model behind the broker: one streamed call, repeated with patience until it is answered. UNTRUSTED.

The SDK talks HTTP over llm.sock; the key is the broker's. Rate limits, overload, broken connections and
usage-limit windows are waited out, for as long as it takes; what will not change by waiting is raised. Once the API
has answered, a refused key or an unknown model is asked for again for some minutes: keys are rotated, and models
withdrawn, in the middle of a night. Then the next model of the list takes over, if there is one.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import anthropic
import httpx2
import tenacity
from anthropic.types import Message

SOCKET = os.environ.get("GLOVEBOX_LLM", "/run/glovebox/llm/llm.sock")
_UNMARKED = ("thinking", "redacted_thinking")  # blocks that take no cache breakpoint
LONGEST_WAIT = 900.0  # seconds between two tries
_backoff = tenacity.wait_random_exponential(multiplier=1, max=LONGEST_WAIT)
_TRANSIENT_ERRORS = (
    anthropic.APIConnectionError,
    anthropic.APIResponseValidationError,
    httpx2.HTTPError,
    json.JSONDecodeError,
)
_LASTING = ("invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large")
_REFUSED = (401, 403, 404)
REFUSALS = 8  # in a row, with growing pauses: about ten minutes
_refused_wait = tenacity.wait_exponential(multiplier=2, max=240)


class Permanent(Exception):
    """Waiting will not help: the key, the model or the broker's policy says no."""


class Unacceptable(Exception):
    """This conversation cannot go on (too long, or malformed); another may."""


class BudgetUsed(Exception):
    """The broker has no room for another call; `scope` is experiment or night."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"model budget of the {scope} used up")
        self.scope = scope


class Model:
    """A model reached through the broker's socket."""

    def __init__(self, settings: dict[str, Any], socket: str = SOCKET) -> None:
        """`settings`: of policies/agent.yaml, as the desk's brief has them."""
        self.names: list[str] = [settings["model"], *settings["fallback_models"]]
        self.admitted = 0  # calls that the budget had room for, however they ended
        self._answered = False  # by the model in use
        self._fixed: dict[str, Any] = {"max_tokens": settings["max_tokens"]}
        if settings["thinking"] == "adaptive":
            self._fixed["thinking"] = {"type": "adaptive"}
        if settings["effort"] != "default":
            self._fixed["output_config"] = {"effort": settings["effort"]}
        transport = anthropic.DefaultHttpxClient(transport=httpx2.HTTPTransport(uds=socket), trust_env=False)
        self._client = anthropic.Anthropic(
            api_key="held-by-the-broker", base_url="http://broker", http_client=transport, max_retries=0
        )

    def answer(self, system: str, tools: list[dict[str, Any]], messages: list[dict[str, Any]]) -> Message:
        """The model's next message. Raises Permanent, Unacceptable or BudgetUsed; waits out the rest."""
        while True:
            try:
                found = self._patiently(system, tools, messages)
            except Permanent as error:
                if len(self.names) == 1:
                    raise
                print(f"model: {self.names[0]} is refused ({error}), now {self.names[1]}", file=sys.stderr, flush=True)
                self.names.pop(0)
                self._answered = False
            else:
                self._answered = True
                return found

    def _patiently(self, system: str, tools: list[dict[str, Any]], messages: list[dict[str, Any]]) -> Message:
        patience = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_change), wait=_wait, before_sleep=_say, reraise=True
        )
        self._refusals = 0
        try:
            return patience(self._call, system, tools, messages)
        except anthropic.PermissionDeniedError as error:
            for scope in ("experiment", "night"):
                if f"budget_{scope}_" in str(error):
                    raise BudgetUsed(scope) from None
            raise Permanent(_reason(error)) from None
        except (anthropic.BadRequestError, anthropic.RequestTooLargeError) as error:
            raise Unacceptable(_reason(error)) from None
        except anthropic.APIStatusError as error:
            raise Permanent(_reason(error)) from None
        except ValueError as error:  # the SDK could not make sense of a tool input the model wrote
            raise Unacceptable(f"malformed answer: {type(error).__name__}") from None

    def _may_change(self, error: BaseException) -> bool:
        """Whether to ask again: what is transient, and a refusal in the middle of a night for some minutes."""
        if transient(error):
            return True
        refused = isinstance(error, anthropic.APIStatusError) and error.status_code in _REFUSED
        if not refused or not self._answered or "budget_" in str(error):
            return False
        self._refusals += 1
        return self._refusals <= REFUSALS

    def _call(self, system: str, tools: list[dict[str, Any]], messages: list[dict[str, Any]]) -> Message:
        mark = {"type": "ephemeral"}
        with self._client.messages.stream(
            model=self.names[0],
            **self._fixed,
            system=[{"type": "text", "text": system, "cache_control": mark}],  # type: ignore[typeddict-item]
            tools=tools,  # type: ignore[arg-type] # our own literals
            messages=marked(messages),  # type: ignore[arg-type]
        ) as stream:
            self.admitted += 1
            return stream.get_final_message()


def marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with cache breakpoints behind what seldom changes and at the end: what is before is read from cache.

    The first message's first part is the same for all experiments between two keeps, the whole first message for all
    calls of one.
    """
    mark = {"cache_control": {"type": "ephemeral"}}
    out = [{**message, "content": [dict(block) for block in message["content"]]} for message in messages]
    out[0]["content"][0] |= mark
    last = next(block for block in reversed(out[-1]["content"]) if block["type"] not in _UNMARKED)
    last |= mark
    return out


def transient(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, anthropic.APIStatusError):
        if error.status_code == 200:  # the stream itself reported a failure, perhaps of a kind that is new
            return _kind(error) not in _LASTING
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, _TRANSIENT_ERRORS)


def _kind(error: anthropic.APIStatusError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    return str(inner.get("type")) if isinstance(inner, dict) else ""


def _wait(state: tenacity.RetryCallState) -> float:
    """As long as the API asked for, else a growing random pause."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, anthropic.APIStatusError):
        if error.status_code in _REFUSED:
            return float(_refused_wait(state))
        try:
            asked = float(error.response.headers.get("retry-after", ""))
        except ValueError:
            asked = -1.0
        if 0 <= asked <= 86_400:
            return asked
    return float(_backoff(state))


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    name = type(error).__name__ if error else "?"
    print(f"model: {name}, attempt {state.attempt_number}, again in {pause:.0f} s", file=sys.stderr, flush=True)


def _reason(error: anthropic.APIStatusError) -> str:
    return f"{error.status_code} {_kind(error)}: {error.message[:300]}"

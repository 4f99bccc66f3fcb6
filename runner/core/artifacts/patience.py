"""How long a server that is in trouble, or asks to be left alone, is asked again. TRUSTED, run by a person."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn, TypeVar

import tenacity

from runner.core.base.errors import ArtifactError

T = TypeVar("T")
ATTEMPTS = 6  # of a server that does not say when
_ASKED = 60  # of one that does
LONGEST = 900.0  # seconds that it may ask for at a time
_LIMIT = re.compile(r"(?:^|[;,])\s{0,8}(r|t)\s{0,8}=\s{0,8}(\d{1,6})\s{0,8}(?=$|[;,])")


class Again(Exception):
    """This attempt failed; the next one may not. `after`: seconds that the server asks to wait."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


def asked(headers: Mapping[str, str]) -> float | None:
    """Seconds a refusal asks to wait: Retry-After (RFC 9110, 10.2.3), or RateLimit with nothing remaining (the hub's
    form of draft-ietf-httpapi-ratelimit-headers: `"api";r=0;t=55`); None if it does not say. `headers` mind no case."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdecimal() and len(told) < 7:
        return float(told)
    if told:
        try:
            moment = parsedate_to_datetime(told)
            return max(0.0, (moment - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return None
    limit = dict(_LIMIT.findall(headers.get("ratelimit", "")[:200]))
    return float(limit["t"]) if limit.get("r") == "0" and "t" in limit else None


def patiently(action: Callable[[], T], say: Callable[[str], None] = lambda _: None) -> T:
    """`action`, tried again while it raises Again; raises ArtifactError when patience ends."""
    guess, guesses = tenacity.wait_random_exponential(multiplier=0.5, max=30), itertools.count(1)

    def wait(state: tenacity.RetryCallState) -> float:
        after = _failure(state).after
        if after is None:
            return guess(state)
        if after > 2:
            say(f"{_failure(state)}: asked to wait {after:.0f} s")
        return after + 0.1

    def stop(state: tenacity.RetryCallState) -> bool:
        after = _failure(state).after
        if after is None:
            return next(guesses) >= ATTEMPTS
        return after > LONGEST or state.attempt_number >= _ASKED

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Again), stop=stop, wait=wait, retry_error_callback=_gave_up
    )
    return retrying(action)


def _failure(state: tenacity.RetryCallState) -> Again:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, Again) else Again("")


def _gave_up(state: tenacity.RetryCallState) -> NoReturn:
    error = _failure(state)
    late = "" if error.after is None else f", and it asks to wait {error.after:.0f} s"
    raise ArtifactError(
        f"gave up after {state.attempt_number} attempts: {error}{late}",
        where="download",
        fix="run it again: what arrived is kept; or pass --mirror URL or --shards FOLDER",
    )

"""The model of policies/broker.yaml: what leaves for the model API, and how much it may cost. TRUSTED, fails closed."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from runner.core.base.strict_yaml import Strict

Bytes = Annotated[int, Field(ge=1 << 10, le=1 << 40)]
Model = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,99}$")]
HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
_UPSTREAM = re.compile(rf"https://{HOST}(:\d{{1,5}})?|http://(127\.0\.0\.1|localhost|[a-z][a-z0-9-]*)(:\d{{1,5}})?")


class Price(Strict):
    """Dollars per million tokens of one model, and the most it may write in one call."""

    input: Annotated[float, Field(gt=0, le=1000)]
    output: Annotated[float, Field(gt=0, le=1000)]
    cache_write: Annotated[float, Field(gt=0, le=1000)]
    cache_read: Annotated[float, Field(gt=0, le=1000)]
    max_tokens: Annotated[int, Field(ge=1, le=128_000)]


class Budget(Strict):
    """Ceilings on calls to the model; each is enforced before the call is made."""

    dollars: Annotated[float, Field(gt=0, le=100_000)]
    tokens: Annotated[int, Field(ge=1, le=10**10)]
    requests: Annotated[int, Field(ge=1, le=10**6)]
    seconds: Annotated[float, Field(gt=0, le=7 * 86_400)]


class Breaker(Strict):
    """When calls to a failing model API pause."""

    failures: Annotated[int, Field(ge=1, le=100)]
    open_seconds: Annotated[float, Field(gt=0, le=3600)]
    longest_seconds: Annotated[float, Field(gt=0, le=86_400)]

    @model_validator(mode="after")
    def _ordered(self) -> Breaker:
        if self.open_seconds > self.longest_seconds:
            raise ValueError("open_seconds must not exceed longest_seconds")
        return self


class Broker(Strict):
    """policies/broker.yaml: what leaves for the model API, and how much it may cost."""

    upstream: Annotated[str, Field(max_length=200)]
    request_bytes: Annotated[int, Field(ge=1 << 10, le=32 << 20)]
    response_bytes: Annotated[int, Field(ge=1 << 10, le=256 << 20)]
    call_seconds: Annotated[float, Field(gt=0, le=3600)]
    idle_seconds: Annotated[float, Field(gt=0, le=3600)]
    concurrent: Annotated[int, Field(ge=1, le=16)]
    log_bodies: bool
    models: Annotated[dict[Model, Price], Field(min_length=1, max_length=50)]
    experiment: Budget
    night: Budget
    breaker: Breaker

    @model_validator(mode="after")
    def _encrypted(self) -> Broker:
        if not _UPSTREAM.fullmatch(self.upstream):
            raise ValueError("upstream must be https://HOST[:PORT]; http:// only to loopback or to a name without dots")
        return self

"""The model of policies/broker.yaml: what leaves for the model API, and how much it may cost. TRUSTED, fails closed."""

from __future__ import annotations

import re
from datetime import date
from ipaddress import ip_address, ip_network
from typing import Annotated, Literal

from pydantic import Field, model_validator

from runner.core.base.strict_yaml import Strict

Bytes = Annotated[int, Field(ge=1 << 10, le=1 << 40)]
Model = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9/:_.-]{0,99}$")]
HOST = r"[A-Za-z0-9](?:[A-Za-z0-9-]|\.(?!\.))*(?<![.-])"
_UPSTREAM = re.compile(rf"(https?)://({HOST}|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?(/[A-Za-z0-9._~-]+){{0,8}}")
_PROXY = re.compile(rf"(https?)://({HOST})(:[0-9]{{1,5}})?")
_OURS = [ip_network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]
_NEAR = re.compile(r"localhost|[a-z][a-z0-9-]*")  # a name without dots is one of this host or of compose's network
Dollars = Annotated[float, Field(ge=0, le=1000)]


class Rates(Strict):
    """Dollars per million tokens; without prices of its own a cache costs what input does."""

    input: Dollars
    output: Dollars
    cache_write: Dollars | None = None
    cache_read: Dollars | None = None

    @property
    def dearest(self) -> str:
        """Which kind a token of a prompt is at worst."""
        return max(("cache_write", "input", "cache_read"), key=self.of)

    def of(self, kind: str) -> float:
        """By the name of a kind of token."""
        found: float | None = getattr(self, kind)
        return self.input if found is None else found


class LongRates(Rates):
    """Of a call whose prompt has more tokens than `tokens`, its cached ones among them."""

    tokens: Annotated[int, Field(ge=1, le=10**7)]


class Price(Rates):
    """The rates of one model, and the most it may write in one call."""

    above: LongRates | None = None
    max_tokens: Annotated[int, Field(ge=1, le=128_000)]
    tokens_per_second: Annotated[int, Field(ge=1, le=10**6)] = (
        400  # that it writes at most; what is cut off counts by it
    )

    def rates(self, prompt: int) -> Rates:
        """Those of a call with a prompt of so many tokens."""
        return self.above if self.above is not None and prompt > self.above.tokens else self

    def worst(self, prompt: int) -> Rates:
        """Those of a call whose prompt has so many tokens at most: the dearest of each."""
        both = [self, self.rates(prompt)]
        names = ("input", "output", "cache_write", "cache_read")
        return Rates(**{name: max(rates.of(name) for rates in both) for name in names})


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
    allow_plain_http: bool = False
    ca_file: Annotated[str, Field(pattern=r"^(/[^\x00-\x1f]{1,1000})?$")] = ""
    proxy: Annotated[str, Field(max_length=200)] = ""
    auth: Literal["x-api-key", "bearer", "none"] = "x-api-key"
    prices_checked: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""  # day on which they were compared
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
        match = _UPSTREAM.fullmatch(self.upstream)
        if not match or not _is_place(match):
            raise ValueError("upstream must be https://HOST[:PORT][/PATH]")
        if match[1] == "http" and not _plainly(match[2], private=self.allow_plain_http):
            raise ValueError(
                "upstream with http:// only to loopback or to a name without dots; to a private address with "
                "allow_plain_http: true"
            )
        if self.prices_checked:
            date.fromisoformat(self.prices_checked)
        proxy = _PROXY.fullmatch(self.proxy)
        if self.proxy and not (proxy and _is_place(proxy)):
            raise ValueError("proxy must be http[s]://HOST[:PORT], without a password")
        if self.proxy and match[1] == "http":
            raise ValueError("proxy with an upstream of http:// would read the key: use https://, or no proxy")
        return self


def _plainly(host: str, *, private: bool) -> bool:
    """Whether requests to a host may go unencrypted, and a key with them."""
    if _NEAR.fullmatch(host):
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or (private and any(address in network for network in _OURS))


def _is_place(match: re.Match[str]) -> bool:
    """Whether the host's digits are an address and the port's a port."""
    if match[2].startswith("["):
        try:
            ip_address(match[2].strip("[]"))
        except ValueError:
            return False
    return match[3] is None or 0 < int(match[3][1:]) < 1 << 16

"""Where calls may go, and how: what is refused stands beside the nearest that passes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from runner.core.policy.broker import Broker
from runner.core.policy.policy_files import Policies


def made(policies: Policies, **changes: Any) -> Broker:
    return Broker.model_validate(policies.broker.model_dump() | changes)


@pytest.mark.parametrize(
    "upstream",
    [
        "https://api.anthropic.com",
        "https://api.anthropic.com:8443",
        "https://openrouter.ai/api",
        "https://gateway.lab.example:443/anthropic/v2",
        "https://10.0.0.7:8000",
        "https://[fd00::7]:8000/x",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "http://localhost:11434/llm",
        "http://gateway:4000",
    ],
)
def test_calls_go_to_one_place(policies: Policies, upstream: str) -> None:
    assert made(policies, upstream=upstream).upstream == upstream


@pytest.mark.parametrize(
    "upstream",
    [
        "http://api.anthropic.com",
        "http://10.0.0.7:8000",
        "http://8.8.8.8",
        "ftp://x",
        "https://",
        "https://user:password@host",
        "https://host/path?key=1",
        "https://host/../x y",
        "https://host/#x",
        "https://host:123456",
        "https://host:99999",
        "https://host:0",
        "https://host:\u0668\u0660",
        "https://a..b",
        "https://[:::]",
        "https://host\n",
        "https://-host",
        "https://host/",
    ],
)
def test_anything_else_is_refused(policies: Policies, upstream: str) -> None:
    with pytest.raises(ValidationError, match="upstream"):
        made(policies, upstream=upstream)


@pytest.mark.parametrize("host", ["10.0.0.7", "192.168.1.2", "172.16.3.4", "[fd00::7]", "127.0.0.2"])
def test_a_private_address_is_reached_unencrypted_only_if_policy_says_so(policies: Policies, host: str) -> None:
    upstream = f"http://{host}:8000/v1x"
    assert made(policies, upstream=upstream, allow_plain_http=True).upstream == upstream
    if not host.startswith("127."):
        with pytest.raises(ValidationError, match="allow_plain_http"):
            made(policies, upstream=upstream)


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "gateway.lab.example",
        "0.0.0.0",
        "[2001:4860::1]",
        "[::]",
        "169.254.169.254",
        "203.0.113.9",
        "240.0.0.1",
        "[2001::1]",
    ],
)
def test_nothing_public_is_ever_reached_unencrypted(policies: Policies, host: str) -> None:
    with pytest.raises(ValidationError, match="upstream"):
        made(policies, upstream=f"http://{host}", allow_plain_http=True)


@pytest.mark.parametrize(("proxy", "good"), [("", True), ("http://proxy:3128", True), ("https://proxy.lab:443", True),
    ("http://user:secret@proxy", False), ("socks5://proxy", False), ("proxy:3128", False)])  # fmt: skip
def test_a_proxy_is_named_without_a_password(policies: Policies, proxy: str, good: bool) -> None:
    if good:
        assert made(policies, proxy=proxy).proxy == proxy
    else:
        with pytest.raises(ValidationError, match="proxy"):
            made(policies, proxy=proxy)


@pytest.mark.parametrize("day", ["2026-13-01", "yesterday", "2026-1-1"])
def test_the_day_of_the_prices_is_a_day(policies: Policies, day: str) -> None:
    with pytest.raises(ValidationError):
        made(policies, prices_checked=day)
    assert made(policies, prices_checked="").prices_checked == ""


@pytest.mark.parametrize("name", ["claude-opus-5-5", "anthropic/claude-opus-5.5", "llama3.1:70b_Q4", "Qwen/Qwen3-32B"])
def test_models_have_the_names_that_servers_give_them(policies: Policies, name: str) -> None:
    price = {"input": 0.0, "output": 0.0, "max_tokens": 1000}
    assert name in made(policies, models={name: price}).models
    for bad in ("", "-x", "a b", "a\nb", "x" * 101, "é"):
        with pytest.raises(ValidationError):
            made(policies, models={bad: price})


def test_a_bench_with_an_older_policy_goes_on_as_it_was(policies: Policies) -> None:
    """Its own broker.yaml says nothing of what came later."""
    later = {"allow_plain_http", "ca_file", "proxy", "auth", "prices_checked"}
    older = Broker.model_validate({k: v for k, v in policies.broker.model_dump().items() if k not in later})
    assert (older.auth, older.ca_file, older.proxy, older.allow_plain_http) == ("x-api-key", "", "", False)


def test_a_proxy_reads_no_key(policies: Policies) -> None:
    """An upstream of http:// was handed to it in the clear, wherever it is."""
    for upstream in ("http://gateway:4000", "http://127.0.0.1:8000"):
        with pytest.raises(ValidationError, match="would read the key"):
            made(policies, upstream=upstream, proxy="http://proxy.example.com:3128")

"""A real broker process between the real SDK and the stand-in."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from runner.core.base.doors import Places
from runner.people.host import processes
from runner.rooms.broker.settings import Settings
from tests.conftest import POLICIES
from tests.standin.server import Serving, Standin

KEY = "sk-test-0123456789abcdef"


@dataclass
class Brokered:
    """What a test of the broker works with."""

    standin: Standin
    places: Places
    state: Path
    settings: Settings
    process: subprocess.Popen[str]

    def sdk(self, **options: Any) -> anthropic.Anthropic:
        """The real SDK, as in the agent's container."""
        transport = httpx2.HTTPTransport(uds=str(self.places.llm))
        client = anthropic.DefaultHttpxClient(transport=transport, trust_env=False)
        return anthropic.Anthropic(
            api_key="held-by-the-broker", base_url="http://broker", http_client=client, **({"max_retries": 0} | options)
        )

    def post(self, body: Any, path: str = "/v1/messages", **headers: str) -> httpx2.Response:
        """A request as any client might send it."""
        transport = httpx2.HTTPTransport(uds=str(self.places.llm), verify=False)  # certificates take longer than a call
        with httpx2.Client(transport=transport, trust_env=False, timeout=30) as client:
            given = {"content": body} if isinstance(body, bytes) else {"json": body}
            return client.post(f"http://broker{path}", headers=headers, **given)

    def ask(self, text: str = "hi", **options: Any) -> anthropic.types.Message:
        """One small call through the SDK."""
        request = {"model": "claude-haiku-4-5", "max_tokens": 256, "messages": [{"role": "user", "content": text}]}
        return self.sdk().messages.create(**(request | options))

    def log(self) -> list[dict[str, Any]]:
        """Lines of calls.jsonl."""
        from runner.core.evidence import audit_chain

        return audit_chain.verify(self.state / "calls.jsonl")


Start = Callable[..., Brokered]


def edited(folder: Path, **changes: str) -> Path:
    """The shipped policies with lines of broker.yaml changed: name="value", `night__dollars` for nested ones."""
    shutil.copytree(POLICIES, folder, dirs_exist_ok=True)
    path = folder / "broker.yaml"
    text = path.read_text()
    for name, value in changes.items():
        *section, key = name.split("__")
        start = text.index(f"\n{section[0]}:") if section else 0
        head, tail = text[:start], text[start:]
        tail, count = re.subn(rf"(?m)^(\s*){key}: .*$", rf"\g<1>{key}: {value}", tail, count=1)
        assert count == 1, name
        text = head + tail
    path.write_text(text)
    return folder


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Starts a stand-in and a broker in front of it, as often as it is called; options change broker.yaml."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def make(
            standin: Standin | None = None, tag: str = "t", served: dict[str, Any] | None = None, **changes: str
        ) -> Brokered:
            standin = standin or Standin()
            own = folder / f"broker-{next(numbers)}"
            own.mkdir()
            url = stack.enter_context(Serving(standin, **(served or {})))
            policies = edited(own / "policies", **{"upstream": url, **changes})
            places = stack.enter_context(processes.doors())
            key = own / "key"
            key.write_text(KEY + "\n")
            key.chmod(0o600)
            state = own / "state"
            settings = Settings(
                policies=[str(policies)], state=str(state), doors=str(places.root), tag=tag, key_file=str(key)
            )
            process = spawn(settings)
            stack.callback(stop, process)
            return Brokered(standin, places, state, settings, process)

        yield make


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Brokers of one test."""
    with starting(tmp_path) as make:
        yield make


def spawn(settings: Settings) -> subprocess.Popen[str]:
    """A broker process, ready to serve."""
    process = processes.start("runner.rooms.broker", settings.model_dump_json())
    assert process.stdout
    assert "ready" in process.stdout.readline()
    return process


def stop(process: subprocess.Popen[str]) -> None:
    """End it as the supervisor does."""
    processes._close(process, 10)

"""compose.gateway.yaml: the pinned translator for real, between the real broker and a server of another API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence import audit_chain
from tests.e2e.project import Project
from tests.rooms.broker.conftest import edited
from tests.standin.openai import CALL, USAGE

pytestmark = [pytest.mark.engine, pytest.mark.slow]
MASTER, PROVIDER = "sk-shared-by-broker-and-gateway-0123456789abcdef", "sk-of-the-provider-0123456789abcdef"
MODELS = ("vllm/qwen3-32b", "ollama/qwen3-32b", "llama.cpp/local", "openrouter/qwen3-coder")  # of policies/gateway.yaml
PAID = MODELS[-1]
TOOL = {
    "name": "bash",
    "description": "a shell",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
}
POST = """
import json, sys, httpx
path, body = json.load(sys.stdin)
transport = httpx.HTTPTransport(uds="/run/glovebox/llm/llm.sock")
answer = httpx.Client(transport=transport, timeout=60).post("http://broker" + path, json=body)
print(json.dumps([answer.status_code, answer.text]))
"""


class Gateway(Project):
    """Broker and translator, asked as the agent asks."""

    def post(self, body: dict[str, Any], path: str = "/v1/messages") -> tuple[int, str]:
        word = ["docker", "exec", "-i", f"{self.name}-broker-1", "python", "-c", POST]
        done = subprocess.run(word, input=json.dumps([path, body]), capture_output=True, text=True, check=True)
        status, text = json.loads(done.stdout)
        return status, text

    def seen(self) -> list[dict[str, Any]]:
        """What the server behind it was asked."""
        source = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8765/seen').read().decode())"
        word = ["docker", "exec", f"{self.name}-openai-1", "python", "-c", source]
        found: list[dict[str, Any]] = json.loads(
            subprocess.run(word, capture_output=True, text=True, check=True).stdout
        )
        return found

    def last(self) -> dict[str, Any]:
        """The line of the last call."""
        data: dict[str, Any] = audit_chain.verify(self.home.broker / "calls.jsonl")[-1]["data"]
        return data


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Only broker, gateway and the server behind it; an image that is not there is a failure (make gateway)."""
    engine = docker.from_env(timeout=120)
    engine.images.get("glovebox/gateway:dev")
    home = Home(tmp_path_factory.mktemp("gateway") / ".glovebox")
    made = Gateway(home, engine, "compose.gateway.yaml", "tests/standin/compose.openai.yaml")
    _bench(home, made.env_file)
    try:
        made.compose("up", "--detach", "--wait", "--no-build", "broker")
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "5")
        engine.close()


def _bench(home: Home, env_file: Path) -> None:
    """As docs/agent.md says, but the example's addresses those of the stand-in."""
    edited(home.root / "policies", upstream="http://gateway:4000", auth="bearer")
    path = home.root / "policies" / "broker.yaml"
    free = "".join(f"  {name}: {{input: 0, output: 0, max_tokens: 16000}}\n" for name in MODELS if name != PAID)
    paid = f"  {PAID}: {{input: 0.3, output: 1.2, max_tokens: 16000}}\n"
    path.write_text(path.read_text().replace("\nmodels:\n", f"\nmodels:\n{free}{paid}"))
    config = home.root / "gateway.yaml"
    text = (SOURCE / "policies" / "gateway.yaml").read_text()
    for port in (8000, 11434, 8080):
        assert f"http://host.docker.internal:{port}/" in text
        text = text.replace(f"http://host.docker.internal:{port}/", "http://openai:8765/")
    config.write_text(text.replace("https://openrouter.ai/api/", "http://openai:8765/"))
    home.root.chmod(0o700)
    home.key.parent.mkdir(mode=0o700)
    for name, key in ((home.key.name, MASTER), ("provider_api_key", PROVIDER)):
        (home.key.parent / name).write_text(key + "\n")
        (home.key.parent / name).chmod(0o600)
    _glovebox(home, "init", "--env-file", str(env_file))
    with env_file.open("a") as file:
        file.write(f"GLOVEBOX_GATEWAY_CONFIG={config}\n")


def _glovebox(home: Home, *words: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(home.root)}
    command = [sys.executable, "-m", "runner", *words]
    done = subprocess.run(command, env=environment, cwd=home.root.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]


@pytest.mark.parametrize("model", MODELS)
def test_a_tool_is_called_and_answered_whole_and_streamed(gateway: Gateway, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "max_tokens": 500, "system": "be brief", "tools": [TOOL]}
    asked["messages"] = [{"role": "user", "content": "improve train.py"}]
    status, text = gateway.post(asked)
    assert status == 200, text
    message = json.loads(text)
    (block,) = message["content"]
    assert (message["stop_reason"], block["type"], block["name"], block["input"]) == (
        "tool_use",
        "tool_use",
        "bash",
        CALL,
    )
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "kept"}
    asked["messages"] += [{"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]
    assert json.loads(gateway.post(asked)[1])["content"] == [{"type": "text", "text": "It is done."}]
    told = events(gateway.post(asked | {"stream": True})[1])
    assert [one["type"] for one in told][0 :: len(told) - 1] == ["message_start", "message_stop"]
    assert (
        "".join(one["delta"].get("text", "") for one in told if one["type"] == "content_block_delta") == "It is done."
    )
    del asked["messages"][1:]
    told = events(gateway.post(asked | {"stream": True})[1])
    assert json.loads("".join(one["delta"].get("partial_json", "") for one in told if "delta" in one)) == CALL
    assert {one["delta"]["stop_reason"] for one in told if one["type"] == "message_delta"} == {"tool_use"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_it_reports_is_what_a_call_costs(gateway: Gateway, model: str, stream: bool) -> None:
    """The translator says 0 for the prompt where a stream begins, and what it was at the end."""
    before = len(gateway.seen())
    status, _ = gateway.post(
        {"model": model, "max_tokens": 500, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    )
    call = gateway.last()
    assert (status, call["outcome"], call["model"]) == (200, "ok", model)
    assert (call["usage"]["input"], call["usage"]["output"]) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    cost = USAGE["prompt_tokens"] * 300 + USAGE["completion_tokens"] * 1200
    assert call["nano_dollars"] == (cost if model == PAID else 0)
    (seen,) = gateway.seen()[before:]
    assert seen["key"] == ("Bearer " + (PROVIDER if model == PAID else "none"))


def test_a_call_that_fails_is_made_once_and_is_free(gateway: Gateway) -> None:
    before = len(gateway.seen())
    status, text = gateway.post({"model": PAID, "max_tokens": 9, "messages": [{"role": "user", "content": "fail"}]})
    assert (status, json.loads(text)["error"]["type"]) == (500, "api_error")
    assert len(gateway.seen()) == before + 1
    assert (gateway.last()["outcome"], gateway.last()["nano_dollars"]) == ("status_500", 0)


def test_what_is_not_listed_and_another_api_go_nowhere(gateway: Gateway) -> None:
    before = len(gateway.seen())
    asked = {"model": "vllm/other", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    assert gateway.post(asked)[0] == 404
    status, text = gateway.post({"model": PAID, "messages": []}, "/v1/chat/completions")
    assert (status, "this is the Messages API" in text) == (404, True)
    assert len(gateway.seen()) == before


def test_the_broker_reaches_the_gateway_alone_and_the_provider_key_is_the_gateways(gateway: Gateway) -> None:
    broker, translator = (gateway.container(name).attrs for name in ("broker", "gateway"))
    assert [name.removeprefix(gateway.name) for name in broker["NetworkSettings"]["Networks"]] == ["_translator"]
    network = gateway.engine.networks.get(f"{gateway.name}_translator")
    network.reload()
    assert network.attrs["Internal"] is True
    assert {one["Name"].removeprefix(gateway.name) for one in network.attrs["Containers"].values()} == {
        "-broker-1",
        "-gateway-1",
    }
    for attrs in (broker, translator):
        host = attrs["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert not host["PortBindings"]
        assert host["Memory"] > 0 < host["PidsLimit"]
        assert attrs["Config"]["User"].split(":")[0].isdigit()
        assert not any(key in json.dumps(attrs) for key in (MASTER, PROVIDER))
    assert [m["Destination"] for m in translator["Mounts"] if m["RW"]] == []
    secrets = [
        {m["Destination"] for m in attrs["Mounts"] if "/secrets/" in m["Destination"]} for attrs in (broker, translator)
    ]
    ours, theirs = "/run/secrets/anthropic_api_key", "/run/secrets/provider_api_key"
    assert secrets == [{ours}, {ours, theirs}]
    assert not any(key in gateway.compose("logs") for key in (MASTER, PROVIDER))

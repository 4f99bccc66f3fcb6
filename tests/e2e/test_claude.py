"""The model-driven agent in its real container, behind the real broker; the model is a stand-in."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.core.base.home import Home
from runner.core.evidence import audit_chain
from runner.rooms.launcher import specification
from tests.rooms.broker.conftest import KEY, edited
from tests.samples import quickly
from tests.standin.server import Block, Serving, Standin

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Glovebox = Callable[..., tuple[int, str, str]]
CANARY = "CANARY-7F3A9"
MAKE = 'c = "".join(["CAN", "ARY", "-7F", "3A9"])\n'  # what a file says is the agent's own; what it prints is not

HOSTILE = {
    "stdout and stderr": "import sys\nprint(c); print(c, file=sys.stderr); sys.exit(1)",
    "exception text": "raise ValueError(c)",
    "exception class": "raise type(c.replace('-', '_'), (Exception,), {})(c)",
    "exception cause and notes": "e = RuntimeError(c); e.add_note(c)\nraise e from KeyError(c)",
    "exit message": "raise SystemExit(c)",
    "function and file names": "exec(compile('def f():\\n  1/0\\nf()', c, 'exec'), {'__name__': c})",
    "metric keys": "print('---'); print(f'{c}: 1.0'); print(f'val_bpb: {c}'); print(f'depth: {c}'); 1/0",
    "telemetry lines": (
        "import glob, json, os\nfor fd in os.listdir('/proc/self/fd'):\n  try: os.write(int(fd), (json.dumps({c: c}) + c).encode())\n"
        "  except OSError: pass\nopen('/out/telemetry.jsonl', 'a').write(json.dumps({'kind': c, 'error': c, 'reason': c}) + '\\n' + c)\n1/0"
    ),
    "terminal escapes": "print(f'\\x1b]0;{c}\\x07\\x1b[2J{c}\\u202e{c}'); raise OSError(2, c, c)",
    "warnings and logging": "import logging, warnings\nwarnings.warn(c); logging.error(c); assert False, c",
    "hand-over files": "open('/out/graph.json', 'w').write(c); open('/out/weights.safetensors', 'w').write(c)",
    "graph reason": "import json\nopen('/out/graph.json', 'w').write(json.dumps({'version': c, 'reason': c, 'status': c}))",
}


@pytest.fixture
def modelled(home: Home) -> Callable[..., Home]:
    """The bench with a key and policies that lead to the stand-in."""

    def make(url: str, command: str = "[]", **changes: str) -> Home:
        edited(home.root / "policies", upstream=url, **changes)
        quickly(home)
        path = home.root / "policies" / "agent.yaml"
        text = path.read_text().replace("model: claude-opus-5-5 ", "model: claude-haiku-4-5 ")
        path.write_text(text.replace("command: []", f"command: {command}").replace("repairs: 2", "repairs: 0"))
        home.key.parent.mkdir(mode=0o700)
        home.key.write_text(KEY + "\n")
        home.key.chmod(0o600)
        return home

    return make


def use(name: str, **given: Any) -> Block:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": given}


def turns(asked: dict[str, Any]) -> int:
    return sum(message["role"] == "assistant" for message in asked["messages"])


def disguises(text: str) -> list[bytes]:
    """The canary, and simple ways to spell it."""
    raw = text.encode()
    return [raw, raw.lower(), raw[::-1], raw.hex().encode(), base64.b64encode(raw)[:-4], text.encode("utf-16-le")]


def test_nothing_a_trainer_says_reaches_the_model_or_its_log(
    glovebox: Glovebox, modelled: Callable[..., Home], engine: object
) -> None:
    corpus = list(HOSTILE.items())

    def brain(asked: dict[str, Any]) -> list[Block]:
        opening = "\n\n".join(part["text"] for part in asked["messages"][0]["content"])
        match = re.search(r"^experiments so far: (\d+)$", opening, re.MULTILINE)
        name, body = corpus[(int(match[1] if match else 1) - 1) % len(corpus)]  # after the baseline
        if turns(asked) == 0:
            return [use("write", text=MAKE + body + "\n")]
        if turns(asked) == 1:
            return [use("telemetry", experiment=1), {**use("history"), "id": "toolu_2"}]
        return [use("run_experiment", description=f"{name}\n\x1b[2J\u202e")]

    standin = Standin(brain)
    with Serving(standin) as url:
        home = modelled(url)
        code, out, err = glovebox(
            "run", "--tag", "t", "--agent", "claude", "--more", str(len(corpus) + 1), "--json", timeout=550
        )
    assert code == 0, err
    rows = json.loads(out)["experiments"][1:]
    assert [row["description"].split("[2J")[0].strip() for row in rows] == list(HOSTILE)
    assert {row["status"] for row in rows} <= {"crash", "rejected", "not_exportable"}
    said = b"".join(path.read_bytes() for path in home.root.glob("runs/*/trainer.log"))
    assert said.count(CANARY.encode()) > len(corpus)  # the control: they did say it
    assert len(standin.bodies) == 3 * len(corpus)
    shown = b"".join(standin.bodies) + b"".join(path.read_bytes() for path in home.root.glob("runs/*/agent.log"))
    assert [spelling for spelling in disguises(CANARY) if spelling in shown] == []
    parts = [json.loads(body)["messages"][0]["content"] for body in standin.bodies]
    openings = [part["text"] for some in parts for part in some]
    assert not [text for text in openings if "\x1b" in text or "\u202e" in text]  # descriptions are cleaned
    assert KEY.encode() not in shown
    assert glovebox("verify")[0] == 0
    calls = [entry["data"] for entry in audit_chain.verify(home.broker / "calls.jsonl")]
    assert len(calls) == len(standin.bodies)
    assert json.loads(glovebox("status", "--json")[1])["cost"]["requests"] == len(calls)


def test_the_agents_container_has_no_network_no_key_and_one_writable_file(
    glovebox: Glovebox, modelled: Callable[..., Home], engine: docker.DockerClient
) -> None:
    seen: list[Any] = []

    def brain(asked: dict[str, Any]) -> list[Block]:
        for container in engine.containers.list(filters={"label": f"{specification.ROLE_LABEL}=agent"}):
            script = (
                "import os, socket\n"
                "lines = open('/proc/self/net/dev').readlines()\n"
                "print('NETS', [line.split(':')[0].strip() for line in lines if ':' in line], os.listdir('/sys'))\n"
                "for path in ('/work/x', '/opt/glovebox/x', '/run/glovebox/bench/x', '/etc/x'):\n"
                "  try: open(path, 'a'); print('WROTE', path)\n"
                "  except OSError: pass\n"
                "open('/work/train.py', 'a').close(); print('EDITED')\n"
            )
            seen.append((container.attrs, container.exec_run(["python", "-c", script]).output.decode()))
        return [use("run_experiment", description="x")] if turns(asked) else [use("write", text="1/0\n")]

    with Serving(Standin(brain)) as url:
        modelled(url)
        code, _, err = glovebox("run", "--tag", "t", "--agent", "claude", "--more", "2", timeout=120)
    assert code == 0, err
    attrs, told = seen[0]
    assert attrs["HostConfig"]["NetworkMode"] == "none"
    assert attrs["HostConfig"]["DeviceRequests"] in (None, [])
    assert KEY not in json.dumps(attrs)
    assert [mount["Destination"] for mount in attrs["Mounts"] if mount["RW"]] == ["/work/train.py"]
    assert not [path for path in (m["Source"] for m in attrs["Mounts"]) if "docker.sock" in path]
    assert "NETS ['lo'] []" in told
    assert "EDITED" in told
    assert "WROTE" not in told


OTHER = r"""
import json, os, subprocess, sys, anthropic
def bench(*words):
    done = subprocess.run(["bench", *words], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr
if os.path.exists("/tmp/once"):  # it is started again while experiments are left
    sys.exit(bench("run", "once more")[0])
open("/tmp/once", "w").close()
client = anthropic.Anthropic()   # ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY from the environment
with client.messages.stream(model="claude-haiku-4-5", max_tokens=200, messages=[{"role": "user", "content": "idea?"}]) as s:
    idea = s.get_final_message().content[0].text
open("/work/train.py", "w").write("raise TypeError(1)\n")
print(json.dumps({"idea": idea, "run": bench("run", idea), "history": bench("history"), "bad": bench("telemetry", "9"),
                  "restore": bench("restore"), "file": open("/work/train.py").read()[:40]}))
"""


def test_another_agent_works_through_the_relay_and_the_bench_command(
    glovebox: Glovebox, modelled: Callable[..., Home], engine: object
) -> None:
    standin = Standin(lambda _: [{"type": "text", "text": "fail on purpose"}])
    with Serving(standin) as url:
        home = modelled(url, command=json.dumps(["python", "-c", OTHER]))
        code, _, err = glovebox("run", "--tag", "t", "--agent", "command", "--more", "3", timeout=120)
    (log,) = home.root.glob("runs/*/agent.log")
    assert code == 0, (err, log.read_text())
    told = json.loads(log.read_text().splitlines()[0])
    assert told["idea"] == "fail on purpose"
    assert told["run"][1]["feedback"]["crash"]["error"] == "TypeError"
    assert [row["description"] for row in told["history"][1]["rows"]] == ["baseline", "fail on purpose"]
    assert told["bad"] == [1, {"ok": False, "reason": "no_such_experiment"}]
    assert told["restore"][0] == 0
    assert told["file"].startswith('"""')  # the seed is back
    assert len(standin.bodies) == 1
    assert len(json.loads(glovebox("status", "--json")[1])["experiments"]) == 3


def test_a_broker_that_is_killed_is_started_again_and_the_run_goes_on(
    glovebox: Glovebox, modelled: Callable[..., Home], engine: object
) -> None:
    def brain(asked: dict[str, Any]) -> list[Block]:
        return [use("run_experiment", description="x")] if turns(asked) else [use("write", text="1/0\n")]

    killed = threading.Event()

    def kill() -> None:
        while not standin.bodies:
            time.sleep(0.1)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it ended in the meantime
                words = path.read_bytes()
                if b"runner.rooms.broker" in words.split(b"\0") and str(home.root).encode() in words:
                    os.kill(int(path.parent.name), 9)
                    killed.set()

    standin = Standin(brain)
    with Serving(standin) as url:
        home = modelled(url)
        threading.Thread(target=kill, daemon=True).start()
        code, out, err = glovebox("up", "--tag", "t", "--experiments", "4", "--json", timeout=180)
    assert killed.is_set()
    assert code == 0, err
    assert len(json.loads(out)["experiments"]) == 4


def test_without_a_key_the_command_that_gives_one_is_named(glovebox: Glovebox, home: Home) -> None:
    code, _, err = glovebox("up", "--tag", "t")
    assert code == 3
    assert str(home.key) in err
    assert "write your API key into it" in err

"""What may happen in the middle of a night: an artifact expires, an agent falls silent. Real session, real containers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from unittest import mock

import docker
import pytest

from runner.core.artifacts import keys, manifest, profiles
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.data import prepare
from runner.rooms.launcher import containers
from tests.samples import plainly, quickly

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Glovebox = Callable[..., tuple[int, str, str]]


def agent(home: Home, command: str, **changes: str) -> None:
    """An agent of one line of shell; `changes` are keys of policies/agent.yaml."""
    plainly(home)
    quickly(home)
    text = (SOURCE / "policies" / "agent.yaml").read_text()
    for name, value in {"command": json.dumps(["sh", "-c", command]), **changes}.items():
        text, count = re.subn(rf"^{name}: .*$", lambda _, n=name, v=value: f"{n}: {v}", text, flags=re.M)  # type: ignore[misc]
        assert count == 1
    (home.root / "policies" / "agent.yaml").write_text(text)
    home.key.parent.mkdir(mode=0o700, exist_ok=True)
    home.key.write_text("no-key-is-used\n")
    home.key.chmod(0o600)


def test_an_artifact_that_expires_while_a_session_runs_ends_nothing_but_the_next_start(
    glovebox: Glovebox, home: Home
) -> None:
    with mock.patch.object(manifest, "LIFETIME", timedelta(seconds=30)):
        version = prepare.prepare(home, profiles.shipped("demo"))
    expires = manifest.read(home.artifacts / version, keys.trust(home)).predicate.expires
    propose = 'printf "#\\n" >> /work/train.py; bench run "idea"'
    agent(home, f"{propose}; until [ $(date +%s) -gt {expires.timestamp():.0f} ]; do sleep 1; done; {propose}")
    code, out, err = glovebox("run", "--tag", "n", "--agent", "command", "--more", "3", "--json")
    assert code == 0, err
    rows = json.loads(out)["experiments"]
    assert {row["artifact"] for row in rows} == {version}
    assert datetime.fromisoformat(rows[0]["started"]) < expires < datetime.fromisoformat(rows[-1]["started"])
    assert all(row["val_bpb"] is not None for row in rows)
    code, _, err = glovebox("run", "--tag", "n", "--agent", "command")
    assert code == 4
    assert "expired" in err
    assert len(err.strip().splitlines()) == 1


def test_an_agent_that_falls_silent_is_ended_with_its_session(
    glovebox: Glovebox, home: Home, engine: docker.DockerClient
) -> None:
    agent(home, "sleep 600", session_seconds="6.0")
    code, out, err = glovebox("run", "--tag", "n", "--agent", "command", "--more", "3", "--json", timeout=120)
    assert code == 0, err
    assert [row["description"] for row in json.loads(out)["experiments"]] == ["baseline"]
    assert "agent ended" in err
    assert containers.of_bench(engine, home.id) == []


def test_an_agent_that_leaves_at_once_is_an_agent_that_left(glovebox: Glovebox, home: Home) -> None:
    agent(home, "exit 0")
    code, out, err = glovebox("run", "--tag", "n", "--agent", "command", "--more", "3", "--json", timeout=120)
    assert code == 0, err
    assert [row["description"] for row in json.loads(out)["experiments"]] == ["baseline"]


def test_an_agent_that_prints_without_end_is_ended_at_its_limit(
    glovebox: Glovebox, home: Home, engine: docker.DockerClient
) -> None:
    """From its first moment: it does not keep the launcher from hearing the runner."""
    agent(home, "yes")
    code, out, err = glovebox("run", "--tag", "n", "--agent", "command", "--more", "3", "--json", timeout=120)
    assert (code, json.loads(out)["error"]["exit_code"]) == (1, 1)
    assert "the agent failed" in err
    (log,) = home.root.glob("runs/*/agent.log")
    assert 0 < log.stat().st_size <= 64 << 20
    assert containers.of_bench(engine, home.id) == []

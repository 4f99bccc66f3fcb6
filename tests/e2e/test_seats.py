"""Two agents propose for one lane: one thinks, on a processor of its own, while the other's candidate trains."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import docker
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.rooms.launcher import containers, freezing, specification
from tests.e2e.test_lanes import proposing

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Glovebox = Callable[..., tuple[int, str, str]]


def seated(home: Home, proposers: int) -> None:
    """Agents apart from what trains, so many for a lane."""
    proposing(home)
    for name, old, new in (("sandbox", "agents: frozen ", "agents: apart "), ("agent", "proposers: 1", "proposers: 2")):
        own = home.root / "policies" / f"{name}.yaml"
        text = own.read_text() if own.exists() else (SOURCE / "policies" / f"{name}.yaml").read_text()
        assert old in text
        own.write_text(text.replace(old, new if proposers > 1 or name == "sandbox" else old))


def test_one_thinks_while_the_other_trains_and_only_who_asked_stands_still(
    glovebox: Glovebox, home: Home, engine: docker.DockerClient
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("agents apart need a processor of their own")
    seated(home, 2)
    seen: list[dict[str, str]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            trains = [one for one in containers.of_bench(engine, home.id) if _role(one) == "trainer"]
            if trains:
                found = freezing.agents(engine, home.id)
                seen.append({one["Labels"][freezing.LANE_LABEL]: str(one["State"]) for one in found})

    watcher = threading.Thread(target=look)
    watcher.start()
    code, out, err = glovebox("run", "--tag", "l", "--agent", "command", "--more", "5", "--json", timeout=300)
    over.set()
    watcher.join()
    assert code == 0, err
    rows = json.loads(out)["experiments"]
    assert len(rows) == 5
    assert all(row["val_bpb"] is not None for row in rows), rows
    states = [one for one in seen if set(one) == {"0", "0.1"}]
    assert any(sorted(one.values()) == ["paused", "running"] for one in states), seen  # one trains, the other thinks
    began = sorted((datetime.fromisoformat(row["started"]), float(row["seconds"])) for row in rows)
    for (start, seconds), (after, _) in itertools.pairwise(began):  # and never two candidates at once
        assert start + timedelta(seconds=seconds) <= after + timedelta(seconds=1.5)
    told = json.loads(glovebox("verify", "--json")[1])
    assert told["failures"] == []
    assert {path.parent.name for path in home.root.glob("work*/train.py")} == {"work", "work-0.1"}
    assert containers.of_bench(engine, home.id) == []


def test_proposers_that_would_disturb_what_trains_are_refused(glovebox: Glovebox, home: Home) -> None:
    own = home.root / "policies" / "agent.yaml"
    text = (SOURCE / "policies" / "agent.yaml").read_text()
    own.write_text(re.sub(r"^proposers: 1", "proposers: 2", text, flags=re.M))
    code, _, err = glovebox("run", "--tag", "l")
    assert code == 3
    assert "agents: apart in sandbox.yaml" in " ".join(err.split())


def _role(container: object) -> str:
    labels: dict[str, str] = getattr(container, "labels", {})
    return labels.get(specification.ROLE_LABEL, "")

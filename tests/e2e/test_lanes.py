"""Two lanes on one host: an agent on each, experiments at a time, one frontier."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta

import docker
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.rooms.launcher import containers
from tests.samples import plainly

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Glovebox = Callable[..., tuple[int, str, str]]
# Every experiment is another file, better or worse by luck.
COMMAND = (
    'i=0; while i=$((i+1)); do printf "# %s $HOSTNAME\\n" $i >> /work/train.py; bench run "lane $i" || exit 0; done'
)


def proposing(home: Home) -> None:
    """An agent that proposes without end, and no reruns."""
    plainly(home)
    text = (SOURCE / "policies" / "agent.yaml").read_text()
    line = f"command: {json.dumps(['sh', '-c', COMMAND])}"
    (home.root / "policies" / "agent.yaml").write_text(re.sub(r"^command: .*$", lambda _: line, text, flags=re.M))
    home.key.parent.mkdir(mode=0o700, exist_ok=True)
    home.key.write_text("no-key-is-used\n")
    home.key.chmod(0o600)


def test_two_core_sets_run_experiments_at_a_time_against_one_frontier(
    glovebox: Glovebox, home: Home, engine: docker.DockerClient
) -> None:
    if len(cores := sorted(os.sched_getaffinity(0))) < 2:
        pytest.skip("two lanes need two processors")
    one, other = map(str, cores[:2])
    proposing(home)
    args = (
        "run",
        "--tag",
        "l",
        "--agent",
        "command",
        "--more",
        "5",
        "--cores",
        one,
        "--cores",
        other,
        "--json",
    )
    code, out, err = glovebox(*args)
    assert code == 0, err
    rows = json.loads(out)["experiments"]
    assert len(rows) == 5
    assert all(row["val_bpb"] is not None for row in rows), rows
    assert {row["lane"] for row in rows} == {one, other}

    def span(row: dict[str, object]) -> tuple[datetime, datetime]:
        began = datetime.fromisoformat(str(row["started"]))
        return began, began + timedelta(seconds=float(str(row["seconds"])))

    spans = {lane: [span(row) for row in rows if row["lane"] == lane] for lane in (one, other)}
    assert any(a < d and c < b for a, b in spans[one] for c, d in spans[other])  # two were under way at once
    for own in spans.values():  # and never two on one lane (started is told to the second)
        assert all(b <= c + timedelta(seconds=1.5) for (_, b), (c, _) in itertools.pairwise(own))
    frontier = 99.0
    for row in rows:  # in the order in which they ended: each against the best of that moment
        assert (row["status"] == "keep") is (row["val_bpb"] < frontier)
        frontier = min(frontier, row["val_bpb"])
    checked = json.loads(glovebox("verify", "--json")[1])
    assert checked["failures"] == []
    assert checked["checked"]["verdicts"] == 5
    assert containers.of_bench(engine, home.id) == []


def test_lanes_that_would_share_a_core_are_refused(glovebox: Glovebox) -> None:
    code, _, err = glovebox("run", "--tag", "l", "--cores", "0", "--cores", "0-1")
    assert code == 2
    assert "twice" in err
    code, _, err = glovebox("run", "--tag", "l", "--train-py", "x.py", "--cores", "0", "--cores", "1")
    assert code == 2
    assert "one file" in err

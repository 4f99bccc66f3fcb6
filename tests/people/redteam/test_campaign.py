"""The red team on the real engine: every wall holds, every probe can tell, no control is missed when it is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.core.base.errors import BusyError
from runner.core.base.mountable import SOURCE
from runner.core.policy.policy_files import Policies
from runner.people.redteam import campaign, inside
from runner.people.redteam.campaign import SCENARIOS, Finding
from runner.people.redteam.controls import CONTROLS, of_stage
from runner.people.redteam.probes import PROBES, Probe
from runner.people.redteam.stage import Stage, stage
from tests.conftest import POLICIES

Glovebox = Callable[..., tuple[int, str, str]]
MAY_BE_ABSENT = {"fs-kernel-memory", "fs-sysrq"}  # small kernels have no such files


@pytest.mark.engine
@pytest.mark.slow
def test_every_wall_holds_and_every_control_is_noticed_when_it_is_taken_away(glovebox: Glovebox) -> None:
    code, out, err = glovebox("redteam", "--mutate", "--json", timeout=600)
    document = json.loads(out)
    bad = [
        p
        for p in document["probes"]
        if p["result"] != "skipped" and (p["result"], p["positive_control"]) != ("blocked", True)
    ]
    assert bad == [], err
    assert {p["id"] for p in document["probes"]} == {probe.id for probe in (*PROBES, *SCENARIOS)}
    assert document["unnoticed"] == []
    assert (code, document["ok"]) == (0, True)
    skipped = {p["id"]: p["detail"] for p in document["probes"] if p["result"] == "skipped"}
    assert set(skipped) <= MAY_BE_ABSENT | {"sys-sandbox-kernel", "agent-sandbox-kernel", "door-other-user"}
    assert all(skipped.values())
    assert len(document["probes"]) - len(skipped) >= 60
    assert set(document["probes"][0]) >= {"id", "result", "control", "positive_control", "cis", "threat"}
    assert set(document["noticed"]) >= set(CONTROLS) - {"gVisor"}


@pytest.mark.engine
@pytest.mark.slow
def test_under_gvisor_what_can_be_told_holds_too(engine: docker.DockerClient, glovebox: Glovebox) -> None:
    if "runsc" not in engine.info()["Runtimes"]:
        pytest.skip("this engine has no runsc: GLOVEBOX_WITH_RUNSC=1 scripts/engine-up.sh installs it")
    code, out, err = glovebox("redteam", "--json", "--runtime", "runsc", timeout=600)
    assert code == 0, (err, [p for p in json.loads(out)["probes"] if p["result"] == "open"])
    kernel = next(p for p in json.loads(out)["probes"] if p["id"] == "sys-sandbox-kernel")
    assert (kernel["result"], kernel["positive_control"]) == ("blocked", True)


@pytest.fixture
def made(engine: docker.DockerClient, policies: Policies, tmp_path: Path) -> Any:
    with stage(engine, policies, tmp_path) as found:
        yield found


@pytest.mark.engine
def test_a_probe_whose_tool_is_missing_is_not_a_wall_that_holds(made: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Probe("broken", "T01", ("no network",), "import no_such_module")
    monkeypatch.setattr(campaign, "PROBES", [broken])
    found = campaign.run(made, lambda _: None, "broken")
    assert [(f.result, f.positive_control, f.good) for f in found] == [("blocked", False, False)]


@pytest.mark.engine
def test_a_control_nobody_notices_is_named(made: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "PROBES", [])
    monkeypatch.setattr(campaign, "SCENARIOS", [])
    noticed = campaign.mutate(made, lambda _: None)
    assert noticed
    assert all(probes == [] for probes in noticed.values())


@pytest.mark.engine
def test_an_engine_that_says_nothing_is_no_wall_either(made: Stage) -> None:
    spec = made.specification("trainer") | {"image": "glovebox/none:dev"}
    assert made.probe(spec, {"x": "pass"})["x"][0] == "nothing"
    assert campaign._finding(made, PROBES[0], ("nothing", ""), ("open", "")).good is False


@pytest.mark.engine
def test_nothing_is_left_behind(engine: docker.DockerClient, policies: Policies, tmp_path: Path) -> None:
    before = {container.id for container in engine.containers.list(all=True, ignore_removed=True)}
    with stage(engine, policies, tmp_path) as found:
        campaign.run(found, lambda _: None, "net-interfaces")
    assert {container.id for container in engine.containers.list(all=True, ignore_removed=True)} <= before
    assert [path.name for path in tmp_path.iterdir()] == ["redteam.lock"]


def test_there_are_enough_probes_and_each_names_walls_that_exist(policies: Policies) -> None:
    names = [probe.id for probe in (*PROBES, *SCENARIOS)]
    assert len(names) == len(set(names)) >= 60
    known = {**CONTROLS, **of_stage(Path("/"), policies.sandbox)}
    assert all(set(probe.walls) <= set(known) for probe in PROBES)
    alone = {probe.walls[0] for probe in PROBES if len(probe.walls) == 1} | {s.control for s in SCENARIOS}
    assert set(known) <= alone | {"one file mounted"}, "a control that no probe is about alone would go unnoticed"


def test_a_bomb_takes_only_itself_along() -> None:
    asked = {
        "hang": "time.sleep(60)",
        "die": "os.kill(os.getpid(), 9)",
        "open": "pass",
        "closed": "raise PermissionError",
    }
    document = json.dumps({"probes": asked, "seconds": 0.5})
    done = subprocess.run([sys.executable, inside.__file__, document], capture_output=True, check=True, timeout=30)
    found = json.loads(done.stdout)
    assert {name: result for name, (result, _) in found.items()} == {
        "hang": "blocked", "die": "blocked", "open": "open", "closed": "blocked",
    }  # fmt: skip


def test_what_is_absent_without_the_wall_too_is_skipped_and_only_then() -> None:
    class Made:
        controls = CONTROLS

    def judge(blocked: tuple[str, str], opened: tuple[str, str]) -> Finding:
        return campaign._finding(Made(), PROBES[1], blocked, opened)  # type: ignore[arg-type]

    assert judge(("absent", "x"), ("absent", "x")).result == "skipped"
    assert not judge(("absent", "x"), ("open", "")).good
    assert not judge(("blocked", ""), ("absent", "x")).good
    assert judge(("blocked", ""), ("open", "")).good
    assert not judge(("open", ""), ("open", "")).good


@pytest.mark.engine
def test_what_a_killed_red_team_left_is_removed_by_the_next(
    engine: docker.DockerClient, policies: Policies, tmp_path: Path
) -> None:
    source = (
        "import sys, time; from pathlib import Path\n"
        "from runner.core.policy import policy_files\n"
        "from runner.people.redteam.stage import stage\n"
        "from runner.rooms.launcher.engine import connect_engine\n"
        "policies = policy_files.load(Path(sys.argv[1]))\n"
        "with stage(connect_engine(policies.sandbox), policies, Path(sys.argv[2])) as made:\n"
        "    with made.container(made.specification('trainer'), 'import time; time.sleep(600)') as container:\n"
        "        container.start(); print(container.id, flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", source, str(POLICIES), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=SOURCE) as killed:
        assert killed.stdout is not None
        left = killed.stdout.readline().strip()
        killed.kill()
    assert engine.containers.get(left).status == "running"
    assert list(tmp_path.glob("redteam-*"))
    with stage(engine, policies, tmp_path):
        pass
    assert left not in {container.id for container in engine.containers.list(all=True, ignore_removed=True)}
    assert list(tmp_path.glob("redteam-*")) == []


@pytest.mark.engine
def test_two_red_teams_on_one_bench_are_refused(
    engine: docker.DockerClient, policies: Policies, tmp_path: Path
) -> None:
    with stage(engine, policies, tmp_path), pytest.raises(BusyError), stage(engine, policies, tmp_path):
        pass


def test_a_selection_of_nothing_is_wrong_usage(glovebox: Glovebox) -> None:
    assert glovebox("redteam", "--only", "typo")[0] == 2

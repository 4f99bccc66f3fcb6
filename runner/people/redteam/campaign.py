"""Runs every probe in the production specification, then with its walls taken away, and says which controls matter.

TRUSTED. A probe is believed only if its attack succeeds once the walls are gone. With `mutate` each control is removed
alone, and at least one probe must notice.
"""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from docker.errors import DockerException

from runner.core.base.errors import EngineError
from runner.people.redteam.channels import CHANNEL_SCENARIOS
from runner.people.redteam.intake import INTAKE
from runner.people.redteam.probes import GVISOR, GVISOR_ANSWERS, PROBES, Probe, Room
from runner.people.redteam.runs import RUNS
from runner.people.redteam.scenario import Blocked, Scenario, Unable
from runner.people.redteam.stage import Stage
from runner.people.redteam.tenant import TENANT

SCENARIOS = [*RUNS, *INTAKE, *CHANNEL_SCENARIOS, *TENANT]
Tell = Callable[[str], None]


@dataclass
class Finding:
    """What one probe found."""

    id: str
    result: str  # blocked, open, skipped
    control: str
    positive_control: bool
    cis: str
    threat: str
    room: str
    detail: str = ""

    @property
    def good(self) -> bool:
        """The wall held, and the probe can tell."""
        return (self.result == "blocked" and self.positive_control) or self.result == "skipped"


def run(stage: Stage, tell: Tell, only: str = "") -> list[Finding]:
    """Every probe whose id begins with `only`: in production's container and in one without its walls."""
    asked = [probe for probe in PROBES if probe.id.startswith(only)]
    unfit = {probe.id: why for probe in asked if (why := unfit_because(stage, probe))}
    probes = [probe for probe in asked if probe.id not in unfit]
    blocked = _production(stage, probes, tell)
    opened = _without_walls(stage, probes, tell)
    found = [_finding(stage, probe, blocked[probe.id], opened[probe.id]) for probe in probes]
    found += [_skipped(stage, probe, unfit[probe.id]) for probe in asked if probe.id in unfit]
    scenarios = [scenario for scenario in SCENARIOS if scenario.id.startswith(only)]
    for number, scenario in enumerate(scenarios, 1):
        tell(f"from the host {number}/{len(scenarios)}: {scenario.id}")
        found.append(_scenario(stage, scenario))
    return found


def mutate(stage: Stage, tell: Tell) -> dict[str, list[str]]:
    """By control: the probes that noticed when it alone was taken away."""
    noticed: dict[str, list[str]] = {}
    for number, name in enumerate(stage.controls, 1):
        tell(f"without {name} ({number}/{len(stage.controls)})")
        found: list[str] = []
        about = [probe for probe in PROBES if name in probe.walls]
        fit = [probe for probe in about if not unfit_because(stage, probe)]
        alone = [probe for probe in about if probe.walls == (name,)]
        if alone and not any(probe in fit for probe in alone):
            continue  # those that could tell cannot under this runtime
        for (room, small), probes in _by_place(fit).items():
            spec = stage.without(stage.specification(room, small=small), (name,))
            results = stage.probe(spec, {probe.id: probe.source for probe in probes})
            found += [probe for probe, (result, _) in results.items() if result == "open"]
        noticed[name] = found
    for scenario in SCENARIOS:
        tell(f"without {scenario.control}: {scenario.id}")
        result, _ = _attack(stage, scenario, intact=False)
        if result != "skipped":
            noticed.setdefault(scenario.control, []).extend([scenario.id] if result == "open" else [])
    return noticed


def _production(stage: Stage, probes: list[Probe], tell: Tell) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for (room, small), group in _by_place(probes).items():
        tell(f"{len(group)} probes in the {room}'s container{', small sizes' if small else ''}")
        found |= stage.probe(stage.specification(room, small=small), {probe.id: probe.source for probe in group})
    return found


def _without_walls(stage: Stage, probes: list[Probe], tell: Tell) -> dict[str, tuple[str, str]]:
    groups = defaultdict(list)
    for probe in probes:
        groups[probe.room, probe.small, probe.walls].append(probe)
    found: dict[str, tuple[str, str]] = {}
    for number, ((room, small, walls), group) in enumerate(groups.items(), 1):
        tell(f"controls {number}/{len(groups)}: {room} without {', '.join(walls)}")
        spec = stage.without(stage.specification(room, small=small), walls)
        found |= stage.probe(spec, {probe.id: probe.source for probe in group})
    return found


def _by_place(probes: list[Probe]) -> dict[tuple[Room, bool], list[Probe]]:
    groups: defaultdict[tuple[Room, bool], list[Probe]] = defaultdict(list)
    for probe in probes:
        groups[probe.room, probe.small].append(probe)
    return dict(groups)


def unfit_because(stage: Stage, probe: Probe) -> str:
    """Why a probe cannot tell anything here; empty if it can."""
    if "file owned by the runner" in probe.walls and os.geteuid() != 0:
        return "only root can give a file to the agent"
    gvisor = stage.policies.sandbox.runtime_of(probe.room) == "runsc"
    if gvisor and probe.id in GVISOR_ANSWERS:
        return "under gVisor its own kernel answers this"
    return "the policy's runtime is runc" if not gvisor and probe in GVISOR else ""


def _skipped(stage: Stage, probe: Probe, why: str) -> Finding:
    cis = stage.controls[probe.control].cis
    return Finding(probe.id, "skipped", probe.control, False, cis, probe.threat, probe.room, why)


def _finding(stage: Stage, probe: Probe, blocked: tuple[str, str], opened: tuple[str, str]) -> Finding:
    result, detail = blocked
    control = opened[0] == "open"
    if result == opened[0] == "absent":
        result = "skipped"  # with its walls or without: there is nothing to attack
    elif result not in ("blocked", "open"):
        result = "open"  # nothing was learned: never counted as a wall that holds
    elif not control:
        detail = f"no positive control: {opened[1]}"
    cis = stage.controls[probe.control].cis
    return Finding(probe.id, result, probe.control, control, cis, probe.threat, probe.room, detail)


def _scenario(stage: Stage, scenario: Scenario) -> Finding:
    result, detail = _attack(stage, scenario, intact=True)
    control, why = _attack(stage, scenario, intact=False) if result != "skipped" else ("skipped", detail)
    if result == "blocked" and control != "open":
        detail = f"no positive control: {why}"
    return Finding(
        scenario.id, result, scenario.control, control == "open", scenario.cis, scenario.threat, "host", detail
    )


def _attack(stage: Stage, scenario: Scenario, *, intact: bool) -> tuple[str, str]:
    try:
        scenario.attack(stage, intact)
    except Blocked:
        return "blocked", ""
    except Unable as reason:
        return "skipped", str(reason)
    except (EngineError, OSError, DockerException, subprocess.TimeoutExpired) as error:
        return "failed", str(error)[:200]
    return "open", ""

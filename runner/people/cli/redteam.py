"""`glovebox redteam`: attack our own walls on this machine and print what held. TRUSTED."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from runner.core.base.benches import find
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.mountable import SHIPPED
from runner.core.evidence import receipts
from runner.core.evidence.receipts import Probes
from runner.core.evidence.recorder import now
from runner.core.policy import policy_files
from runner.core.policy.policy_files import Policies
from runner.people.cli.common import Json, emit, interruptible
from runner.people.cli.documents import bench
from runner.people.pages import console

if TYPE_CHECKING:
    from runner.people.redteam.campaign import Finding


def redteam(
    mutate: Annotated[bool, typer.Option("--mutate", help="Also remove each control alone: is it noticed?")] = False,
    runtime: Annotated[str | None, typer.Option(help="runc or runsc for every container, not the policy's.")] = None,
    only: Annotated[str, typer.Option(help="Only probes whose id begins so.")] = "",
    tenant: Annotated[
        int,
        typer.Option(min=1, max=2**31 - 1, help="Uid of the other user to attack as; default: nobody."),
    ] = 65534,
    json_: Json = False,
) -> None:
    """Attack the walls: every probe in the production container, and in one without its walls. Exit 8 if one fails.

    The weakened containers run Glovebox's own probes, no code of an agent's, and are removed afterwards.
    """
    from runner.people.redteam import campaign
    from runner.people.redteam.probes import PROBES
    from runner.people.redteam.stage import stage
    from runner.rooms.launcher.engine import connect_engine

    home = _bench()
    policies = policy_files.load(*(home.policies if home else (SHIPPED / "policies",)))
    ours = policies.sandbox
    if runtime is not None:
        if runtime not in ("runc", "runsc"):
            raise typer.BadParameter("one of: runc, runsc")
        both = {"runtime": runtime, "agent_runtime": runtime}
        policies = policies.model_copy(update={"sandbox": policies.sandbox.model_copy(update=both)})
    names = [probe.id for probe in PROBES] + [scenario.id for scenario in campaign.SCENARIOS]
    if not any(name.startswith(only) for name in names):
        raise typer.BadParameter(f"no probe's id begins with {only!r}")
    client = connect_engine(policies.sandbox)
    interruptible()
    with console.stderr().status("red team") as status, stage(client, policies, home.root if home else None) as made:
        made.tenant = tenant
        found = campaign.run(made, status.update, only)
        noticed = campaign.mutate(made, status.update) if mutate else {}
    unnoticed = sorted(name for name, probes in noticed.items() if not probes)
    good = all(finding.good for finding in found) and not unnoticed
    if home is not None and not only and policies.sandbox == ours:
        receipts.keep_probes(home, _summary(found, noticed, unnoticed, policies))
    if json_:
        emit(
            bench.Attacked(
                ok=good,
                runtime=policies.sandbox.runtime,
                policy=policies.digest,
                probes=[bench.Probe(**asdict(finding)) for finding in found],
                unnoticed=unnoticed,
                noticed=noticed,
            )
        )
    else:
        _print(found, noticed, unnoticed, policies.sandbox.runtime)
    raise typer.Exit(0 if good else 8)


def _bench() -> Home | None:
    """The bench, if there is one: probes need none."""
    try:
        return find()
    except GloveboxError:
        return None


def _summary(found: list[Finding], noticed: dict[str, list[str]], unnoticed: list[str], policies: Policies) -> Probes:
    counts = {kind: sum(finding.result == kind for finding in found) for kind in ("blocked", "open", "skipped")}
    return Probes(
        ok=all(finding.good for finding in found) and not unnoticed,
        policy=policies.digest,
        runtime=policies.sandbox.runtime,
        when=now(),
        removed=len(noticed),
        unnoticed=len(unnoticed),
        **counts,
    )


def _print(found: list[Finding], noticed: dict[str, list[str]], unnoticed: list[str], runtime: str) -> None:
    out = console.stdout()
    view = Table(title=f"{len(found)} probes, runtime {runtime}", title_justify="left")
    for name in ("CIS", "threat", "room", "probe", "control", "result", "without the wall"):
        view.add_column(name)
    for finding in sorted(found, key=lambda f: (f.threat, f.id)):
        color = "green" if finding.good else "red"
        held = "open: the probe can tell" if finding.positive_control else "still blocked"
        without = "" if finding.result == "skipped" else held
        view.add_row(
            finding.cis,
            finding.threat,
            finding.room,
            finding.id,
            finding.control,
            f"[{color}]{finding.result}[/]",
            without,
        )
    out.print(view)
    for finding in found:
        if not finding.good or finding.result == "skipped":
            out.print(f"{finding.id}: {finding.result}: {finding.detail}", markup=False)
    counts = {kind: sum(f.result == kind for f in found) for kind in ("blocked", "open", "skipped")}
    out.print(", ".join(f"{count} {kind}" for kind, count in counts.items()), markup=False)
    if noticed:
        out.print(f"{len(noticed)} controls removed one by one, {len(unnoticed)} unnoticed", markup=False)
    for name in unnoticed:
        out.print(f"FAIL  nothing noticed that this control was gone: {name}", markup=False)

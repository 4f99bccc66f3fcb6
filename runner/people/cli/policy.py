"""`glovebox policy`: what the rooms may do, and whether running containers agree. TRUSTED."""

from __future__ import annotations

import typer

from runner.core.airlock import leak_budget
from runner.core.base.benches import find
from runner.core.base.home import Home
from runner.core.base.launching import Lane, LaunchRequest
from runner.core.policy import policy_files, seccomp, users
from runner.people.cli.common import Json, emit
from runner.people.cli.documents import bench
from runner.people.pages import console, explain

policy_app = typer.Typer(name="policy", help="What the rooms may do.", no_args_is_help=True, rich_markup_mode=None)


@policy_app.command("explain")
def explain_(json_: Json = False) -> None:
    """Say in plain words what each room may do under the policies in force."""
    policies = policy_files.load(*find().policies)
    rooms = explain.rooms(policies)
    if json_:
        told = bench.LeakBits(
            channels=leak_budget.channels(policies),
            most=leak_budget.most(policies),
            **policies.metrics.leak.model_dump(),
        )
        emit(bench.Explanation(digest=policies.digest, terms=policies.terms, rooms=rooms, leak_bits=told))
        return
    out = console.stdout()
    for room, lines in rooms.items():
        out.print(room, markup=False, style="bold")
        for line in lines:
            out.print(f"  {line}", markup=False, soft_wrap=True)
    out.print(f"policy {policies.digest}", markup=False)


@policy_app.command("diff")
def diff(json_: Json = False) -> None:
    """Compare this bench's running containers, as the engine sees them, with the policies; exit 8 on a difference."""
    home = find()
    found = differences(home)
    if json_:
        emit(bench.Differences(ok=not any(found.values()), containers=found))
    else:
        out = console.stdout()
        for name, lines in found.items():
            out.print(f"{'FAIL' if lines else 'ok  '}  {name}", markup=False)
            for line in lines:
                out.print(f"      {line}", markup=False)
        if not found:
            out.print("no container of this bench is running", markup=False)
    raise typer.Exit(8 if any(found.values()) else 0)


def differences(home: Home) -> dict[str, list[str]]:
    """What the engine says otherwise than policy, by container; raises EngineError, PolicyError."""
    from runner.rooms.launcher import specification
    from runner.rooms.launcher.engine import connect_engine

    policies = policy_files.load(*home.policies)
    client = connect_engine(policies.sandbox)
    out = {}
    for container in client.containers.list(filters={"label": f"{specification.BENCH_LABEL}={home.id}"}):
        role = container.labels.get(specification.ROLE_LABEL, "")
        name = f"{role or 'unknown role'} {container.short_id}"
        if role not in ("trainer", "evaluator", "agent"):
            out[name] = ["a role that policy does not know"]
            continue
        # What differs from run to run (files, command, GPU) is the launcher's to choose; it checked it at the start.
        attrs = container.attrs
        host, gpus = attrs["HostConfig"], attrs["HostConfig"].get("DeviceRequests") or []
        lanes = container.labels.get(specification.LANES_LABEL, "1")
        lane = Lane(cores=host.get("CpusetCpus") or None, of=int(lanes) if lanes.isdecimal() else 1)
        named = {"role": role, "run": "0" * 16, "policy": policies.digest, "lane": lane}
        request = LaunchRequest.model_validate(named)
        gid = users.ids(policies.sandbox, getattr(policies.sandbox, role).uid).gid
        spec = specification.build(
            policies.sandbox,
            request,
            command=attrs["Config"]["Cmd"],
            mounts=[
                specification.bind(m["Source"], m["Target"], writable=not m.get("ReadOnly"))
                for m in host.get("Mounts") or []
            ],
            gid=gid,
            environment=dict(pair.split("=", 1) for pair in attrs["Config"].get("Env") or []),
            bench=home.id,
            seccomp=seccomp.of_role(policies.sandbox.seccomp, policies.seccomp, role),
        )
        if role != "agent":
            spec["device_requests"] = gpus
        out[name] = specification.differences(attrs, spec)
    return out

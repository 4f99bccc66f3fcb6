"""`glovebox gc`, `backup` and `restore`: looking after a bench. TRUSTED."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.core.base.benches import find, place
from runner.core.base.errors import PolicyError
from runner.core.base.home import Home
from runner.core.policy import policy_files
from runner.people.cli.common import Json, Yes, emit, interruptible, say, there
from runner.people.cli.documents import bench
from runner.people.host import backup as backups
from runner.people.pages import console


def gc(
    days: Annotated[float, typer.Option(min=0, help="Keep logs of runs that ended less than so many days ago.")] = 14.0,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Remove what a bench no longer needs: old logs, leftovers of killed processes, containers, unnamed images."""
    from runner.people.host import housekeeping

    home = find()
    client = housekeeping.engine(home)
    found, freed = housekeeping.tidy(home, days, client, remove=yes)
    if json_:
        things = [bench.Thing(**one._asdict() | {"path": None}) for one in found]
        emit(bench.Tidied(removed=yes, freed_bytes=freed, found=things))
        return
    out = console.stdout()
    for one in found:
        out.print(f"{one.what:<18} {one.size / 1e6:10.1f} MB  {one.name}", markup=False)
    total = sum(one.size for one in found)
    verb = "removed" if yes else "would be removed (--yes does it)"
    out.print(f"{len(found)} things, {total / 1e6:.1f} MB {verb}", markup=False)
    if client is None:
        out.print("no engine answers: containers and images were left out", markup=False)


def backup(
    path: Annotated[Path, typer.Argument(help="File to make, as bench.tar.gz.")],
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Take artifacts along too.")] = False,
    json_: Json = False,
) -> None:
    """Write a bench into one file, private keys included: keep it as safe as the bench."""
    home = find()
    interruptible()
    size = backups.write(home, path.absolute(), artifacts=artifacts)
    say(bench.BackedUp(backup=str(path), bytes=size), json_, f"{path}: {size / 1e6:.1f} MB")


def restore(path: Annotated[Path, typer.Argument(help="File that glovebox backup made.")], json_: Json = False) -> None:
    """Unpack a backup where no bench is yet ($GLOVEBOX_HOME, else .glovebox here), and verify it."""
    home = place()
    interruptible()
    outcome = backups.restore(there(path), home)
    changed = _policies(home)
    text = f"{home.root}: " + ("everything adds up" if not outcome.failures else "NOT ok: glovebox verify")
    if changed:
        text += "\nits policies are not this checkout's; `broker.upstream` is where your API key goes:"
        text += "".join(f"\n  {line}" for line in changed)
    say(bench.Restored(home=str(home.root), **outcome.document(), policies=changed), json_, text)
    raise typer.Exit(0 if not outcome.failures else 8)


def _policies(home: Home) -> list[str]:
    try:
        return policy_files.differences(policy_files.load(*home.policies), policy_files.load(home.policies[-1]))
    except PolicyError as error:
        return [str(error)]

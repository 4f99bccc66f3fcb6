"""`glovebox init` and `doctor`: a bench, and whether everything a run needs is in place. TRUSTED."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from runner.core.artifacts import keys
from runner.core.base.benches import find, make, place
from runner.people.cli import export, steering
from runner.people.cli.common import Gpu, Json, emit, interruptible, say, there
from runner.people.cli.documents import bench
from runner.people.host import importing
from runner.people.pages import console


def init(
    env_file: Annotated[
        Path | None, typer.Option(help="Settings for docker compose; default: .env, if compose.yaml is here.")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Folder of glovebox export: new tags begin with its best train.py.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Public key the export must be signed by, 64 digits.")] = None,
    json_: Json = False,
) -> None:
    """Create a bench here: .glovebox with a signing key and a trust root, and .env for compose. Safe to repeat."""
    if from_ is not None:
        there(from_, "folder", "name one that glovebox export made")
    home, named = place(), env_file is not None
    found = export.check(home, from_, key) if from_ is not None else None  # before a bench is made of it
    make(home)
    fresh = not home.trust.exists()
    if fresh:
        keys.create(home)
        if not os.environ.get("GLOVEBOX_KEY_PASSPHRASE_FILE"):
            note = "the signing key is not encrypted (for a passphrase set GLOVEBOX_KEY_PASSPHRASE_FILE before init)"
            console.stderr().print(note, markup=False)
    directive = steering.provide(home)
    text = f"bench {'created' if fresh else 'exists'}: {home.root}"
    text += f"\nwhat you want of agents, for you to edit: {home.program}" if directive else ""
    imported = None
    if found is not None:
        imported = bench.Imported.model_validate(importing.begin(home, found))
        text += f"\nnew tags begin with experiment {found.best.id} of {found.rows.tag}, {found.best.val_bpb:.6f} there"
    if env_file is None and Path("compose.yaml").exists():
        env_file = Path.cwd() / ".env"
    if env_file is not None:
        from runner.people.host import compose_env

        compose_env.write(env_file, home, named=named)
        text += f"\nsettings for docker compose: {env_file}"
    document = bench.Initialised(
        home=str(home.root),
        created=fresh,
        program=str(home.program),
        imported=imported,
        env=None if env_file is None else str(env_file),
    )
    say(document, json_, text)


def doctor(
    clock: Annotated[
        bool, typer.Option("--clock", help="Print the newest run's time limit and what it leaves open.")
    ] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Test whether this machine's kernels keep elements apart.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="How long, with --kernels.")] = 60,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Check everything a run needs; every failed line says how to fix it."""
    from runner.people.host import doctor as examiner

    if clock:
        _clock(json_)
        return
    interruptible()
    if kernels:
        with console.stderr().status(f"kernels: {seconds:.0f} s in the evaluator's container"):
            one, document = examiner.kernels(seconds, gpu)
        text = f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.detail}"
        say(bench.Kernels(**one.__dict__, **document), json_, text)
        raise typer.Exit(0 if one.ok else 5)
    found = list(examiner.checks() if gpu is None else examiner.of_gpu(gpu))
    if json_:
        emit(bench.Examined(ok=all(c.ok for c in found), checks=[bench.Line(**c.__dict__) for c in found]))
    else:
        out = console.stdout()
        for check in found:
            fix = "" if check.ok else f"\n      fix: {check.fix}"
            out.print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}{fix}", markup=False)
    raise typer.Exit(0 if all(c.ok for c in found) else 5)


def _clock(as_json: bool) -> None:
    from runner.people.host import doctor as examiner

    tag, found = examiner.clock_of(find())
    document = bench.Clock(**found._asdict(), tag=tag, limit=found.limit, advantage=found.advantage)
    share = 100 * found.advantage / found.budget
    basis = "calibrated by the baseline" if found.baseline_overhead is not None else "from policy, no baseline yet"
    text = (
        f"training budget        {found.budget:8.1f} s\n"
        f"allowance              {found.allowance:8.1f} s  ({basis})\n"
        f"container limit        {found.limit:8.1f} s  (host clock, start to end of hand-over)\n"
        f"remaining advantage    {found.advantage:8.1f} s  ({share:.0f}% of the budget, for a script that starts and\n"
        "                                   hands over as fast as the baseline and trains through the rest)"
    )
    say(document, as_json, text)

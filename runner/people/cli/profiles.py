"""`glovebox profile`: the scales there are, what one will take, and one of one's own. TRUSTED."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.table import Table

from runner.core.artifacts import estimates, profiles
from runner.core.base import files
from runner.core.base.benches import find
from runner.core.base.errors import PolicyError, UsageError
from runner.core.base.strict_yaml import parse, read
from runner.core.policy import walls
from runner.people.cli.common import Json, emit, say
from runner.people.cli.documents import bench
from runner.people.pages import console

app = typer.Typer(
    name="profile", help="Scales of training and evaluation.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(help="Name of a profile.")]


@app.command("list")
def list_(json_: Json = False) -> None:
    """Every profile, of this bench and as shipped."""
    folders = find().policies
    found = {name: profiles.load(folders, name) for name in profiles.names(folders)}
    if json_:
        emit(bench.Profiles(profiles=found))
        return
    table = Table(title="profiles", title_justify="left")
    for column in ("name", "for", "tokens a row", "seconds", "vocabulary", "tokens scored"):
        table.add_column(column, justify="left" if column in ("name", "for") else "right")
    for name, file in found.items():
        numbers = (file.max_seq_len, file.time_budget_s, file.vocab_size, file.eval_tokens)
        table.add_row(name, file.about, *(f"{number:,}" for number in numbers))
    console.stdout().print(table)


@app.command()
def check(name: Name, json_: Json = False) -> None:
    """What a profile will take: text, memory of a card, work of an evaluation. Estimates, before anything is made."""
    file = profiles.load(find().policies, name)
    found = estimates.estimate(file.profile(name), file.validation_share)
    fits = ", ".join(f"{rows} on {gib} GiB" for gib, rows in found.rows.items() if rows) or "on none"
    lines = [
        f"{name}: {file.about}",
        f"the seed on a GPU: {found.parameters / 1e6:.1f} M parameters, {found.token_flops / 1e9:.2f} GFLOP a token",
        f"rows of {file.max_seq_len:,} tokens in a pass that should fit: {fits}",
        f"an evaluation: {file.eval_tokens:,} tokens in {found.passes:,} passes, "
        f"{found.evaluation_flops / 1e12:.1f} TFLOP, {found.evaluation_seconds:.0f} s or more on a large card",
        f"own text to fill what is scored: {found.text_bytes / 1e9:.2f} GB at a share of {file.validation_share:g}",
    ]
    if file.max_seq_len & (file.max_seq_len - 1):
        lines.append("note: the seed wants rows of a power of two; another train.py may not")
    document = bench.ProfileChecked(profile=name, settings=file, estimate=found)
    say(document, json_, "\n".join(lines))


@app.command()
def new(
    name: Name,
    like: Annotated[str, typer.Option("--from", help="The profile it begins as.")] = "small",
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, as in the file.")] = None,
    json_: Json = False,
) -> None:
    """Write a profile of this bench's own, from another one."""
    home = find()
    profiles.load(home.policies, like)
    text = read(walls.place(home.policies, f"{profiles.FOLDER}/{like}.yaml"))
    path = home.policies[0] / profiles.FOLDER / f"{name}.yaml"
    if name in profiles.names(home.policies):
        raise UsageError(f"there is a profile {name!r}", where=str(path), fix="another name, or edit it")
    for setting in settings or []:
        key, _, value = setting.partition("=")
        if key not in profiles.File.model_fields:
            known = ", ".join(profiles.File.model_fields)
            raise PolicyError(f"no setting {key!r}", where=setting, fix=f"one of: {known}")
        text, lines = re.subn(rf"(?m)^{key}: .*$", lambda _, line=f"{key}: {value}": line, text)  # type: ignore[misc]
        if lines != 1:
            fix = "write it as KEY: VALUE there, or edit a copy of the file"
            raise PolicyError(f"{key} is not set in a line of its own", where=f"profile {like}", fix=fix)
    profiles.named(name)
    parse(path, text, profiles.File)
    files.write(path, text, replace=False)
    made = bench.ProfileMade(profile=name, path=str(path))
    say(made, json_, f"profile {name}: {path}\nlook at it: glovebox profile check {name}")

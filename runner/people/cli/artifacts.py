"""`glovebox prepare` and `glovebox keys`: artifacts and who may sign them. TRUSTED."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from runner.core.artifacts import kernels, keys, profiles, resign, store
from runner.core.artifacts.profiles import DATA_URL, MAX_SHARDS
from runner.core.artifacts.progress import Stages
from runner.core.base.benches import find
from runner.core.base.home import Home
from runner.core.data import datasets, own_data
from runner.core.data.shard_reader import COLUMN
from runner.people.cli.common import Json, emit, say
from runner.people.cli.documents import bench
from runner.people.pages import console
from runner.people.pages.progress import ShownStages

UPSTREAM_CACHE = Path("~/.cache/autoresearch")
keys_app = typer.Typer(
    name="keys", help="Signing keys and the trust root.", no_args_is_help=True, rich_markup_mode=None
)
KeyName = Annotated[str, typer.Argument(help="Name of a key: lower case letters, digits, _ -")]


def prepare(
    profile: Annotated[str, typer.Option(help="A scale: glovebox profile list.")] = "upstream",
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Files or folders of documents (parquet, JSONL, text), PATH or PATH:WEIGHT; or hf:OWNER/NAME."
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="Of the text, in parquet and JSONL.")] = COLUMN,
    license_: Annotated[str, typer.Option("--license", help="Of the data, as you put it; signed.")] = "",
    origin: Annotated[str, typer.Option(help="Where the data is from, as you put it; signed.")] = "",
    shards: Annotated[Path | None, typer.Option(help="Folder of parquet shards with a text column.")] = None,
    from_upstream_cache: Annotated[
        bool, typer.Option("--from-upstream-cache", help="Take shards and tokenizer of an autoresearch cache.")
    ] = False,
    cache: Annotated[Path, typer.Option(help="Where that cache is.")] = UPSTREAM_CACHE,
    mirror: Annotated[str, typer.Option(help="Download the shards from here.")] = DATA_URL,
    num_shards: Annotated[int, typer.Option(min=1, max=MAX_SHARDS, help="Training shards to download.")] = 10,
    seconds: Annotated[
        int | None, typer.Option(min=1, max=86_400, help="Training in an experiment; default: the profile's.")
    ] = None,
    kernels_: Annotated[
        bool, typer.Option("--kernels", help="Provision the kernel packages of policies/kernels.yaml instead.")
    ] = False,
    kernels_from: Annotated[Path | None, typer.Option(help="Folder of kernel packages, instead of a download.")] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Do nothing if this profile is prepared.")] = False,
    json_: Json = False,
) -> None:
    """Train the tokenizer, tokenize, pack and sign an artifact; one that was interrupted is continued."""
    if sum((bool(data), shards is not None, from_upstream_cache)) > 1:
        raise typer.BadParameter("one of --data, --shards and --from-upstream-cache")
    home, stages = find(), ShownStages(console.stderr())
    scale = profiles.load(home.policies, profile).profile(profile)
    wanted = kernels.KIND if kernels_ or kernels_from else profile
    there = store.newest(home, wanted) if if_missing else None
    if there is not None:
        version = there
    elif wanted == kernels.KIND:
        version = kernels.provision(home, kernels_from, stages)
    else:
        from runner.core.data import prepare as preparation

        source = preparation.Source(
            data=tuple(_data(home, given, stages) for given in data or ()),
            column=column,
            license=license_,
            origin=origin,
            shards=shards,
            upstream_cache=cache.expanduser() if from_upstream_cache else None,
            mirror=mirror.rstrip("/"),
            count=num_shards,
        )
        version = preparation.prepare(home, scale, source, stages, seconds=seconds)
    say(bench.Prepared(version=version), json_, f"artifact {version} ready")


def _data(home: Home, given: str, stages: Stages) -> own_data.Data:
    """What --data names, downloaded if it is a dataset of the hub."""
    try:
        found = own_data.named(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not str(found.path).startswith(datasets.PREFIX):
        return found
    folder, told = datasets.fetch(home, str(found.path), stages)
    return replace(found, path=folder, name=told)


@keys_app.command("list")
def list_(json_: Json = False) -> None:
    """Every key: trusted or revoked, and whether its private half is here."""
    home = find()
    rows = keys.listing(home)
    threshold = keys.trust(home).threshold
    if json_:
        trusted = {key.keyid: key.public for key in keys.trust(home).keys}
        listed = [bench.KeyLine(**row._asdict(), public=trusted.get(row.keyid)) for row in rows]
        emit(bench.Keys(threshold=threshold, keys=listed))
        return
    table = Table(title=f"{threshold} of {sum(row.state == 'trusted' for row in rows)} must sign", title_justify="left")
    for column in ("name", "key", "state", "private key here"):
        table.add_column(column)
    for row in rows:
        table.add_row(row.name, row.keyid[:16], row.state, row.private or "no")
    console.stdout().print(table)


@keys_app.command("new")
def new(name: KeyName, json_: Json = False) -> None:
    """Make one more signing key and trust it."""
    key = keys.new(find(), name)
    say(key, json_, f"key {name}: {key.public}")


@keys_app.command("add")
def add(
    name: KeyName,
    public: Annotated[str, typer.Argument(help="64 hexadecimal digits, from `keys list --json` of its owner.")],
    json_: Json = False,
) -> None:
    """Trust somebody else's public key."""
    key = keys.add(find(), name, public)
    say(key, json_, f"key {name} is trusted")


@keys_app.command("rotate")
def rotate(
    name: KeyName,
    successor: Annotated[str, typer.Argument(help="Name of the new key.")],
    json_: Json = False,
) -> None:
    """Replace a key by a new one and sign the artifacts here again."""
    key, signed, skipped = resign.rotate(find(), name, successor)
    text = f"key {successor} replaces {name}; signed again: {', '.join(signed) or 'nothing'}"
    text += f"; left alone, not acceptable before: {', '.join(skipped)}" if skipped else ""
    say(bench.Rotated(**key.model_dump(), signed=signed, skipped=skipped), json_, text)


@keys_app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Name or id of the key.")], json_: Json = False) -> None:
    """Count a key's signatures no more."""
    keys.revoke(find(), name)
    say(bench.Revoked(revoked=name), json_, f"key {name} is revoked: what only it signed is refused from now on")


@keys_app.command("threshold")
def threshold(number: Annotated[int, typer.Argument(min=1, max=10)], json_: Json = False) -> None:
    """How many keys must sign an artifact."""
    keys.set_threshold(find(), number)
    say(bench.Threshold(threshold=number), json_, f"{number} signatures are needed from now on")


@keys_app.command("sign")
def sign(version: Annotated[str, typer.Argument(help="Artifact version.")], json_: Json = False) -> None:
    """Add the signatures of the keys that are here to an artifact another holder has prepared."""
    resign.countersign(find(), version)
    say(bench.Signed(signed=version), json_, f"signed {version}")

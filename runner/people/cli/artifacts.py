"""`glovebox prepare` and `glovebox keys`: artifacts and who may sign them. TRUSTED."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from runner.core.artifacts import kernels, keys, resign, store
from runner.core.artifacts.profiles import DATA_URL, MAX_SHARDS, PROFILES
from runner.core.base.benches import find
from runner.people.cli.common import Json, say
from runner.people.pages import console
from runner.people.pages.progress import ShownStages

UPSTREAM_CACHE = Path("~/.cache/autoresearch")
keys_app = typer.Typer(
    name="keys", help="Signing keys and the trust root.", no_args_is_help=True, rich_markup_mode=None
)
KeyName = Annotated[str, typer.Argument(help="Name of a key: lower case letters, digits, _ -")]


def prepare(
    profile: Annotated[str, typer.Option(help="demo (no network, seconds) or upstream.")] = "upstream",
    shards: Annotated[Path | None, typer.Option(help="Folder of parquet shards with a text column.")] = None,
    from_upstream_cache: Annotated[
        bool, typer.Option("--from-upstream-cache", help="Take shards and tokenizer of an autoresearch cache.")
    ] = False,
    cache: Annotated[Path, typer.Option(help="Where that cache is.")] = UPSTREAM_CACHE,
    mirror: Annotated[str, typer.Option(help="Download the shards from here.")] = DATA_URL,
    num_shards: Annotated[int, typer.Option(min=1, max=MAX_SHARDS, help="Training shards to download.")] = 10,
    seconds: Annotated[
        int | None, typer.Option(min=1, max=86_400, help="Training in an experiment; default: 300, demo 6.")
    ] = None,
    kernels_: Annotated[
        bool, typer.Option("--kernels", help="Provision the kernel packages of policies/kernels.yaml instead.")
    ] = False,
    kernels_from: Annotated[Path | None, typer.Option(help="Folder of kernel packages, instead of a download.")] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Do nothing if this profile is prepared.")] = False,
    json_: Json = False,
) -> None:
    """Train the tokenizer, tokenize, pack and sign an artifact; one that was interrupted is continued."""
    if profile not in PROFILES:
        raise typer.BadParameter(f"one of: {', '.join(PROFILES)}")
    if shards is not None and from_upstream_cache:
        raise typer.BadParameter("--shards or --from-upstream-cache, not both")
    home, stages = find(), ShownStages(console.stderr())
    wanted = kernels.KIND if kernels_ or kernels_from else profile
    there = store.newest(home, wanted) if if_missing else None
    if there is not None:
        version = there
    elif wanted == kernels.KIND:
        version = kernels.provision(home, kernels_from, stages)
    else:
        from runner.core.artifacts import prepare as preparation

        source = preparation.Source(
            shards=shards,
            upstream_cache=cache.expanduser() if from_upstream_cache else None,
            mirror=mirror.rstrip("/"),
            count=num_shards,
        )
        version = preparation.prepare(home, profile, source, stages, seconds=seconds)
    say({"version": version}, json_, f"artifact {version} ready")


@keys_app.command("list")
def list_(json_: Json = False) -> None:
    """Every key: trusted or revoked, and whether its private half is here."""
    home = find()
    rows = keys.listing(home)
    threshold = keys.trust(home).threshold
    if json_:
        trusted = {key.keyid: key.public for key in keys.trust(home).keys}
        listed = [{**row._asdict(), "public": trusted.get(row.keyid)} for row in rows]
        say({"threshold": threshold, "keys": listed}, json_, "")
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
    say(key.model_dump(), json_, f"key {name}: {key.public}")


@keys_app.command("add")
def add(
    name: KeyName,
    public: Annotated[str, typer.Argument(help="64 hexadecimal digits, from `keys list --json` of its owner.")],
    json_: Json = False,
) -> None:
    """Trust somebody else's public key."""
    key = keys.add(find(), name, public)
    say(key.model_dump(), json_, f"key {name} is trusted")


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
    say({**key.model_dump(), "signed": signed, "skipped": skipped}, json_, text)


@keys_app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Name or id of the key.")], json_: Json = False) -> None:
    """Count a key's signatures no more."""
    keys.revoke(find(), name)
    say({"revoked": name}, json_, f"key {name} is revoked: what only it signed is refused from now on")


@keys_app.command("threshold")
def threshold(number: Annotated[int, typer.Argument(min=1, max=10)], json_: Json = False) -> None:
    """How many keys must sign an artifact."""
    keys.set_threshold(find(), number)
    say({"threshold": number}, json_, f"{number} signatures are needed from now on")


@keys_app.command("sign")
def sign(version: Annotated[str, typer.Argument(help="Artifact version.")], json_: Json = False) -> None:
    """Add the signatures of the keys that are here to an artifact another holder has prepared."""
    resign.countersign(find(), version)
    say({"signed": version}, json_, f"signed {version}")

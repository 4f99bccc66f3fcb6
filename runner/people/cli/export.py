"""`glovebox export`, and the check behind `glovebox init --from`. TRUSTED."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from runner.core.artifacts import begun, keys
from runner.core.base.benches import find
from runner.core.base.errors import ArtifactError
from runner.core.base.home import Home
from runner.core.evidence import ledger
from runner.core.policy import policy_files
from runner.people.cli.common import Json, TagOption, newest, say
from runner.people.cli.documents import record
from runner.people.host import export as exporting
from runner.people.host import importing
from runner.people.pages import console


def export(
    tag: TagOption = None,
    output: Annotated[Path | None, typer.Option(help="Folder to make; default: export-TAG here.")] = None,
    hardware: Annotated[
        str | None, typer.Option(help="Machine in the branch's name, as H100; default: its GPU, or CPU.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Instead: a log folder of TensorBoard's.")] = None,
    mlflow: Annotated[Path | None, typer.Option(help="Instead: a folder with MLflow's database.")] = None,
    wandb_offline: Annotated[Path | None, typer.Option(help="Instead: offline runs for wandb sync.")] = None,
    trackio: Annotated[Path | None, typer.Option(help="Instead: a folder of Trackio's.")] = None,
    json_: Json = False,
) -> None:
    """Write a run for others: git branch exp/{GPU}/{tag}, results.tsv, session report, signed. See init --from."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    asked = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb-offline": wandb_offline, "trackio": trackio}
    wanted = {tool: folder.absolute() for tool, folder in asked.items() if folder is not None}
    if wanted:
        _tracked(book, name, wanted, json_)
        return
    machine = hardware or exporting.hardware()
    try:
        TypeAdapter(exporting.Hardware).validate_python(machine)
    except ValidationError:
        raise typer.BadParameter(f"--hardware {machine!r}: letters, digits and - only, at most 31") from None
    folder = (output or Path.cwd() / f"export-{name}").absolute()
    with console.stderr().status("collecting and signing"):
        exporting.export(home, begun.under_or_now(home, book.run_info(name)["policy"]), name, machine, folder)
    public = next(key.public for key in keys.trust(home).keys if keys.path_of(home, key.name).exists())
    document = record.Exported(folder=str(folder), branch=f"exp/{machine}/{name}", key=public)
    text = (
        f"{folder}: branch {document.branch}, results.tsv, session.md, report.html\n"
        f"start from it elsewhere: glovebox init --from {folder.name} --key {public}"
    )
    say(document, json_, text)


def _tracked(book: ledger.Ledger, tag: str, wanted: dict[str, Path], json_: bool) -> None:
    """A tag as other tools keep it."""
    from runner.people.host import tracking

    rows, lines = book.experiments(tag), []
    for tool, folder in wanted.items():
        with console.stderr().status(f"writing for {tool}"):
            count = tracking.write(tool, rows, tag, folder)
        lines.append(f"{folder}: {count} runs for {tool}")
    written = record.Tracked(written={tool: str(folder) for tool, folder in wanted.items()})
    say(written, json_, "\n".join(lines))


def check(home: Home, folder: Path, key: str | None) -> importing.Imported:
    """An export, checked; without a bench here its key must be named."""
    if key is None and not home.trust.exists():
        fix = "pass --key with the public key its sender tells you (glovebox export prints it)"
        raise ArtifactError("signed by a key nobody named", where=str(folder), fix=fix)
    cap = policy_files.load(*home.policies).agent.train_py_bytes
    return importing.read(folder, importing.trusting(home, key), cap)

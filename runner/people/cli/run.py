"""`glovebox run`, `rerun` and `confirm`: work that a person waits for. TRUSTED."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.core.airlock.description import clean
from runner.core.base.benches import find
from runner.core.base.launching import Lane
from runner.core.evidence import ledger
from runner.core.findings.pruning import Pruned
from runner.people.cli.common import Gpu, Json, TagOption, emit, newest, say, there
from runner.people.cli.documents import record
from runner.people.cli.lanes import CoreSets, Gpus, lanes_of
from runner.people.cli.session import (
    AGENTS,
    Experiments,
    Followed,
    FromTag,
    KeyFile,
    PruneRuns,
    pruned_after,
    secret_of,
    settings_of,
    waited,
)
from runner.people.cli.status import show
from runner.people.pages import console

MAX_DESCRIPTION = 200
Seeds = Annotated[int, typer.Option(min=1, max=20, help="Runs of each of the two files.")]


def run(
    tag: Annotated[str, typer.Option(help="Name of the run: lower case letters, digits, . _ -")],
    agent: Annotated[str, typer.Option(help=f"Who proposes: {', '.join(AGENTS)}.")] = "scripted",
    experiments: Experiments = None,
    more: Annotated[int | None, typer.Option(min=1, help="End after this many of this session.")] = None,
    train_py: Annotated[
        Path | None, typer.Option(help="Run this one file as one experiment, without an agent.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="One line for the record, with --train-py.")] = None,
    prune: PruneRuns = None,
    artifact: Annotated[str | None, typer.Option(help="Artifact version; default: the newest.")] = None,
    from_tag: FromTag = None,
    gpu: Gpus = None,
    cores: CoreSets = None,
    key_file: KeyFile = None,
    json_: Json = False,
) -> None:
    """Run experiments: with an agent in its container, or one given train.py."""
    home = find()
    lanes = lanes_of(gpu, cores)
    settings = settings_of(home, tag, agent, artifact, lanes, from_tag)
    if experiments is not None and more is not None:
        raise typer.BadParameter("--experiments counts those of the tag, --more those of this session: give one")
    settings |= {"until": experiments, "max_experiments": more} | pruned_after(prune, experiments)
    tag = settings["tag"]  # a person's name for it, perhaps
    if train_py is not None:
        if len(lanes) > 1:
            raise typer.BadParameter("one file runs on one --gpu or set of --cores")
        settings |= {
            "agent": None,
            "train_py": str(there(train_py).absolute()),
            "description": clean(description or train_py.name, MAX_DESCRIPTION),
        }
    secret = secret_of(home, settings["agent"], key_file)
    answer, code, _, _ = waited(settings, home, secret, json_)
    if code == 0 and answer is not None and train_py is not None:
        emit(record.Ran.model_validate_json(json.dumps({"feedback": answer["feedback"], "row": answer["row"]})))
    elif code == 0:
        show(home, tag, json_)
    raise typer.Exit(code)


def rerun(
    experiment: Annotated[int, typer.Argument(help="Number of the experiment.")],
    tag: TagOption = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Seconds of training; default: the artifact's.")] = None,
    seeds: Seeds = 3,
    depth: Annotated[int | None, typer.Option(min=1, help="Put in place of DEPTH in both files.")] = None,
    profile: Annotated[str | None, typer.Option(help="Newest artifact of this profile instead of the tag's.")] = None,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Run an experiment and the keep before it again, on other seeds or terms: does its gain hold?"""
    order = {"experiments": (experiment,), "seeds": seeds, "budget": budget, "depth": depth, "profile": profile}
    _transfer(tag, order, gpu, json_)


def confirm(
    top: Annotated[int, typer.Option(min=0, help="Also the largest steps, so many, each next to the one before.")] = 0,
    tag: TagOption = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=20, help="Runs of each; default: 2.")] = None,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Measure what a run gained: baseline and best in turns, on seeds nothing was chosen by."""
    _transfer(tag, {"top": top, "seeds": seeds}, gpu, json_)


def prune(
    tag: TagOption = None,
    below: Annotated[float, typer.Option(min=0.01, max=1, help="Keeps that are real with less probability.")] = 0.7,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Of training, at most, before the best is measured.")] = 24,
    seeds: Seeds = 3,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Take keeps whose effect is in doubt out of the best, as long as it stays as good: the file to read.

    Each attempt is an experiment of the run; what was the best before is then run beside the best of now. What the run
    gained is to be measured again: glovebox confirm.
    """
    name, (answer, code, _, _) = _asked(tag, {"prune": {"below": below, "runs": runs, "seeds": seeds}}, gpu, json_)
    if code == 0 and answer is not None:
        found = Pruned.model_validate_json(json.dumps(answer["pruned"]))
        say(record.PrunedTag(tag=name, **dict(found)), json_, console.pruned(answer["pruned"]))
    raise typer.Exit(code)


def _asked(tag: str | None, what: dict[str, Any], gpu: str | None, as_json: bool) -> tuple[str, Followed]:
    """A session without an agent on a tag that was begun; its name, and how that went."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    version = book.run_info(name)["artifact"]
    settings = settings_of(home, name, "scripted", version, (Lane(gpu=gpu),)) | {"agent": None} | what
    return name, waited(settings, home, None, as_json)


def _transfer(tag: str | None, order: dict[str, Any], gpu: str | None, as_json: bool) -> None:
    name, (answer, code, _, _) = _asked(tag, {"order": order}, gpu, as_json)
    if code == 0 and answer is not None:
        if answer["stopped"]:
            console.stderr().print("stopped as asked for; the same command goes on with what is missing", markup=False)
        if as_json:
            emit(record.Measured.model_validate_json(json.dumps({"tag": name, "transfers": answer["transfers"]})))
        elif answer["transfers"] and order.get("top") == 0:
            console.stdout().print(console.measured(answer["transfers"]), markup=False)
        elif answer["transfers"]:
            console.transfers(answer["transfers"], console.stdout())
        elif not answer["stopped"]:
            console.stdout().print(console.measured([]), markup=False)
    raise typer.Exit(code)

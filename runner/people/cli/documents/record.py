"""Documents about tags and their experiments. TRUSTED, no logic."""

from __future__ import annotations

from typing import Any

from pydantic import RootModel

from runner.core.base.values import Experiment, Feedback, Rerun
from runner.core.evidence.ledger import Origin
from runner.core.findings.comparing import By, Part
from runner.core.findings.early_stopping import Study
from runner.core.findings.pruning import Pruned
from runner.core.findings.transfers import Transfer
from runner.people.cli.documents.base import Document


class Cost(Document):
    """Of a tag's model calls."""

    dollars: float
    tokens: int
    requests: int


class Running(Document):
    """An experiment in progress; `curve`: (step, loss); `rerun`: what is run for its sake."""

    number: int
    description: str
    seconds: float
    curve: list[tuple[int, float]]
    rerun: str


class Row(Experiment):
    """A row of the ledger; `expected`: its gain (rule `odds`); `device`: what it trained on, if it did."""

    expected: float | None
    device: str | None


class _Tag(Document):
    """A tag; `best`: the newest keep's score; `expected`: what the tag is believed to have gained."""

    tag: str
    started: str
    artifact: str
    policy: str
    origin: Origin | None
    baseline: float | None
    best: float | None
    expected: float | None
    running: list[int]
    reruns: int
    experiments: list[Row]


class Status(_Tag):
    """`status`, and what `run` and `up` end with; `away_until`: the model API is left alone until then.

    `leak_...`: bits told to agents, and the experiment at which that ends.
    """

    report: str
    cost: Cost | None
    away_until: str | None
    paused: bool
    leak_bits: int
    leak_limit: int
    leak_experiments_left: int
    leak_ends_at: int


class History(_Tag):
    """`history`; bits: told to the agent, and how many experiments more may be told."""

    outcomes: dict[str, int]
    since_keep: int
    hours: float
    leak_bits: int
    leak_limit: int
    leak_experiments_left: int
    leak_ends_at: int


class Ran(Document):
    """`run --train-py`: what an agent would have been told, and the row."""

    feedback: Feedback
    row: Experiment


class Watched(Document):
    """A line of `watch`, printed whenever an experiment begins or ends."""

    tag: str
    experiments: int
    last: list[Experiment]
    running: list[Running]
    cost: Cost | None
    away_until: str | None
    gpus: list[str]
    hours: float
    leak_bits: int
    leak_limit: int
    leak_experiments_left: int
    leak_ends_at: int
    paused: bool
    hints: int


class Shown(Document):
    """`show`; `receipt`: the audit chain's entry; `logs`: paths by room."""

    experiment: Experiment
    compared_with: int | None
    reruns: list[Rerun]
    diff: str
    receipt: dict[str, Any] | None
    logs: dict[str, str]


class Logs(Document):
    """`logs` without a room: paths by room."""

    experiment: int
    logs: dict[str, str]


class Log(Document):
    """`logs` of a room: words of untrusted code, made printable."""

    experiment: int
    room: str
    path: str
    lines: list[str]


class _Best(Document):
    experiment: int
    tag: str
    val_bpb: float


class Best(_Best):
    """`best`."""

    train_py: str


class BestWritten(_Best):
    """`best --output`."""

    path: str


class Meaning(Document):
    """Of one word."""

    means: str
    remedy: str


class Explained(RootModel[dict[str, Meaning]]):
    """`explain`, by word."""


class Reported(Document):
    """`report`."""

    report: str
    png: str | None


class Compared(Document):
    """`compare`."""

    tags: list[str]
    by: By
    parts: list[Part]


class TagLine(Document):
    """A line of `tags`."""

    tag: str
    name: str | None
    archived: bool
    started: str
    artifact: str
    experiments: int
    kept: int
    baseline: float | None
    best: float | None
    running: bool
    begun_from: str | None


class Tags(Document):
    """`tags`."""

    tags: list[TagLine]


class Renamed(Document):
    """`tags rename`."""

    tag: str
    name: str


class Archived(Document):
    """`tags archive` and `tags unarchive`."""

    tag: str
    archived: bool


class Deleted(Document):
    """`tags delete`; unless `removed` it is what would go."""

    tag: str
    removed: bool
    files: int
    bytes: int


class Measured(Document):
    """`rerun` and `confirm`."""

    tag: str
    transfers: list[Transfer]


class EarlyStopStudied(Document):
    """`early-stop study`; shares are from 0 to 1."""

    tag: str
    study: Study
    faster: float
    lost: float
    advice: str


class PrunedTag(Pruned):
    """`prune`."""

    tag: str


class Stopped(Document):
    """`stop`: the tag; none where nothing ran."""

    stopped: str | None


class Stopping(Document):
    """`stop --after`."""

    stopping: str | None


class Exported(Document):
    """`export`; `key`: what its signature is checked by."""

    folder: str
    branch: str
    key: str


class Tracked(Document):
    """`export` for other tools: folders by tool."""

    written: dict[str, str]


class Verified(Document):
    """`verify`; `checkpoint`: for the next --since."""

    ok: bool
    checked: dict[str, int]
    not_verified: list[str]
    failures: list[str]
    checkpoint: str | None

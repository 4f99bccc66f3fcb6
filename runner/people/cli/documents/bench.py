"""Documents about a bench, its artifacts, keys, policies and walls. TRUSTED, no logic."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runner.core.artifacts import profiles
from runner.core.artifacts.estimates import Estimate
from runner.core.artifacts.keys import TrustedKey
from runner.people.cli.documents.base import Document
from runner.people.cli.documents.record import Verified


class Next(Document):
    """`glovebox` alone: where things stand, and commands that suit."""

    now: str
    next: list[str]


class Version(Document):
    """`version`."""

    version: str


class Imported(Document):
    """An export that new tags begin with."""

    from_: str = Field(alias="from")
    hardware: str
    experiment: int
    snapshot: str
    artifact: str
    val_bpb: float
    checked: dict[str, int]
    not_verified: list[str]


class Initialised(Document):
    """`init`; `env`: settings for docker compose, if written."""

    home: str
    created: bool
    program: str
    imported: Imported | None
    env: str | None


class Line(Document):
    """A line of `doctor`."""

    name: str
    ok: bool
    detail: str
    fix: str


class Examined(Document):
    """`doctor`."""

    ok: bool
    checks: list[Line]


class Kernels(Line):
    """`doctor --kernels`; without a result there is the line alone."""

    cases: int | None = None
    coupled: list[Any] | None = None
    torch: str | None = None
    device: str | None = None


class Clock(Document):
    """`doctor --clock`, in seconds; `advantage`: what a script could train beyond its budget."""

    tag: str | None
    budget: float
    allowance: float
    baseline_overhead: float | None
    limit: float
    advantage: float


class Profiles(Document):
    """`profile list`, by name."""

    profiles: dict[str, profiles.File]


class ProfileChecked(Document):
    """`profile check`."""

    profile: str
    settings: profiles.File
    estimate: Estimate


class ProfileMade(Document):
    """`profile new`."""

    profile: str
    path: str


class Prepared(Document):
    """`prepare`."""

    version: str


class Side(Document):
    """Text that is trained on, scored or held back; `begun`: documents that begin in it, in what is scored perhaps
    several times; `lengths`: documents of 2^i tokens and more."""

    name: str
    begun: int
    tokens: int
    text_bytes: int
    bytes_per_token: float
    used: int
    frequent: float
    lengths: tuple[int, ...]


class Data(Document):
    """`data`; `profile` and `provenance` as they were signed."""

    version: str
    expires: str
    profile: dict[str, int | str]
    provenance: dict[str, str]
    vocabulary: int
    sides: list[Side]
    page: str | None


class Warmed(Document):
    """`warm`: an artifact of a compile cache."""

    version: str
    bytes: int


class Forgotten(Document):
    """`warm --forget`: artifacts that were removed."""

    forgotten: list[str]


class KeyLine(Document):
    """A line of `keys list`; `private`: how its other half is kept here, if it is."""

    name: str
    keyid: str
    state: str
    private: str
    public: str | None


class Keys(Document):
    """`keys list`; so many of them must sign."""

    threshold: int
    keys: list[KeyLine]


class Rotated(TrustedKey):
    """`keys rotate`: the new key, artifacts signed again, and those left alone."""

    signed: list[str]
    skipped: list[str]


class Revoked(Document):
    """`keys revoke`."""

    revoked: str


class Threshold(Document):
    """`keys threshold`."""

    threshold: int


class Signed(Document):
    """`keys sign`."""

    signed: str


class LeakBits(Document):
    """What an answer can tell of a trainer, in bits."""

    channels: dict[str, float]
    most: float
    experiment_bits: int
    night_bits: int
    experiments: int


class Explanation(Document):
    """`policy explain`: lines about each room."""

    digest: str
    terms: str
    rooms: dict[str, list[str]]
    leak_bits: LeakBits


class Differences(Document):
    """`policy diff`: what the engine says otherwise, by container."""

    ok: bool
    containers: dict[str, list[str]]


class Probe(Document):
    """One attack and what came of it; `result`: blocked, open or skipped."""

    id: str
    result: str
    control: str
    positive_control: bool
    cis: str
    threat: str
    room: str
    detail: str


class Attacked(Document):
    """`redteam`; `noticed`: by a control that was removed, the probes that turned."""

    ok: bool
    runtime: str
    policy: str
    probes: list[Probe]
    unnoticed: list[str]
    noticed: dict[str, list[str]]


class Served(Document):
    """`serve`, on loopback; the browser brings the token once."""

    url: str
    token: str


class ServedLocally(Document):
    """`serve`, on a Unix socket."""

    socket: str
    token: str


class Thing(Document):
    """What a bench no longer needs; `engine`: the id of a container or an image."""

    what: str
    name: str
    size: int
    path: None
    engine: str | None


class Tidied(Document):
    """`gc`; unless `removed` it is what would go."""

    removed: bool
    freed_bytes: int
    found: list[Thing]


class BackedUp(Document):
    """`backup`."""

    backup: str
    bytes: int


class Restored(Verified):
    """`restore`, with what `verify` said; `policies`: what differs from this checkout's."""

    home: str
    policies: list[str]

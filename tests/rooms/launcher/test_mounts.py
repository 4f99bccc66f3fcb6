"""Which rows an evaluator finds, and who never finds those that are held back."""

from __future__ import annotations

import shutil

import pytest

from runner.core.base import doors
from runner.core.base.errors import DoorError
from runner.core.base.home import Home
from runner.core.base.launching import LaunchRequest
from runner.core.policy import walls
from runner.rooms.launcher.mounts import Room, Rooms


def furnished(home: Home, role: str, **more: object) -> Room:
    run = "0123456789abcdef"
    folder = home.run(run)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("graph.json", "weights.safetensors"):
        (folder / name).write_bytes(b"")
    policies = walls.load(*home.policies)
    values = {"role": role, "run": run, "policy": policies.digest, "artifact": "demo-1", **more}
    rooms = Rooms(home, doors.Places(home.root / "doors"), policies)
    return rooms.furnish(LaunchRequest.model_validate(values), folder)


def sources(room: Room) -> dict[str, str]:
    return {mount["Target"]: mount["Source"] for mount in room.mounts}


@pytest.mark.parametrize(("holdout", "part"), [(False, "val"), (True, "holdout")])
def test_an_evaluator_finds_one_of_both_and_at_the_same_place(home: Home, holdout: bool, part: str) -> None:
    found = sources(furnished(home, "evaluator", holdout=holdout))
    assert found["/artifacts/val"] == str(home.store / "demo-1" / part)
    other = str(home.store / "demo-1" / ("val" if holdout else "holdout"))
    assert not [source for source in found.values() if source.startswith(other)]


@pytest.mark.parametrize("role", ["trainer", "agent"])
@pytest.mark.parametrize("holdout", [False, True])
def test_neither_trainer_nor_agent_finds_what_is_scored(home: Home, role: str, holdout: bool) -> None:
    store = str(home.store / "demo-1")
    scored = {f"{store}/val", f"{store}/holdout", store, str(home.store), str(home.root)}
    assert not scored & set(sources(furnished(home, role, holdout=holdout)).values())


def test_an_artifact_without_one_is_refused(home: Home) -> None:
    shutil.rmtree(home.store / "demo-1" / "holdout")
    with pytest.raises(DoorError, match="no holdout"):
        furnished(home, "evaluator", holdout=True)
    furnished(home, "evaluator", holdout=False)

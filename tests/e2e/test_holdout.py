"""By the engine's own word: which rows evaluators of a night and of its confirmation were given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from runner.core.base.home import Home
from runner.core.evidence import verify
from runner.core.evidence.ledger import Ledger
from runner.rooms.launcher import containers, specification

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Glovebox = Callable[..., tuple[int, str, str]]


@contextmanager
def mounted(engine: docker.DockerClient, home: Home) -> Iterator[list[tuple[str, str]]]:
    """(role, last part of a mount's source) of everything the bench's containers were given of its artifacts."""
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for one in containers.of_bench(engine, home.id):
                if one.id in seen:
                    continue
                seen.add(str(one.id))
                role = one.labels[specification.ROLE_LABEL]
                found.extend(
                    (role, Path(mount["Source"]).name)
                    for mount in one.attrs["Mounts"]
                    if Path(mount["Source"]).is_relative_to(home.store)
                )

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield found
    finally:
        over.set()
        looking.join()


def test_the_holdout_is_mounted_for_confirm_alone(glovebox: Glovebox, home: Home, engine: docker.DockerClient) -> None:
    with mounted(engine, home) as night:
        code, _, err = glovebox("run", "--tag", "n", "--agent", "scripted", "--more", "2", "--json")
    assert code == 0, err
    assert ("evaluator", "val") in night  # else nothing was looked at
    assert not [mount for mount in night if mount[1] == "holdout"]
    with mounted(engine, home) as confirmed:
        code, _, err = glovebox("confirm", "--tag", "n", "--seeds", "1", "--json")
    assert code == 0, err
    parts = [part for role, part in confirmed if role == "evaluator" and part in ("val", "holdout")]
    assert parts
    assert set(parts) == {"holdout"}
    assert {part for role, part in night + confirmed if role == "trainer"} == {"tokenizer", "train"}
    reruns = Ledger(home.ledger, read_only=True).reruns("n")
    assert {bool(rerun.during) for rerun in reruns if rerun.holdout} == {False}
    assert not verify.verify(home).failures

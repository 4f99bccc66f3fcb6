"""What an agent is told of its bench comes from policies, the artifact and rows it was told."""

from __future__ import annotations

import re

import pytest

from runner.core.airlock.leak_budget import BARE, NO_CURVE
from runner.core.artifacts import store
from runner.core.base.home import Home
from runner.core.base.launching import Lane, Speed
from runner.core.base.mountable import SOURCE
from runner.core.policy.policy_files import Policies
from runner.rooms.desk.facts import facts
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.train_and_score import Stages
from tests.samples import experiment
from trainer.wire import versions


@pytest.fixture
def stages(home: Home, policies: Policies) -> Stages:
    return Stages(home, policies, LaunchClient(home.root / "none"), store.admit(home, "demo-1"))


def test_device_budget_and_data_are_named(stages: Stages) -> None:
    told = facts(stages, None)
    assert told["device"].startswith("CPU, ")
    assert (told["train_seconds"], told["sequence_length"], told["vocabulary"]) == (6.0, 256, 1024)
    assert told["evaluated_tokens_m"] == 0.03
    assert 0 < told["host_memory_gib"] <= 64
    assert "best" not in told


def test_the_card_is_named_once_something_ran_on_it(home: Home, policies: Policies) -> None:
    lane = Lane(number=0, gpu="GPU-00000000-0000-0000-0000-000000000000")
    stages = Stages(home, policies, LaunchClient(home.root / "none"), store.admit(home, "demo-1"), lane)
    assert facts(stages, None)["device"] == "an NVIDIA GPU"
    best = experiment(1, speed=Speed(name="NVIDIA H100 80GB HBM3", driver="580.1"))
    assert facts(stages, best)["device"] == "NVIDIA H100 80GB HBM3"


def test_cores_of_a_lane_are_counted(home: Home, policies: Policies) -> None:
    lane = Lane(number=0, cores="0-2,5")
    stages = Stages(home, policies, LaunchClient(home.root / "none"), store.admit(home, "demo-1"), lane)
    assert facts(stages, None)["device"].startswith("CPU, 4 processors")


@pytest.mark.parametrize(("level", "told"), [(None, True), (0, True), (NO_CURVE, True), (BARE, False)])
def test_of_the_best_nothing_is_told_that_its_answer_did_not_tell(
    stages: Stages, level: int | None, told: bool
) -> None:
    best = experiment(1, summary={"num_steps": 10.0, "total_tokens_M": 1.6, "mfu_percent": 7.0}, told=level)
    shown = facts(stages, best).get("best")
    assert shown == ({"num_steps": 10.0, "total_tokens_M": 1.6, "tokens_per_second": 200000.0} if told else None)


def test_the_version_of_torch_is_the_one_that_is_installed_in_the_image() -> None:
    pinned = re.search(r"^torch==(\S+)$", (SOURCE / "trainer" / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == versions.TORCH

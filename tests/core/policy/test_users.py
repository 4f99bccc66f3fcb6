"""Whose files a container reaches, and as whom its kernel names it, with and without user namespaces."""

from __future__ import annotations

import os

import pytest

from runner.core.base.errors import EngineError
from runner.core.policy import users
from runner.core.policy.policy_files import Policies
from runner.core.policy.users import Ids
from runner.core.policy.walls import Sandbox


def sandbox(policies: Policies, userns: str = "none", base: int = 0) -> Sandbox:
    return policies.sandbox.model_copy(update={"userns": userns, "userns_base": base})


def test_files_go_to_the_containers_group_as_root_or_member_and_to_ours_otherwise(
    policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sandbox(policies)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert users.ids(plain, 65532) == Ids(65532, 65532, 65532)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert users.ids(plain, 65532) == Ids(os.getegid(), os.getegid(), 65532)
    monkeypatch.setattr(os, "getgroups", lambda: [65532])
    assert users.ids(plain, 65532) == Ids(65532, 65532, 65532)


def test_gvisor_connects_as_root_for_an_agent_and_nobody_else_does(policies: Policies) -> None:
    plain = sandbox(policies)
    assert users.agents(plain) == {plain.agent.uid}
    assert users.agents(plain.model_copy(update={"agent_runtime": "runsc"})) == {plain.agent.uid, 0}
    assert users.agents(plain.model_copy(update={"runtime": "runsc"})) == {
        plain.agent.uid
    }  # the trainer connects to nobody


def test_a_remapped_container_has_other_ids_on_the_host(policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    remapped = sandbox(policies, "remap", 100_000)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert users.ids(remapped, 65532) == Ids(65532, 165_532, 165_532)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError, match="165532"):
        users.ids(remapped, 65532)


def test_under_a_rootless_engine_our_group_is_the_containers_root_group(policies: Policies) -> None:
    assert users.ids(sandbox(policies, "rootless", 100_000), 65532) == Ids(0, os.getegid(), 165_531)


@pytest.mark.parametrize(
    ("userns", "base", "options", "root", "fix"),
    [
        ("none", 0, ["name=seccomp,profile=builtin"], "/var/lib/docker", None),
        ("none", 0, ["name=userns"], "/var/lib/docker/100000.100000", "userns: remap and userns_base: 100000"),
        ("remap", 100_000, ["name=userns"], "/var/lib/docker/100000.100000", None),
        ("remap", 200_000, ["name=userns"], "/var/lib/docker/100000.100000", "userns_base: 100000"),
        ("remap", 100_000, [], "/var/lib/docker", "userns: none"),
        ("remap", 100_000, ["name=userns"], "/var/lib/docker/100000.231072", "the same range"),
        ("remap", 100_000, ["name=userns"], "/var/lib/docker", "the same range"),
        ("none", 0, ["name=rootless"], "/home/u/docker", "userns: rootless"),
        ("rootless", 100_000, ["name=rootless"], "/home/u/docker", None),
    ],
)
def test_policy_must_say_what_the_engine_does(
    policies: Policies, userns: str, base: int, options: list[str], root: str, fix: str | None
) -> None:
    if fix is None:
        users.check(sandbox(policies, userns, base), options, root)
        return
    with pytest.raises(EngineError, match=fix):
        users.check(sandbox(policies, userns, base), options, root)

"""Doctor: every check can fail, and says what to do then."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import docker
import pytest

from runner.core.base.home import Home
from runner.core.evidence.audit_chain import AuditLog
from runner.core.policy.broker import Price
from runner.core.policy.policy_files import Policies
from runner.people.host import checks, doctor
from runner.rooms.launcher import specification

Glovebox = Callable[..., tuple[int, str, str]]


@pytest.mark.engine
def test_a_bench_in_order_passes_and_the_live_attempts_ran(glovebox: Glovebox, home: Home) -> None:
    home.root.chmod(0o700)
    code, out, err = glovebox("doctor", "--json")
    document = json.loads(out)
    assert (code, [c for c in document["checks"] if not c["ok"]]) == (0, []), err
    names = [check["name"] for check in document["checks"]]
    assert sum(name.startswith("must fail: ") for name in names) == len(doctor.MUST_FAIL)
    rooms = ["trainer", "evaluator", "agent", "compose's services"]
    assert names[-6:] == ["must work: trainer", *(f"room: {room}" for room in rooms), "mounts: bench and sockets"]
    assert {"engine", "seccomp", "compose", "user namespaces", "GPU", "clock", "secret permissions"} <= set(names)


@pytest.mark.engine
def test_a_weak_container_fails_the_live_attempts(
    engine: docker.DockerClient, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specification, "_walls", weak(specification._walls))
    found = list(doctor._attempts(engine, policies, None))
    failed = {check.name for check in found if not check.ok}
    assert {"must fail: net-route", "must fail: fs-root"} <= failed
    assert all(check.fix for check in found)


def weak(walls: Callable[[str | None], dict[str, Any]]) -> Callable[[str | None], dict[str, Any]]:
    return lambda profile: walls(profile) | {"network_mode": "bridge", "read_only": False}


@pytest.mark.engine
def test_an_image_that_cannot_work_fails(engine: docker.DockerClient, policies: Policies) -> None:
    limits = policies.sandbox.trainer.model_copy(update={"image": "glovebox/none:dev"})
    broken = policies.model_copy(update={"sandbox": policies.sandbox.model_copy(update={"trainer": limits})})
    (only,) = checks.safely("live attempts", doctor._attempts(engine, broken, None))
    assert not only.ok
    assert "make images" in only.fix


def test_what_others_can_read_is_named_with_the_command_that_closes_it(home: Home) -> None:
    home.root.chmod(0o755)
    (key := next(home.keys.glob("*"))).chmod(0o644)
    found = {check.name: check for check in doctor._permissions(home)}
    assert not found["bench permissions"].ok
    assert found["bench permissions"].fix == f"chmod 700 {home.root}"
    assert str(key) in found["secret permissions"].fix
    home.root.chmod(0o700)
    key.chmod(0o600)
    assert all(check.ok for check in doctor._permissions(home) if check.name != "engine socket")


def test_a_clock_before_the_last_entry_is_wrong(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._clock(home).ok
    AuditLog(home.audit).append("refused", {})
    assert doctor._clock(home).ok

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(UTC) - timedelta(days=2)

    monkeypatch.setattr(doctor, "datetime", Earlier)
    assert not doctor._clock(home).ok


@pytest.mark.parametrize(
    ("arguments", "fine"),
    [
        (["--network=none", "--host-uds=open"], True),
        (["--host-uds=all"], True),
        (["--host-uds=none"], False),
        (["--network=none"], False),
        (None, False),
    ],
)
def test_a_gvisor_that_opens_no_sockets_is_told_before_an_agent_is_cut_off(
    arguments: list[str] | None, fine: bool
) -> None:
    found = doctor._doors({"Runtimes": {"runsc": {"path": "runsc", "runtimeArgs": arguments}}})
    assert found.ok is fine
    assert "--host-uds=open" in found.fix
    assert not doctor._doors({}).ok


def test_what_was_not_foreseen_is_a_failed_check_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> Home:
        raise PermissionError(13, "Permission denied", "/home/other/.glovebox")

    value, check = checks.guarded("bench", forbidden, str)
    assert (value, check.ok, check.fix != "") == (None, False, True)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert doctor._compose() == (False, "the docker command is missing")


@pytest.mark.parametrize(
    ("age", "told"),
    [(0, "checked on"), (90, "checked on"), (91, "warning: 91 days old"), (None, "warning: nobody says")],
)
def test_an_old_price_list_is_said(policies: Policies, age: int | None, told: str) -> None:
    day = "" if age is None else (datetime.now(UTC) - timedelta(days=age)).date().isoformat()
    check = doctor._prices(policies.broker.model_copy(update={"prices_checked": day}))
    assert check.ok
    assert check.detail.startswith(told)


def test_models_of_ones_own_have_no_price_list(policies: Policies) -> None:
    free = {"m": Price(input=0.0, output=0.0, max_tokens=100)}
    assert "nothing" in doctor._prices(policies.broker.model_copy(update={"models": free})).detail

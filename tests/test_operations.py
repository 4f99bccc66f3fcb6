"""docs/operations.md names tests that exist; the units say what a unit has to say."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from runner.core.base import faults
from runner.core.base.mountable import SOURCE

DOCUMENT = (SOURCE / "docs" / "operations.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| .+? \| .+? \| (`tests/.+?) \|$", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize(("fault", "evidence"), ROWS)
def test_every_fault_has_tests_that_exist(fault: str, evidence: str) -> None:
    for test in re.findall(r"`([^`]+)`", evidence):
        path, _, function = test.partition("::")
        assert re.search(rf"^def {function}\(", (SOURCE / Path(path)).read_text(), re.MULTILINE), (fault, test)


def test_no_fault_is_without_a_row() -> None:
    assert len(ROWS) >= 18
    assert {point.split(".")[0] for point in faults.POINTS} <= {
        "snapshot", "ledger", "experiment", "rerun", "row", "branch", "chain", "results", "train_py", "report",
        "launcher", "broker", "steer",
    }  # fmt: skip


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(SOURCE / "systemd" / name)
    return parser


def test_the_unit_keeps_the_key_out_of_the_environment_and_restarts_only_what_may_help() -> None:
    service = unit("glovebox@.service")["Service"]
    assert "anthropic_api_key" in service["LoadCredential"]
    assert "KEY" not in service["Environment"]
    assert set(service["RestartPreventExitStatus"].split()) == {"2", "3", "4", "7", "8", "9"}
    assert service["SuccessExitStatus"] == "130"  # glovebox stop
    assert service["NoNewPrivileges"] == "yes"


def test_an_engine_that_is_upgraded_does_not_stop_the_unit() -> None:
    """`Requires` would: the engine stops and starts, and only the stop reaches what requires it (systemd.unit(5))."""
    told = unit("glovebox@.service")["Unit"]
    assert "docker.service" in told["Wants"]
    assert "docker.service" in told["After"]
    assert not {"Requires", "BindsTo", "PartOf"} & set(told)


def test_the_sockets_of_a_unit_lie_where_the_engine_can_mount_them() -> None:
    text = (SOURCE / "systemd" / "glovebox@.service").read_text()
    assert "Environment=TMPDIR=/run/glovebox-%i" in text
    assert "RuntimeDirectory=glovebox-%i" in text

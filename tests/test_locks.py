"""What is installed on the host and in the images of runner and agent is pinned, each file by its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from runner.core.base.mountable import SOURCE

_PIN = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^ ;\\\n]+)")
SOURCES = {"agent": "agent/requirements.txt", "gateway": "locks/gateway.in", "docs": "locks/docs.in"}


def pins(path: Path) -> dict[str, str]:
    return dict(_PIN.findall(path.read_text()))


def wanted(room: str) -> list[Requirement]:
    if room in SOURCES:
        lines = (SOURCE / SOURCES[room]).read_text().splitlines()
        return [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    return [Requirement(line) for line in (*found["project"]["dependencies"], *found["build-system"]["requires"])]


@pytest.mark.parametrize("room", ["runner", *SOURCES])
def test_the_lock_has_what_is_asked_for(room: str) -> None:
    locked = pins(SOURCE / "locks" / f"{room}.txt")
    for requirement in wanted(room):
        assert locked[requirement.name.lower()] in requirement.specifier, f"{requirement}: run make lock"


@pytest.mark.parametrize("room", ["runner", *SOURCES])
def test_every_package_has_a_hash_and_none_an_address(room: str) -> None:
    text = (SOURCE / "locks" / f"{room}.txt").read_text()
    blocks = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(_PIN.findall(text))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)
    assert "://" not in text


def test_images_and_host_install_nothing_without_its_hash() -> None:
    for name in ("Dockerfile.runner", "Dockerfile.agent", "Dockerfile.gateway", "scripts/venv.sh"):
        assert "--require-hashes -r" in (SOURCE / name).read_text()

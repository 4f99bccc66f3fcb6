"""What is installed on the host, in the images and for the tests is pinned, each file by its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from runner.core.base.mountable import SOURCE

_PIN = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==([^ ;\\\n]+)")
SOURCES = {
    "agent": "agent/requirements.txt",
    "gateway": "locks/gateway.in",
    "docs": "locks/docs.in",
    "trainer": "trainer/requirements.txt",
}
TORCH = ("torch-cuda", "torch-cpu")  # beside trainer.txt and test.txt: one of the two


def pins(path: Path) -> dict[str, str]:
    return dict(_PIN.findall(path.read_text()))


def wanted(room: str) -> list[Requirement]:
    if room in SOURCES:
        lines = (SOURCE / SOURCES[room]).read_text().splitlines()
        return [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = tomllib.loads((SOURCE / "pyproject.toml").read_text())
    if room == "test":
        return [Requirement(line) for line in found["project"]["optional-dependencies"]["test"]]
    return [Requirement(line) for line in (*found["project"]["dependencies"], *found["build-system"]["requires"])]


@pytest.mark.parametrize("torch", TORCH)
@pytest.mark.parametrize("room", ["runner", "test", *SOURCES])
def test_the_lock_has_what_is_asked_for(room: str, torch: str) -> None:
    locked = pins(SOURCE / "locks" / f"{room}.txt")
    if room in ("trainer", "test"):
        assert "torch" not in locked
        locked |= pins(SOURCE / "locks" / f"{torch}.txt")
    for requirement in wanted(room):
        assert locked[requirement.name.lower()] in requirement.specifier, f"{requirement}: run make lock"


@pytest.mark.parametrize("room", ["runner", "test", *SOURCES, *TORCH])
def test_every_package_has_a_hash_and_none_an_address(room: str) -> None:
    text = (SOURCE / "locks" / f"{room}.txt").read_text()
    blocks = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(_PIN.findall(text))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)
    assert "://" not in text


def test_images_and_host_install_nothing_without_its_hash() -> None:
    for name in ("runner", "agent", "gateway", "trainer"):
        assert "--require-hashes -r" in (SOURCE / f"Dockerfile.{name}").read_text()
    assert "--require-hashes -r" in (SOURCE / "scripts" / "venv.sh").read_text()


def test_what_the_cpu_build_leaves_out_is_cudas_alone() -> None:
    """One resolution for both, so that a score on a CPU is of the same numpy, tokenizer and kernels client."""
    whole, rest = pins(SOURCE / "locks" / "torch-cuda.txt"), pins(SOURCE / "locks" / "trainer.txt")
    assert {name.split("-")[0] for name in whole} == {"torch", "triton", "nvidia", "cuda"}
    assert not [name for name in rest if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert pins(SOURCE / "locks" / "torch-cpu.txt") == {"torch": whole["torch"]}


def test_hashes_of_the_cpu_build_are_of_the_pinned_version() -> None:
    """No index that is reached from here tells them: who raises the version looks them up."""
    lines = [line for line in (SOURCE / "locks" / "torch-cpu.hashes").read_text().splitlines() if line[0] != "#"]
    version = pins(SOURCE / "locks" / "torch-cuda.txt")["torch"]
    assert lines
    for line in lines:
        digest, name = line.split()
        assert name.startswith(f"torch-{version}+cpu-")
        assert f"--hash=sha256:{digest}" in (SOURCE / "locks" / "torch-cpu.txt").read_text()

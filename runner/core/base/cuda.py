"""Which build of torch runs on a GPU under a driver. TRUSTED, pure.

Source: PyTorch's RELEASE.md, "PyTorch CUDA Support Matrix" of 2.12 and 2.13, and NVIDIA's "CUDA Compatibility": a
driver serves every CUDA of its own major version and of older ones. CUDA 13 needs driver 580 and has no code for Volta;
a torch built with it finds no GPU under an older driver, and says no more than that.
"""

from __future__ import annotations

from typing import NamedTuple

from runner.core.base.gpus import Card
from runner.core.base.nvidia import Driver, Version


class Build(NamedTuple):
    """One build of torch as its index names it, and the compute capabilities that it has code for."""

    name: str
    major: int  # of its CUDA
    driver: str  # the least that serves it
    lowest: Version
    highest: Version


BUILDS = (Build("cu130", 13, "580", (7, 5), (12, 99)), Build("cu126", 12, "525", (5, 0), (9, 99)))  # preferred first


def build_for(driver: Driver, card: Card) -> Build | None:
    """The build for a GPU under this driver, None if there is none."""
    return next((build for build in BUILDS if _serves(driver, build) and _has_code(build, card)), None)


def remedy(card: Card) -> str:
    """What makes a GPU usable that no build serves under its driver."""
    least = [build.driver for build in BUILDS if _has_code(build, card)]
    if least:
        return f"install driver {min(least)} or newer"
    return "use a GPU of compute capability 5.0 or newer"


def unfit(cuda: str | None, driver: Driver, card: Card) -> str:
    """Why a torch built with this CUDA ("13.0"; None: for CPUs) cannot use a GPU here; empty if it can."""
    if cuda is None:
        return "torch in the trainer's image is built for CPUs"
    major = int(cuda.split(".")[0])
    if major > driver.cuda[0]:
        served = ".".join(map(str, driver.cuda))
        return f"torch in the trainer's image needs CUDA {cuda}, driver {driver.version} serves up to {served}"
    build = next((build for build in BUILDS if build.major == major), None)
    if build is None or not _has_code(build, card):
        named = ".".join(map(str, card.capability or ()))
        return f"torch in the trainer's image (CUDA {cuda}) has no code for compute capability {named}"
    return ""


def _serves(driver: Driver, build: Build) -> bool:
    return driver.cuda[0] >= build.major


def _has_code(build: Build, card: Card) -> bool:
    return card.capability is not None and build.lowest <= card.capability <= build.highest

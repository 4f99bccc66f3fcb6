"""Which build of torch a GPU needs: the cards people have, under old and new drivers."""

from __future__ import annotations

import pytest

from runner.core.base import cuda
from runner.core.base.gpus import Card
from runner.core.base.nvidia import Driver

CARDS = {  # name: (compute capability, build under a driver for CUDA 13, and under one for CUDA 12)
    "Tesla V100": ((7, 0), "cu126", "cu126"),
    "RTX 2080 Ti": ((7, 5), "cu130", "cu126"),
    "A100": ((8, 0), "cu130", "cu126"),
    "RTX 3090": ((8, 6), "cu130", "cu126"),
    "RTX 4090": ((8, 9), "cu130", "cu126"),
    "H100": ((9, 0), "cu130", "cu126"),
    "B200": ((10, 0), "cu130", None),
    "RTX 5090": ((12, 0), "cu130", None),
    "GB10": ((12, 1), "cu130", None),
}
NEW, OLD, OLDER = Driver("580.159.04", (13, 0)), Driver("550.54.15", (12, 4)), Driver("470.256.02", (11, 4))


def card(name: str) -> Card:
    return Card("GPU-x", name, CARDS[name][0], 8192, frozenset(), False)


@pytest.mark.parametrize("name", CARDS)
def test_the_build_for_each_card(name: str) -> None:
    _, new, old = CARDS[name]
    for driver, wanted in ((NEW, new), (OLD, old), (OLDER, None)):
        found = cuda.build_for(driver, card(name))
        assert (found.name if found else None) == wanted, driver


@pytest.mark.parametrize("name", CARDS)
def test_the_image_that_was_named_fits_and_every_other_says_why_not(name: str) -> None:
    one = card(name)
    for driver in (NEW, OLD):
        build = cuda.build_for(driver, one)
        for version, label in (("13.0", "cu130"), ("12.6", "cu126")):
            why = cuda.unfit(version, driver, one)
            if build is not None and build.name == label:
                assert why == ""
            elif label == "cu130" and driver is OLD:
                assert "serves up to 12.4" in why
            elif label == "cu126" and one.capability >= (10, 0):
                assert "no code for compute capability" in why


def test_an_image_for_cpus_never_fits() -> None:
    assert "built for CPUs" in cuda.unfit(None, NEW, card("H100"))


@pytest.mark.parametrize(("name", "driver"), [("GB10", "580"), ("Tesla V100", "525"), ("RTX 4090", "525")])
def test_what_no_build_serves_is_told_which_driver_to_install(name: str, driver: str) -> None:
    assert cuda.remedy(card(name)) == f"install driver {driver} or newer"


def test_a_card_that_is_too_old_needs_another_one() -> None:
    kepler = Card("GPU-x", "Tesla K80", (3, 7), 8192, frozenset(), False)
    assert cuda.build_for(NEW, kepler) is None
    assert "capability 5.0 or newer" in cuda.remedy(kepler)
    unknown = kepler._replace(capability=None)
    assert cuda.build_for(NEW, unknown) is None

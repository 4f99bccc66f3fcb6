"""What the page says of devices and images."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core.base.values import Speed
from runner.people.pages import provenance
from tests.samples import experiment

TRAINER, EVALUATOR = (f"sha256:{letter * 64}" for letter in "ab")


def receipt(*images: str, tag: str = "t") -> dict[str, Any]:
    containers = [{"role": role, "image": image} for role, image in zip(("trainer", "evaluator"), images, strict=False)]
    return {"kind": "finished", "data": {"tag": tag, "id": 1, "containers": containers}}


def told(*entries: dict[str, Any]) -> list[str]:
    images = provenance.Images("t")
    for entry in entries:
        images.take(entry)
    return provenance.lines([experiment(1)], images)


def test_devices_and_images_of_the_tag_are_named() -> None:
    lines = told(receipt(TRAINER, EVALUATOR), receipt(TRAINER), receipt("sha256:" + "c" * 64, tag="another"))
    assert lines[0] == "Trained on CPU."
    assert lines[1].startswith("Images: trainer aaaaaaaaaaaa; evaluator bbbbbbbbbbbb")
    assert "cccc" not in lines[1]


def test_receipts_are_counted_once_for_each_experiment_that_is_there() -> None:
    images, rows = provenance.Images("t"), [experiment(1), experiment(2)]
    for entry in (receipt(TRAINER), receipt(TRAINER), receipt(TRAINER, tag="another"), {"kind": "finished", "data": 7}):
        images.take(entry)
    assert images.receipts(rows) == 1
    for number in (2, 9, True, "1", None):
        entry = receipt()
        entry["data"]["id"] = number
        images.take(entry)
    assert images.receipts(rows) == 2
    assert images.receipts([]) == 0


def test_a_gpu_is_told_once_for_each_kind() -> None:
    speed = Speed(name="NVIDIA H100", driver="580.1", power_cap_w=700.0, sm_mhz=1980.0)
    rows = [experiment(number, speed=speed, attention=["flash"]) for number in (1, 2)]
    lines = provenance.lines(rows, provenance.Images("t"))
    assert lines == ["Trained on NVIDIA H100, driver 580.1, power cap 700 W, 1980 to 1980 MHz, attention: flash."]


def test_images_that_were_built_again_and_again_are_few_on_the_page() -> None:
    (_, line) = told(*(receipt(f"sha256:{number:064x}") for number in range(1 << 40, (1 << 40) + 9)))
    assert "and" not in line.split(";")[0]  # they have twelve digits in common, and are one to the eye
    (_, line) = told(*(receipt(f"sha256:{number:012x}" + "0" * 52) for number in range(9)))
    assert "and 5 before" in line


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kind": "finished"},
        {"kind": "finished", "data": {"tag": "t"}},
        {
            "kind": "finished",
            "data": {"tag": "t", "containers": [None, {"role": [], "image": {}}, {"role": "trainer"}]},
        },
        receipt("<script>alert(1)</script>"),
        receipt("sha256:" + "a" * 64 + "\n"),
    ],
)
def test_what_is_no_receipt_is_passed_over(entry: dict[str, Any]) -> None:
    assert told(entry) == ["Trained on CPU."]

"""Compiled code is used for the image and the device it was made for, and for no other."""

from __future__ import annotations

import pytest

from runner.core.base import device, nvidia
from runner.core.base.errors import ArtifactError
from runner.core.base.launching import Cache
from runner.rooms.launcher.server import check_fit

MADE = Cache(version="cache-2", image="sha256:one", device=device.kind(None))


def test_where_it_was_made_for_it_fits() -> None:
    check_fit(MADE, "sha256:one", None)


def test_another_image_refuses_it() -> None:
    with pytest.raises(ArtifactError, match=r"made for image .* glovebox warm"):
        check_fit(MADE, "sha256:two", None)


def test_another_device_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "model", lambda _: "NVIDIA H100")
    with pytest.raises(ArtifactError, match="this is NVIDIA H100"):
        check_fit(MADE, "sha256:one", "GPU-x")


@pytest.mark.parametrize("missing", ["image", "device"])
def test_a_manifest_that_does_not_say_fits_nothing(missing: str) -> None:
    with pytest.raises(ArtifactError, match=f"made for {missing} , this is"):
        check_fit(MADE.model_copy(update={missing: ""}), "sha256:one", None)

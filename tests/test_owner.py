"""Files for a container go to its group where we may give them away."""

from __future__ import annotations

import os

from runner import owner


def test_files_go_to_the_containers_group_as_root_or_member_and_to_ours_otherwise(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert owner.container_group(65532) == (65532 if os.geteuid() == 0 else os.getegid())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert owner.container_group(65532) == os.getegid()
    monkeypatch.setattr(os, "getgroups", lambda: [65532])
    assert owner.container_group(65532) == 65532

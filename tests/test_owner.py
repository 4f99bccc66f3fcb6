"""Process identities survive pid reuse and reboots."""

from __future__ import annotations

import os
import subprocess

from runner import owner


def test_this_process_is_alive_and_an_ended_one_is_not() -> None:
    assert owner.alive(owner.own_id())
    child = subprocess.Popen(["sleep", "60"])
    boot, namespace, _, _ = owner.own_id().split(".")
    identity = f"{boot}.{namespace}.{child.pid}.{owner._start_time(child.pid)}"
    assert owner.alive(identity)
    child.kill()
    child.wait()
    assert not owner.alive(identity)


def test_a_reused_pid_another_boot_and_nonsense_are_dead() -> None:
    boot, namespace, pid, start = owner.own_id().split(".")
    assert not owner.alive(f"{boot}.{namespace}.{pid}.{int(start) + 1}")
    assert not owner.alive(f"00000000.{namespace}.{pid}.{start}")
    for text in ("", "a", "a.b.c.d", "1.2.3", f"{boot}.{namespace}.-1.0"):
        assert not owner.alive(text)


def test_a_process_of_another_namespace_counts_as_alive() -> None:
    boot, namespace, pid, start = owner.own_id().split(".")
    assert owner.alive(f"{boot}.{int(namespace) + 1}.{pid}.{start}")


def test_files_go_to_the_containers_group_as_root_and_to_ours_otherwise() -> None:
    assert owner.container_group(65532) == (65532 if os.geteuid() == 0 else os.getegid())

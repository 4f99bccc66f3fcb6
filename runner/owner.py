"""The group through which containers reach the files they are given. TRUSTED."""

from __future__ import annotations

import os


def container_group(uid: int) -> int:
    """Group through which a container of that uid reaches its files.

    Root, and a process that is a member of the container's own group, hand files to that group. Anyone else
    cannot give files away, so the container runs with our group instead.
    """
    return uid if os.geteuid() == 0 or uid in os.getgroups() else os.getegid()

"""Who we are on this host: a process identity that survives pid reuse, and the group files go to. TRUSTED."""

from __future__ import annotations

import os
from pathlib import Path


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]


def _start_time(pid: int) -> str:
    # Field 22 of /proc/PID/stat; the command in parentheses may itself hold spaces and parentheses.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def own_id() -> str:
    """Identity of this process."""
    return f"{_boot()}.{_namespace()}.{os.getpid()}.{_start_time(os.getpid())}"


def alive(identity: str) -> bool:
    """Whether the process with that identity may still run.

    A process of another pid namespace cannot be seen from here, so it counts as alive.
    """
    try:
        boot, namespace, pid, start = identity.split(".")
        if boot == _boot() and int(namespace) != _namespace():
            return True
        return boot == _boot() and _start_time(int(pid)) == start
    except (OSError, ValueError, IndexError):
        return False


def container_group(uid: int) -> int:
    """Group through which a container of that uid reaches its files.

    Root hands files to the container's own group; anyone else cannot give files away, so the container
    runs with our group instead.
    """
    return uid if os.geteuid() == 0 else os.getegid()

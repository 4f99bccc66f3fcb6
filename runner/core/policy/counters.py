"""Host-wide numbers that no untrusted container needs: files that are masked, calls that are refused. TRUSTED.

The kernel counts forks, interrupts, terminals, free blocks and much more for the whole host, exactly, and shows it to
everybody. Who may change such a number and who may read it have a channel: 147 bits of an answer were counted while
419 a second went through /proc/sys/kernel/pty/nr. The agent needs none of them; the trainer keeps what PyTorch reads.
"""

from __future__ import annotations

import os
from typing import Final

# What every engine hides already (OCI runtimes' defaults); a container's own list replaces it.
DEFAULT: Final = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
)
_UNUSED: Final = (  # by PyTorch, its compilers and the driver of a GPU
    *("/proc/buddyinfo", "/proc/cgroups", "/proc/cmdline", "/proc/config.gz", "/proc/consoles", "/proc/crypto"),
    *("/proc/diskstats", "/proc/dma", "/proc/execdomains", "/proc/fb", "/proc/fs", "/proc/interrupts", "/proc/iomem"),
    *("/proc/ioports", "/proc/irq", "/proc/kallsyms", "/proc/key-users", "/proc/kmsg", "/proc/kpagecgroup"),
    *("/proc/kpagecount", "/proc/kpageflags", "/proc/locks", "/proc/mdstat", "/proc/misc", "/proc/mtrr"),
    *("/proc/pagetypeinfo", "/proc/partitions", "/proc/pressure", "/proc/schedstat", "/proc/slabinfo"),
    *("/proc/softirqs", "/proc/swaps", "/proc/sysrq-trigger", "/proc/sysvipc", "/proc/tty", "/proc/vmallocinfo"),
    *("/proc/zoneinfo", "/proc/xen", "/proc/driver/rtc", "/proc/bootconfig", "/proc/dynamic_debug"),
    *("/proc/sys/kernel/pty", "/proc/sys/fs", "/proc/sys/kernel/random", "/proc/sys/kernel/ns_last_pid"),
    *("/sys/block", "/sys/fs/ext4", "/sys/fs/xfs", "/sys/fs/btrfs", "/sys/kernel/slab", "/sys/kernel/debug"),
    *("/sys/kernel/tracing", "/sys/power", "/sys/class/thermal", "/sys/class/hwmon", "/sys/class/block"),
)
_ALL: Final = (  # the rest of what the kernel tells of the host
    *("/proc/bus", "/proc/cpuinfo", "/proc/devices", "/proc/driver", "/proc/filesystems", "/proc/loadavg"),
    *("/proc/meminfo", "/proc/modules", "/proc/stat", "/proc/sys", "/proc/uptime", "/proc/version"),
    *("/proc/version_signature", "/proc/vmstat", "/sys"),
)
_OWN: Final = ("self", "thread-self", "mounts", "net")  # links to what is the container's own
# Load and free memory, a quota that users share, cookies of sockets. statfs cannot be refused, since runc calls it
# behind the filter: what a run leaves on the disk is counted instead (leak_budget.py).
REFUSED: Final = frozenset(
    {
        *("sysinfo", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "pidfd_open", "pidfd_send_signal"),
        "getsockopt",  # but for what seccomp.py names
    }
)


def masked(role: str) -> list[str]:
    """Paths that hold nothing in a container of this role; for the agent also what this kernel alone has in /proc."""
    if role != "agent":
        return [*DEFAULT, *_UNUSED]
    here = {f"/proc/{name}" for name in os.listdir("/proc") if not name.isdigit() and name not in _OWN}
    known = [*DEFAULT, *_UNUSED, *_ALL]
    return known + sorted(here - set(known))

"""Runs probes inside a container: `python -c <this file> JSON`, where JSON is {"probes": {id: source}, ...}.

A probe is a few lines that attack. If they end, the way is open; if they raise, it was blocked. Each has a process
and a time of its own, so that a bomb takes only itself along. Standard library only: the file travels as text.
Prints one JSON line: {id: [result, detail]}. The names below are what probes are written in.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource  # noqa: F401 - for the probes, as stat and time
import select
import signal
import socket
import stat
import struct
import sys
import time  # noqa: F401
from typing import Any

SECONDS = 8.0
EPERM, EACCES = 1, 13
# x86-64 and aarch64 numbers of calls that have no wrapper in Python.
NUMBERS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_madvise": (440, 440),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "kcmp": (312, 272),
    "vmsplice": (278, 75),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "swapon": (167, 224),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "fanotify_init": (300, 262),
    "ioctl": (16, 29),
}
libc = ctypes.CDLL(None, use_errno=True)
GIVEN: dict[str, Any] = {}  # what the host told: ports, names


def call(name: str, *arguments: int) -> int:
    """A raw system call; raises OSError."""
    number = NUMBERS[name][0 if platform.machine() == "x86_64" else 1]
    ctypes.set_errno(0)
    found = libc.syscall(*[ctypes.c_long(value) for value in (number, *arguments)])
    if found < 0:
        raise OSError(ctypes.get_errno(), name)
    return int(found)


def reaches(name: str, *arguments: int) -> None:
    """Whether a call with useless arguments reaches the kernel: any answer but "not permitted" is an open way."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in (EPERM, EACCES):
            raise


class Absent(Exception):
    """This kernel has not what the probe is about."""


def there(path: str) -> None:
    """Raises Absent if this kernel has no such file."""
    if not os.path.exists(path):
        raise Absent(path)


def opens(path: str, flags: int = os.O_RDONLY) -> None:
    """Open a file and leave it as it is."""
    os.close(os.open(path, flags))


def read_only(path: str) -> None:
    """Raises if the kernel says that nothing can be written below `path`."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise PermissionError("read-only")


def flag_missing(path: str, flag: int) -> None:
    """Raises if the file system at `path` is mounted with `flag`."""
    if os.statvfs(path).f_flag & flag:
        raise PermissionError("flag is set")


def status(field: str, pid: str = "self") -> str:
    """A field of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as file:
        return next(line.split(":", 1)[1].strip() for line in file if line.startswith(f"{field}:"))


def routed(address: str) -> None:
    """Raises if there is no route to an address: connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 53))


def family(number: int, kind: int) -> None:
    """Whether a socket of an address family is not forbidden; that this kernel lacks the family is no wall."""
    try:
        socket.socket(number, kind).close()
    except OSError as error:
        if error.errno in (EPERM, EACCES):
            raise


def unmasked(path: str) -> None:
    """Raises if the engine put /dev/null, or an empty folder, in the place of `path`."""
    state = os.stat(path)
    if stat.S_ISCHR(state.st_mode) or (stat.S_ISDIR(state.st_mode) and not os.listdir(path)):
        raise PermissionError("masked")


def holds(mark: str) -> None:
    """Whether some file of a mount that is not the image begins with `mark`; raises PermissionError if none does."""
    with open("/proc/self/mountinfo") as file:
        lines = [line.split() for line in file]
    kernel = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2")
    for target in [line[4] for line in lines if line[4] != "/" and line[line.index("-") + 1] not in kernel]:
        files = [target] if os.path.isfile(target) else []
        for folder, _, names in os.walk(target):
            files += [os.path.join(folder, name) for name in names]
        for path in files[:5000]:
            with contextlib.suppress(OSError), open(path, "rb") as opened:
                if opened.read(64).startswith(mark.encode()):
                    return
    raise PermissionError("not found")


def gateway() -> str:
    """Address of the default route; raises StopIteration without one."""
    with open("/proc/net/route") as file:
        hexadecimal = next(line.split()[2] for line in list(file)[1:] if line.split()[1] == "00000000")
    return socket.inet_ntoa(struct.pack("<L", int(hexadecimal, 16)))


def cgroup(*places: str) -> str:
    """The first of the control group files that exists."""
    for place in places:
        if os.path.exists(f"/sys/fs/cgroup/{place}"):
            with open(f"/sys/fs/cgroup/{place}") as file:
                return file.read().strip()
    raise LookupError(places)


def fill(path: str, size: int) -> None:
    """Write `size` bytes to a file."""
    block = b"\0" * (1 << 20)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size >> 20):
            if file.write(block) != len(block):
                raise OSError(28, "short write")


def attempt(source: str, seconds: float) -> tuple[str, str]:
    """(open, blocked or nothing; why) of one probe in a process of its own."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(quiet, number)
        os.write(write_end, _judge(source).encode())
        os._exit(0)
    os.close(write_end)
    ready, _, _ = select.select([read_end], [], [], seconds)
    said = os.read(read_end, 200).decode() if ready else ""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    _, code = os.waitpid(pid, 0)
    os.close(read_end)
    if said:
        result, _, detail = said.partition(" ")
        return result, detail
    return "blocked", f"killed by signal {code & 127}" if ready else "no end in time"


def _judge(source: str) -> str:
    try:
        exec(source, dict(globals()))
    except Absent as error:
        return f"absent this kernel has no {error}"
    except BaseException as error:  # noqa: BLE001 - whatever stopped it is the answer
        number = getattr(error, "errno", None)
        return f"blocked {type(error).__name__}" + (f" {os.strerror(number)}" if number else "")
    return "open"


def main(argument: str) -> None:
    """Attempt every probe."""
    asked = json.loads(argument)
    GIVEN.update(asked.get("given", {}))
    print(
        json.dumps({name: attempt(source, asked.get("seconds", SECONDS)) for name, source in asked["probes"].items()})
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])

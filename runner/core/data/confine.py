"""A process that has opened its input gives up everything else: files, network, processes, memory without end. TRUSTED.

For readers of formats too large to be read by code of ours. What is left are the calls an interpreter needs to compute,
to read what is open and to write to what is open; any other fails with EPERM (seccomp(2), an allow-list).
"""

from __future__ import annotations

import ctypes
import platform
import resource
import struct
from typing import Final

# name: (x86_64, aarch64)
_CALLS: Final = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67), "readv": (19, 65),
    "writev": (20, 66), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "nanosleep": (35, 101),
    "getpid": (39, 172), "exit": (60, 93), "gettimeofday": (96, 169), "getrusage": (98, 165),
    "sigaltstack": (131, 132), "gettid": (186, 178), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "getrandom": (318, 278), "membarrier": (324, 283),
}  # fmt: skip
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}  # prctl(2) would cover the calling thread alone
_SET_FILTER, _EVERY_THREAD, _NO_NEW_PRIVILEGES = 1, 1, 38


def confine(memory: int, seconds: int) -> None:
    """From now on, in every thread: at most `memory` bytes of address space, `seconds` of work, and these calls.

    Raises OSError if the kernel or the processor cannot do it.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(f"no list of system calls for {platform.machine()}")
    program = _program(*_ARCHITECTURES[platform.machine()])
    buffer = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    zero, number = ctypes.c_ulong(0), ctypes.c_long(_SECCOMP[platform.machine()])
    if libc.prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero) or libc.syscall(
        number, ctypes.c_ulong(_SET_FILTER), ctypes.c_ulong(_EVERY_THREAD), head
    ):  # a number above 0 names a thread that could not be covered
        raise OSError(ctypes.get_errno(), "seccomp is not available")


def _program(architecture: int, column: int) -> bytes:
    """Classic BPF over struct seccomp_data: the call's number at offset 0, the architecture at 4."""
    numbers = [numbers[column] for numbers in _CALLS.values()]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)

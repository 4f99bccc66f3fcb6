"""Becomes a room: process limits and the system-call filter first, then Python with the rest of the arguments.

    python walled.py WALLS_JSON ARGUMENTS...

A script of its own, of the standard library only: what it takes to start is in nobody's figures.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_COMPARE = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}  # seccomp.h, enum scmp_compare
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Argument(ctypes.Structure):
    """seccomp.h, struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def library() -> Any:
    """libseccomp, None where this machine has none; GLOVEBOX_LIBSECCOMP names one."""
    name = os.environ.get("GLOVEBOX_LIBSECCOMP") or ctypes.util.find_library("seccomp")
    if name is None:
        return None
    found = ctypes.CDLL(name)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_load.argtypes = [ctypes.c_void_p]
    found.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Argument)),
    ]
    return found


def limit(limits: dict[str, int]) -> None:
    """Set resource limits by name; a caller may have less to give."""
    for name, most in limits.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def load(profile: str) -> None:
    """A profile as the engine takes it, loaded into this process for good; raises OSError."""
    here = library()
    if here is None:
        return
    document = json.loads(profile)
    made = here.seccomp_init(_ERRNO | document["defaultErrnoRet"])
    for rule in document["syscalls"]:
        action = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERRNO | rule["errnoRet"]
        asked = [_Argument(a["index"], _COMPARE[a["op"]], a["value"], a["valueTwo"]) for a in rule.get("args", [])]
        for name in rule["names"]:
            number = here.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:  # this processor has it
                here.seccomp_rule_add_array(made, action, number, len(asked), (_Argument * len(asked))(*asked))
    if here.seccomp_load(made):
        raise OSError("the filter was not loaded")


def main(argv: list[str]) -> None:
    """Set both up, then be Python."""
    walls = json.loads(Path(argv[1]).read_text())
    limit(walls["limits"])
    load(walls["seccomp"])
    os.execv(sys.executable, [sys.executable, *argv[2:]])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv)

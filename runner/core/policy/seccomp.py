"""Our seccomp profile: policies/seccomp.yaml as the JSON the engine takes. TRUSTED, pure.

Source: the OCI runtime specification, config-linux.md#seccomp; Docker's default profile allows about 60 calls
more. The text is given to the engine with each container, so nothing on the engine's side can be out of date.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, model_validator

from runner.core.base.strict_yaml import Strict
from runner.core.policy import counters

EPERM, ENOSYS = 1, 38
FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
NETLINK = 16  # AF_NETLINK; not for the agent: NETLINK_SOCK_DIAG tells cookies of sockets, counted for the whole host
SOCKET_OPTIONS = (
    *(2, 3, 4, 6, 7, 8, 9, 10, 13),  # REUSEADDR, TYPE, ERROR, BROADCAST, SNDBUF, RCVBUF, KEEPALIVE, OOBINLINE, LINGER
    *(15, 16, 17, 18, 19, 20, 21, 29, 30),  # REUSEPORT, PASSCRED, PEERCRED, LOWATs, TIMEOs, TIMESTAMP, ACCEPTCONN
    *(38, 39, 59, 66, 67),  # PROTOCOL, DOMAIN, PEERGROUPS, the long TIMEOs
)  # of SOL_SOCKET that the agent may read; not COOKIE or NETNS_COOKIE, drawn from counters of the whole host
SOL_SOCKET = 1
LEVELS = (0, 6, 17, 41)  # IPPROTO_IP, TCP, UDP, IPV6: every option
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
TIOCSTI = 0x5412
AGENT_REQUESTS = (
    *(0x5401, 0x5402, 0x5403, 0x5404, 0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D),  # terminals: TCGETS to TCSETSF2
    *(0x540B, 0x540E, 0x540F, 0x5410, 0x5411, 0x5413, 0x5414, 0x5422, 0x5429),  # TCFLSH, sessions, groups, OUTQ, WINSZ
    *(0x80045430, 0x40045431, 0x5441),  # TIOCGPTN, TIOCSPTLCK, TIOCGPTPEER
    *(0x541B, 0x5421, 0x5450, 0x5451, 0x5452),  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC
)  # of terminals and descriptors; not GETFSMAP, the map of all blocks of the disk that train.py lies on: 2,046 of 2,046
# bits went from a trainer's holes in a file of its own to an agent that read it
NEVER = frozenset(
    {
        *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),  # another process
        *("keyctl", "add_key", "request_key"),  # keys are no namespace
        *("bpf", "perf_event_open", "userfaultfd", "vmsplice", "personality", "modify_ldt", "iopl", "ioperm"),
        *("io_uring_setup", "io_uring_enter", "io_uring_register"),  # calls that no filter sees
        *("mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "move_mount", "open_tree", "fsopen"),
        *("fsmount", "fsconfig", "fspick", "mount_setattr", "name_to_handle_at", "open_by_handle_at"),
        *("fanotify_init", "quotactl", "lookup_dcookie", "mknod", "mknodat", "sethostname", "setdomainname"),
        *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot"),
        *("swapon", "swapoff", "acct", "syslog", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
        *("socket", "clone", "clone3", "ioctl"),  # these have rules of their own, below
    }
)
Call = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")]


class Group(Strict):
    """Calls allowed for one purpose."""

    purpose: Annotated[str, Field(min_length=5, max_length=200)]
    calls: Annotated[list[Call], Field(min_length=1, max_length=120)]


class Seccomp(Strict):
    """policies/seccomp.yaml."""

    groups: Annotated[list[Group], Field(min_length=1, max_length=30)]

    @model_validator(mode="after")
    def _narrow(self) -> Seccomp:
        named = [call for group in self.groups for call in group.calls]
        if twice := {call for call in named if named.count(call) > 1}:
            raise ValueError(f"named twice: {', '.join(sorted(twice))}")
        if wide := NEVER.intersection(named):
            raise ValueError(f"never allowed: {', '.join(sorted(wide))}")
        return self


def profile(policy: Seccomp, role: str = "trainer") -> str:
    """The profile of a role's containers as JSON text for security_opt."""
    allow = "SCMP_ACT_ALLOW"
    refused = counters.REFUSED if role == "agent" else frozenset()
    rules: list[dict[str, Any]] = [{"names": sorted({*g.calls} - refused), "action": allow} for g in policy.groups]
    families = FAMILIES if role == "agent" else (*FAMILIES, NETLINK)
    rules += [{"names": ["socket"], "action": allow, "args": [_argument(0, "EQ", f)]} for f in families]
    if any("getsockopt" in refused.intersection(group.calls) for group in policy.groups):
        rules += _options()
    rules += [
        {"names": ["clone"], "action": allow, "args": [_argument(0, "MASKED_EQ", NEW_NAMESPACES)]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},  # the C library then uses clone
        *({"names": ["ioctl"], "action": allow, "args": [one]} for one in _requests(role)),
    ]
    architectures = [{"architecture": f"SCMP_ARCH_{name}", "subArchitectures": []} for name in ("X86_64", "AARCH64")]
    document = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "archMap": architectures}
    return json.dumps(document | {"syscalls": rules}, separators=(",", ":"))


def _options() -> list[dict[str, Any]]:
    """getsockopt: what may be read of a socket."""
    allow = {"names": ["getsockopt"], "action": "SCMP_ACT_ALLOW"}
    levels = [{**allow, "args": [_argument(1, "EQ", level)]} for level in LEVELS]
    named = [{**allow, "args": [_argument(1, "EQ", SOL_SOCKET), _argument(2, "EQ", one)]} for one in SOCKET_OPTIONS]
    return levels + named


def _requests(role: str) -> list[dict[str, Any]]:
    """What may be asked by ioctl. A trainer asks its GPU whatever it likes."""
    return [_argument(1, "EQ", one) for one in AGENT_REQUESTS] if role == "agent" else _other_than(1, TIOCSTI)


def _other_than(index: int, value: int) -> list[dict[str, Any]]:
    """Alternatives that hold, together, for every number whose lower half is not `value`: one of its bits differs.

    The kernel reads half of such an argument, a filter all of it: "not equal" lets 1 << 32 | value pass, as in
    CVE-2019-7303. Each is a rule of its own, since runc makes alternatives of conditions on one argument anyway.
    """
    bits = [1 << bit for bit in range(32)]
    return [_argument(index, "MASKED_EQ", bit) | {"valueTwo": ~value & bit} for bit in bits]


def _argument(index: int, operation: str, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": 0, "op": f"SCMP_CMP_{operation}"}


def of_role(choice: str, policy: Seccomp, role: str) -> str | None:
    """The profile where `choice` (policies/sandbox.yaml seccomp) is ours; None leaves the engine's."""
    return profile(policy, role) if choice == "glovebox" else None

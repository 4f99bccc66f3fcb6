"""Who a container's user is on the host, and through which group it reaches the files it is given. TRUSTED, pure.

Without a user namespace ids are the same inside and outside. With userns-remap a container's id n is base + n on the
host. With a rootless engine id 0 is the user who runs it and n is base + n - 1.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from runner.core.base.errors import EngineError
from runner.core.policy.walls import Sandbox


class Ids(NamedTuple):
    """Of one container role."""

    gid: int  # inside
    host_gid: int  # of files it may reach
    host_uid: int  # as the kernel names it to a peer


def ids(sandbox: Sandbox, uid: int) -> Ids:
    """Ids of a container that runs as `uid`; raises EngineError if its files could not be handed to it.

    Root, and a process that is a member of the container's own group, hand files to that group. Anyone else
    cannot give files away, so the container runs with our group instead.
    """
    base = sandbox.userns_base
    if sandbox.userns == "rootless":
        return Ids(0, os.getegid(), base + uid - 1)
    host = base + uid
    if os.geteuid() == 0 or host in os.getgroups():
        return Ids(uid, host, host)
    if sandbox.userns == "remap":
        raise EngineError(
            f"files can be given to a remapped container only by root or a member of group {host}",
            where="policies/sandbox.yaml userns",
            fix=f"add this user to a group with id {host}, or run as root",
        )
    return Ids(os.getegid(), os.getegid(), host)


def agents(sandbox: Sandbox) -> frozenset[int]:
    """Users as whom the kernel names an agent that connects: its own; root with gVisor, which connects for it."""
    return frozenset({ids(sandbox, sandbox.agent.uid).host_uid} | ({0} if sandbox.agent_runtime == "runsc" else set()))


def check(sandbox: Sandbox, security_options: list[str], root_dir: str) -> None:
    """Raises EngineError unless policy says of user namespaces what the engine does (`docker info`)."""
    names = {option.split(",")[0] for option in security_options}
    found = "rootless" if "name=rootless" in names else "remap" if "name=userns" in names else "none"
    uid, _, gid = root_dir.rstrip("/").rsplit("/", 1)[-1].partition(".")  # remap keeps its files below UID.GID
    told = f"userns: {found}"
    wrong = found != sandbox.userns
    if found == "remap":
        if not uid.isdecimal() or uid != gid:
            raise EngineError(
                "the engine maps users and groups differently", where=root_dir, fix="give both the same range"
            )
        told += f" and userns_base: {uid}"
        wrong = wrong or int(uid) != sandbox.userns_base
    if wrong:
        raise EngineError(
            "the engine's user namespaces are not policy's", where="policies/sandbox.yaml userns", fix=f"set {told}"
        )

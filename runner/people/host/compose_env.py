"""Writes .env beside compose.yaml: where the bench is and who may reach which file. TRUSTED.

Only the lines named in OURS are written; what a person set (tag, experiments, GPU, key file) stays.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from runner.core.airlock import snapshot
from runner.core.base import files, gpus, locks, nvidia, ownership
from runner.core.base.errors import EngineError, PolicyError
from runner.core.base.home import Home
from runner.core.base.launching import GPU_PATTERN
from runner.core.policy import policy_files, seccomp, users, walls
from runner.rooms.launcher import gpu, specification

_MAX_BYTES = 64 << 10
_CDI = (Path("/etc/cdi"), Path("/var/run/cdi"))
HEADER = (
    "# Read by docker compose. The lines below are written by `glovebox init`; add GLOVEBOX_TAG and others freely.\n"
)


def values(home: Home, sandbox: walls.Sandbox, cards: list[gpus.Card]) -> dict[str, str]:
    """The lines we write."""
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not engine.startswith("unix://"):
        raise EngineError(
            "the launcher needs the engine's socket", where=f"DOCKER_HOST={engine}", fix="use unix://PATH"
        )
    socket = Path(engine.removeprefix("unix://"))
    group = socket.stat().st_gid if socket.exists() else os.getegid()
    driver = nvidia.driver()
    return {
        "GLOVEBOX_HOME": str(home.root),
        "GLOVEBOX_UID": str(os.geteuid()),
        "GLOVEBOX_GID": str(os.getegid()),
        **of_agent(sandbox),
        "GLOVEBOX_AGENT_GID": str(users.ids(sandbox, sandbox.agent.uid).host_gid),
        "GLOVEBOX_TRAINER_GID": str(users.ids(sandbox, sandbox.trainer.uid).host_gid),
        nvidia.TOOLKIT_VARIABLE: ".".join(map(str, nvidia.toolkit() or ())),
        "GLOVEBOX_GPUS": ", ".join(f"{_plain(card.uuid)} {_plain(card.name)}" for card in cards),  # for people
        "GLOVEBOX_DRIVER": _plain(driver.version) if driver else "",
        "GLOVEBOX_LOCKS": str(gpu.lock_path("any").parent),
        # compose mounts it, so it must exist: what the launcher sees anyway stands in for one that does not.
        "GLOVEBOX_CDI": next((str(path) for path in _CDI if path.is_dir()), str(home.artifacts)),
        "GLOVEBOX_BENCH": home.id,
        "GLOVEBOX_AGENT_SECCOMP": str(_agent_seccomp(home)) if sandbox.seccomp == "glovebox" else "builtin",
        "GLOVEBOX_AGENT_CORES": specification.cores_of_agents(sandbox) or "",
        "GLOVEBOX_DOCKER_GID": str(group),
        "GLOVEBOX_DOCKER_SOCKET": str(socket),
    }


def of_agent(sandbox: walls.Sandbox) -> dict[str, str]:
    """What compose starts as the agent, and its limits: those of the container that `up` makes."""
    box = sandbox.agent
    return {
        "GLOVEBOX_AGENT_IMAGE": box.image,
        "GLOVEBOX_AGENT_UID": str(box.uid),
        "GLOVEBOX_AGENT_RUNTIME": sandbox.agent_runtime,
        "GLOVEBOX_AGENT_CPUS": str(min(box.cpus, float(os.cpu_count() or 1))),
        "GLOVEBOX_AGENT_PIDS": str(box.pids),
        "GLOVEBOX_AGENT_MEMORY": str(box.memory_bytes),
        "GLOVEBOX_AGENT_OPEN_FILES": str(box.open_files),
        "GLOVEBOX_AGENT_FILE_BYTES": str(box.file_bytes),
        "GLOVEBOX_AGENT_TMP_BYTES": str(box.tmp_bytes),
        "GLOVEBOX_AGENT_SHM_BYTES": str(box.shm_bytes),
    }


def differences(path: Path, home: Home, sandbox: walls.Sandbox) -> list[str] | None:
    """Names of the agent's settings at `path` that are not those of policy; None if it is not this bench's file."""
    said = _said(_there(path).split("\n"))
    if said.get("GLOVEBOX_HOME") != str(home.root):
        return None
    return [name for name, value in of_agent(sandbox).items() if said.get(name) != value]


def _agent_seccomp(home: Home) -> Path:
    return home.root / "agent.seccomp.json"


def write(path: Path, home: Home, *, named: bool = True) -> None:
    """Update the settings at `path`, and make what compose mounts before anything runs.

    `named`: a person gave that path. Raises PolicyError if another bench's settings are in a file nobody named.
    """
    policies = policy_files.load(*home.policies)
    sandbox = policies.sandbox
    cards = gpus.cards()
    ours = values(home, sandbox, cards)
    files.write(_agent_seccomp(home), seccomp.profile(policies.seccomp, "agent"))
    (home.root / "hidden" / "folder").mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write(home.root / "hidden" / "file", b"", mode=0o600)  # both mounted over what a service must not see
    ownership.way(path.absolute().parent.resolve())
    old = _there(path).split("\n")
    _of_another(path, old, home, named=named)
    kept = [line for line in old if line.strip() and _name(line) not in ours and line + "\n" != HEADER]
    if odd := [line for line in kept if line.count("'") % 2 or line.count('"') % 2]:
        raise PolicyError(
            f"a quote that does not end: {odd[0][:60]}", where=str(path), fix="end it, or remove the line"
        )
    only = [card.uuid for card in cards if re.fullmatch(GPU_PATTERN, card.uuid)]
    if len(only) == 1 and "GLOVEBOX_GPU" not in map(_name, kept):
        kept.append(f"GLOVEBOX_GPU={only[0]}")  # a person's to change from now on
    lines = [*kept, *(f"{name}={value}" for name, value in ours.items())]  # of two of a name compose takes the last
    files.write(path, HEADER + "".join(f"{line}\n" for line in lines))
    for private in (home.broker, home.key.parent, home.keys):
        private.mkdir(mode=0o700, exist_ok=True)
    if not locks.held(home.runner_lock):
        seed = home.first().read_bytes()
        snapshot.provide(home.work, users.ids(sandbox, sandbox.agent.uid).host_gid, seed)


def _of_another(path: Path, lines: list[str], home: Home, *, named: bool) -> None:
    theirs = _said(lines).get("GLOVEBOX_HOME")
    if theirs is not None and not named and Path(theirs) != home.root:
        fix = f"name a file for this bench with --env-file, or make it this one's: --env-file {path.name}"
        raise PolicyError(f"holds the settings of another bench, {theirs[:100]}", where=str(path), fix=fix)


def _said(lines: list[str]) -> dict[str, str]:
    """Each value by its name; of two of a name the last, as compose takes it."""
    return {_name(line): line.partition("=")[2].strip().strip("\"'") for line in lines}


def _name(line: str) -> str:
    """Whose value a line sets, in all the ways that compose reads one."""
    return re.split(r"[=:]", line.strip().removeprefix("export "))[0].strip()


def _plain(said: str) -> str:
    """What a driver says, without a character that means something to compose."""
    return re.sub(r"[^A-Za-z0-9 ._()/-]", "", said)


def _there(path: Path) -> str:
    """The file's text, if it is ours: a link, or a stranger's, would bring his settings in, or a secret of ours out."""
    try:
        with files.open_plain(path) as file:
            state = os.fstat(file.fileno())
            if state.st_uid not in (os.geteuid(), 0) or state.st_nlink != 1:
                raise PolicyError("belongs to somebody else", where=str(path), fix="name another with --env-file")
            return file.read(_MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        raise PolicyError("not a plain text file", where=str(path), fix="name another with --env-file") from None

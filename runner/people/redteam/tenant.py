"""Probes as another user of this host: what he can read, plant, take first or reach. TRUSTED.

`glovebox redteam --tenant UID` says who he is; nobody unless told. The attack itself runs in a process of that user;
what a victim does meanwhile is our own code, with its wall and without. Where somebody who is not root runs the red
team, nobody can become another user, and the probes are skipped.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from runner.core.artifacts import keys
from runner.core.base import benches, files, home, locks, ownership
from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.base.home import Home
from runner.core.evidence import git_line, git_shape
from runner.people.redteam.scenario import Blocked, Scenario, Unable
from runner.people.redteam.stage import Stage

_SECRET = "not-his"  # noqa: S105 - what he looks for


@contextmanager
def _shared() -> Iterator[Path]:
    """A folder all may write to, as /tmp, and where only root can remove what is another's."""
    folder = Path(tempfile.mkdtemp(prefix="glovebox-tenant-"))
    folder.chmod(0o1777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_tenant(stage: Stage, source: str, *arguments: object, cwd: Path = Path("/")) -> str:
    """What he printed; raises Unable if we cannot become him."""
    if os.geteuid() != 0:
        raise Unable("only root can become another user")
    uid = stage.tenant
    # Imported while the interpreter's own files can be read.
    become = f"import fcntl, json, os, socket, subprocess, sys\nos.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", become + source, *map(str, arguments)],
        cwd=cwd,
        env={"PATH": os.environ.get("PATH", "")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.strip()


_LOOK = (
    "for top in sys.argv[1:]:\n"
    "    for folder, _, names in os.walk(top):\n"
    "        for name in names:\n"
    "            try:\n"
    f"                print('found' if {_SECRET!r} in open(os.path.join(folder, name)).read() else '')\n"
    "            except OSError: pass"
)


def _reads_bench(stage: Stage, intact: bool) -> None:
    with _shared() as folder:
        bench = Home(folder / home.NAME)
        bench.root.mkdir(mode=0o700)
        keys.create(bench)
        files.write(bench.keys / "probe.pem", _SECRET, mode=0o600 if intact else 0o644)
        if not intact:
            for path in (bench.root, bench.keys):
                path.chmod(0o755)
        if "found" not in as_tenant(stage, _LOOK, bench.root):
            raise Blocked


def _reads_backup(stage: Stage, intact: bool) -> None:
    """He watches the folder where a backup is being written, under names he can guess."""
    with _shared() as folder:
        path = folder / "bench.tar.gz"
        made = "for n in sys.argv[2:]: f = os.open(sys.argv[1] + n, os.O_CREAT | os.O_RDWR, 0o666); os.fchmod(f, 0o666)"
        as_tenant(stage, made, f"{path}.", "partial", "tmp")
        if intact:
            with files.whole(path, mode=0o600, replace=False) as file:
                file.write(_SECRET.encode())
        else:
            _plainly(path.with_name(path.name + ".partial"), _SECRET)
        if "found" not in as_tenant(stage, _LOOK, folder):
            raise Blocked


def _lays_link(stage: Stage, intact: bool) -> None:
    """He has a file of ours overwritten, through a link where he expects us to write."""
    with _shared() as folder:
        precious = folder / "precious"
        precious.write_text("precious")
        precious.chmod(0o600)
        link = "for n in ('', '.partial'): os.symlink(sys.argv[1], sys.argv[2] + n)"
        as_tenant(stage, link, precious, folder / "report.html")
        if intact:
            files.write(folder / "report.html", "page")
        else:
            _plainly(folder / "report.html.partial", "page")
        if precious.read_text() == "precious":
            raise Blocked


def _plainly(path: Path, text: str) -> None:
    """As it was done: the name's own file is opened, whoever made it. A hardened kernel refuses that in /tmp."""
    try:
        path.write_text(text)
    except PermissionError:
        raise Unable("this kernel opens no files and links of others in shared folders (fs.protected_*)") from None


_PLANT = (
    "root, files = sys.argv[1], json.loads(sys.argv[2])\n"
    "for name, text in files.items():\n"
    "    path = os.path.join(root, name)\n"
    "    os.makedirs(os.path.dirname(path), exist_ok=True)\n"
    "    open(path, 'w').write(text)"
)


def _plants(stage: Stage, folder: Path, planted: dict[str, str]) -> None:
    as_tenant(stage, _PLANT, folder, json.dumps(planted))


def _plants_bench(stage: Stage, intact: bool) -> None:
    """He leaves a bench above the folder where we work: its broker.yaml says where our key goes."""
    with _shared() as folder:
        job = folder / "job"
        job.mkdir()
        trust = {"policies/trust.yaml": "x", "policies/broker.yaml": "upstream: https://stranger.example"}
        _plants(stage, folder / home.NAME, trust)
        try:
            found = _found(job, folder / home.NAME, intact)
        except GloveboxError:
            raise Blocked from None
        if found != folder / home.NAME:
            raise Blocked


def _found(here: Path, planted: Path, intact: bool) -> Path:
    given = {name: os.environ.pop(name, None) for name in ("GLOVEBOX_HOME", ownership.ACCEPT)}
    try:
        if not intact:
            os.environ[ownership.ACCEPT] = str(planted)
        return benches.find(here).root
    finally:
        os.environ.pop(ownership.ACCEPT, None)
        os.environ.update({name: value for name, value in given.items() if value is not None})


def _plants_line(_: Stage, intact: bool) -> None:
    """His git repository runs a command as soon as git opens it."""
    with _shared() as folder:
        mark = folder / f"ran-{secrets.token_hex(4)}"
        line = folder / "line.git"
        git_line.GitLine(line)
        command = f"touch {mark}; false"
        hostile = (
            git_shape.CONFIG
            + f"\tsshCommand = \"sh -c '{command}' #\"\n"
            + ('[extensions]\n\tpartialClone = origin\n[remote "origin"]\n\turl = ssh://x/y\n\tpromisor = true\n')
        )
        files.write(line / "config", hostile.replace("repositoryformatversion = 0", "repositoryformatversion = 1"))
        missing = "1" * 40
        if intact:
            try:
                git_line.GitLine(line).content(missing)
            except VerifyError:
                raise Blocked from None
            except GloveboxError:
                pass
        else:
            plain = {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", "GIT_DIR": "."}
            subprocess.run(["git", "cat-file", "-p", missing], cwd=line, env=plain, capture_output=True, check=False)
        if not mark.exists():
            raise Blocked


def _reads_process(stage: Stage, intact: bool) -> None:
    """He reads the environment and memory map of the process that runs this bench."""
    source = "print(subprocess.run(['cat', f'/proc/{sys.argv[1]}/environ'], capture_output=True).stdout and 'found')"
    found = as_tenant(stage, source, os.getpid() if intact else "self")  # without the wall: one of his own
    if "found" not in found:
        raise Blocked


def _engine_socket(stage: Stage, intact: bool) -> None:
    """He asks the engine, which is root, for a container."""
    path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    source = "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print('found')"
    if intact:
        found = as_tenant(stage, source, path)
    else:
        with _shared() as folder, _listener(folder / "s") as door:
            found = as_tenant(stage, source, door)
    if "found" not in found:
        raise Blocked


@contextmanager
def _listener(path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o666)
        sock.listen(1)
        yield path


def _takes_lock(stage: Stage, intact: bool) -> None:
    """He holds the lock of a bench that is not his, so that nothing runs."""
    with _shared() as folder:
        bench = folder / "bench"
        bench.mkdir(mode=0o700 if intact else 0o777)
        bench.chmod(0o700 if intact else 0o777)
        lock = bench / "runner.lock"
        source = "f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('found')"
        with locks.hold(lock, "probe") if intact else nullcontext():
            found = as_tenant(stage, source, lock)
    if "found" not in found:
        raise Blocked


def _scenario(name: str, threat: str, control: str, attack: Callable[[Stage, bool], None]) -> Scenario:
    return Scenario(f"tenant-{name}", threat, control, "-", attack)


TENANT = [
    _scenario("reads-bench", "T50", "private bench", _reads_bench),
    _scenario("reads-backup", "T51", "names nobody can guess", _reads_backup),
    _scenario("lays-link", "T51", "names nobody can guess", _lays_link),
    _scenario("plants-bench", "T50", "whose bench it is", _plants_bench),
    _scenario("plants-line", "T52", "git line of our kind", _plants_line),
    _scenario("reads-process", "T50", "other user's process", _reads_process),
    _scenario("engine-socket", "T50", "engine socket's permissions", _engine_socket),
    _scenario("takes-lock", "T50", "private bench", _takes_lock),
]

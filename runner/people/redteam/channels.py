"""Probes from the host: does a change in a trainer show in an agent? A real sender and a real receiver. TRUSTED.

One scenario for each of the host's counters that was used, or could be, to tell an agent what a trainer read. The
trainer's container changes the number, the agent's reads it before and after, as its own code would.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, NamedTuple

from runner.people.redteam.scenario import Blocked, Scenario, Unable
from runner.people.redteam.stage import Stage
from runner.rooms.launcher.freezing import Freezer

_READY_SECONDS = 30.0
_GUESSED = 0.75  # of the bits; half of them are right by chance
_IDLE = "import time; time.sleep(120)"
_SENT = "\nopen('/tmp/sent', 'w').close(); time.sleep(120)"


class Channel(NamedTuple):
    """How a number is changed, how it is read, by how much it must move to be the change, and what hides it."""

    name: str
    send: str
    read: str
    least: float
    control: str


def _field(path: str, name: str) -> str:
    return f"next(int(line.split()[1]) for line in open('{path}') if line.startswith('{name}'))"


_SYSINFO = (
    "(lambda b, l: struct.unpack_from('H', b.raw, 80)[0] if l.sysinfo(b) == 0 else 1 / 0)"
    "(ctypes.create_string_buffer(256), ctypes.CDLL(None))"
)
CHANNELS = (
    Channel("terminals", "kept = [os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY) for _ in range(300)]",
            "int(open('/proc/sys/kernel/pty/nr').read())", 250, "masked counters"),
    Channel("forks", "for _ in range(3000):\n    pid = os.fork()\n    if pid == 0: os._exit(0)\n    os.waitpid(pid, 0)",
            _field("/proc/stat", "processes"), 2500, "masked counters"),
    Channel("shared-memory", "f = os.memfd_create('m'); os.posix_fallocate(f, 0, 300 << 20)",
            _field("/proc/meminfo", "Shmem:"), 250 << 10, "masked counters"),
    Channel("open-files", "kept = [os.eventfd(0) for _ in range(900)]",
            "int(open('/proc/sys/fs/file-nr').read().split()[0])", 600, "masked counters"),
    Channel("load", "import threading\nfor _ in range(60): threading.Thread(target=time.sleep, args=(120,)).start()",
            "int(open('/proc/loadavg').read().split()[3].split('/')[1])", 50, "masked counters"),
    Channel("node-memory", "f = os.memfd_create('m'); os.posix_fallocate(f, 0, 300 << 20)",
            "next(int(line.split()[3]) for line in open('/sys/devices/system/node/node0/meminfo') if 'Shmem:' in line)",
            250 << 10, "masked counters"),
    Channel("faults", "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096])",
            _field("/proc/vmstat", "pgfault"), 60_000, "masked counters"),
    Channel("tasks", "import threading\nfor _ in range(60): threading.Thread(target=time.sleep, args=(120,)).start()",
            _SYSINFO, 50, "seccomp profile"),
)  # fmt: skip


def _attempt(channel: Channel, stage: Stage, intact: bool) -> None:
    _own_kernels(stage)
    receiver = stage.specification("agent")
    receiver = receiver if intact else stage.without(receiver, (channel.control,))
    sender = stage.specification("trainer")
    with (
        stage.container(receiver, _IDLE) as agent,
        stage.container(sender, "import os, time\n" + channel.send + _SENT) as trainer,
    ):
        agent.start()
        before = _read(agent, channel)
        trainer.start()
        deadline = time.monotonic() + _READY_SECONDS
        while trainer.exec_run(["test", "-e", "/tmp/sent"]).exit_code and time.monotonic() < deadline:
            time.sleep(0.05)
        after = _read(agent, channel)
    if before is None or after is None or after - before < channel.least:
        raise Blocked


def _own_kernels(stage: Stage) -> None:
    if "runsc" in (stage.policies.sandbox.runtime, stage.policies.sandbox.agent_runtime):
        raise Unable("gVisor's own kernel answers, for each container apart")


def _read(agent: Any, channel: Channel) -> float | None:
    done = agent.exec_run(["python", "-c", f"import ctypes, os, struct; print({channel.read})"])
    with suppress(ValueError):
        return float(done.output) if done.exit_code == 0 else None
    return None


# A bit a page of a file of the base image that nobody has open: those that are 1 are read in, the others dropped.
_SHARED = "import os, random, time\nrandom.seed(7)\nf = os.open('/usr/bin/perl', os.O_RDONLY)\n" + (
    "n = os.fstat(f).st_size // 4096\nsent = [i % 2 for i in range(n)]\nrandom.shuffle(sent)\n"
    "os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)\n"
)
_DROP = _SHARED + (
    "os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)\nfor i in range(n):\n    if sent[i]: os.pread(f, 1, i * 4096)"
)
_TIME = _SHARED + (
    "took = []\nfor i in range(n):\n    began = time.perf_counter_ns(); os.pread(f, 1, i * 4096)\n"
    "    took.append(time.perf_counter_ns() - began)\n"
    "middle = sorted(took)[n // 2]\nprint(sum((one < middle) == sent[i] for i, one in enumerate(took)) / n)"
)
_FILES_SHARED = ("overlay2", "overlayfs", "fuse-overlayfs")  # by containers of one image, in the page cache too


def _page_cache(stage: Stage, intact: bool) -> None:
    """Can an agent tell which pages of a file a trainer dropped and which it read, after it has ended?"""
    _own_kernels(stage)
    if (driver := stage.client.info()["Driver"]) not in _FILES_SHARED:
        raise Unable(f"whether images share files under {driver} is not known")
    spec = stage.specification("agent")
    stage.run(stage.specification("trainer"), _DROP)
    _, output = stage.run(spec if intact else stage.without(spec, ("image of its own",)), _TIME)
    if float(output or 0) < _GUESSED:
        raise Blocked


def _frozen(stage: Stage, intact: bool) -> None:
    """Does an agent compute while it is said to stand still?"""
    busy = "import time\nn = 0\nwhile True: n += 1"
    with stage.container(stage.specification("agent"), busy) as agent:
        agent.start()
        freezer = Freezer(stage.client, stage.home.id if intact else "nobody")
        with freezer.hold():
            time.sleep(0.2)
            before = _processor_seconds(stage, agent)
            time.sleep(1.0)
            after = _processor_seconds(stage, agent)
    if after - before < 0.05:
        raise Blocked


def _processor_seconds(stage: Stage, container: Any) -> float:
    told = stage.client.api.stats(container.id, stream=False, one_shot=True)
    return float(told["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


def _every_file(stage: Stage, intact: bool) -> None:
    """Is there any file of the host's in /proc that an agent can read, by whatever name this kernel has it?"""
    _own_kernels(stage)
    source = (
        "import os\nfor name in os.listdir('/proc'):\n"
        "    if not name.isdigit() and name not in ('self', 'thread-self', 'mounts', 'net'):\n"
        "        path = '/proc/' + name\n"
        "        try:\n"
        "            found = os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1)\n"
        "        except OSError: continue\n"
        "        if found: print(name)\n"
        "if os.listdir('/sys'): print('/sys')"
    )
    spec = stage.specification("agent")
    _, output = stage.run(spec if intact else stage.without(spec, ("masked counters",)), source)
    if not output.strip():
        raise Blocked


def _scenario(channel: Channel) -> Scenario:
    return Scenario(f"channel-{channel.name}", "T48", channel.control, "-", lambda s, i: _attempt(channel, s, i))


CHANNEL_SCENARIOS = [
    *(_scenario(channel) for channel in CHANNELS),
    Scenario("channel-every-file", "T48", "masked counters", "-", _every_file),
    Scenario("channel-page-cache", "T48", "image of its own", "-", _page_cache),
    Scenario("agent-frozen", "T49", "agents are frozen", "-", _frozen),
]

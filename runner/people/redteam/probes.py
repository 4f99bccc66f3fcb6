"""The probes that run inside containers: what is tried, which walls stop it, which rows of the threat model they test.

`walls` names the controls that together stop the attack: with all of them taken away it must succeed, or the probe
proves nothing. Source is in the terms of inside.py. Nothing here can do harm where it succeeds: files of the host are
opened at most, never written, and calls get arguments that the kernel refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Room = Literal["trainer", "evaluator", "agent"]


@dataclass(frozen=True)
class Probe:
    """One attack from inside a container."""

    id: str
    threat: str  # row of docs/threat-model.md
    walls: tuple[str, ...]
    source: str
    room: Room = "trainer"
    small: bool = False  # run where sizes are small, the walls being the same: a bomb must not need gigabytes

    @property
    def control(self) -> str:
        """The control it is foremost about."""
        return self.walls[0]


_CAPS = ("no capabilities", "user", "seccomp profile")
_SETUID_FOLDER = "/probe"
_EXECUTE = (
    "shutil = __import__('shutil'); shutil.copy('/bin/true', '{0}/t'); os.chmod('{0}/t', 0o755)\n"
    "assert os.spawnv(os.P_WAIT, '{0}/t', ['t']) == 0"
)
_BOMB = (
    "n = 0\n"
    "for _ in range({0}):\n"
    "    pid = os.fork()\n"
    "    if pid == 0: time.sleep(30); os._exit(0)\n"
    "    n += 1\n"
    "assert n"
)
_GPU = (
    "assert os.environ.get('NVIDIA_VISIBLE_DEVICES') != 'void' or os.path.isdir('/dev/dri') or "
    "any(name.startswith('nvidia') for name in os.listdir('/dev'))"
)

NETWORK = [
    Probe("net-interfaces", "T01", ("no network",), "assert os.listdir('/sys/class/net') != ['lo']"),
    Probe("net-route", "T01", ("no network",), "routed('192.0.2.1')"),
    Probe("net-dns", "T01", ("no network",), "routed('192.0.2.53')"),
    Probe("net-metadata", "T02", ("no network",), "routed('169.254.169.254')"),
    Probe(
        "net-host-gateway",
        "T02",
        ("no network",),
        "socket.create_connection((gateway(), GIVEN['port']), 3).close()",
    ),
    Probe(
        "net-host-loopback",
        "T02",
        ("network namespace",),
        "socket.create_connection(('127.0.0.1', GIVEN['port']), 3).close()",
    ),
    Probe(
        "net-abstract-socket",
        "T02",
        ("network namespace",),
        "socket.socket(socket.AF_UNIX).connect('\\0' + GIVEN['abstract'])",
    ),
    Probe(
        "net-raw-socket",
        "T03",
        ("no capabilities", "user"),
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()",
    ),
    Probe("net-packet-socket", "T03", _CAPS, "socket.socket(17, socket.SOCK_RAW, 0).close()"),
    Probe("net-vsock", "T03", ("seccomp profile",), "family(40, socket.SOCK_STREAM)"),
    Probe("net-alg", "T03", ("seccomp profile",), "family(38, socket.SOCK_SEQPACKET)"),
]

CAPABILITIES = [
    Probe("cap-bounding-set", "T04", ("no capabilities",), "assert int(status('CapBnd'), 16)"),
    Probe("cap-effective", "T04", ("no capabilities", "user"), "assert int(status('CapEff'), 16)"),
    Probe("cap-not-privileged", "T04", ("not privileged",), "assert int(status('CapBnd'), 16)"),
    Probe("cap-chown", "T04", ("no capabilities", "user"), "open('/tmp/c', 'w').close(); os.chown('/tmp/c', 1, 1)"),
    Probe("cap-setuid", "T04", ("no capabilities", "user"), "os.setuid(1)"),
    Probe("cap-shadow-file", "T04", ("user", "no capabilities"), "opens('/etc/shadow')"),
    Probe("cap-user-root", "T04", ("user",), "assert os.geteuid() == 0"),
    Probe("cap-groups", "T04", ("own group only",), "assert set(os.getgroups()) - {os.getgid()}"),
    Probe("cap-mknod", "T05", _CAPS, "os.mknod('/tmp/n', 0o600 | stat.S_IFBLK, os.makedev(7, 0))"),
    Probe("cap-chroot", "T05", _CAPS, "os.chroot('/tmp')"),
    Probe("cap-nice", "T04", ("no capabilities", "user"), "os.setpriority(os.PRIO_PROCESS, 0, -5)"),
    Probe(
        "cap-setuid-program",
        "T04",
        ("no new privileges",),
        f"pid = os.spawnv(os.P_NOWAIT, '{_SETUID_FOLDER}/sleep', ['sleep', '5'])\n"
        "while open(f'/proc/{pid}/comm').read() != 'sleep\\n' and os.waitpid(pid, os.WNOHANG) == (0, 0): pass\n"
        "assert status('Uid', str(pid)).split()[1] != str(os.getuid())",
    ),
    Probe("cap-no-new-privileges", "T04", ("no new privileges",), "assert status('NoNewPrivs') == '0'"),
]

SYSCALLS = [
    Probe("sys-filtered", "T05", ("seccomp profile",), "assert status('Seccomp') == '0'"),
    Probe("sys-ptrace", "T05", ("seccomp profile",), "reaches('ptrace', 0, 0, 0, 0)"),
    Probe("sys-process-vm-readv", "T05", ("seccomp profile",),
          "reaches('process_vm_readv', os.getpid(), 0, 0, 0, 0, 0)"),
    Probe("sys-keyctl", "T05", ("seccomp profile",), "reaches('keyctl', 0, -1, 0)"),
    Probe("sys-add-key", "T05", ("seccomp profile",), "reaches('add_key', 0, 0, 0, 0, 0)"),
    Probe("sys-io-uring", "T05", ("seccomp profile",), "reaches('io_uring_setup', 1, 0)"),
    Probe("sys-io-uring-register", "T05", ("seccomp profile",), "reaches('io_uring_register', -1, 0, 0, 0)"),
    Probe("sys-userfaultfd", "T05", ("seccomp profile",), "reaches('userfaultfd', 1)"),
    Probe("sys-personality", "T05", ("seccomp profile",), "reaches('personality', 0xffffffff)"),
    Probe("sys-file-handle", "T05", ("seccomp profile",), "reaches('name_to_handle_at', -100, 0, 0, 0, 0)"),
    Probe("sys-kcmp", "T05", ("seccomp profile",), "reaches('kcmp', os.getpid(), os.getpid(), 5, 0, 0)"),
    Probe("sys-vmsplice", "T05", ("seccomp profile",), "reaches('vmsplice', -1, 0, 0, 0)"),
    Probe("sys-move-mount", "T05", _CAPS, "reaches('move_mount', -100, 0, -100, 0, 1 << 31)"),
    Probe("sys-bpf", "T05", _CAPS, "reaches('bpf', 0, 0, 0)"),
    Probe("sys-perf", "T05", _CAPS, "reaches('perf_event_open', 0, 0, -1, -1, 0)"),
    Probe("sys-open-by-handle", "T05", _CAPS, "reaches('open_by_handle_at', -100, 0, 0)"),
    Probe("sys-mount", "T05", _CAPS,
          "kept = [ctypes.create_string_buffer(text) for text in (b'none', b'/tmp', b'tmpfs')]\n"
          "call('mount', *map(ctypes.addressof, kept), 0, 0)"),
    Probe("sys-fsopen", "T05", _CAPS, "reaches('fsopen', 0, 0)"),
    Probe("sys-pivot-root", "T05", _CAPS, "reaches('pivot_root', 0, 0)"),
    Probe("sys-kernel-module", "T05", _CAPS, "reaches('init_module', 0, 0, 0)"),
    Probe("sys-kexec", "T05", _CAPS, "reaches('kexec_load', 0, 99999, 0, 0)"),
    Probe("sys-set-clock", "T06", ("seccomp profile",), "reaches('clock_settime', 0, 0)"),
    Probe("sys-host-name", "T05", _CAPS, "socket.sethostname('probe')"),
    Probe("sys-swapon", "T05", _CAPS, "reaches('swapon', 0, 0)"),
    Probe("sys-accounting", "T05", _CAPS, "reaches('acct', 1)"),
    Probe("sys-kernel-log", "T05", _CAPS, "reaches('syslog', 10, 0, 0)"),
    Probe("sys-fanotify", "T05", _CAPS, "reaches('fanotify_init', 0, 0)"),
    Probe("sys-user-namespace", "T05", ("seccomp profile",), "reaches('unshare', 0x10000000)"),
    Probe("sys-mount-namespace", "T05", _CAPS, "reaches('unshare', 0x00020000)"),
    Probe("sys-clone-namespace", "T05", ("seccomp profile",),
          "pid = call('clone', 0x10000000 | 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)"),
    Probe("sys-join-namespace", "T05", _CAPS, "reaches('setns', os.open('/proc/self/ns/uts', 0), 0)"),
    Probe("sys-type-into-terminal", "T05", ("seccomp profile",),
          "pty = __import__('pty'); pid, _ = pty.fork()\n"
          "if pid == 0:\n"
          "    try: call('ioctl', 0, 1 << 32 | 0x5412, ctypes.addressof(ctypes.create_string_buffer(b'x')))\n"
          "    except OSError: os._exit(1)\n"
          "    os._exit(0)\n"
          "assert os.waitpid(pid, 0)[1] == 0"),
]  # fmt: skip

FILES = [
    Probe("fs-root", "T07", ("read-only root",), "open('/var/tmp/probe', 'w').close()"),
    Probe("fs-root-flag", "T07", ("read-only root",), "read_only('/')"),
    Probe("fs-code", "T07", ("read-only root", "user", "no capabilities"), "opens(os.__file__, os.O_WRONLY)"),
    Probe("fs-passwd", "T07", ("read-only root", "user", "no capabilities"), "opens('/etc/passwd', os.O_WRONLY)"),
    Probe("fs-data-mount", "T08", ("read-only mounts",), "read_only('/artifacts/train')"),
    Probe("fs-tokenizer-mount", "T08", ("read-only mounts",), "read_only('/artifacts/tokenizer')"),
    Probe("fs-source-mount", "T08", ("read-only mounts",), "read_only('/work/train.py')"),
    Probe("fs-tmp-execute", "T09", ("/tmp not executable",), _EXECUTE.format("/tmp")),
    Probe("fs-tmp-map-executable", "T09", ("/tmp not executable",),
          "mmap = __import__('mmap'); fill('/tmp/m', 1 << 20); f = os.open('/tmp/m', os.O_RDONLY)\n"
          "mmap.mmap(f, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)"),
    Probe("fs-tmp-setuid", "T09", ("/tmp without setuid",), "flag_missing('/tmp', os.ST_NOSUID)"),
    Probe("fs-tmp-devices", "T09", ("/tmp without devices",), "flag_missing('/tmp', os.ST_NODEV)"),
    Probe("fs-tmp-fill", "T10", ("/tmp size", "file size limit"), "fill('/tmp/a', 24 << 20); fill('/tmp/b', 24 << 20)",
          small=True),
    Probe("fs-tmp-many-files", "T10", ("/tmp size",), "[fill(f'/tmp/m{i}', 3 << 20) for i in range(12)]", small=True),
    Probe("fs-cache-fill", "T10", ("/cache size",), "[fill(f'/cache/m{i}', 3 << 20) for i in range(12)]", small=True),
    Probe("fs-shm-fill", "T10", ("shared memory size",), "[fill(f'/dev/shm/m{i}', 3 << 20) for i in range(12)]",
          small=True),
    Probe("fs-large-file", "T10", ("file size limit", "/tmp size"), "fill('/tmp/large', 12 << 20)", small=True),
    Probe("fs-large-output", "T10", ("file size limit",), "fill('/out/weights.safetensors', 12 << 20)", small=True),
    Probe("fs-output-replace", "T11", ("read-only root", "user", "no capabilities"), "open('/out/extra', 'w').close()"),
    Probe("fs-keys", "T12", ("masked paths",), "unmasked('/proc/keys')"),
    Probe("fs-timers", "T12", ("masked paths",), "unmasked('/proc/timer_list')"),
    Probe("fs-proc-sys-flag", "T12", ("masked paths",), "read_only('/proc/sys')"),
    Probe("fs-kernel-memory", "T12", ("masked paths", *_CAPS), "there('/proc/kcore'); opens('/proc/kcore')"),
    Probe("fs-proc-sys", "T12", ("masked paths", *_CAPS), "opens('/proc/sys/kernel/core_pattern', os.O_WRONLY)"),
    Probe("fs-sysrq", "T12", ("masked paths", *_CAPS),
          "there('/proc/sysrq-trigger'); opens('/proc/sysrq-trigger', os.O_WRONLY)"),
    Probe("fs-control-groups", "T12", ("not privileged", *_CAPS),
          "path = '/sys/fs/cgroup' + ('/pids' if os.path.exists('/sys/fs/cgroup/pids') else '') + '/probe'\n"
          "os.mkdir(path); os.rmdir(path)"),
    Probe("fs-sysfs", "T12", ("not privileged",), "read_only('/sys')"),
    Probe("dev-unexpected", "T13", ("no devices",),
          "assert set(os.listdir('/dev')) - {'fd', 'full', 'mqueue', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr',"
          " 'stdin', 'stdout', 'tty', 'urandom', 'zero', 'console', 'core'}"),
    Probe("dev-kernel-log", "T13", ("no devices", *_CAPS), "opens('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)"),
    Probe("dev-fuse", "T13", ("no devices", *_CAPS), "opens('/dev/fuse', os.O_RDWR)"),
    Probe("dev-gpu", "T13", ("no GPU unless given",), _GPU),
]  # fmt: skip

NEIGHBOURS = [
    Probe("ns-processes", "T14", ("process namespace",), "assert status('Name', '1') != 'docker-init' and "
          "int(GIVEN['host_pid']) and os.path.exists(f\"/proc/{GIVEN['host_pid']}\")"),
    Probe("ns-ipc", "T14", ("ipc namespace",), "assert os.readlink('/proc/self/ns/ipc') == GIVEN['ipc']"),
    Probe("ns-host-name", "T14", ("host name namespace",), "assert os.readlink('/proc/self/ns/uts') == GIVEN['uts']"),
    Probe("ns-network", "T14", ("network namespace",), "assert os.readlink('/proc/self/ns/net') == GIVEN['net']"),
    Probe("ns-control-group", "T14", ("cgroup namespace",),
          "assert os.readlink('/proc/self/ns/cgroup') == GIVEN['cgroup']"),
    Probe("ns-orphans", "T15", ("init process",),
          "child = os.fork()\n"
          "if child == 0:\n"
          "    grandchild = os.fork()\n"
          "    if grandchild == 0: time.sleep(0.2); os._exit(0)\n"
          "    os._exit(0)\n"
          "os.waitpid(child, 0); time.sleep(0.8)\n"
          "states = [status('State', p)[0] for p in os.listdir('/proc') if p.isdigit() and status('PPid', p) == '1']\n"
          "assert 'Z' in states"),
    Probe("room-engine-socket", "T16", ("no engine socket",), "os.stat('/var/run/docker.sock')"),
    Probe("room-validation-data", "T17", ("no validation data",), "holds('val' + GIVEN['canary'])"),
    Probe("room-other-runs", "T18", ("no other run's files",), "holds('run' + GIVEN['canary'])"),
    Probe("room-host-files", "T07", ("no host files",), "holds('root:x:0:0')"),
    Probe("room-secret-files", "T19", ("no secrets mounted",), "holds('secret' + GIVEN['canary'])"),
    Probe("room-secret-environment", "T19", ("no secrets in the environment",),
          "assert any(word in name for name in os.environ for word in ('KEY', 'TOKEN', 'SECRET', 'PASSWORD'))"),
    Probe("room-evaluator-code", "T20", ("no candidate's code",), "os.stat('/work/train.py')", room="evaluator"),
    Probe("room-evaluator-training-data", "T20", ("no training data",), "holds('train' + GIVEN['canary'])",
          room="evaluator"),
    Probe("room-evaluator-data-mount", "T08", ("read-only mounts",), "read_only('/artifacts/val')", room="evaluator"),
    Probe("room-evaluator-network", "T01", ("no network",), "routed('192.0.2.1')", room="evaluator"),
    Probe("room-evaluator-ptrace", "T05", ("seccomp profile",), "reaches('ptrace', 0, 0, 0, 0)", room="evaluator"),
]  # fmt: skip

LIMITS = [
    Probe("limit-forks", "T21", ("process limit",), _BOMB.format(200), small=True),
    Probe("limit-threads", "T21", ("process limit",),
          "threading = __import__('threading')\n"
          "for _ in range(200): threading.Thread(target=time.sleep, args=(3,), daemon=True).start()", small=True),
    Probe("limit-memory", "T21", ("memory limit",), "x = bytearray(700 << 20); x[::4096] = b'1' * len(x[::4096])",
          small=True),
    Probe("limit-memory-exact", "T21", ("memory limit",),
          "found = cgroup('memory.max', 'memory/memory.limit_in_bytes').replace('max', '9' * 18)\n"
          "assert int(found) > GIVEN['memory']"),
    Probe("limit-swap", "T21", ("swap limit",),
          "found = cgroup('memory.swap.max', 'memory/memory.memsw.limit_in_bytes').replace('max', '9' * 18)\n"
          "assert int(found) > (GIVEN['memory'] if os.path.exists('/sys/fs/cgroup/memory') else 0)"),
    Probe("limit-processors", "T21", ("processor limit",),
          "assert cgroup('cpu.max', 'cpu/cpu.cfs_quota_us').split()[0] in ('max', '-1')"),
    Probe("limit-open-files", "T21", ("open file limit",),
          "kept = [os.open('/dev/null', 0) for _ in range(700)]\nassert kept", small=True),
    Probe("limit-core-dumps", "T21", ("no core dumps",), "assert resource.getrlimit(resource.RLIMIT_CORE)[1] != 0"),
]  # fmt: skip

AGENT = [
    Probe("agent-rename", "T22", ("one file mounted",),
          "os.rename('/work/train.py', '/work/other'); os.rename('/work/other', '/work/train.py')", room="agent"),
    Probe("agent-symlink", "T22", ("one file mounted",), "os.symlink('/etc/passwd', '/work/link')", room="agent"),
    Probe("agent-hard-link", "T22", ("one file mounted",), "os.link('/work/train.py', '/work/link2')", room="agent"),
    Probe("agent-fifo", "T22", ("one file mounted", "seccomp profile"), "os.mkfifo('/work/fifo')", room="agent"),
    Probe("agent-extra-file", "T22", ("one file mounted",), "open('/work/extra', 'w').close()", room="agent"),
    Probe("agent-unlink", "T22", ("one file mounted",), "os.unlink('/work/train.py')", room="agent"),
    Probe("agent-setuid-bit", "T22", ("file owned by the runner",), "os.chmod('/work/train.py', 0o4755)", room="agent"),
    Probe("agent-large-file", "T10", ("file size limit",), "fill('/work/train.py', 12 << 20)", room="agent",
          small=True),
    Probe("agent-network", "T01", ("no network",), "routed('192.0.2.1')", room="agent"),
    Probe("agent-key", "T19", ("no secrets in the environment",), "assert 'ANTHROPIC_API_KEY' in os.environ",
          room="agent"),
    Probe("agent-engine-socket", "T16", ("no engine socket",), "os.stat('/var/run/docker.sock')", room="agent"),
    Probe("agent-gpu", "T13", ("no GPU unless given",), _GPU,
          room="agent"),
    Probe("agent-ptrace", "T05", ("seccomp profile",), "reaches('ptrace', 0, 0, 0, 0)", room="agent"),
    Probe("agent-forks", "T21", ("process limit",), _BOMB.format(200), room="agent", small=True),
    Probe("agent-socket-cookie", "T48", ("seccomp profile",),
          "import socket; socket.socketpair()[0].getsockopt(socket.SOL_SOCKET, 57, 8)", room="agent"),
    Probe("agent-block-map", "T48", ("seccomp profile",),
          "reaches('ioctl', os.open('/work/train.py', os.O_RDONLY), 0xC0C0583B, 0)", room="agent"),
    Probe("agent-socket-diagnosis", "T48", ("seccomp profile",), "import socket; socket.socket(16, socket.SOCK_RAW, 4)",
          room="agent"),
]  # fmt: skip

GVISOR = [
    Probe("sys-sandbox-kernel", "T25", ("gVisor",), "assert os.uname().release == GIVEN['kernel']"),
    Probe("agent-sandbox-kernel", "T48", ("gVisor",), "assert os.uname().release == GIVEN['kernel']", room="agent"),
]  # fmt: skip
# What these ask is answered by gVisor's own kernel, not the host's, or only a bomb that ends its sandbox could tell
# (run-memory-bomb and run-fork-bomb do). They are skipped where the room's runtime is runsc.
GVISOR_ANSWERS = frozenset(
    "net-interfaces net-route net-dns net-metadata net-host-gateway net-host-loopback net-abstract-socket "
    "net-raw-socket net-packet-socket net-vsock net-alg cap-mknod cap-nice cap-setuid-program cap-no-new-privileges "
    "fs-tmp-map-executable fs-tmp-setuid fs-tmp-devices fs-keys fs-timers fs-proc-sys-flag fs-proc-sys "
    "fs-control-groups dev-unexpected dev-kernel-log dev-fuse ns-processes ns-ipc ns-host-name ns-network "
    "ns-control-group room-evaluator-network room-evaluator-ptrace limit-forks limit-threads limit-memory "
    "limit-memory-exact limit-swap limit-processors limit-open-files agent-large-file agent-network agent-ptrace "
    "agent-forks agent-socket-cookie agent-socket-diagnosis agent-block-map fs-kernel-memory fs-sysrq".split()
) | {probe.id for probe in SYSCALLS}

PROBES = [*GVISOR, *NETWORK, *CAPABILITIES, *SYSCALLS, *FILES, *NEIGHBOURS, *LIMITS, *AGENT]

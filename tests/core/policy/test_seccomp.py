"""Our profile: what it blocks is open without it, and training, workers and compilers run under it."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest

from runner.core.base.errors import PolicyError
from runner.core.base.launching import EndReason
from runner.core.policy import policy_files, seccomp
from runner.core.policy.policy_files import Policies
from tests.conftest import POLICIES
from tests.rooms.launcher.test_containers import Run
from tests.rooms.launcher.test_containers import run as run  # noqa: PLC0414 - a fixture


def test_the_profile_denies_by_default_and_names_every_purpose_once(policies: Policies) -> None:
    document = json.loads(seccomp.profile(policies.seccomp))
    assert (document["defaultAction"], document["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    named = [name for rule in document["syscalls"] for name in rule["names"] if rule["action"] == "SCMP_ACT_ALLOW"]
    assert not (seccomp.NEVER - {"socket", "clone", "ioctl"}) & set(named)
    assert len(named) - 3 - 31 == len(set(named))  # socket once for each family, ioctl for each bit
    assert all("args" in rule for rule in document["syscalls"] if {"socket", "clone", "ioctl"} & set(rule["names"]))


@pytest.mark.parametrize("call", ["ptrace", "keyctl", "bpf", "io_uring_setup", "mount", "socket", "clone", "ioctl"])
def test_a_call_that_is_never_allowed_is_refused_by_the_loader(tmp_path: Path, call: str) -> None:
    path = tmp_path / "seccomp.yaml"
    path.write_text((POLICIES / "seccomp.yaml").read_text().replace("calls: [brk,", f"calls: [brk, {call},"))
    with pytest.raises(PolicyError, match=f"never allowed: {call}"):
        policy_files.load(tmp_path, POLICIES)


def test_a_call_named_twice_and_an_empty_list_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seccomp.yaml"
    path.write_text((POLICIES / "seccomp.yaml").read_text().replace("calls: [brk,", "calls: [brk, read,"))
    with pytest.raises(PolicyError, match="named twice: read"):
        policy_files.load(tmp_path, POLICIES)
    path.write_text("groups: []\n")
    with pytest.raises(PolicyError, match="groups"):
        policy_files.load(tmp_path, POLICIES)


# Raw system calls (x86-64 numbers) with arguments that, without the profile, give anything but EPERM.
CALLS = {
    "ptrace": "forked(101, 0, 0, 0, 0)",  # PTRACE_TRACEME
    "process_vm_readv": "syscall(310, os.getpid(), 0, 0, 0, 0, 0)",
    "keyctl": "syscall(250, 0, -1, 0)",  # KEYCTL_GET_KEYRING_ID of the thread
    "add_key": "syscall(248, 0, 0, 0, 0, 0)",
    "io_uring_setup": "syscall(425, 1, 0)",
    "io_uring_register": "syscall(427, -1, 0, 0, 0)",
    "userfaultfd": "syscall(323, 1)",  # user mode only
    "personality": "syscall(135, 0xffffffff)",
    "name_to_handle_at": "syscall(303, -100, 0, 0, 0, 0)",
    "kcmp": "syscall(312, os.getpid(), os.getpid(), 5, 0, 0)",
    "vmsplice": "syscall(278, -1, 0, 0, 0)",
    "modify_ldt": "syscall(154, 0, 0, 0)",
    "move_mount": "syscall(429, -100, 0, -100, 0, 1 << 31)",
    "socket AF_VSOCK": "family(40)",
    "socket AF_ALG": "family(38)",
    "socket AF_PPPOX": "family(24)",
    "ioctl TIOCSTI": "terminal(0x5412)",
    "ioctl TIOCSTI in the lower half": "terminal(1 << 32 | 0x5412)",  # "not equal" to the whole argument let it pass
}
PROBE = """
import ctypes, os, pty, socket
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*a):
    ctypes.set_errno(0)
    return 0 if libc.syscall(*[ctypes.c_long(x) for x in a]) >= 0 else ctypes.get_errno()
def forked(*a):
    pid = os.fork()
    if pid == 0: os._exit(syscall(*a))
    return os.waitpid(pid, 0)[1] >> 8
def family(n):
    try: socket.socket(n, socket.SOCK_STREAM if n != 38 else socket.SOCK_SEQPACKET).close(); return 0
    except OSError as e: return e.errno
def terminal(request):
    pid, _ = pty.fork()  # the child has a terminal of its own
    if pid == 0: os._exit(syscall(16, 0, request, ctypes.addressof(ctypes.create_string_buffer(b'x'))))
    return os.waitpid(pid, 0)[1] >> 8
CALLS = %r
print({name: eval(call) for name, call in CALLS.items()})
"""


@pytest.mark.engine
def test_what_the_profile_blocks_is_open_without_it(run: Run) -> None:
    _, inside = run(PROBE % CALLS)
    assert eval(inside) == dict.fromkeys(CALLS, seccomp.EPERM)
    _, outside = run(PROBE % CALLS, unconfined=True)
    open_ = {name for name, errno in eval(outside).items() if errno != seccomp.EPERM}
    # This kernel may itself forbid a few to everybody; the control must show most of them.
    assert len(open_) >= len(CALLS) - 4, set(CALLS) - open_


@pytest.mark.engine
def test_a_new_namespace_is_refused_and_a_thread_is_not(run: Run) -> None:
    source = (
        "import ctypes, os, threading\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for flag in (0x10000000, 0x00020000, 0x40000000):\n"
        "    print('unshare', libc.unshare(flag), ctypes.get_errno())\n"
        "print('clone', libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno())\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0)\n"
        "print('fork', os.waitpid(pid, 0)[1])\n"
    )
    result, output = run(source)
    assert result.exit_code == 0
    assert output.decode().splitlines() == ["unshare -1 1"] * 3 + ["clone -1 1", "thread", "fork 0"]


AGENT = """
import fcntl, os, pty, socket, termios
one, other = socket.socketpair()
tcp = socket.create_server(("127.0.0.1", 0))
def told(name, ask):
    try: ask(); print(name, 0)
    except OSError as e: print(name, e.errno)
told("error", lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
told("peer", lambda: one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
told("nodelay", lambda: tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
told("cookie", lambda: one.getsockopt(socket.SOL_SOCKET, 57, 8))
told("namespace cookie", lambda: tcp.getsockopt(socket.SOL_SOCKET, 71, 8))
told("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4))
told("terminal", lambda: termios.tcgetattr(pty.openpty()[0]))
told("ready", lambda: fcntl.ioctl(one, termios.FIONREAD, bytes(4)))
def blocks(request):
    try: fcntl.ioctl(os.open("/etc/hosts", os.O_RDONLY), request, bytes(192))
    except OSError as e:
        if e.errno == 1: raise  # the file system may have no such map
told("block map", lambda: blocks(0xC0C0583B))
told("block map in the lower half", lambda: blocks(0xC0C0583B | 1 << 32))
"""


@pytest.mark.engine
@pytest.mark.parametrize("role", ["agent", "trainer"])
def test_an_agent_reads_what_is_its_own_of_a_descriptor_and_no_number_of_the_hosts(
    engine: docker.DockerClient, policies: Policies, role: str
) -> None:
    """The trainer may: it has nobody to tell. It shows that these are open without the rule."""
    profile = seccomp.profile(policies.seccomp, role)
    output = engine.containers.run(
        policies.sandbox.trainer.image,
        ["python", "-c", AGENT],
        remove=True,
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true", f"seccomp={profile}"],
    )
    errno = seccomp.EPERM if role == "agent" else 0
    own = ("error", "peer", "nodelay", "terminal", "ready")
    told = dict(line.rsplit(" ", 1) for line in output.decode().splitlines())
    assert {name: told.pop(name) for name in own} == dict.fromkeys(own, "0")
    assert set(told.values()) == {str(errno)}, told
    assert len(told) == 5


TRAINING = """
import os, subprocess, torch
os.environ.update(TORCHINDUCTOR_CACHE_DIR="/cache/i", TRITON_CACHE_DIR="/cache/t")
class Data(torch.utils.data.Dataset):
    def __len__(self): return 64
    def __getitem__(self, i): return torch.full((8,), float(i))
model = torch.compile(torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1)))
optimizer = torch.optim.AdamW(model.parameters())
for batch in torch.utils.data.DataLoader(Data(), batch_size=8, num_workers=2):
    model(batch).mean().backward(); optimizer.step(); optimizer.zero_grad()
print("trained", subprocess.run(["g++", "--version"], capture_output=True).returncode)
"""


@pytest.mark.engine
@pytest.mark.slow
def test_training_data_loader_workers_and_torch_compile_work_under_it(run: Run) -> None:
    result, output = run(TRAINING, seconds=180, memory_bytes=4 << 30, pids=256)
    assert result.reason is EndReason.EXIT, output[-2000:]
    assert output.decode().splitlines()[-1:] == ["trained 0"], output[-2000:]

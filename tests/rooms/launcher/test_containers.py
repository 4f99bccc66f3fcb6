"""The hardened container on the real engine: how runs end, and what the inside can and cannot do."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import docker
import pytest
from docker.utils.proxy import ProxyConfig

from runner.core.base.errors import EngineError
from runner.core.base.launching import EndReason, EngineResult, LaunchRequest
from runner.core.policy import seccomp
from runner.core.policy.policy_files import Policies
from runner.rooms.launcher import containers, specification
from runner.rooms.launcher.containers import Demultiplexer

pytestmark = pytest.mark.engine
BENCH = f"test-bench-{os.getpid()}"
Run = Callable[..., tuple[EngineResult, bytes]]


@pytest.fixture
def run(engine: docker.DockerClient, policies: Policies) -> Iterator[Run]:
    """Run Python source in a trainer container: (result, output)."""

    def go(
        source: str,
        *,
        seconds: float = 60,
        output: int = 1 << 20,
        cancel_after: float | None = None,
        unconfined: bool = False,
        **changes: Any,
    ) -> tuple[EngineResult, bytes]:
        limits = policies.sandbox.trainer.model_copy(update={"memory_bytes": 512 << 20, "pids": 64, **changes})
        sandbox = policies.sandbox.model_copy(update={"trainer": limits})
        request = LaunchRequest(role="trainer", run="0" * 16, policy="0" * 64)
        spec = specification.build(
            sandbox,
            request,
            command=["python", "-c", source],
            mounts=[],
            gid=limits.uid,
            environment={},
            bench=BENCH,
            seccomp="unconfined" if unconfined else seccomp.profile(policies.seccomp),
        )
        kept = bytearray()
        ours, theirs = socket.socketpair()
        timer = threading.Timer(cancel_after, theirs.close) if cancel_after else None
        if timer:
            timer.start()
        result = containers.run(
            engine,
            spec,
            output_bytes=output,
            sink=kept.extend,
            hang_up=ours,
            begin=lambda *_: seconds,
        )
        theirs.close()
        ours.close()
        return result, bytes(kept)

    yield go
    assert containers.of_bench(engine, BENCH) == []


def test_output_and_exit_code_come_from_the_engine(run: Run) -> None:
    result, output = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert (result.exit_code, result.reason, result.oom) == (7, EndReason.EXIT, False)
    assert sorted(output.split()) == [b"err", b"out"]
    assert result.image.startswith("sha256:")


def test_the_hosts_clock_ends_a_run_that_ignores_signals(run: Run) -> None:
    source = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nos.fork()\nwhile True: time.sleep(1)"
    result, _ = run(source, seconds=2)
    assert result.reason is EndReason.WALL
    assert result.seconds < 20


def test_closing_stdout_does_not_hide_from_the_clock(run: Run) -> None:
    result, _ = run("import os, time\nfor fd in (0, 1, 2): os.close(fd)\ntime.sleep(600)", seconds=2)
    assert result.reason is EndReason.WALL


@pytest.mark.parametrize("how", ["SIGSTOP", "pause"])
def test_a_container_that_was_stopped_in_the_middle_is_ended_by_the_clock(
    run: Run, engine: docker.DockerClient, how: str
) -> None:
    """By itself, or by somebody on the host: neither holds a lane for longer than its time."""

    def stop() -> None:
        while not (found := containers.of_bench(engine, BENCH)) or found[0].status != "running":
            time.sleep(0.05)
        found[0].pause()

    source = "import os, signal, time\nif os.fork():\n    os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(600)"
    stopping = threading.Thread(target=stop)
    if how == "pause":
        source = "import time; time.sleep(600)"
        stopping.start()
    result, _ = run(source, seconds=3)
    assert result.reason is EndReason.WALL
    assert result.seconds < 20
    if how == "pause":
        stopping.join()


def test_a_flood_ends_the_run_and_is_not_kept(run: Run) -> None:
    result, output = run("import os\nwhile True: os.write(1, b'x' * 65536)", output=1 << 20)
    assert result.reason is EndReason.OUTPUT
    assert len(output) <= 1 << 20


def test_memory_is_limited(run: Run) -> None:
    result, _ = run("x = []\nwhile True: x.append(bytearray(50 << 20))")
    assert result.reason is EndReason.OOM
    assert result.oom


def test_an_oom_killed_child_is_not_the_runs_end(run: Run) -> None:
    child = "x = []\\nwhile True: x.append(bytearray(50 << 20))"
    result, _ = run(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', '{child}'])\nprint('alive')")
    assert (result.exit_code, result.reason) == (0, EndReason.EXIT)


@pytest.mark.parametrize(("code", "looks", "oom"), [(137, 4, True), (137, 99, False), (1, 1, False)])
def test_a_kill_for_memory_that_the_engine_learns_of_late_is_waited_for(code: int, looks: int, oom: bool) -> None:
    """A stand-in for the engine's record: which of two events comes first cannot be forced on a real one."""

    class Late:
        seen = 0
        attrs: ClassVar[dict[str, Any]] = {"State": {"ExitCode": code, "OOMKilled": False}}

        def reload(self) -> None:
            self.seen += 1
            self.attrs["State"]["OOMKilled"] = self.seen >= looks and code == 137

    late: Any = Late()
    assert containers._ended(late, EndReason.EXIT)["OOMKilled"] is oom
    assert late.seen == looks or not oom
    assert containers._ended(Late(), EndReason.WALL)["ExitCode"] == code  # type: ignore[arg-type]  # not waited for


def test_hanging_up_cancels(run: Run) -> None:
    begin = time.monotonic()
    result, _ = run("import time; time.sleep(600)", cancel_after=1.5)
    assert result.reason is EndReason.CANCELLED
    assert time.monotonic() - begin < 30


def test_a_daemon_does_not_outlive_its_parent(run: Run) -> None:
    source = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\nprint('bye', flush=True)\nos._exit(0)"
    result, output = run(source, seconds=30)
    assert result.reason is EndReason.EXIT
    assert result.seconds < 20
    assert output == b"bye\n"


def test_a_proxy_of_the_users_docker_client_does_not_come_along(
    engine: docker.DockerClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker-py copies proxies of ~/.docker/config.json, password and all, into every container it makes."""
    proxies = ProxyConfig.from_dict({"httpProxy": "http://user:secret@proxy:3128"})
    monkeypatch.setattr(engine.api, "_proxy_configs", proxies)
    source = "import os; print('secret' in str(dict(os.environ)))"
    assert run(source)[1] == b"False\n"
    image = "glovebox/trainer:dev"
    careless = engine.containers.run(image, ["python", "-c", source], network_mode="none", remove=True)
    assert careless == b"True\n"  # the control: without our word it does


WALLS = {
    "network interfaces": "import os; assert os.listdir('/sys/class/net') == ['lo'], os.listdir('/sys/class/net')",
    "internet": "import socket; socket.create_connection(('192.0.2.1', 80), 2)",
    "name service": "import socket; socket.getaddrinfo('example.com', 80)",
    "root file system": "open('/evil', 'w')",
    "installed packages": "import torch; open(torch.__file__, 'a')",
    "setuid": "import os; os.setuid(0)",
    "raw sockets": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "mount": "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "chroot": "import os; os.chroot('/tmp')",
    "execute from /tmp": (
        "import os, shutil, subprocess; shutil.copy('/bin/true', '/tmp/t'); os.chmod('/tmp/t', 0o755);"
        " subprocess.check_call(['/tmp/t'])"
    ),
    "engine socket": "import os; os.stat('/var/run/docker.sock')",
    "block devices": "import os, stat; os.mknod('/tmp/b', 0o600 | stat.S_IFBLK, os.makedev(254, 0))",
    "sysctl": "open('/proc/sys/kernel/hostname', 'w').write('x')",
    "priority": "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)",
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "file size": "f = open('/tmp/x', 'wb')\nfor _ in range(3000): f.write(b'0' * (1 << 20)); f.flush()",
}


@pytest.mark.parametrize("name", [n for n in WALLS if n != "network interfaces"])
def test_a_wall_holds(run: Run, name: str) -> None:
    result, _ = run(WALLS[name], file_bytes=64 << 20)
    assert result.exit_code != 0


def test_only_loopback_is_there(run: Run) -> None:
    assert run(WALLS["network interfaces"])[0].exit_code == 0


def test_capabilities_are_empty_and_no_new_privileges_is_set(run: Run) -> None:
    _, output = run("print(open('/proc/self/status').read())")
    status = dict(line.split(":", 1) for line in output.decode().splitlines() if ":" in line)
    assert {int(status[k], 16) for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert status["Uid"].split() == ["65532"] * 4


def test_the_compile_cache_is_executable_and_empty(run: Run) -> None:
    source = (
        "import os, shutil, subprocess; assert os.listdir('/cache') == []; shutil.copy('/bin/true', '/cache/t');"
        " os.chmod('/cache/t', 0o755); subprocess.check_call(['/cache/t'])"
    )
    assert run(source)[0].exit_code == 0
    assert run(source)[0].exit_code == 0  # a second run finds nothing of the first


def test_forks_are_limited(run: Run) -> None:
    source = (
        "import os, time\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0: time.sleep(60)\n        n += 1\n"
        "except OSError: pass\nprint(n, flush=True)\nos._exit(0)"
    )
    result, output = run(source)
    assert 0 < int(output) < 64
    assert result.reason is EndReason.EXIT


def test_a_bench_reaps_its_own_containers_and_no_others(engine: docker.DockerClient, policies: Policies) -> None:
    image = policies.sandbox.trainer.image
    labels = {specification.ROLE_LABEL: "trainer", specification.BENCH_LABEL: BENCH}
    left = engine.containers.create(image, ["sleep", "60"], labels=labels, network_mode="none")
    other = engine.containers.create(
        image, ["sleep", "60"], labels={**labels, specification.BENCH_LABEL: "another-bench"}, network_mode="none"
    )
    try:
        reaped = containers.reap(engine, BENCH)
        assert left.short_id in reaped
        assert other.short_id not in reaped
    finally:
        other.remove(force=True)


def test_a_missing_image_names_the_fix(engine: docker.DockerClient, policies: Policies, run: Run) -> None:
    with pytest.raises(EngineError, match="make images"):
        run("pass", image="glovebox/none:dev")


def test_a_missing_mount_source_is_an_error_not_a_new_directory(
    engine: docker.DockerClient, policies: Policies
) -> None:
    request = LaunchRequest(role="trainer", run="0" * 16, policy="0" * 64)
    spec = specification.build(
        policies.sandbox,
        request,
        command=["true"],
        mounts=[specification.bind("/nonexistent/file", "/work/train.py")],
        gid=65532,
        environment={},
        bench=BENCH,
    )
    ours, theirs = socket.socketpair()
    with pytest.raises(EngineError):
        containers.run(engine, spec, output_bytes=10, sink=bytearray().extend, hang_up=ours, begin=lambda *_: 5)
    ours.close()
    theirs.close()


def test_the_demultiplexer_survives_any_split() -> None:
    frames = b"".join(bytes([1, 0, 0, 0]) + len(p).to_bytes(4, "big") + p for p in (b"hello", b"", b"x" * 300))
    for step in (1, 3, 7, 1000):
        parser = Demultiplexer()
        out = b"".join(c for i in range(0, len(frames), step) for c in parser.feed(frames[i : i + step]))
        assert out == b"hello" + b"x" * 300


@pytest.mark.parametrize("source", ["print('done')", "import time; time.sleep(60)"])
def test_what_a_container_was_attached_by_is_closed_before_the_collector_finds_it(
    run: Run, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """On Python 3.13 it closed the connection first and its reader afterwards: a traceback for every container."""
    real, seen = type(engine.api).attach_socket, []

    def attach(*args: Any, **options: Any) -> Any:
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(type(engine.api), "attach_socket", attach)
    run(source, cancel_after=2.0)
    (attached,) = seen
    assert attached._response.raw.closed

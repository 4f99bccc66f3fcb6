"""A container engine of a test's own, with our images: one that may be killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import docker
from requests.exceptions import RequestException

_SECONDS = 60.0


def missing() -> str | None:
    """Why no second engine can be started here, if that is so."""
    if os.geteuid() != 0:
        return "a second engine needs root"
    absent = [tool for tool in ("dockerd", "unshare", "umount") if shutil.which(tool) is None]
    return f"a second engine needs {', '.join(absent)} on this machine" if absent else None


class OwnEngine:
    """dockerd and its containerd with a data folder of their own; the machine's engine goes on undisturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "daemon.json").write_text("{}\n")

    def start(self) -> None:
        """Start it, for the first time or after `kill`."""
        (self.folder / "docker.pid").unlink(missing_ok=True)
        # In a network of its own: an engine without a bridge would remove the machine's docker0.
        command = ["unshare", "--net", "dockerd", "--host", self.host]
        command += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
        for name, path in (
            ("data-root", "data"),
            ("exec-root", "exec"),
            ("pidfile", "docker.pid"),
            ("config-file", "daemon.json"),
        ):
            command += [f"--{name}", str(self.folder / path)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def load(self, *images: str) -> None:
        """Copy images from the machine's engine."""
        save = subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE)
        subprocess.run(["docker", "--host", self.host, "load", "--quiet"], stdin=save.stdout, check=True, timeout=300)
        assert save.wait() == 0

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.host, timeout=60)

    def kill(self) -> None:
        """SIGKILL; its containerd dies with it, the containers do not."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and its containers; nothing of it is left."""
        assert self._process is not None
        if self._process.poll() is not None:
            self.start()
        client = self.client()
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.close()
        self._process.terminate()
        self._process.wait(_SECONDS)
        # One that was killed left its mounts, its data folder onto itself among them; later ones hide earlier ones.
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for path in reversed([path for path in mounts if path.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            client = self.client()
        except (docker.errors.DockerException, RequestException):
            return False
        try:
            return bool(client.ping())
        except (docker.errors.DockerException, RequestException):
            return False
        finally:
            client.close()

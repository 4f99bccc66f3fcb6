"""A stand-in for the Hugging Face hub: what its own client asks for to download a repository, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" * 6 + "c0ff"
Repos = dict[tuple[str, str], dict[str, bytes]]  # (kind, owner/name) -> files of branch v1


@contextmanager
def serving(repos: Repos, refusals: Sequence[tuple[int, dict[str, str]]] = ()) -> Iterator[str]:
    """The address of a hub with these repositories; `refusals`: (status, headers) of its first answers."""
    left = list(refusals)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            if left and not self.path.startswith("/api/agent-harnesses"):  # the client's own question
                status, headers = left.pop(0)
                return self._send(b"{}", status=status, headers=headers)
            path = self.path.split("?")[0]
            for (kind, repo), files in repos.items():
                plural = "" if kind == "model" else f"{kind}s/"
                if path in (f"/api/{kind}s/{repo}/revision/v1", f"/api/{kind}s/{repo}/revision/{COMMIT}"):
                    names = [{"rfilename": name} for name in files]
                    return self._send(json.dumps({"id": repo, "sha": COMMIT, "siblings": names}).encode())
                if path.startswith(f"/api/{kind}s/{repo}/tree/{COMMIT}"):
                    tree = [
                        {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                        for name, data in files.items()
                    ]
                    return self._send(json.dumps(tree).encode())
                prefix = f"/{plural}{repo}/resolve/{COMMIT}/"
                if path.startswith(prefix) and path.removeprefix(prefix) in files:
                    return self._send(files[path.removeprefix(prefix)], "application/octet-stream")
            return self._send(b'{"error": "Repository not found"}', status=404)

        def _send(
            self, data: bytes, kind: str = "application/json", status: int = 200, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:40]}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()

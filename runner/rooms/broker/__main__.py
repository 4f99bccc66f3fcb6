"""The broker as a process of its own. TRUSTED; key and network, and nothing else.

    python -m runner.rooms.broker SETTINGS   settings.py as JSON, from `glovebox`; ends when stdin closes
    python -m runner.rooms.broker            as a service of compose: settings from the environment

Serves llm.sock for the agent (HTTP, relay.py) and meter.sock for the runner (JSON lines): the runner says which
experiment is under way and is told what is left of the budget. Ends on SIGTERM, or when the tag is over.
"""

from __future__ import annotations

import json
import os
import sqlite3
import ssl
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from runner.core.base import benches, compose, doors, locks, secret_file
from runner.core.base.errors import GloveboxError, PolicyError
from runner.core.evidence import spending
from runner.core.evidence.audit_chain import AuditLog
from runner.core.policy import policy_files, users
from runner.core.policy.broker import Broker
from runner.rooms.broker.budget import Meter
from runner.rooms.broker.relay import Relay
from runner.rooms.broker.settings import Settings
from runner.rooms.broker.upstream import Upstream

_CONNECT_SECONDS = 15.0
MAX_CONNECTIONS = 32  # more are hung up on, so that descriptors remain for our own files


def main(argv: list[str]) -> int:
    """Serve until told to stop; returns the exit code."""
    try:
        serve(Settings.model_validate_json(argv[1]) if len(argv) > 1 else _of_compose())
    except GloveboxError as error:
        if len(argv) == 1:
            return compose.failed("broker", error.exit_code, str(error))
        print(json.dumps({"event": "failed", "code": error.exit_code, "error": str(error)}), flush=True)
        return error.exit_code
    return 0


def _of_compose() -> Settings:
    home = benches.of_service()
    return Settings(
        policies=[str(folder) for folder in home.policies],
        state=str(home.broker),
        doors=str(compose.DOORS.root),
        tag=compose.setting("GLOVEBOX_TAG"),
        key_file=compose.setting("GLOVEBOX_API_KEY_FILE", "/run/secrets/anthropic_api_key"),
        held=False,
    )


def serve(settings: Settings) -> None:
    """Serve until told to stop; raises GloveboxError if it cannot begin."""
    policies = policy_files.load(*map(Path, settings.policies))
    secret = secret_file.nobodys() if policies.broker.auth == "none" else secret_file.read(Path(settings.key_file))
    state = Path(settings.state)
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locks.hold(state / "lock", "broker", patience=5.0):
            _listen(settings, policies, secret, state)
    except (OSError, sqlite3.Error) as error:
        text = f"disk or budget failed: {error}"
        raise GloveboxError(text, where=settings.state, fix="check disk and permissions") from None


def _listen(settings: Settings, policies: policy_files.Policies, secret: secret_file.Key, state: Path) -> None:
    agent = users.ids(policies.sandbox, policies.sandbox.agent.uid)
    places = doors.Places(Path(settings.doors))
    meter = Meter(state / "spent.sqlite", settings.tag, policies.broker)
    client = _client(policies.broker)
    log = AuditLog(state / "calls.jsonl")
    upstream = Upstream(policies.broker, meter, log, secret, client, state / "bodies")
    upstream.breaker.told = partial(spending.pause, state)
    spending.pause(state, 0.0)  # of a broker before us
    relay = Relay(upstream)
    with (
        doors.listening(places.llm, gid=agent.host_gid, mode=0o660) as front,
        doors.listening(places.meter, gid=os.getegid(), mode=0o600) as back,
    ):
        args = (back, frozenset({os.geteuid()}), lambda line: _answer(line, meter))
        threading.Thread(target=doors.serve, args=args, daemon=True).start()
        config = uvicorn.Config(
            relay.app,
            http=_protocol(users.agents(policies.sandbox) | {os.geteuid()}),
            lifespan="off",
            log_level="critical",  # what a hostile peer sends must not fill our log
            ws="none",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        over = partial(compose.until_over, threading.Event(), places.meter)
        until = sys.stdin.read if settings.held else over
        threading.Thread(target=_until, args=(until, server), daemon=True).start()
        print(json.dumps({"event": "ready"}), flush=True)
        server.run(sockets=[front])
    meter.close()


def _client(policy: Broker) -> httpx.AsyncClient:
    """What policy says of the way, and nothing that the environment says."""
    try:
        trusted = ssl.create_default_context(cafile=policy.ca_file) if policy.ca_file else True
    except OSError as error:
        fix = "the certificates of your own authority, in PEM, readable by the broker; empty: the public ones"
        raise PolicyError(
            f"cannot be read: {error.strerror or error}", where=f"ca_file {policy.ca_file}", fix=fix
        ) from None
    limits = httpx.Timeout(policy.idle_seconds, connect=_CONNECT_SECONDS)
    return httpx.AsyncClient(
        timeout=limits, follow_redirects=False, trust_env=False, verify=trusted, proxy=policy.proxy or None
    )


def _protocol(uids: frozenset[int]) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, hanging up on a peer of another uid and on one too many."""

    class Checked(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            sock = transport.get_extra_info("socket")
            if doors.peer_uid(sock) in uids and len(self.connections) < MAX_CONNECTIONS:
                super().connection_made(transport)
            else:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            if getattr(self, "conn", None) is not None and self in self.connections:
                super().connection_lost(exc)

    return Checked


def _until(ended: Callable[[], object], server: uvicorn.Server) -> None:
    ended()
    server.should_exit = True


def _answer(line: doors.Line, meter: Meter) -> None:
    """Serve the runner: {"experiment": n} is answered with what is left."""
    while (request := line.receive(1024)) is not None:
        number = request.get("experiment")
        if set(request) != {"experiment"} or type(number) is not int:
            line.send({"ok": False, "reason": "bad_request"})
            continue
        meter.begin(number)
        line.send({"ok": True, "left": meter.left()})


if __name__ == "__main__":
    sys.exit(main(sys.argv))

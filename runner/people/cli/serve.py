"""`glovebox serve`: a live page of this bench, or of all of a lab's server, for a browser. TRUSTED."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from runner.core.base import ownership
from runner.core.base.benches import find
from runner.core.base.errors import GloveboxError, UsageError
from runner.core.base.home import NAME, Home
from runner.people.cli.common import Json, say
from runner.people.cli.documents import bench
from runner.people.pages import console


def serve(
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Of 127.0.0.1; 0: any.")] = None,
    on_socket: Annotated[Path | None, typer.Option("--socket", help="A Unix socket instead, for you alone.")] = None,
    all_: Annotated[
        list[Path] | None, typer.Option("--all", help="Folders with benches, in them or one below: an overview.")
    ] = None,
    json_: Json = False,
) -> None:
    """Serve a live, read-only page: on 127.0.0.1, or where others have an account on a Unix socket. Ctrl-C ends."""
    from runner.people.host import live_server  # a web server, which no other command needs

    if port is not None and on_socket is not None:
        raise UsageError("--port or --socket, not both", where="serve")
    benches = [home for folder in all_ for home in _below(folder)] if all_ else [find()]
    if not benches:
        raise UsageError("no bench there", where=", ".join(map(str, all_ or ())), fix="name folders with a .glovebox")
    token, local = secrets.token_urlsafe(24), on_socket is not None or (port is None and live_server.shared())
    if local:
        path = (on_socket or _usual(benches)).absolute()
        made = live_server.local(path)
        how = f"ssh -L 8899:{path} {socket.gethostname()}, then http://127.0.0.1:8899/?token={token}"
        told: bench.Served | bench.ServedLocally = bench.ServedLocally(socket=str(path), token=token)
    else:
        made = live_server.loopback(8899 if port is None else port)
        number = made.getsockname()[1]
        how = f"http://127.0.0.1:{number}/?token={token}"
        told = bench.Served(url=how, token=token)
    say(told, json_, how)
    console.stderr().print("Ctrl-C ends it", markup=False)
    try:
        live_server.serve(live_server.Pages(benches), token, made)
    finally:
        if local:
            Path(made.getsockname()).unlink(missing_ok=True)


def _usual(benches: list[Home]) -> Path:
    """In the user's own runtime folder; without one of his, in the first bench."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK) and Path(base).stat().st_uid == os.getuid():
        return Path(base) / "glovebox" / "page.sock"
    return benches[0].root / "page.sock"


def _below(folder: Path) -> list[Home]:
    """Benches in a folder or one below it that are ours to read; others are passed over, and said."""
    found = []
    try:
        places = [folder, *sorted(folder.iterdir())]
    except OSError as error:
        raise UsageError(error.strerror or str(error), where=str(folder), fix="name a folder you can list") from None
    for parent in places:
        try:
            home = Home(parent.resolve() / NAME)
            if not home.root.is_dir() or parent.is_symlink():
                continue
            ownership.check(home.root)  # before anything in it is looked at
            found += [home] if home.trust.is_file() else []
        except (GloveboxError, OSError) as error:
            console.stderr().print(f"passed over: {parent}: {getattr(error, 'what', error)}", markup=False)
    return found

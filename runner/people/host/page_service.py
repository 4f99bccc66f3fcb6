"""`python -m runner.people.host.page_service`: the live page under compose, off by default. TRUSTED, reads only.

It answers on its container's own network; compose publishes that on 127.0.0.1 alone, and the browser's token is told
in its log, as `glovebox serve` tells it on a terminal. It outlives the tag: people look in the morning. Not for a host:
there it would answer on every address.
"""

from __future__ import annotations

import re
import secrets
import sys

from runner.core.base import benches, compose
from runner.core.base.errors import GloveboxError, PolicyError
from runner.people.host import live_server

_LAST = 65_535
PORT = 8899  # within the container; GLOVEBOX_PAGE_PORT is the host's


def main() -> int:
    """Serve the bench of the services until the process is told to end."""
    try:
        home, port = benches.of_service(), compose.setting("GLOVEBOX_PAGE_PORT", str(PORT))
        if not re.fullmatch(r"[1-9]\d{0,4}", port) or int(port) > _LAST:
            raise PolicyError(f"is no port: {port[:20]}", where="GLOVEBOX_PAGE_PORT", fix=f"1 to {_LAST}, in .env")
        if not home.trust.is_file():
            raise PolicyError("not a bench", where=str(home.root), fix="run: glovebox init")
        made = live_server.of_container(PORT)
    except GloveboxError as error:
        return compose.failed("page", error.exit_code, str(error))
    token = secrets.token_urlsafe(24)
    print(f"live page: http://127.0.0.1:{port}/?token={token}", flush=True)
    live_server.serve(live_server.Pages([home]), token, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())

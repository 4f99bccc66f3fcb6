"""`python -m tests.standin PORT`: the stand-in as a service, for `make demo-claude` without a key."""

from __future__ import annotations

import sys

import uvicorn

from tests.standin.brain import think
from tests.standin.server import Standin

if __name__ == "__main__":
    uvicorn.run(Standin(think).app(), host="0.0.0.0", port=int(sys.argv[1]), log_level="warning", lifespan="off")

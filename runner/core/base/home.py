"""Where a bench keeps its state on disk. TRUSTED, paths only.

In its folder; whose that may be is said in ownership.py:
    policies/trust.yaml        who may sign; beside it policies of this bench's own
    keys/                      private keys of artifacts; audit.pem that of checkpoints
    artifacts/ store/          VERSION/ as made, and as admitted: read-only, what containers are given
    line.git/ ledger.sqlite audit.jsonl   the record
    tags/TAG/ runs/RUN/ snapshots/SHA256.py   pages, quarantined output, what was run
    work/train.py work-LANE/train.py   what an agent edits; seed.py: what new tags begin with
    program.md asked/TAG/      what a person wants of agents; hints and vetoes no session has taken in
    broker/ secrets/           spending and calls; API key and webhook
    redteam.json kernels.json  newest results; agent.seccomp.json hidden/: for compose
    *.lock reserve             one runner, up, launcher, red team; room for a last record on a full disk
"""

from __future__ import annotations

from pathlib import Path

from runner.core.base.mountable import SOURCE, Mountable, part_of_path

NAME = ".glovebox"


class Home(Mountable):
    """All paths of one bench."""

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def trust(self) -> Path:
        return self.root / "policies" / "trust.yaml"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def line(self) -> Path:
        return self.root / "line.git"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.sqlite"

    @property
    def audit(self) -> Path:
        return self.root / "audit.jsonl"

    @property
    def audit_key(self) -> Path:
        """Private key of the checkpoints; the runner's, unlike those in keys/."""
        return self.root / "audit.pem"

    @property
    def runner_lock(self) -> Path:
        return self.root / "runner.lock"

    @property
    def up_lock(self) -> Path:
        return self.root / "up.lock"

    @property
    def work(self) -> Path:
        """The train.py the agent edits: one file, kept in place, since a container is mounted on it."""
        return self.root / "work" / "train.py"

    @property
    def broker(self) -> Path:
        """The broker's own folder: calls.jsonl and spent.sqlite."""
        return self.root / "broker"

    @property
    def redteam(self) -> Path:
        """The newest result of `glovebox redteam` on this bench."""
        return self.root / "redteam.json"

    @property
    def spent(self) -> Path:
        """The broker's meter."""
        return self.broker / "spent.sqlite"

    @property
    def key(self) -> Path:
        """The API key, unless another file is named."""
        return self.root / "secrets" / "anthropic_api_key"

    @property
    def seed(self) -> Path:
        """An imported train.py that new tags begin with."""
        return self.root / "seed.py"

    def first(self) -> Path:
        """The train.py a new tag begins with: an imported one, else the checkout's seed."""
        return self.seed if self.seed.is_file() else SOURCE / "trainer" / "train.py"

    def source(self, sha256: str) -> Path:
        """The stored train.py of that content."""
        return self.snapshots / f"{part_of_path(sha256)}.py"

    @property
    def program(self) -> Path:
        """What the person wants of agents; theirs to edit, read again for every experiment."""
        return self.root / "program.md"

    def tag(self, tag: str) -> Path:
        """Files of one tag for people: results.tsv and report.html."""
        return self.root / "tags" / part_of_path(tag)

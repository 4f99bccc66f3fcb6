"""`glovebox verify`: does the recorded evidence add up? TRUSTED, offline, reads only.

Checked: the audit chain; ledger rows against the chain's `finished` entries; every snapshot and commit
against its hash; every verdict against the rows and reruns before it; the kept line against the keeps;
results.tsv against the ledger; the artifact's manifest. Each is looked at once: twice the rows take twice as long.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from runner.core.artifacts import keys, manifest, store
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.base.files import hash_file
from runner.core.base.home import Home
from runner.core.evidence import audit_chain
from runner.core.evidence.beside import Beside
from runner.core.evidence.chain_index import ChainIndex
from runner.core.evidence.checkpoints import MOST_UNSIGNED, against_witness
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.outcome import Outcome
from runner.core.evidence.texts import Texts
from runner.core.evidence.verify_line import KeptLines
from runner.core.evidence.verify_tag import Records
from runner.core.policy import of_tag, policy_files
from runner.core.policy.policy_files import Policies

NO_WITNESS = (
    "no witness: an end cut off the audit chain together with the ledger's rows, or an older copy of the whole bench, "
    "would not be noticed (set witness in policies/audit.yaml, then: glovebox verify --witness FILE)"
)
_NO_CHECKPOINT = -1, ""


def verify(
    home: Home, witness: Path | None = None, *, since: str | None = None, shown: Stages | None = None
) -> Outcome:
    """Run every check on a bench.

    `witness`: the file policies/audit.yaml names, or a copy of it. `since`: a checkpoint that an earlier call returned;
    the hash chain must lead to it, and what it covers is not looked at again. Raises VerifyError if it does not.
    """
    return _Verifier(home, shown or Stages()).verify(witness, since)


class _Verifier:
    def __init__(self, home: Home, shown: Stages) -> None:
        self._home, self._shown, self.outcome = home, shown, Outcome()

    def verify(self, witness: Path | None, since: str | None) -> Outcome:
        outcome, home = self.outcome, self._home
        checkpoint = _checkpoint(since)
        ledger, beside = Ledger(home.ledger, read_only=True), Beside(home.runner_lock)
        line = GitLine(home.line, make=False)
        before = _references(line)
        chain = ChainIndex(home.audit, keys.trust(home).audit, checkpoint[0])  # what it says by now, the ledger knows
        with ledger.at_once():
            tags = ledger.tags()
            with line.objects() as objects:
                lines = KeptLines(home, outcome, ledger, line, chain, beside, before)
                records = Records(home, self._shown, outcome, ledger, lines, objects, chain, beside)
                self._chain(records, checkpoint)
                self._calls(beside)
                outcome.check("ledger file", ledger.sound(), "the ledger's indices do not say what its tables say")
                strays = ", ".join(ledger.strays())
                outcome.check("ledger file", not strays, f"the ledger has rows of tags it does not list: {strays}")
                odd = ", ".join(Texts(ledger).odd(tags)[:10])
                outcome.check("ledger file", not odd, f"the ledger holds what no session wrote: {odd}")
                lines.references = _references(line)
                if not self._git(line, lines.references):
                    records.objects = None
                lines.strange(tags, records.objects)
                rules = self._rules()
                every = list(of_tag.known(home.policies)) if rules is not None else []
                for tag in tags:
                    try:
                        records.look(tag, rules, every)
                    except GloveboxError as error:  # rows that are none
                        outcome.check("ledger rows", False, f"{tag}: {error}")
        self._end(records, witness)
        self._unvouched(records)
        self._artifacts(records.used)
        return outcome

    def _git(self, line: GitLine, references: dict[str, str] | None) -> bool:
        """Whether git's objects are sound; those of a line that is not are not read, whatever they unpack to."""
        with self._shown.stage("git objects", 1) as advance:
            sound = references is not None and line.sound(references)
            advance(1)
        self.outcome.check(
            "git objects", sound, "git finds objects that are not what their names say, or a reference to none"
        )
        if not sound:
            self.outcome.unknown.append("no commit was looked at")
        return sound

    def _chain(self, records: Records, since: tuple[int, str]) -> None:
        chain = records.chain
        try:
            with self._shown.stage("audit chain", chain.size) as advance:
                chain.catch_up(advance, growing=records.beside.at_work())
        except GloveboxError as error:
            self.outcome.check("audit entries", False, str(error))
        if since != _NO_CHECKPOINT and chain.hashes.get(since[0]) != since[1]:
            raise VerifyError(
                "the audit chain does not lead to that checkpoint",
                where=str(self._home.audit),
                fix="verify without --since; compare with a backup or witness",
            )
        if chain.old:
            told = f"snapshots, commits and verdicts of {len(chain.old)} experiments up to checkpoint {since[0]}"
            self.outcome.unknown.append(f"{told} were not looked at again")

    def _end(self, records: Records, witness: Path | None) -> None:
        """What is judged when the chain has been followed to its end, which may have moved while we looked."""
        outcome, chain, public = self.outcome, records.chain, keys.trust(self._home).audit
        witnessed = _size(witness) if witness else 0  # it is told after the chain, so by then the chain knew it
        try:
            records.ahead()
        except GloveboxError as error:
            outcome.check("audit entries", False, str(error))
        outcome.checked["audit entries"] = chain.length
        outcome.check(
            "ledger rows", not chain.odd_end, "the audit chain finishes an experiment twice, or one without a name"
        )
        outcome.failures += chain.again
        seals = chain.checkpoints
        outcome.checked["checkpoints"] = seals.good + len(seals.wrong)
        outcome.failures += seals.wrong
        outcome.checkpoint = None if seals.newest is None else f"{seals.newest[0]}:{seals.newest[1]}"
        if seals.unsealed > MOST_UNSIGNED:
            told = (
                f"{seals.unsealed} experiments and reruns after the last checkpoint are not signed: no session did that"
            )
            outcome.check("checkpoints", False, told)
        elif seals.unsealed:
            outcome.unknown.append(
                f"{seals.unsealed} experiments and reruns after the last checkpoint carry no signature yet"
            )
        if seals.starts:
            outcome.unknown.append(f"{seals.starts} starts after the last checkpoint carry no signature yet")
        if seals.found:
            told = f"{seals.found} runs were signed after a crash by a session that had not seen them end"
            outcome.unknown.append(told)
        if seals.found_starts:
            told = f"{seals.found_starts} starts were signed after a crash by a session that had not seen them"
            outcome.unknown.append(told)
        if witness is None:
            outcome.unknown.append(NO_WITNESS)
            return
        seen, lost = against_witness(
            self._home, chain.hashes, public, witness, witnessed, growing=records.beside.at_work()
        )
        outcome.checked["witnessed checkpoints"] = seen
        outcome.failures += lost

    def _calls(self, beside: Beside) -> None:
        """The broker's own chain; it is the broker's word, unsigned."""
        path = self._home.broker / "calls.jsonl"
        if path.exists():
            try:
                self.outcome.checked["model calls"] = sum(
                    1 for _ in audit_chain.Follower(path).new(growing=beside.at_work())
                )
            except GloveboxError as error:
                self.outcome.check("model calls", False, str(error))
            self.outcome.unknown.append("the log of model calls is a hash chain without signatures")

    def _rules(self) -> Policies | None:
        """The policies in force; without them verdicts cannot be replayed."""
        try:
            return policy_files.load(*self._home.policies)
        except GloveboxError as error:
            self.outcome.unknown.append(f"no verdict was replayed: {error}")
            return None

    def _unvouched(self, records: Records) -> None:
        """What the entries themselves leave open."""
        if records.recovered:
            told = f"{records.recovered} experiments were entered from the ledger after a crash: nobody saw them run"
            self.outcome.unknown.append(told)
        if records.reruns_recovered:
            told = f"{records.reruns_recovered} reruns were entered from the ledger after a crash: nobody saw them run"
            self.outcome.unknown.append(told)
        if records.unheard:
            told = f"{records.unheard} experiments were begun and the audit chain does not know: a crash came between"
            self.outcome.unknown.append(told)
        if records.unsaid:
            told = (
                f"{records.unsaid} tags began before the audit chain told with what: start, artifact and terms of them"
            )
            self.outcome.unknown.append(f"{told} are the ledger's word alone")
        if records.bare:
            told = f"{records.bare} experiments ran without a red team whose probes all held (glovebox redteam)"
            self.outcome.unknown.append(told)

    def _artifacts(self, used: dict[str, str]) -> None:
        trust, check = keys.trust(self._home), self.outcome.check
        for folder in sorted(p for p in self._home.store.glob("[a-z0-9]*") if p.is_dir()):
            name = ascii(folder.name)[1:-1]
            if not (folder / manifest.NAME).exists() and folder.name not in used:
                self.outcome.unknown.append(f"store/{name} is no artifact, and none of ours: remove it")
                continue
            try:
                statement = manifest.verified(folder, trust, _last(used, folder.name))[0]
                store.same_files(folder, statement)
                sizes = statement.predicate.sizes
                bad = [s.name for s in statement.subject if (folder / s.name).stat().st_size != sizes[s.name]]
                bad = bad or [s.name for s in statement.subject if hash_file(folder / s.name)[0] != s.digest.sha256]
                check("artifacts", not bad, f"artifact {name}: altered {', '.join(bad)}")
                if statement.predicate.expires <= datetime.now(UTC):
                    self.outcome.unknown.append(f"artifact {name} has expired since it was used")
            except (GloveboxError, OSError) as error:
                check("artifacts", False, f"artifact {name}: {error}")


def _references(line: GitLine) -> dict[str, str] | None:
    """Those of a repository, None of one that has some that are none."""
    with suppress(VerifyError):
        return line.references()
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last(used: dict[str, str], version: str) -> datetime | None:
    """When an artifact was last used: what expired since was good then."""
    try:
        return datetime.fromisoformat(used[version]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return None


def _checkpoint(text: str | None) -> tuple[int, str]:
    """Number and hash of the entry that a checkpoint covers up to; _NO_CHECKPOINT without one."""
    if text is None:
        return _NO_CHECKPOINT
    number, _, head = text.partition(":")
    if not number.isdecimal() or len(number) > 12 or not head:
        raise VerifyError("not a checkpoint", where="--since", fix="give what verify printed as checkpoint: N:HASH")
    return int(number), head

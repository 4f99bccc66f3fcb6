"""A repository in which everything git could be made to run leaves a mark. Used by tests of whoever opens one."""

from __future__ import annotations

import subprocess
from pathlib import Path

# Every setting of git-config(1) that names a command, a file with commands, or a helper.
_KEYS = """
core.fsmonitor core.hooksPath core.sshCommand core.askPass core.editor core.pager core.gitProxy
core.alternateRefsCommand core.attributesFile credential.helper credential.https://x.helper diff.external diff.d.command
diff.d.textconv difftool.t.cmd difftool.t.path filter.f.clean filter.f.smudge filter.f.process merge.d.driver
mergetool.t.cmd mergetool.t.path gpg.program gpg.openpgp.program gpg.ssh.program gpg.x509.program
gpg.ssh.defaultKeyCommand sequence.editor interactive.diffFilter pager.log pager.show pager.diff pager.cat-file
remote.origin.uploadpack remote.origin.receivepack remote.origin.vcs remote.origin.proxy uploadpack.packObjectsHook
gc.recentObjectsHook trailer.t.command trailer.t.cmd alias.cat-file alias.rev-list alias.diff sendemail.smtpServer
sendemail.toCmd sendemail.ccCmd sendemail.headerCmd instaweb.httpd instaweb.browser browser.b.cmd web.browser man.m.cmd
guitool.g.cmd imap.tunnel http.proxy http.sslCert init.templateDir submodule.s.update receive.procReceiveRefs
notes.displayRef tar.t.command archive.t.command include.path includeIf.gitdir:/.path core.worktree
"""
KEYS = tuple(_KEYS.split())
HOOKS = ("reference-transaction", "pre-auto-gc", "post-index-change", "update", "post-update", "pre-receive",
         "post-receive", "pre-push", "post-commit", "post-checkout", "fsmonitor-watchman")  # fmt: skip


def plant(repository: Path, place: Path) -> Path:
    """Make every setting, hook, filter and transport of `repository` a command; returns the file they write to."""
    place.mkdir(exist_ok=True)
    mark, script = place / "ran", place / "evil.sh"
    script.write_text(f'#!/bin/sh\necho "$1" >> {mark}\nexit 1\n')
    script.chmod(0o755)
    hooks = place / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in HOOKS:
        for path in (hooks / name, repository / "hooks" / name):
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{script} hook-{name}\n")
            path.chmod(0o755)
    included = place / "included"
    subprocess.run(["git", "config", "-f", included, "core.sshCommand", f"{script} included"], check=True)
    special = {"core.hooksPath": str(hooks), "include.path": str(included), "includeIf.gitdir:/.path": str(included)}
    special |= {"core.worktree": str(place), "core.attributesFile": str(repository / "info" / "attributes")}
    config = repository / "config"
    for key in KEYS:
        subprocess.run(["git", "config", "-f", config, key, special.get(key, f"{script} {key}")], check=True)
    for key, value in {
        "core.repositoryformatversion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": "ssh://x/y",
        "remote.origin.promisor": "true",
        "commit.gpgSign": "true",
        "protocol.allow": "always",
        "gc.auto": "1",
    }.items():
        subprocess.run(["git", "config", "-f", config, key, value], check=True)
    for key in ("core.worktree", "remote.origin.vcs"):  # git would stop at these, before the others
        subprocess.run(["git", "config", "-f", config, "--unset", key], check=True)
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "attributes").write_text("* filter=f diff=d merge=d\n")
    return mark


def lose_objects(repository: Path) -> None:
    """What is missing a promisor's repository fetches."""
    for path in sorted((repository / "objects").rglob("*")):
        if path.is_file():
            path.unlink()

"""The documentation builds as a site: no link leads nowhere, no page is left out, nobody's server is asked for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from runner.core.base.mountable import SOURCE

pytestmark = pytest.mark.slow
_ASKED = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:)?//[^"]+"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = built(SOURCE, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def built(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """`make docs` of a checkout, into a folder; mkdocs itself is installed once, in this one."""
    command = [
        str(SOURCE / "scripts" / "docs.sh"),
        "--config-file",
        str(source / "mkdocs.yml"),
        "--site-dir",
        str(folder),
    ]
    return subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)


def test_every_page_is_there(site: Path) -> None:
    pages = {path.relative_to(SOURCE / "docs").with_suffix(".html") for path in (SOURCE / "docs").rglob("*.md")}
    assert pages <= {path.relative_to(site) for path in site.rglob("*.html")}


def test_no_page_asks_a_server_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not _ASKED.search(path.read_text()), path.name
    assert _ASKED.search('<script src="https://cdn.example/x.js">')


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("faq.md", "[gone](nowhere.md)"),
        ("faq.md", "[gone](gpu.md#no-such-heading)"),
        ("orphan.md", "# Not in the menu"),
    ],
)
def test_a_link_that_leads_nowhere_and_a_page_in_no_menu_are_errors(tmp_path: Path, file: str, text: str) -> None:
    shutil.copytree(SOURCE / "docs", tmp_path / "docs")
    shutil.copyfile(SOURCE / "mkdocs.yml", tmp_path / "mkdocs.yml")
    with (tmp_path / "docs" / file).open("a") as page:
        page.write(f"\n\n{text}\n")
    assert built(tmp_path, tmp_path / "site").returncode != 0

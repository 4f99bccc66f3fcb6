"""`glovebox serve`: who may look, what a browser may do with it, and that it is live; a real server and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from runner.core.base import locks
from runner.core.base.errors import UsageError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.ledger import Ledger
from runner.people.host import live_guard, live_server, tag_book
from runner.people.pages import live
from tests import chromium
from tests.people.pages.test_report import EVIL
from tests.people.pages.test_report_page import CONTRAST, MOBILE, WORDS, night
from tests.samples import experiment

TOKEN = "a-token-of-the-test"


@contextmanager
def running(*benches: Home, made: socket.socket | None = None) -> Iterator[str]:
    """The server in a thread; yields its address."""
    made = made or live_server.loopback(0)
    tcp = made.family == socket.AF_INET
    port = made.getsockname()[1] if tcp else 0
    pages = live_server.Pages(benches)
    application = live_server.app(pages, TOKEN, live_guard.NAMES if tcp else None)
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        pages.over = server.should_exit = server.force_exit = True
        thread.join(10)


@contextmanager
def client(address: str, token: str = TOKEN) -> Iterator[httpx.Client]:
    """One that came in with a token, or tried to."""
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as made:
        if token:
            made.get(f"/?token={token}")
        yield made


def test_without_the_token_nothing_is_shown_and_with_it_everything(home: Home) -> None:
    night(home, 3)
    with running(home) as address:
        for token in ("", "wrong", TOKEN[:-1]):
            with client(address, token) as asking:
                for path in ("/", "/b/0/t", "/b/0/t/events", "/b/0/t/report", "/live.js", "/nothing"):
                    assert asking.get(path).status_code == 403, (token, path)
                assert asking.get("/?token=wrong").status_code == 403
        with client(address, "") as asking:
            first = asking.get(f"/?token={TOKEN}")
            assert (first.status_code, first.headers["location"]) == (303, "/")  # the address bar has it no more
            assert "httponly" in first.headers["set-cookie"].lower()
            assert "samesite=lax" in first.headers["set-cookie"].lower()
            assert TOKEN not in first.headers["set-cookie"]  # cookies go to every port of a host
            assert not asking.get(f"{address}//evil.example/x?token={TOKEN}").headers["location"].startswith("//")
            assert asking.get("/", follow_redirects=True).url.path == "/b/0/t"


def test_another_name_for_this_host_is_refused(home: Home) -> None:
    """A page of somebody else whose name leads to 127.0.0.1 could read ours (DNS rebinding)."""
    night(home, 1)
    with running(home) as address, client(address) as asking:
        for name in ("evil.example", "evil.example:8899", "127.0.0.1.evil.example", ""):
            assert asking.get("/b/0/t", headers={"Host": name}).status_code == 421, name
        for name in ("localhost:9000", "127.0.0.1:9000", "localhost"):  # ssh -L 9000:127.0.0.1:8899
            assert asking.get("/b/0/t", headers={"Host": name}).status_code == 200, name
        assert asking.get("/b/0/t").status_code == 200


def test_nothing_can_be_changed(home: Home) -> None:
    night(home, 1)
    with running(home) as address, client(address) as asking:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert asking.request(method, "/b/0/t").status_code == 405, method


@pytest.mark.parametrize(
    "path", ["/b/0/other", "/b/1/t", "/b/-1/t", "/b/0/..%2f..%2fkeys", "/b/0/t%00", "/live.html.j2"]
)
def test_what_is_no_tag_is_not_looked_for(home: Home, path: str) -> None:
    night(home, 1)
    with running(home) as address, client(address) as asking:
        assert asking.get(path).status_code == 404


def test_every_answer_says_what_a_browser_may_do(home: Home) -> None:
    night(home, 1)
    with running(home) as address:
        for token, path in (("", "/"), (TOKEN, "/b/0/t"), (TOKEN, "/nothing"), (TOKEN, "/live.js")):
            with client(address, token) as asking:
                headers = asking.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe-inline" not in headers["content-security-policy"].split("script-src")[1]
            assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")


def test_what_an_agent_wrote_is_text(home: Home) -> None:
    book = night(home, 1)
    add(book, 2, EVIL)
    with running(home) as address, client(address) as asking:
        text = asking.get("/b/0/t").text
    assert EVIL not in text
    assert "<script>" not in text
    assert "&lt;" in text


def add(book: Ledger, number: int, description: str) -> None:
    row = experiment(number, val_bpb=0.5, description=description)
    book.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
    book.close_experiment(row)


def test_streams_are_counted_and_a_page_too_many_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    night(home, 1)
    monkeypatch.setattr(live_server, "MOST_STREAMS", 2)

    def status(asking: httpx.Client) -> int:
        with asking.stream("GET", "/b/0/t/events") as answer:
            return answer.status_code

    with running(home) as address, client(address) as asking:
        with asking.stream("GET", "/b/0/t/events") as one, asking.stream("GET", "/b/0/t/events") as two:
            first, second = one.iter_lines(), two.iter_lines()
            assert next(first) == next(second) == "event: now"
            assert status(asking) == 503
        deadline = time.monotonic() + 20
        while status(asking) != 200:  # those that left are counted no more
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_socket_is_its_owners_alone_and_one_that_was_left_is_taken(home: Home, tmp_path: Path) -> None:
    night(home, 1)
    path = tmp_path / "sockets" / "page.sock"
    made = live_server.local(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with running(home, made=made), httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as asking:
        asking.get(f"http://127.0.0.1:8899/?token={TOKEN}")
        assert asking.get("http://127.0.0.1:8899/b/0/t").status_code == 200  # whatever name it is forwarded under
        with pytest.raises(UsageError):
            live_server.local(path)  # somebody answers there
    assert path.exists()
    live_server.local(path).close()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError):
        live_server.local(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_port_that_is_taken_is_said() -> None:
    with live_server.loopback(0) as taken:
        taken.listen()
        with pytest.raises(UsageError, match="127"):
            live_server.loopback(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([], False),
        ([("me", None, "/bin/bash")], False),
        ([("daemon", 33, "/bin/sh")], False),
        ([("nobody", 65534, "/bin/sh")], False),
        ([("service", 1001, "/usr/sbin/nologin")], False),
        ([("alice", 1001, "/bin/bash")], True),
    ],
)
def test_a_host_with_other_peoples_accounts_is_shared(
    users: list[tuple[str, int | None, str]], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    known = [pwd.struct_passwd((n, "x", os.getuid() if u is None else u, 0, "", "/", s)) for n, u, s in users]
    monkeypatch.setattr(pwd, "getpwall", lambda: known)
    assert live_server.shared() is expected


def test_several_benches_have_an_overview(home: Home, tmp_path: Path) -> None:
    night(home, 2)
    new, broken = Home(tmp_path / "new"), Home(tmp_path / "broken")
    new.root.mkdir()
    broken.root.mkdir()
    broken.ledger.write_bytes(b"no database" * 100)
    with running(home, new, broken) as address, client(address) as asking:
        text = asking.get("/").text
        assert str(home.root) in text
        assert text.count("no run yet") == 2
        assert "not a database" in text
        assert asking.get("/b/1/t").status_code == 404
        assert asking.get("/b/2/t").status_code == 500
        assert 'href="/b/0/t"' in text
        assert "all benches" in asking.get("/b/0/t").text


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (MOBILE, True)])
def test_in_a_browser_it_is_live_reads_well_and_asks_nobody_else(
    home: Home, tmp_path: Path, width: int, dark: bool
) -> None:
    book = night(home, 16)
    with running(home) as address, chromium.page(tmp_path) as page:
        seen = page.open(f"{address}/?token={TOKEN}", width=width, dark=dark)
        assert all(url.startswith((address, "data:")) for url in seen.requests), seen.requests
        assert not seen.complaints
        assert page.evaluate(CONTRAST) >= 4.5
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(WORDS) == []
        assert page.evaluate(
            "[...document.querySelectorAll('.plot svg')].some(x => x.getBoundingClientRect().height > 99)"
        )
        add(book, 17, "seen while it was open")
        deadline = time.monotonic() + 30
        while "seen while it was open" not in str(page.evaluate("document.body.innerText")):
            assert time.monotonic() < deadline, "the page is not live"
            time.sleep(0.2)
        # All that can be followed or scrolled is reached by the keyboard.
        reached = "[...document.querySelectorAll('a, [tabindex]')].every(x => x.tabIndex >= 0)"
        assert page.evaluate(reached)
    assert not page.seen.complaints


def test_curves_are_numbers_alone_and_none_without_any() -> None:
    assert live.curves([], [(1, 2.0)]) == ""
    drawn = live.curves([(0, 3.0), (10, 2.0)], [(0, 3.0), (20, 1.0)])
    assert drawn.count("<polyline") == 2
    assert "3.000 to 1.000 over 20 steps" in drawn
    assert live.curves([(0, 1.0)], []).count("<polyline") == 1  # a single value spans nothing


def test_before_the_first_run_there_is_a_page(tmp_path: Path) -> None:
    new = Home(tmp_path / "new")
    new.root.mkdir()
    with running(new) as address, client(address) as asking:
        answer = asking.get("/")
        assert (answer.status_code, "no run yet" in answer.text) == (200, True)


def test_a_record_that_was_replaced_is_not_shown_from_memory(home: Home, tmp_path: Path) -> None:
    """A restored ledger is another file: what was open would have gone on showing the old one for ever."""
    night(home, 9)
    other = Home(tmp_path / "other")
    other.root.mkdir()
    for folder in ("snapshots", "tags"):
        (other.root / folder).mkdir(exist_ok=True)
    book = Ledger(other.ledger)
    book.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    add(book, 1, "of the other record")
    book._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    book._db.close()
    with running(home) as address, client(address) as asking:
        assert "idea 9" in asking.get("/b/0/t").text
        with asking.stream("GET", "/b/0/t/events") as stream:
            told = stream.iter_lines()
            assert next(told) == "event: now"
            for part in ("", "-wal", "-shm"):
                home.ledger.with_name(home.ledger.name + part).unlink(missing_ok=True)
            os.replace(other.ledger, home.ledger)
            assert any("was replaced" in line for line in told)
        text = asking.get("/b/0/t").text
        assert "of the other record" in text
        assert "idea 9" not in text
        home.ledger.unlink()
        assert asking.get("/b/0/t").status_code == 404


def test_a_row_that_cannot_be_read_ends_a_stream_with_a_word(home: Home) -> None:
    book = night(home, 2)
    with running(home) as address, client(address) as asking, asking.stream("GET", "/b/0/t/events") as stream:
        told = stream.iter_lines()
        assert next(told) == "event: now"
        with book.transaction() as db:
            db.execute("UPDATE experiments SET row = '{}', done = 99 WHERE id = 2")
            db.execute("INSERT INTO experiments SELECT tag, 3, started, description, snapshot, snapshot_size, run,"
                       " status, val_bpb, row, 100 FROM experiments WHERE id = 2")  # fmt: skip
        assert any("cannot be read" in line for line in told)


def test_only_the_tag_that_is_worked_on_runs(home: Home) -> None:
    book = night(home, 2)
    row = experiment(1, tag="u")
    book.begin_run("u", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    book.open_experiment("u", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
    book.close_experiment(row)
    with running(home) as address, client(address) as asking, locks.hold(home.runner_lock, "tag u"):
        assert "Running." in asking.get("/b/0/u").text
        assert "Nothing is running." in asking.get("/b/0/t").text
        found, _ = live.lines([home], tag_book.read)
        assert {line.tag: line.running for line in found} == {"u": True, "t": False}


def test_a_tag_whose_artifact_is_gone_is_shown(home: Home) -> None:
    night(home, 2)
    shutil.rmtree(home.store)
    shutil.rmtree(home.artifacts)
    with running(home) as address, client(address) as asking:
        assert asking.get("/b/0/t").status_code == 200


def test_a_socket_where_somebody_else_could_replace_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(UsageError, match=r"."):
        live_server.local(tmp_path / "shared" / "page.sock")
    with pytest.raises(UsageError, match=r".+"):
        live_server.local(tmp_path / ("x" * 120))


def test_a_picture_is_sent_when_it_is_drawn_anew_and_not_at_every_look(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = night(home, 2)
    monkeypatch.setattr(live_server, "INTERVAL", 0.1)
    monkeypatch.setattr(live, "_FRESH", 0.0)
    seen, added = list[str](), False
    with running(home) as address, client(address) as asking, asking.stream("GET", "/b/0/t/events") as stream:
        for line in stream.iter_lines():
            if not line.startswith("event"):
                continue
            seen.append(line)
            if line == "event: rest" and added:
                break
            if line == "event: rest":
                add(book, 3, "one more")
                added = True
    assert seen[:3] == ["event: now", "event: plot", "event: rest"]
    assert seen.count("event: plot") == 2


def test_names_of_tags_are_peoples_and_archived_ones_are_away(home: Home) -> None:
    book = night(home, 2)
    tag_book.call(home, book, "t", "first-night")
    with running(home) as address, client(address) as asking:
        assert "first-night (2)" in asking.get("/b/0/t").text
        tag_book.archive(home, book, "t", away=True)
        assert "no run yet" in asking.get("/").text


def test_a_record_that_shrank_in_place_is_read_again(home: Home) -> None:
    book = night(home, 5)
    with running(home) as address, client(address) as asking:
        assert "idea 5" in asking.get("/b/0/t").text
        with book.transaction() as db:
            db.execute("DELETE FROM experiments WHERE id > 3")
        assert "idea 5" not in asking.get("/b/0/t").text


@pytest.mark.slow
def test_who_comes_as_soon_as_the_address_is_told_waits_and_is_not_turned_away() -> None:
    """On a busy machine the server begins later than its address is read."""
    for made in (live_server.loopback(0), live_server.of_container(0)):
        with made, socket.create_connection(("127.0.0.1", made.getsockname()[1]), timeout=5):
            pass


def test_interrupted_with_a_page_open_it_ends_at_once_and_says_nothing_more(home: Home) -> None:
    night(home, 2)
    code = "import sys; from runner.people.cli.main import main; sys.argv = ['glovebox', 'serve', '--port', '0', '--json']; main()"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "GLOVEBOX_HOME": str(home.root), "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            address = told["url"].split("/?")[0]
            with client(address, told["token"]) as asking, asking.stream("GET", "/b/0/t/events") as stream:
                lines = stream.iter_lines()
                assert next(lines) == "event: now"
                process.send_signal(signal.SIGINT)
                assert any("has ended" in line for line in lines)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()  # a server that nobody told to end would be waited for
    assert "Traceback" not in err
    assert "ERROR" not in err

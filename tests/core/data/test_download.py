"""Shards from a mirror that breaks off, stalls, lies and comes back."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tenacity

from runner.core.artifacts import patience
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError
from runner.core.data import download


class Mirror:
    """A real HTTP server; `faults` says what happens to the next requests of a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()
        self.ranges: list[str] = []
        self.no_head = 0  # status of every HEAD
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(head=True)

            def do_GET(self) -> None:
                self.answer(head=False)

            def answer(self, *, head: bool) -> None:
                name = self.path.rsplit("/", 1)[-1]
                mirror.asked[self.command, name] += 1
                path = mirror.folder / name
                if not path.exists():
                    self.send_error(404)
                    return
                data = path.read_bytes()
                fault = mirror.faults.get(name, [])
                kind = fault.pop(0) if fault and not head else ""
                if head and mirror.no_head:
                    self.send_error(mirror.no_head)
                    return
                if kind.isdigit():
                    self.send_error(int(kind))
                    return
                if kind.startswith("503 "):
                    header, _, value = kind.removeprefix("503 ").partition(": ")
                    self.send_response(503)
                    self.send_header(header, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if kind in ("portal", "gzip"):
                    body = gzip.compress(data) if kind == "gzip" else b"<html>Please sign in</html>"
                    self.send_response(200)
                    if kind == "gzip":
                        self.send_header("Content-Encoding", "gzip")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                if kind == "redirect":
                    self.send_response(302)
                    self.send_header("Location", "http://127.0.0.2:9/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = 0
                wanted = self.headers.get("Range", "")
                if wanted:
                    mirror.ranges.append(wanted)
                    start = int(wanted.removeprefix("bytes=").rstrip("-"))
                tag = '"' + hashlib.sha256(data).hexdigest() + '"'
                if self.headers.get("If-Range", tag) != tag:
                    start = 0
                if kind == "wrong part":
                    start = 10
                body = b"" if head else data[start:]
                if kind == "garbage":
                    body = b"\0" * len(body)
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("ETag", tag)
                self.send_header("X-Linked-ETag", tag)
                self.end_headers()
                if kind == "break":
                    body = body[: len(body) // 2]
                    self.close_connection = True
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/data"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: tenacity.wait_none())
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name in download.names(2):
        table = pa.table({"text": [f"{name} {i} " * 50 for i in range(300)]})
        pq.write_table(table, folder / name, row_group_size=100, compression="none")
    made = Mirror(folder)
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.server.shutdown()


def fetched(mirror: Mirror, folder: Path, count: int = 2) -> None:
    download.fetch(folder, count, mirror.url, Stages())
    for name in download.names(count):
        assert (folder / name).read_bytes() == (mirror.folder / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == sorted(download.names(count))


def test_training_shards_and_the_pinned_validation_shard(mirror: Mirror, tmp_path: Path) -> None:
    assert download.names(2) == ["shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"]
    fetched(mirror, tmp_path / "shards")
    before = dict(mirror.asked)
    fetched(mirror, tmp_path / "shards")
    assert dict(mirror.asked) == before  # what is there is not asked for again


def test_a_broken_connection_is_resumed_where_it_broke(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00000.parquet"] = ["break", "break"]
    fetched(mirror, tmp_path / "shards")
    assert len(mirror.ranges) == 2
    assert all(int(r.removeprefix("bytes=").rstrip("-")) > 1000 for r in mirror.ranges)


def test_a_server_in_trouble_is_asked_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00001.parquet"] = ["500", "503", "429"]
    fetched(mirror, tmp_path / "shards")


def test_what_arrives_wrong_is_thrown_away_and_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00001.parquet"] = ["garbage"]
    fetched(mirror, tmp_path / "shards")


def test_a_kept_beginning_of_another_file_is_not_continued(mirror: Mirror, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "shard_00000.parquet.part").write_bytes(b"x" * 5000)
    (folder / "shard_00000.parquet.part.etag").write_text('"of another file"')
    fetched(mirror, folder)


def test_after_a_kill_the_rest_is_fetched(mirror: Mirror, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    data = (mirror.folder / "shard_00000.parquet").read_bytes()
    tag = '"' + hashlib.sha256(data).hexdigest() + '"'
    (folder / "shard_00000.parquet.part").write_bytes(data[:7000])
    (folder / "shard_00000.parquet.part.etag").write_text(tag)
    (folder / "shard_00001.parquet.part").write_bytes(b"nobody says of what")
    fetched(mirror, folder)
    assert mirror.ranges == ["bytes=7000-"]


def test_another_part_than_was_asked_for_is_thrown_away(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00000.parquet"] = ["break", "wrong part"]
    fetched(mirror, tmp_path / "shards")


def test_a_redirect_leads_only_where_a_mirror_may_be(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00000.parquet"] = ["redirect"]
    with pytest.raises(ArtifactError, match="a redirect to a place"):
        download.fetch(tmp_path / "shards", 2, mirror.url, Stages())


def test_patience_ends_and_what_arrived_is_kept(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00000.parquet"] = ["break"] * 50
    with pytest.raises(ArtifactError, match="what arrived is kept"):
        download.fetch(tmp_path / "shards", 2, mirror.url, Stages())
    assert (tmp_path / "shards" / "shard_00000.parquet.part").stat().st_size > 1000
    mirror.faults.clear()
    fetched(mirror, tmp_path / "shards")


def test_a_missing_shard_is_an_error_at_once(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="status 404"):
        download.fetch(tmp_path / "shards", 3, mirror.url, Stages())
    assert mirror.asked["HEAD", "shard_00002.parquet"] == 1


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_sizes", lambda client, base, missing, stages: dict.fromkeys(missing, 1 << 50))
    with pytest.raises(ArtifactError, match="the download needs"):
        download.fetch(tmp_path / "shards", 2, mirror.url, Stages())
    assert not mirror.asked


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://example.com/data", "file:///etc", "https://a b", "-o evil", "https://me:secret@host/data"],
)
def test_only_https_or_a_mirror_of_ones_own_is_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(ArtifactError, match="not a mirror"):
        download.fetch(tmp_path, 1, url, Stages())


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("http://192.168.1.7:8000/data", True),
        ("http://10.0.0.5/data", True),
        ("http://172.16.0.1/data", True),
        ("http://[fd00::7]:80/data", True),
        ("http://[::1]/data", True),
        ("http://nas/data", True),
        ("http://nas.local/data", True),
        ("http://data.internal/x", True),
        ("http://172.32.0.1/data", False),  # next to the private ones
        ("http://8.8.8.8/data", False),
        ("http://[2001:4860::8888]/data", False),
        ("http://169.254.169.254/latest", False),  # a cloud's metadata
        ("http://0.0.0.0/data", False),
        ("http://nas.local.example.com/data", False),
        ("http://127.0.0.1.example.com/data", False),
    ],
)
def test_plain_http_stays_on_ones_own_network(url: str, may: bool) -> None:
    assert download._may_be_a_mirror(url) is may


@pytest.mark.parametrize("told", ["503 Retry-After: 1", '503 RateLimit: "api";r=0;t=1', "503 ratelimit: r=0, t=1"])
def test_a_server_that_asks_to_wait_is_given_that_long(mirror: Mirror, tmp_path: Path, told: str) -> None:
    """Ten times, which is more than one that does not say when is asked."""
    mirror.faults["shard_00000.parquet"] = [told] * 10
    began = time.monotonic()
    fetched(mirror, tmp_path / "shards")
    assert time.monotonic() - began > 10


def test_one_that_asks_for_hours_is_told_at_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00000.parquet"] = ["503 Retry-After: 7200"]
    with pytest.raises(ArtifactError, match="asks to wait 7200 s"):
        download.fetch(tmp_path / "shards", 2, mirror.url, Stages())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "87"}, 87.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 40}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=3;t=55'}, None),
        ({"ratelimit": "r=0"}, None),
        ({}, None),
    ],
)
def test_what_a_refusal_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert patience.asked(httpx.Headers(headers)) == seconds


@pytest.mark.parametrize("status", [405, 501])
def test_a_mirror_that_answers_only_get(mirror: Mirror, tmp_path: Path, status: int) -> None:
    mirror.no_head = status
    fetched(mirror, tmp_path / "shards")


def test_a_mirror_that_compresses_all_the_same(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00000.parquet"] = ["gzip"]
    fetched(mirror, tmp_path / "shards")


def test_a_login_page_is_called_one(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults["shard_00000.parquet"] = ["portal"] * 50
    with pytest.raises(ArtifactError, match="a web page"):
        download.fetch(tmp_path / "shards", 2, mirror.url, Stages())


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_mirror_that_wants_a_login_says_so_at_once(mirror: Mirror, tmp_path: Path, status: str) -> None:
    mirror.faults["shard_00000.parquet"] = [status]
    with pytest.raises(ArtifactError, match="wants a login"):
        download.fetch(tmp_path / "shards", 2, mirror.url, Stages())


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://x"])
def test_a_proxy_that_cannot_be_used_is_one_line(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ArtifactError, match="HTTPS_PROXY"):
        download.fetch(tmp_path / "shards", 2, mirror.url, Stages())


def test_what_it_took_is_said(mirror: Mirror, tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(Stages):
        def say(self, text: str) -> None:
            said.append(text)

    download.fetch(tmp_path / "shards", 2, mirror.url, Heard())
    assert any(line.startswith("downloaded 3 shards, ") for line in said)

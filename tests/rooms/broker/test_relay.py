"""The broker process between the real SDK and a stand-in that fails in every way it can."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runner.core.evidence.spending import NANO, spent
from runner.rooms.broker.upstream import DOUBTFUL, NOTICED
from runner.rooms.desk.meter_client import MeterClient
from tests.rooms.broker.conftest import KEY, Brokered, Start, spawn, stop
from tests.standin.server import Block, Standin

HI = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}


def quietly(broker: Brokered) -> None:
    """A streamed call whose connection will break."""
    with contextlib.suppress(httpx2.HTTPError):
        broker.post({**HI, "stream": True})


def test_a_stream_arrives_as_it_was_sent_and_is_billed(start: Start) -> None:
    broker = start(Standin(lambda _: [{"type": "text", "text": "a" * 400}]))
    with broker.sdk().messages.stream(**HI) as stream:  # type: ignore[arg-type]
        message = stream.get_final_message()
    assert message.content[0].text == "a" * 400  # type: ignore[union-attr]
    (line,) = broker.log()
    assert (line["kind"], line["data"]["outcome"], line["data"]["tag"]) == ("call", "ok", "t")
    assert line["data"]["nano_dollars"] == broker.standin.billed_nano > 0
    assert "hi" not in json.dumps(line)  # sizes and hashes, not bodies
    assert not (broker.state / "bodies").exists()


def test_an_answer_that_is_not_streamed_and_a_token_count(start: Start) -> None:
    broker = start()
    assert broker.ask().content[0].text == "ok"  # type: ignore[union-attr]
    counted = broker.sdk().messages.count_tokens(model="claude-haiku-4-5", messages=HI["messages"])  # type: ignore[arg-type]
    assert counted.input_tokens > 0
    found = spent(broker.state / "spent.sqlite", "t")
    assert found is not None
    assert (found["dollars"], found["requests"]) == (broker.standin.billed_nano / NANO, 2)


def test_the_key_is_added_here_and_nothing_else_the_agent_sent_passes(start: Start) -> None:
    broker = start()
    sent = {"x-api-key": "mine", "authorization": "Bearer mine", "anthropic-beta": "web-fetch", "cookie": "a=b"}
    assert broker.post({**HI, "metadata": {"user_id": "me"}}, **sent).status_code == 200
    (headers,) = broker.standin.headers
    assert headers["x-api-key"] == KEY
    assert not {"authorization", "anthropic-beta", "cookie"} & set(headers)
    assert b"mine" not in broker.standin.bodies[0]
    assert b"user_id" not in broker.standin.bodies[0]


def test_the_key_is_in_no_argument_no_environment_and_no_answer(start: Start) -> None:
    broker = start(Standin(lambda _: [{"type": "text", "text": f"your key is {KEY}"}], deque(["echo_key"])))
    process = f"/proc/{broker.process.pid}"
    for name in ("cmdline", "environ"):
        with open(f"{process}/{name}", "rb") as file:
            assert KEY.encode() not in file.read()
    error = broker.post(HI)
    assert error.status_code == 400
    assert "[key]" in error.text
    answer = broker.post(HI)
    streamed = broker.post({**HI, "stream": True})
    for told in (error, answer, streamed):
        assert KEY not in told.text
    assert "your key is [key]" in answer.text
    assert KEY not in (broker.state / "calls.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mcp_servers": []}, "field_not_allowed"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "value_not_allowed"),
        ({"model": "claude-opus-4-1"}, "model_not_allowed"),
    ],
)
def test_what_policy_does_not_allow_never_leaves(start: Start, change: dict[str, object], reason: str) -> None:
    broker = start()
    answer = broker.post(HI | change)
    assert answer.status_code in (400, 404)
    assert reason in answer.json()["error"]["message"]
    assert broker.standin.bodies == []
    assert broker.log()[-1]["data"]["reason"] == reason
    assert broker.post(HI).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/files", "/v1/messages/batches", "/v1/messages/", "/", "/v1/../v1/messages/x"]
)
def test_other_paths_do_not_exist(start: Start, path: str) -> None:
    broker = start()
    assert broker.post(HI, path).status_code in (404, 307)
    assert broker.standin.bodies == []


def test_a_body_that_is_too_large_is_refused_unread(start: Start) -> None:
    broker = start(request_bytes="2048")
    assert broker.post(b"{" + b" " * 4096).status_code == 413
    assert broker.post(HI).status_code == 200


OUTCOMES = {
    "429": "status_429",
    "500": "status_500",
    "529": "status_529",
    "401": "status_401",
    "drop": "broken_.*|ok",  # an answer in one piece has no middle to break in
    "refuse": "broken_.*|status_500",
    "malformed": "malformed|ok",
    "silent": "malformed|ok",
    "drip": "ok",
    "": "ok",
}


def test_the_host_header_has_no_say_in_where_a_call_goes(start: Start) -> None:
    broker = start()
    for host in ("x/v1/messages/batches#", "[::1", "evil.example", "a b"):
        with contextlib.suppress(httpx2.HTTPError):
            broker.post(HI, host=host)
    assert {entry["data"]["path"] for entry in broker.log() if entry["kind"] == "call"} <= {"/v1/messages"}
    assert broker.post(HI).status_code == 200


def test_a_flood_of_refused_bodies_is_a_few_lines(start: Start) -> None:
    broker = start(concurrent="16")
    # A place is given back after its answer has left: half as many clients never find all of them taken.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: broker.post(b"{}"), range(40)))
    refused = [entry for entry in broker.log() if entry["kind"] == "refused"]
    assert [entry["data"]["times"] for entry in refused] == [1, 2, 4, 8, 16, 32]


def test_a_body_of_very_many_parts_is_refused_at_the_first(start: Start) -> None:
    broker = start()
    bomb = b'{"model":"claude-haiku-4-5","max_tokens":1,"messages":[' + b"{}," * 600_000 + b"{}]}"
    begun = time.monotonic()
    assert broker.post(bomb).status_code == 400
    with open(f"/proc/{broker.process.pid}/status") as file:
        peak = int(re.search(r"VmHWM:\s+(\d+)", file.read())[1])  # type: ignore[index]
    assert peak < 700 << 10, f"{peak >> 10} MiB in {time.monotonic() - begun:.1f} s"


def test_many_idle_connections_do_not_stop_the_log(start: Start) -> None:
    broker = start()
    idle = []
    for _ in range(300):
        sock = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            sock.connect(str(broker.places.llm))
        idle.append(sock)
    for sock in idle:
        sock.close()
    for _ in range(100):
        with contextlib.suppress(httpx2.HTTPError):  # hung up on, while they are being closed
            assert broker.post(HI).status_code == 200
            break
        time.sleep(0.1)
    assert [entry["kind"] for entry in broker.log()] == ["call"]


def test_a_call_that_takes_too_long_is_ended_and_counted_against_the_api(start: Start) -> None:
    broker = start(Standin(lambda _: [{"type": "text", "text": "x" * 3000}], deque(["drip"])), call_seconds="1.0")
    told = broker.post({**HI, "stream": True})
    assert b"event: error" in told.content
    assert broker.log()[-1]["data"]["outcome"] == "too_long"


def test_two_brokers_on_one_folder_are_refused(start: Start) -> None:
    broker = start()
    done = subprocess.run(
        [sys.executable, "-m", "runner.rooms.broker", broker.settings.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6
    assert "already running: broker" in done.stdout


@pytest.mark.parametrize("fault", OUTCOMES)
@pytest.mark.parametrize("stream", [False, True])
def test_every_fault_is_an_answer_the_sdk_understands_and_is_settled(start: Start, fault: str, stream: bool) -> None:
    broker = start(Standin(faults=deque([fault])))
    try:
        if stream:
            with broker.sdk().messages.stream(**HI) as events:  # type: ignore[arg-type]
                events.get_final_message()
        else:
            broker.ask()
    except anthropic.APIStatusError as error:
        assert error.status_code in (200, 401, 429, 500, 502, 529)
    (line,) = [entry for entry in broker.log() if entry["kind"] == "call"]
    assert re.fullmatch(OUTCOMES[fault], line["data"]["outcome"]), line
    found = spent(broker.state / "spent.sqlite", "t")
    assert found is not None
    assert line["data"]["nano_dollars"] == round(found["dollars"] * NANO) >= broker.standin.billed_nano
    if fault == "429":
        time.sleep(1.1)  # it named a second
    assert broker.ask().stop_reason == "end_turn"  # and the broker goes on


def test_a_storm_of_retries_never_costs_more_than_the_budget(start: Start) -> None:
    def brain(asked: dict[str, object]) -> list[Block]:
        return [{"type": "text", "text": "x" * 400}]

    storm = deque(["drop", "500", "silent", "", "malformed", "529", "drop", "refuse"] * 200)
    standin = Standin(brain, storm)
    broker = start(standin, night__dollars="0.05", experiment__requests="100000", failures="100", concurrent="4")
    done = threading.Event()

    def hammer() -> None:
        while not done.is_set():
            try:
                with broker.sdk(max_retries=3).messages.stream(**{**HI, "max_tokens": 300}) as stream:  # type: ignore[arg-type]
                    stream.get_final_message()
            except anthropic.PermissionDeniedError as error:
                assert "budget_night_dollars" in str(error)
                done.set()
            except (anthropic.APIError, Exception):
                continue

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert done.wait(240)
    for thread in threads:
        thread.join(30)
    found = spent(broker.state / "spent.sqlite", "t")
    assert found is not None
    assert standin.billed_nano <= found["dollars"] * NANO + 1 <= 0.05 * NANO + 1
    assert standin.billed_nano > 0.002 * NANO  # and the budget was there to be used


def test_a_broker_killed_in_a_call_has_spent_the_worst_case(start: Start) -> None:
    broker = start(Standin(faults=deque(["endless"])))
    thread = threading.Thread(target=quietly, args=(broker,), daemon=True)
    thread.start()
    while not broker.standin.bodies:
        time.sleep(0.05)
    broker.process.kill()
    broker.process.wait()
    again = spawn(broker.settings)
    try:
        found = spent(broker.state / "spent.sqlite", "t")
        assert found is not None
        assert found["dollars"] * NANO > broker.standin.billed_nano
        assert broker.ask().stop_reason == "end_turn"
    finally:
        stop(again)


def test_an_agent_that_leaves_after_all_was_said_pays_just_that(start: Start) -> None:
    broker = start(Standin(faults=deque(["endless"])))
    with broker.sdk().messages.stream(**HI) as stream:  # type: ignore[arg-type]
        next(iter(stream))
    (line,) = logged(broker, 1)
    assert line["outcome"] == "agent_left"
    assert line["nano_dollars"] == broker.standin.billed_nano


def logged(broker: Brokered, count: int) -> list[dict[str, Any]]:
    """So many calls, once they are all settled."""
    deadline = time.monotonic() + 30
    while len(broker.log()) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return [entry["data"] for entry in broker.log() if entry["kind"] == "call"]


def test_streams_that_break_cost_what_they_can_have_cost_and_no_more(start: Start) -> None:
    """At the worst case, seven ended a night with 44 of 50 dollars left: each was priced as 32,000 tokens of output."""
    count, most = 40, 32_000
    broker = start(Standin(faults=deque(["drop"] * count)), failures="100", night__dollars="50.0")
    asked = {**HI, "max_tokens": most}
    for _ in range(count):
        with contextlib.suppress(anthropic.APIError, httpx2.HTTPError), broker.sdk().messages.stream(**asked) as stream:  # type: ignore[arg-type]
            stream.get_final_message()
    calls = logged(broker, count)
    assert all(call["outcome"].startswith("broken_") for call in calls)
    for call in calls:
        least = broker.standin.billed_nano / count  # which the stand-in billed for each, all alike
        bound = (call["seconds"] + NOTICED + 0.1) * 400 * 5000 + 200 * 1000
        assert least <= call["nano_dollars"] <= bound < most * 5000
    found = spent(broker.state / "spent.sqlite", "t")
    assert found is not None
    assert round(found["dollars"] * NANO) == sum(call["nano_dollars"] for call in calls)
    assert found["dollars"] < 0.01 * 50


def test_an_answer_in_one_piece_that_breaks_costs_its_worst_case(start: Start) -> None:
    """It is written to its end, whoever listens."""
    broker = start(Standin(lambda _: [{"type": "text", "text": "x" * 4000}]), response_bytes="1024")
    assert broker.post(HI).status_code == 502
    (call,) = logged(broker, 1)
    assert call["usage"] is None
    assert call["nano_dollars"] > 64 * 5000


def test_a_failing_api_is_left_alone_for_a_while(start: Start) -> None:
    broker = start(Standin(faults=deque(["500"] * 3)), failures="3", open_seconds="5.0")
    for _ in range(3):
        assert broker.post(HI).status_code == 500
    refused = broker.post(HI)
    assert refused.status_code == 529
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    assert len(broker.standin.bodies) == 3
    time.sleep(5.1)
    assert broker.post(HI).status_code == 200


def test_a_rate_limit_is_passed_on_with_its_time(start: Start) -> None:
    broker = start(Standin(faults=deque(["429"]), retry_after="3"))
    limited = broker.post(HI)
    assert (limited.status_code, limited.headers["retry-after"] in ("2", "3")) == (429, True)
    assert broker.post(HI).status_code == 529  # waiting
    assert len(broker.standin.bodies) == 1


def test_an_api_that_is_not_there_costs_nothing(start: Start) -> None:
    broker = start()
    path = f"{broker.settings.policies[0]}/broker.yaml"
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace("upstream: http://127.0.0.1:", "upstream: http://127.0.0.1:1 # "))
    stop(broker.process)
    again = spawn(broker.settings)
    try:
        answer = broker.post(HI)
        assert answer.status_code == 502
        assert "cannot_connect" in answer.text
        found = spent(broker.state / "spent.sqlite", "t")
        assert found is not None
        assert found["dollars"] == 0
    finally:
        stop(again)


def test_more_calls_at_once_than_policy_says_are_refused(start: Start) -> None:
    broker = start(Standin(faults=deque(["endless", "endless"])), concurrent="1")
    threading.Thread(target=quietly, args=(broker,), daemon=True).start()
    while not broker.standin.bodies:
        time.sleep(0.05)
    assert broker.post(HI).status_code == 429
    assert len(broker.standin.bodies) == 1


def test_a_stranger_is_hung_up_on(start: Start) -> None:
    broker = start()
    source = (
        "import os, socket, sys\nos.setgid(int(sys.argv[2])); os.setuid(4321)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: b\\r\\n\\r\\n'); print(s.recv(99))"
    )
    broker.places.root.chmod(0o755)
    os.chmod(broker.places.llm.parent, 0o755)
    os.chmod(broker.places.llm, 0o666)
    if os.geteuid() != 0:
        pytest.fail("this test changes its uid and needs root")
    told = subprocess.run(
        [sys.executable, "-c", source, str(broker.places.llm), "4321"], capture_output=True, text=True, check=False
    )
    assert "200" not in told.stdout, told
    assert told.stdout.strip() in ("b''", "")
    assert broker.post(HI).status_code == 200


def test_bodies_are_kept_only_when_policy_says_so(start: Start) -> None:
    broker = start(log_bodies="true")
    broker.ask("keep this")
    (line,) = broker.log()
    kept = {path.name: path.read_bytes() for path in (broker.state / "bodies").iterdir()}
    assert b"keep this" in kept[line["data"]["request_sha256"]]
    assert b"ok" in kept[line["data"]["response_sha256"]]


def test_the_runner_says_which_experiment_and_learns_what_is_left(start: Start) -> None:
    broker = start(experiment__requests="1", night__dollars="7.0")
    meter = MeterClient(broker.places.meter)
    left = meter.tell(1)
    assert left is not None
    assert (left.night.dollars, left.experiment.requests) == (7.0, 1)
    broker.ask()
    with pytest.raises(anthropic.PermissionDeniedError, match="budget_experiment_requests"):
        broker.ask()
    assert meter.tell(2) is not None
    broker.ask()
    stop(broker.process)
    assert meter.tell(3) is None


def test_a_broker_whose_budget_is_damaged_says_so_and_serves_nobody(start: Start) -> None:
    """It enforces a limit: what was spent must be known."""
    broker = start()
    stop(broker.process)
    (broker.state / "spent.sqlite").write_bytes(b"no database\n" * 1000)
    process = subprocess.run(
        [sys.executable, "-m", "runner.rooms.broker", broker.settings.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 1
    assert "disk or budget failed" in json.loads(process.stdout)["error"]
    assert process.stderr == ""


def test_a_broker_without_a_key_says_how_to_give_it_one(start: Start, tmp_path: object) -> None:
    broker = start()
    stop(broker.process)
    os.remove(broker.settings.key_file)
    process = subprocess.run(
        [sys.executable, "-m", "runner.rooms.broker", broker.settings.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 3
    assert "write your API key" in json.loads(process.stdout)["error"]


@pytest.mark.parametrize(
    ("faults", "lines", "words"),
    [
        (["401", "", "401", "401"], 1, "does not accept the key (401) (fix: write one that is valid"),
        (["403"], 1, "does not let this key do that (403)"),
        (["404"], 1, "knows no model claude-haiku-4-5 (404)"),
        (["500", "429"], 0, ""),  # these pass
    ],
)
def test_a_key_that_the_api_refuses_is_one_clear_line_for_people(
    start: Start, capfd: pytest.CaptureFixture[str], faults: list[str], lines: int, words: str
) -> None:
    """The night ended with "the agent failed (api_refused)", whose log says what the API said."""
    broker = start(Standin(faults=deque(faults)))
    for _ in faults:
        with contextlib.suppress(anthropic.APIError):
            broker.ask()
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("glovebox broker:")]
    assert len(told) == lines
    assert all(words in line for line in told)
    assert KEY not in "".join(told)


def test_clients_that_ask_for_more_or_for_a_dated_name_get_what_is_listed(start: Start) -> None:
    """Claude Code, mini-swe-agent, aider: 64,000 tokens of output, and models by the day of their release."""
    broker = start()
    asked = HI | {"max_tokens": 100_000, "model": "claude-haiku-4-5-20251001"}
    assert broker.post(asked).status_code == 200
    body = json.loads(broker.standin.bodies[0])
    assert (body["max_tokens"], body["model"]) == (32_000, "claude-haiku-4-5")
    for name in ("claude-haiku-4-5-2025", "claude-haiku-4-5-20251001-20251001", "claude-haiku-4-5-latest"):
        refused = broker.post(HI | {"model": name})
        assert refused.status_code == 404
        assert "model_not_allowed (allowed: claude-" in refused.json()["error"]["message"]


def test_beta_headers_leave_by_an_allow_list_and_the_rest_is_counted(start: Start) -> None:
    broker = start()
    known, sent = "interleaved-thinking-2025-05-14", "anthropic-beta"
    headers = {sent: f"mcp-client-2025-11-20,{known},claude-code-20250219", "x-api-key": "mine", "cookie": "c"}
    assert broker.post(HI | {"service_tier": "auto"}, **headers).status_code == 200
    arrived = broker.standin.headers[0]
    assert arrived[sent] == known
    assert (arrived["x-api-key"], "cookie" in arrived) == (KEY, False)
    assert broker.log()[-1]["data"]["left_out"] == {"service_tier": 1, "betas": 2}
    assert broker.post(HI).status_code == 200
    assert sent not in broker.standin.headers[1]
    assert broker.log()[-1]["data"]["left_out"] == {}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/responses"])
def test_another_apis_path_is_answered_by_one_clear_line(start: Start, path: str) -> None:
    broker = start()
    answer = broker.post({"model": "gpt", "messages": []}, path)
    assert answer.status_code == 404
    assert "this is the Messages API" in answer.json()["error"]["message"]
    assert broker.standin.bodies == []


@pytest.mark.parametrize(("auth", "there", "gone"), [("bearer", "authorization", "x-api-key"), ("x-api-key", "x-api-key", "authorization")])  # fmt: skip
def test_the_key_is_in_one_header(start: Start, auth: str, there: str, gone: str) -> None:
    broker = start(auth=auth)
    assert broker.post(HI, **{"authorization": "Bearer mine", "x-api-key": "mine"}).status_code == 200
    (headers,) = broker.standin.headers
    assert headers[there].removeprefix("Bearer ") == KEY
    assert gone not in headers


def test_without_authentication_no_key_is_read_or_sent(start: Start) -> None:
    broker = start(auth="none")
    Path(broker.settings.key_file).unlink()
    again = spawn(broker.settings.model_copy(update={"tag": "u", "state": broker.settings.state + "-u"}))
    try:
        assert broker.post(HI, **{"authorization": "Bearer mine", "x-api-key": "mine"}).status_code == 200
    finally:
        stop(again)
    (headers,) = broker.standin.headers
    assert not {"authorization", "x-api-key"} & set(headers)


def test_an_api_may_lie_below_a_path(start: Start) -> None:
    broker = start(served={"below": "/gateway/anthropic"})
    assert broker.ask().stop_reason == "end_turn"
    assert len(broker.standin.bodies) == 1


def certificate(folder: Path) -> tuple[Path, Path]:
    """Of an authority of one's own, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a lab's own")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *kind))
    return files


def test_an_authority_of_ones_own_is_trusted_if_it_is_named(start: Start, tmp_path: Path) -> None:
    files = certificate(tmp_path)
    named = start(served={"tls": files}, ca_file=str(files[0]))
    assert named.ask().stop_reason == "end_turn"
    unnamed = start(served={"tls": files})
    assert unnamed.post(HI).status_code == 502
    assert unnamed.standin.bodies == []
    with pytest.raises(AssertionError):
        start(ca_file="/nowhere/ca.pem")


def test_calls_go_by_the_proxy_of_the_policy_and_by_no_other(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    assert start().ask().stop_reason == "end_turn"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[bytes] = []

        def answer() -> None:
            peer, _ = listener.accept()
            heard.append(peer.recv(4096))
            peer.sendall(b"HTTP/1.1 403 not from here\r\n\r\n")
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        broker = start(upstream="https://model.lab.invalid:8443", proxy=f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert broker.post(HI).status_code == 502
    assert heard[0].startswith(b"CONNECT model.lab.invalid:8443 ")
    assert KEY.encode() not in heard[0]
    assert broker.standin.bodies == []


def left_early(broker: Brokered, **asked: Any) -> dict[str, Any]:
    """A stream whose reader leaves at the first text; its line in the log."""
    with (
        contextlib.suppress(anthropic.APIError, httpx2.HTTPError),
        broker.sdk().messages.stream(**{**HI, **asked}) as it,
    ):
        for event in it:
            if event.type == "content_block_delta":
                break
    return logged(broker, len(broker.standin.bodies))[-1]


def test_a_gateway_that_tells_its_input_at_the_end_does_not_make_it_free(start: Start) -> None:
    """It says 0 at the beginning: hanging up after the first words cost a cent instead of half a dollar."""
    standin = Standin(lambda _: [{"type": "text", "text": "word " * 50}], deque(["late"]))
    call = left_early(start(standin), messages=[{"role": "user", "content": "x" * 400_000}])
    assert call["outcome"] in ("agent_left", "broken_RemoteProtocolError", "broken_ReadError")
    assert call["nano_dollars"] >= 400_000 * 1250  # each byte a token, as it was held


def test_what_was_shown_is_at_least_what_it_costs(start: Start) -> None:
    """A model that writes faster than any we know of: by the clock alone most of it was free."""
    words = "a" * 30_000
    call = left_early(start(Standin(lambda _: [{"type": "text", "text": words}], deque(["late"]))), max_tokens=32_000)
    assert call["usage"] is None
    assert call["nano_dollars"] >= 30_000 * 5000


@pytest.mark.parametrize("status", [*DOUBTFUL, 204, 302])
def test_somebody_between_who_gave_up_does_not_make_it_free(start: Start, status: int) -> None:
    broker = start(Standin(faults=deque([str(status)])))
    broker.post(HI)
    (call,) = logged(broker, 1)
    assert call["nano_dollars"] > 64 * 5000  # written to its end, whoever listens


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503, 529])
def test_what_the_api_refuses_is_free(start: Start, status: int) -> None:
    broker = start(Standin(faults=deque([str(status)])))
    broker.post(HI)
    assert logged(broker, 1)[0]["nano_dollars"] == 0


def test_a_reader_that_stops_reading_gives_its_place_back(start: Start) -> None:
    """Two of them held both places for ever, and every other lane got 429."""
    broker = start(Standin(lambda _: [{"type": "text", "text": "x" * 3_000_000}]), call_seconds="1.0", concurrent="2")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            line = stack.enter_context(socket.socket(socket.AF_UNIX))
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(str(broker.places.llm))
            body = json.dumps({**HI, "stream": True}).encode()
            line.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: b\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        while len(broker.standin.bodies) < 2:
            time.sleep(0.05)
        assert broker.post(HI).status_code == 429
        logged(broker, 2)
        assert broker.post(HI).status_code == 200

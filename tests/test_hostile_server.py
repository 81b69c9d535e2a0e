"""The engine of a server, against servers that drip, flood, lie, redirect, or want to know more than they should."""

import gzip
import json
import pickle
import socket
import threading
import time
import tracemalloc
import warnings
from contextlib import contextmanager, suppress
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from rlvr_trl import RLVRConfig
from rlvr_trl.cli import main
from rlvr_trl.evaluation import SamplingSettings, ServerEngine, evaluate_engine, rescore
from rlvr_trl.evaluation.engines import server as server_module
from rlvr_trl.evaluation.engines.server_address import Address, retry_after, without_credentials
from rlvr_trl.evaluation.loading import check_engine_settings, read_api_key
from rlvr_trl.rewards import boxed_format_reward, choice_reward, math_reward
from rlvr_trl.trainer.vllm_watchdog import _problem


KEY = "sk-0123456789abcdef"
SETTINGS = SamplingSettings(max_new_tokens=20)
GOOD = {"choices": [{"text": "\\boxed{2}", "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}


@contextmanager
def raw_server(serve):
    """
    Calls `serve(send, number)` for every request, in a thread; `send` takes bytes. Then the connection is closed.
    Yields the address, and the heads of the requests that came.
    """
    heads, connections, lock = [], [], threading.Lock()
    door = socket.create_server(("127.0.0.1", 0), backlog=128)

    def talk(connection):
        with connection, suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                if not (piece := connection.recv(65536)):
                    return
                data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            length = int((head.lower().partition(b"content-length:")[2].split() or [0])[0])
            while len(body) < length:
                body += connection.recv(65536)
            with lock:
                heads.append(head.decode())
                number = len(heads) - 1
            serve(connection.sendall, number)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):  # until the client has read it all
                pass

    def accept():
        with suppress(OSError):
            while True:
                connection, _ = door.accept()
                connections.append(connection)
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", heads
    finally:
        for one in [door, *connections]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def head(status=200, length=None, **headers):
    """The head of an answer, as bytes."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    lines += ["Connection: close"] if length is None else [f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def whole(content, status=200, **headers):
    """A whole answer, as bytes."""
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return head(status, len(content), **headers) + content


def says(*answers):
    """A server that gives these answers, and the last one again and again."""
    return lambda send, number: send(answers[min(number, len(answers) - 1)])


def sampled(url, requests=((0, 0),), prompt="1+1=", **options):
    engine = ServerEngine(url, "tiny", **options)
    return [sample for batch in engine.sample([prompt], list(requests), SETTINGS) for sample in batch]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.01)


# --- redirects ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_neither_key_nor_prompt_follows_a_redirect(status):
    """To another port of this machine, by another of its names."""
    with raw_server(says(whole(GOOD))) as (other, there):
        target = other.replace("127.0.0.1", "localhost").replace("//", "//me:pass@") + "/x?token=abc"
        with raw_server(says(whole(b"", status, Location=target))) as (url, here):
            with pytest.raises(
                ValueError, match=rf"status {status}, a redirect to 'http://localhost:\d+/x', .*not fol"
            ):
                sampled(url, api_key=KEY)
            assert len(here) == 1 and f"Bearer {KEY}" in here[0]
        assert there == []


# --- time ---


@pytest.mark.parametrize("part", ["head", "body", "chunks", "silence", "informational"])
def test_the_time_limit_is_that_of_the_whole_answer(part):
    """Each piece comes in time, but there is no end of them."""

    def drip(send, number):
        if number > 0:
            return send(whole(GOOD))
        if part == "silence":
            time.sleep(60)
        elif part == "head":
            send(b"HTTP/1.1 200 OK\r\n")
        elif part != "informational":
            send(head(Transfer_Encoding="chunked") if part == "chunks" else head(length=10**6))
        pieces = {"head": b"X", "body": b" ", "chunks": b"1\r\n \r\n", "informational": b"HTTP/1.1 102 X\r\n\r\n"}
        end = time.monotonic() + 60
        while time.monotonic() < end:
            send(pieces.get(part, b" "))
            time.sleep(0.02)

    with raw_server(drip) as (url, heads):
        begin = time.monotonic()
        [sample] = sampled(url, timeout=0.5)
        assert 0.5 <= time.monotonic() - begin < 30 and sample.text == "\\boxed{2}"
        assert 2 <= len(heads) <= 7  # on a busy machine a good answer may be late too


def test_no_more_samples_wanted_ends_even_an_answer_that_is_awaited():
    def hang(send, number):
        send(whole(GOOD)) if number == 0 else time.sleep(60)

    with raw_server(hang) as (url, _):
        samples = ServerEngine(url, "tiny", concurrency=2).sample(["1"], [(0, i) for i in range(9)], SETTINGS)
        next(samples)
        begin = time.monotonic()
        samples.close()
        assert time.monotonic() - begin < 30


# --- size ---


def flood(send, number):
    send(head(Transfer_Encoding="chunked"))
    for _ in range(1024):  # 1 GiB
        send(b"100000\r\n" + bytes(2**20) + b"\r\n")


def flood_of_known_length(send, number):
    send(head(length=2**31))
    for _ in range(2**11):
        send(b" " * 2**20)


BOMB = gzip.compress(gzip.compress(bytes(2**26)))  # 64 MiB in 300 bytes


def bomb(send, number):
    send(whole(BOMB, Content_Encoding="gzip, gzip"))


@pytest.mark.parametrize("serve", [flood, flood_of_known_length, bomb])
def test_a_body_has_a_limit(serve):
    with raw_server(serve) as (url, heads):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=rf"{url}/v1/completions answered with more than 1069056 bytes"):
                sampled(url)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most < 50 * 2**20 and len(heads) == 1


def test_a_long_head_and_a_long_refusal_are_cut():
    with raw_server(lambda send, _: [send(head(400)), *(send(b"no " * 2**18) for _ in range(99))]) as (url, _):
        with pytest.raises(ValueError, match="status 400: no no no") as told:
            sampled(url)
        assert len(str(told.value)) < 700
    with raw_server(lambda send, _: send(b"HTTP/1.1 200 X\r\n" + b"a: b\r\n" * 10**6)) as (url, heads):
        with pytest.raises(ConnectionError, match="7 attempts: RemoteProtocolError"):
            sampled(url)
        assert len(heads) == 7


def test_a_completion_of_the_longest_tokens_fits():
    text = "—" * 150 * SETTINGS.max_new_tokens
    with raw_server(says(whole({**GOOD, "choices": [{"text": text, "finish_reason": "stop"}]}))) as (url, _):
        assert sampled(url)[0].text == text


# --- fields ---


def with_tokens(value):
    return json.dumps(GOOD).replace('"completion_tokens": 3', f'"completion_tokens": {value}').encode()


@pytest.mark.parametrize(
    "value",
    ['"lots"', '"3"', "1e400", "NaN", "-7", "21", "3.0", "true", "null", "[3]", "9" * 30, "9" * 4000, "9" * 10_000],
    ids=lambda value: value[:9],
)
def test_a_number_of_tokens_that_is_none_is_refused_before_it_is_written(tmp_path, value):
    with raw_server(says(whole(GOOD), whole(with_tokens(value)))) as (url, _):
        engine = ServerEngine(url, "tiny", concurrency=1)
        with pytest.raises(ValueError, match="completion_tokens|must answer in JSON") as told:
            evaluate(engine, tmp_path / "run")
    assert len(str(told.value)) < 1500
    lines = (tmp_path / "run/samples-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["length"] for line in lines] == [3]
    with raw_server(says(whole(GOOD))) as (url, heads):  # the folder is as good as ever
        engine = ServerEngine(url, "tiny", concurrency=1)
        engine.describe = ServerEngine(told.value.args[0].partition("/v1")[0], "tiny").describe
        assert evaluate(engine, tmp_path / "run").mean_length == 3 and len(heads) == 3


def evaluate(engine, folder, num_samples=4, reward=boxed_format_reward):
    return evaluate_engine(
        engine,
        [{"prompt": "1+1="}],
        reward,
        num_samples=num_samples,
        max_new_tokens=20,
        output_dir=folder,
        progress=False,
    )


def chosen(**fields):
    return {**GOOD, "choices": [{**GOOD["choices"][0], **fields}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (chosen(text=None), "must answer with a text, but it is NoneType"),
        (chosen(text=7), "must answer with a text, but it is int"),
        (chosen(text=["a"]), "must answer with a text, but it is list"),
        (chosen(finish_reason=True), "finish_reason=True; 'stop' or 'length' is needed"),
        (chosen(finish_reason=["stop"]), r"finish_reason=\['stop'\]"),
        (chosen(finish_reason="x" * 10**5), "finish_reason='xxx"),
        ({"choices": "a", "usage": {"completion_tokens": 1}}, "must answer with one choice"),
        ({"choices": {"text": 1}}, "must answer with one choice"),
        ({"choices": [1]}, "must answer with one choice"),
        ({**GOOD, "usage": [3]}, "must answer with one choice"),
        ([[[]]], "must answer with one choice"),
        (b"3", "must answer with one choice"),
        (b"null", "must answer with one choice"),
        (b'"text"', "must answer with one choice"),
        (b"", "must answer in JSON"),
        (b"data: {}\n\ndata: [DONE]\n\n", r"(?s)must answer in JSON, but answered data: .* \(text/event-stream\)"),
        (b'{"a": "\xff\xfe"}', r"must answer in UTF-8, but 'utf-8' codec can't decode byte 0xff in position 7"),
        (json.dumps(GOOD).encode("utf-16"), "must answer in UTF-8"),
        (b"[" * 10**5 + b"]" * 10**5, "JSON that is nested too deeply"),
        (b'{"a":' * 10**5, "JSON that is nested too deeply"),
    ],
)
def test_an_answer_that_is_none_is_named(content, message):
    answer = whole(content, Content_Type="text/event-stream")
    with raw_server(says(answer)) as (url, heads), pytest.raises(ValueError, match=message) as told:
        sampled(url)
    assert url in str(told.value) and len(str(told.value)) < 1500 and len(heads) == 1


def test_half_a_character_becomes_the_sign_for_it():
    content = rb'{"choices": [{"text": "a\ud83d \ud83d\ude00\udc00", "finish_reason": "stop"}], '
    with raw_server(says(whole(content + b'"usage": {"completion_tokens": 3}}', Content_Type="text/html"))) as (
        url,
        _,
    ):
        [sample] = sampled(url)
    assert sample.text == "a\ufffd \U0001f600\ufffd" and sample.text.encode()


# --- waits ---


def test_a_server_that_is_busy_for_long_is_awaited(monkeypatch):
    """More than the 7 attempts that a server has that does not answer at all."""
    monkeypatch.setattr(server_module, "LONGEST_WAIT", 0.02)
    busy = whole(b"slow down", 429)
    with raw_server(says(*[busy] * 30, whole(GOOD))) as (url, heads):
        assert len(sampled(url)) == 1 and len(heads) == 31


@pytest.mark.parametrize("value", ["1", "1.0", "date", "date by another clock"])
def test_retry_after_is_honoured(value):
    headers = {"Retry_After": value}
    if value.startswith("date"):
        now = time.time() if value == "date" else 1e9
        headers = {"Retry_After": formatdate(now + 2, usegmt=True), "Date": formatdate(now, usegmt=True)}
    with raw_server(says(whole(b"", 503, **headers), whole(GOOD))) as (url, _):
        begin = time.monotonic()
        assert len(sampled(url)) == 1
    assert 0.9 <= time.monotonic() - begin < 30


@pytest.mark.parametrize("value", ["86400", "9" * 30, "9" * 9000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_beyond_the_patience_is_not_begun(value):
    with raw_server(says(whole(b"quota", 429, Retry_After=value))) as (url, heads):
        begin = time.monotonic()
        with pytest.raises(ConnectionError, match="1 attempts: status 429: quota. The next would be .*patience=3600"):
            sampled(url)
    assert time.monotonic() - begin < 30 and len(heads) == 1


@pytest.mark.parametrize(
    "value",
    ["", "-5", "nan", "inf", "soon", "1e9", "0x10", "٣", "Thu, 99 Foo 2025 00:00:00 GMT", "1 Jan 2030"]
    + ["Fri, 31 Dec 2030 23:59:59 -9999999999", "Fri, 31 Dec 99999 23:59:59 GMT", "1, 2", "0", "a" * 9000],
)
def test_no_value_of_retry_after_breaks_the_waits(value):
    headers = {"Retry-After": value}
    seconds = retry_after(SimpleNamespace(get=headers.get))
    assert seconds is None or 0 <= seconds < float("inf")
    if value.isascii() and value != "1 Jan 2030":
        with raw_server(says(whole(b"", 429, Retry_After=value), whole(GOOD))) as (url, heads):
            assert len(sampled(url)) == 1 and len(heads) == 2


def test_patience_has_an_end(monkeypatch):
    monkeypatch.setattr(server_module, "LONGEST_WAIT", 0.05)
    message, busy = r"\d\d+ attempts: status 429: busy.*patience=4", whole(b"busy", 429, Retry_After="0")
    with raw_server(says(busy)) as (url, heads), pytest.raises(ConnectionError, match=message):
        sampled(url, patience=4)
    assert len(heads) > 10


def test_a_server_that_is_started_again_is_awaited(monkeypatch):
    """It closes connections and has status 502, but has answered before. One that never has is given up soon."""
    monkeypatch.setattr(server_module, "LONGEST_WAIT", 0.02)

    def restart(send, number):
        if number in (0, 21):
            send(whole(GOOD))
        elif number < 11:
            send(whole(b"", 502))

    with raw_server(restart) as (url, heads):
        assert len(sampled(url, [(0, 0), (0, 1)], concurrency=1)) == 2 and len(heads) == 22
    for never in (says(whole(b"", 502)), lambda send, number: None):
        with raw_server(never) as (url, heads), pytest.raises(ConnectionError, match="in 7 attempts"):
            sampled(url)
        assert len(heads) == 7


def test_a_long_wait_is_told_once(monkeypatch):
    monkeypatch.setattr(server_module, "WARN_AFTER", 0.05)
    monkeypatch.setattr(server_module, "LONGEST_WAIT", 0.02)
    with (
        raw_server(says(*[whole(b"busy", 429)] * 40, whole(GOOD))) as (url, _),
        warnings.catch_warnings(record=True) as got,
    ):
        warnings.simplefilter("always")
        sampled(url, [(0, i) for i in range(4)])
    told = [str(one.message) for one in got if "gave no answer" in str(one.message)]
    assert len(told) == 1 and "status 429: busy. It is asked again, for up to 3600 seconds." in told[0]


# --- refusals ---

AZURE = {"error": {"message": "The response was filtered", "code": "content_filter", "status": 400}}


@pytest.mark.parametrize("refusal", [whole(AZURE, 400), whole({"choices": [{"finish_reason": "content_filter"}]})])
def test_a_refused_completion_is_counted_and_not_scored(tmp_path, refusal):
    """Of the answer (OpenAI), or of the prompt (Azure). The others are there as ever."""
    answers = says(whole(GOOD), refusal, whole({**GOOD, "usage": {"completion_tokens": 9}}))
    with raw_server(answers) as (url, heads), pytest.warns(UserWarning, match="1 of 4 completions were refused"):
        result = evaluate(ServerEngine(url, "tiny", concurrency=1), tmp_path)
        assert len(heads) == 4
        again = evaluate(ServerEngine(url, "tiny"), tmp_path)  # what was refused stays refused: it is not asked again
        assert len(heads) == 4
    with pytest.warns(UserWarning, match="1 of 4 completions were refused"):
        rescored = rescore(tmp_path)
    for one in (result, again, rescored):
        saved = one.to_dict()
        assert saved["num_refused_completions"] == saved["num_unscorable_completions"] == 1
        assert one.num_samples.tolist() == [3] and one.pass_at_k == {1: 1.0, 2: 1.0, 3: 1.0}
        assert one.mean_length == 7 and one.truncated_share == 0


def test_all_refused_is_an_error(tmp_path):
    with raw_server(says(whole(AZURE, 400))) as (url, _), pytest.raises(ValueError, match="refused all 4 completions"):
        evaluate(ServerEngine(url, "tiny"), tmp_path)


# --- secrets ---


def leaks(*texts):
    return [secret for secret in (KEY, "swordfish", "bWU6c3dvcmRmaXNo") if any(secret in text for text in texts)]


@pytest.mark.parametrize("status", [200, 401, 429, 500, 302])
@pytest.mark.parametrize("way", ["key", "url"])
def test_a_server_that_repeats_secrets_does_not_get_them_into_messages(tmp_path, monkeypatch, status, way):
    monkeypatch.setattr(server_module, "ATTEMPTS", 2)
    secrets = f"invalid {KEY} or me:swordfish or Basic bWU6c3dvcmRmaXNo"
    answer = whole(
        secrets.encode(), status, Content_Type=f"text/{KEY}/swordfish", Location=f"http://h/{KEY}/swordfish"
    )
    with raw_server(says(answer)) as (url, heads):
        options = {"api_key": KEY} if way == "key" else {}
        base = url if way == "key" else url.replace("//", "//me:swordfish@")
        engine = ServerEngine(base, "tiny", patience=0.1, **options)
        with pytest.raises((ValueError, ConnectionError)) as told:
            evaluate(engine, tmp_path)
    kept = [path.read_text() for path in tmp_path.iterdir()]
    mine = leaks(KEY) if way == "key" else leaks("swordfish", "bWU6c3dvcmRmaXNo")
    assert not set(mine) & set(leaks(str(told.value), repr(told.value.__cause__), *kept)) and len(kept) >= 3
    assert "[secret]" in str(told.value) and f"{url}/v1/completions" in str(told.value)
    sent = f"Bearer {KEY}" if way == "key" else "Basic bWU6c3dvcmRmaXNo"
    assert f"authorization: {sent}".lower() in heads[0].lower() and engine.base_url == url
    assert engine.describe() == ServerEngine(url, "tiny").describe()
    assert pickle.loads(pickle.dumps(engine))._address.user == engine._address.user


@pytest.mark.parametrize(
    "base_url",
    ["me:swordfish@host", "ftp://me:swordfish@host", "http://me:sword/swordfish@host", "http://me:swordfish@host:port"]
    + ["http://me:swordfish@host?key=swordfish", "http://host/v1?key=swordfish", "http://host#swordfish"]
    + ["http://me:swordfish?swordfish@host", "http://me:swordfish@", "http://me:1/swordfish@host", "http://"],
)
def test_a_wrong_address_is_refused_without_its_secrets(base_url):
    with pytest.raises(ValueError, match="base_url (must|has)") as told:
        ServerEngine(base_url, "tiny")
    assert not leaks(str(told.value)) and told.value.__cause__ is None


def test_what_is_shown_of_an_address():
    assert without_credentials("http://a:b@host:8000/v1?x#y") == "http://host:8000/v1"
    assert without_credentials("http://host/v1?x#y") == "http://host/v1"
    assert without_credentials("a:b://c@host") == "host" and without_credentials("") == ""
    assert Address("http://a%20b:c%40@host/x/v1/", None).user == ("a b", "c@")
    with pytest.raises(ValueError, match="base_url 'http://host' has a user, and there is an api_key"):
        Address("http://me:swordfish@host", KEY)


def test_a_proxy_with_a_password_is_not_shown(monkeypatch):
    for proxy in ("http://me:sword/swordfish@host:1", "socks://me:swordfish@host:1"):
        monkeypatch.setenv("ALL_PROXY", proxy)
        with pytest.raises(ValueError, match="a proxy with a user is not shown") as told:
            ServerEngine("http://localhost:1", "tiny")
        assert "sword" not in str(told.value) and told.value.__cause__ is None


@pytest.mark.parametrize("key", ["", " sk", "sk 1", "sk\r\nX-Evil: 1", "sk\x00"])
def test_a_key_that_breaks_a_header_is_refused(key):
    with pytest.raises(ValueError, match="api_key must be printable ASCII"):
        ServerEngine("http://localhost:1", "tiny", api_key=key)


@pytest.mark.parametrize("way", ["env", "file", "url"])
def test_the_command_line_takes_a_key_by_name(tmp_path, monkeypatch, capsys, way):
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "mine.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    monkeypatch.setenv("MY_KEY", KEY)
    named = {"env": ["--api-key-env", "MY_KEY"], "file": ["--api-key-file", str(tmp_path / "key")], "url": []}[way]
    with raw_server(says(whole(GOOD))) as (url, heads):
        base = url.replace("//", "//me:swordfish@") if way == "url" else url
        command = ["eval", "tiny", "--base-url", base, *named, "--benchmarks", f"mine={tmp_path / 'mine.jsonl'}"]
        command += ["--reward", "boxed_format_reward", "--num-samples", "2", "--max-new-tokens", "20"]
        assert main([*command, "--output-dir", str(tmp_path / "run")]) == 0
    sent = "Basic bWU6c3dvcmRmaXNo" if way == "url" else f"Bearer {KEY}"
    assert len(heads) == 2 and all(f"authorization: {sent}".lower() in one.lower() for one in heads)
    files = [path.read_bytes().decode(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    printed = capsys.readouterr()
    assert len(files) > 5 and not leaks(*files, printed.out, printed.err)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "is empty"),
        (" \n", "is empty"),
        (f"{KEY}\nb", "more than one line"),
    ]
    + [(KEY * 9999, "is too long"), (b"\xff", "it is not UTF-8")],
)
def test_a_key_that_is_not_there_is_told_without_what_was_given(tmp_path, content, message):
    path = tmp_path / KEY
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"The file that --api-key-file names .*{message}") as told:
        read_api_key(None, str(path))
    assert KEY not in str(told.value)
    with pytest.raises(ValueError, match="The environment variable that --api-key-env names is not set") as told:
        read_api_key(KEY, None)
    assert KEY not in str(told.value)
    with pytest.raises(ValueError, match="leave out one of them"):
        read_api_key("A", "b")
    with pytest.raises(ValueError, match="A key is for a server: .*name its --base-url"):
        check_engine_settings(
            engine="vllm", base_url=None, dtype=None, num_processes=1, images=False, api_key=KEY, token_budget=None
        )


# --- the client that asks vLLM's server whether it is well, while a model trains ---


@pytest.mark.parametrize("part", ["head", "body", "flood"])
def test_an_answer_about_health_that_never_ends_is_none(part):
    """Its status is enough. A head that drips is no answer."""

    def drip(send, number):
        if part == "flood":
            flood(send, number)
        send(b"HTTP/1.1 200 OK\r\n" if part == "head" else head(length=10**6))
        end = time.monotonic() + 60
        while time.monotonic() < end:
            send(b"X")
            time.sleep(0.02)

    with raw_server(drip) as (url, _):
        begin = time.monotonic()
        problem = _problem(url, begin)
    assert problem == ("/health had no end after 2 seconds" if part == "head" else None)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("name", ["vllm_server_base_url", "vllm_server_host"])
@pytest.mark.parametrize(
    "address", ["http://me:swordfish@host:8000", "http://host?key=swordfish", "me:swordfish@host"]
)
def test_a_server_of_vllm_is_addressed_without_secrets(tmp_path, name, address):
    with pytest.raises(ValueError, match=f"`{name}` must be an address without user, password and query") as told:
        RLVRConfig(str(tmp_path), bf16=False, use_cpu=True, **{name: address})
    assert not leaks(str(told.value))


# --- memory of many requests ---


def test_many_requests_need_no_memory_in_advance():
    with raw_server(says(whole(GOOD))) as (url, _):
        requests = [(0, sample) for sample in range(50_000)]
        samples = ServerEngine(url, "tiny", concurrency=2).sample(["1"], requests, SETTINGS)
        tracemalloc.start()
        try:
            next(samples)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        samples.close()
    assert most < 20e6


@pytest.mark.parametrize("reward", [math_reward, choice_reward, boxed_format_reward])
def test_any_text_of_a_server_can_be_scored_and_saved(tmp_path, reward):
    texts = ["\ud800", "\x00\x1b[2J", "\u202e\\boxed{\ud83d}", "\\boxed{" * 50, ""]
    answers = [whole(chosen(text=text)) for text in texts]
    rows = [{"prompt": "1+1=", "answer": "A"}]
    with raw_server(says(*answers)) as (url, _):
        engine = ServerEngine(url, "tiny", concurrency=1)
        evaluate_engine(engine, rows, reward, num_samples=5, max_new_tokens=20, output_dir=tmp_path, progress=False)
    assert rescore(tmp_path).num_samples.sum() > 0

"""The engine of a server, against a stand-in on a real socket."""

import base64
import copy
import io
import json
import pickle
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from tiny_vlm import image_prompt

from rlvr_trl.evaluation import Completions, SamplingSettings, ServerEngine
from rlvr_trl.evaluation.engines import server as server_module


PROMPTS = ["1+1=", "22+22=", "3+3="]
REQUESTS = [(problem, sample) for problem in range(3) for sample in range(8)]
SETTINGS = SamplingSettings(max_new_tokens=5, temperature=0.7, top_p=0.9, seed=2)


@contextmanager
def stand_in(answer):
    """Serves `answer(number, path, body) -> (status, content)`. Yields the address and the requests that came."""
    seen, lock = [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                seen.append((self.path, body, dict(self.headers)))
                number = len(seen) - 1
            status, content = answer(number, self.path, body)
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # connections at once; with the default of 5 some wait a second

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def echo(number, path, body):
    """Completes with the seed. Cut for odd seeds."""
    text = f"{body.get('prompt') or body['messages'][0]['content']} {body['seed']}"
    return 200, completion(text, "length" if body["seed"] % 2 else "stop", path)


def completion(text, reason="stop", path="/v1/completions"):
    choice = {"message": {"content": text}} if "chat" in path else {"text": text}
    return {"choices": [{**choice, "finish_reason": reason}], "usage": {"completion_tokens": 3}}


def sampled(url, prompts=PROMPTS, requests=REQUESTS, settings=SETTINGS, **options):
    engine = ServerEngine(url, "tiny", **options)
    engine.check(prompts)
    return [sample for batch in engine.sample(prompts, requests, settings) for sample in batch]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(server_module, "FIRST_WAIT", 0.01)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_every_request_is_asked_once_and_told_apart(suffix):
    with stand_in(echo) as (url, seen):
        completions = Completions.from_samples(sampled(url + suffix, api_key="secret"), 3, 8)
    assert len(seen) == 24 and {path for path, _, _ in seen} == {"/v1/completions"}
    by_prompt = [completions.texts[start : start + 8] for start in (0, 8, 16)]
    for prompt, texts in zip(PROMPTS, by_prompt, strict=True):
        assert len(set(texts)) == 8 and all(text.startswith(f"{prompt} ") for text in texts)
    assert completions.truncated.tolist() == [int(text.split()[1]) % 2 == 1 for text in completions.texts]
    assert completions.token_ids == [None] * 24 and (completions.lengths == 3).all()
    for _, body, headers in seen:
        expected = {"model": "tiny", "max_tokens": 5, "temperature": 0.7, "top_p": 0.9}
        assert {key: body[key] for key in body.keys() - {"prompt", "seed"}} == expected
        assert headers["Authorization"] == "Bearer secret"


def test_seeds_belong_to_requests():
    with stand_in(echo) as (url, _):
        whole = {(PROMPTS[s.problem], s.sample): s.text for s in sampled(url)}
        part = sampled(url, prompts=PROMPTS[::-1], requests=REQUESTS[3::4], concurrency=1)
        assert all(whole[PROMPTS[::-1][s.problem], s.sample] == s.text for s in part)
        other = sampled(url, settings=SamplingSettings(max_new_tokens=5, seed=3))
    assert not {s.text for s in other} & set(whole.values())


def test_conversations_and_images_go_to_the_chat_endpoint():
    prompts = [image_prompt("what?", "red", size=(3, 2)), [{"role": "user", "content": "and now?"}]]
    settings = SamplingSettings(max_new_tokens=5, top_k=7)
    with stand_in(lambda number, path, body: (200, completion("ok", path=path))) as (url, seen):
        samples = sampled(url, prompts, [(0, 0), (1, 0)], settings, chat_template_kwargs={"enable_thinking": False})
    assert [sample.text for sample in samples] == ["ok", "ok"]
    assert {path for path, _, _ in seen} == {"/v1/chat/completions"}
    bodies = sorted((body for _, body, _ in seen), key=lambda body: isinstance(body["messages"][0]["content"], str))
    assert all(body["top_k"] == 7 and body["chat_template_kwargs"] == {"enable_thinking": False} for body in bodies)
    assert bodies[1]["messages"] == prompts[1]
    [image, text] = bodies[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "what?"} and image["type"] == "image_url"
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sent.size == (3, 2) and sent.getpixel((0, 0)) == (255, 0, 0)
    assert prompts[0][0]["content"][0]["type"] == "image"  # the caller's prompt is as it was


def test_no_content_is_an_empty_text():
    with stand_in(lambda number, path, body: (200, completion(None, "length", path))) as (url, _):
        [sample] = sampled(url, [[{"role": "user", "content": "?"}]], [(0, 0)])
    assert sample.text == "" and sample.truncated


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status):
    def busy_twice(number, path, body):
        return (status, b"too busy") if number < 2 else echo(number, path, body)

    with stand_in(busy_twice) as (url, seen):
        [sample] = sampled(url, requests=[(0, 0)])
    assert len(seen) == 3 and sample.text.startswith("1+1= ")
    assert seen[0][1] == seen[1][1] == seen[2][1]


def test_a_server_that_stays_busy_is_given_up():
    with stand_in(lambda number, path, body: (503, b"loading " + b"x" * 9000)) as (url, seen):
        with pytest.raises(
            ConnectionError, match=f"{url}/v1/completions .* 7 attempts: status 503: loading xxx"
        ) as told:
            sampled(url, requests=[(0, 0)])
        assert len(seen) == 7 and len(str(told.value)) < 700


def test_a_server_that_hangs_is_given_up():
    def slow(number, path, body):
        time.sleep(0.5)
        return echo(number, path, body)

    with stand_in(slow) as (url, seen), pytest.raises(ConnectionError, match="7 attempts: .*[Tt]ime"):
        sampled(url, requests=[(0, 0)], timeout=0.02)


def test_an_unreachable_server():
    with stand_in(echo) as (url, _):
        pass  # its port is free again
    with pytest.raises(ConnectionError, match=f"{url}/v1/completions gave no answer in 7 attempts: .*refused"):
        sampled(url)


def test_a_refused_request_ends_it_at_once():
    def refuse(number, path, body):
        return (404, b"no model 'tiny'") if number == 5 else echo(number, path, body)

    requests = [(0, sample) for sample in range(20_000)]
    with stand_in(refuse) as (url, seen):
        with pytest.raises(ValueError, match=f"{url}/v1/completions refused .* status 404: no model 'tiny'"):
            sampled(url, requests=requests, concurrency=2)
        assert len(seen) < 10_000


@pytest.mark.parametrize("status", [200, 404])
def test_an_error_repeats_no_control_characters(status):
    answer = b"\x1b]0;title\x07\x1b[2Jno"
    with stand_in(lambda *_: (status, answer)) as (url, _), pytest.raises(ValueError) as raised:
        sampled(url)
    assert r"\x1b]0;title\x07\x1b[2Jno" in str(raised.value) and str(raised.value).isprintable()


def test_stopping_early_cancels_the_rest():
    with stand_in(echo) as (url, seen):
        requests = [(0, sample) for sample in range(20_000)]
        samples = ServerEngine(url, "tiny", concurrency=2).sample(PROMPTS, requests, SETTINGS)
        next(samples)
        samples.close()
        assert len(seen) < 10_000


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<html>", "must answer in JSON, but answered <html>"),
        ({"choices": []}, r"one choice, .* but answered \{\"choices\": \[\]\}"),
        ({"choices": [{"text": "1", "finish_reason": "stop"}]}, r"usage\.completion_tokens, but answered"),
        (["1"], "one choice"),
        (completion("1", "abort"), "finish_reason='abort'"),
        (completion("1", None), "finish_reason=None"),
    ],
)
def test_an_answer_that_is_none(content, message):
    with stand_in(lambda number, path, body: (200, content)) as (url, _), pytest.raises(ValueError, match=message):
        sampled(url, requests=[(0, 0)])


def test_refused_before_anything_is_asked():
    with pytest.raises(ValueError, match="base_url must start with http"):
        ServerEngine("localhost:8000", "tiny")
    with pytest.raises(ValueError, match="got 'http://localhost:99999', whose port is above 65535"):
        ServerEngine("http://localhost:99999", "m")
    with pytest.raises(ValueError, match="base_url must be an address, got 'http://localhost:port'"):
        ServerEngine("http://localhost:port", "tiny")
    with pytest.raises(ValueError, match="concurrency must be at least 1, got 0"):
        ServerEngine("http://localhost:8000", "tiny", concurrency=0)
    engine = ServerEngine("http://localhost:8000/v1", "tiny")
    assert engine.describe()["base_url"] == "http://localhost:8000"
    with pytest.raises(ValueError, match="Prompt 1 is empty"):
        engine.check(["1", ""])
    with pytest.raises(ValueError, match="1 of 2 are conversations"):
        engine.check(["1", [{"role": "user", "content": "1"}]])


@pytest.mark.parametrize("key", ["secret\n", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key):
    with pytest.raises(ValueError, match="api_key must be printable ASCII") as refused:
        ServerEngine("http://localhost:1", "model", api_key=key)
    assert key.strip() not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks://localhost:1"), ("ALL_PROXY", "socks5://localhost:1")]
)
def test_a_proxy_that_cannot_be_used_is_an_error_that_says_so(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="proxies or certificates that the environment names .*ALL_PROXY"):
        ServerEngine("http://localhost:1", "model")


def test_an_engine_can_be_copied_and_pickled():
    engine = ServerEngine("http://localhost:1/v1", "model", api_key="secret", timeout=3)
    for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert other.describe() == engine.describe() and (other.api_key, other.timeout) == ("secret", 3)

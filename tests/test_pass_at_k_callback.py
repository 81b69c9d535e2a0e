"""PassAtKCallback: what it measures, when, and that training does not notice."""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from launching import launch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback
from trl import GRPOConfig, GRPOTrainer

from rlvr_trl import DARSConfig, DARSTrainer, PassAtKCallback, RLVRConfig, RLVRTrainer
from rlvr_trl.evaluation import answer_entropy, pass_at_k


pytestmark = pytest.mark.slow


TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def first_move(completions, log_extra, **kwargs):
    """Right for a completion whose first character is U or D; its answer is that character."""
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    log_extra("extracted_answer", [text[:1] for text in texts])
    return [float(text[:1] in ("U", "D")) for text in texts]


@pytest.fixture
def held_out(mazes):
    return mazes.select(range(12, 17))  # 5 prompts


@pytest.fixture
def make_trainer(model, tokenizer, mazes, cpu_settings):
    def make(trainer_class=RLVRTrainer, config_class=RLVRConfig, reward_funcs=first_move, **settings):
        return trainer_class(
            model,
            reward_funcs,
            config_class(**cpu_settings | settings),
            mazes.select(range(12)),
            eval_dataset=mazes.select(range(4)),
            processing_class=tokenizer,
        )

    return make


def train_with(trainer, dataset, **settings):
    callback = PassAtKCallback(trainer, dataset, **settings)
    trainer.add_callback(callback)
    trainer.train()
    return callback


def weights_of(trainer):
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def assert_equal(weights, expected):
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name


def entropy_by_hand(model, prompt_ids, completion_ids):
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + completion_ids])).logits[0, len(prompt_ids) - 1 : -1].double()
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean().item()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_numbers_follow_from_the_completions(make_trainer, held_out, tokenizer, temperature):
    trainer = make_trainer(temperature=temperature, max_steps=1, learning_rate=0.0, per_device_eval_batch_size=7)
    callback = train_with(trainer, held_out, num_samples=6, every=1, at_start=False, batch_size=11)
    (logged,) = callback.history
    result = callback.latest
    assert result.prompts == list(held_out["prompt"]) and len(result.completions.texts) == 30
    correct = [text[:1] in ("U", "D") for text in result.completions.texts]
    counts = np.array(correct).reshape(5, 6).sum(1)
    assert 0 < counts.sum() < 30
    for k in (1, 2, 4, 6):
        assert logged[f"eval_pass@{k}"] == pytest.approx(np.mean([pass_at_k(6, c, k) for c in counts.tolist()]))
    assert {name for name in logged if "pass@" in name} == {f"eval_pass@{k}" for k in (1, 2, 4, 6)}
    ids = result.completions.token_ids
    assert logged["eval_mean_length"] == pytest.approx(np.mean([len(row) for row in ids]))
    assert logged["eval_truncated_share"] == np.mean([row[-1] != tokenizer.eos_token_id for row in ids])
    answers = [text[:1] for text in result.completions.texts]
    by_prompt = [answers[i : i + 6] for i in range(0, 30, 6)]
    assert logged["eval_answer_entropy"] == pytest.approx(np.mean([answer_entropy(row) for row in by_prompt]))
    prompts = tokenizer(list(held_out["prompt"]))["input_ids"]
    model = trainer.model.eval()
    by_hand = [entropy_by_hand(model, prompts[i // 6], row) for i, row in enumerate(ids)]
    assert result.completions.entropies == pytest.approx(by_hand, abs=1e-4)
    assert logged["eval_token_entropy"] == pytest.approx(np.mean(by_hand), abs=1e-4)
    assert logged["eval_unscorable_completions"] == 0 and logged["eval_seconds"] > 0
    assert [tokenizer.decode(row, skip_special_tokens=True) for row in ids] == result.completions.texts


def test_samples_are_the_models_own(make_trainer, held_out, tokenizer):
    """Greedy completions are those of plain `generate`, whatever batches they came in."""
    trainer = make_trainer(generation_kwargs={"do_sample": False}, learning_rate=0.0, max_steps=1)
    callback = train_with(trainer, held_out, num_samples=3, every=1, batch_size=4)
    for index, row in enumerate(held_out):
        inputs = tokenizer(row["prompt"], return_tensors="pt")
        output = trainer.model.generate(**inputs, do_sample=False, max_new_tokens=6)
        expected = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert callback.latest.completions.texts[3 * index : 3 * index + 3] == [expected] * 3


def test_greedy_accuracy_beside_the_samples(make_trainer, held_out, tokenizer):
    """At temperature 0 completions are those of greedy `generate`; what is sampled at 1 afterwards is as without."""
    trainer = make_trainer(learning_rate=0.0, top_k=5)
    sampled = PassAtKCallback(trainer, held_out, num_samples=3, every=1)
    sampled._measure()
    usual = trainer.generation_config, dict(trainer.generation_kwargs)
    greedy = PassAtKCallback(trainer, held_out, num_samples=1, every=1, temperature=0, prefix="eval_greedy")
    greedy._measure()
    expected = []
    for prompt in held_out["prompt"]:
        inputs = tokenizer(prompt, return_tensors="pt")
        output = trainer.model.eval().generate(**inputs, do_sample=False, max_new_tokens=6)
        expected.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    assert greedy.latest.completions.texts == expected
    right = np.mean([text[:1] in ("U", "D") for text in expected])
    assert greedy.history == [entry for entry in trainer.state.log_history if "eval_greedy_pass@1" in entry]
    assert greedy.history[0]["eval_greedy_pass@1"] == pytest.approx(right)
    assert greedy.latest.settings["temperature"] == 0 and sampled.latest.settings["temperature"] == 1
    assert usual == (trainer.generation_config, trainer.generation_kwargs)
    before = sampled.latest.completions.texts
    sampled._measure()
    assert sampled.latest.completions.texts == before and before[::3] != expected


def test_samples_at_another_temperature(make_trainer, held_out):
    """What a trainer at .4 samples at 1.3 is what a trainer at 1.3 samples."""
    texts = []
    for own, other in ((0.4, 1.3), (1.3, None), (0.4, None)):
        callback = PassAtKCallback(make_trainer(temperature=own), held_out, num_samples=8, every=1, temperature=other)
        callback._measure()
        texts.append(callback.latest.completions.texts)
    assert texts[0] == texts[1] != texts[2]


def test_measures_at_the_start_and_every_n_steps(make_trainer, held_out):
    trainer = make_trainer(max_steps=5, eval_strategy="steps", eval_steps=3)
    callback = train_with(trainer, held_out, num_samples=2, every=2, prefix="eval_held_out")
    assert [entry["step"] for entry in callback.history] == [0, 2, 4]
    training = [entry["step"] for entry in trainer.state.log_history if "loss" in entry]
    assert training == [1, 2, 3, 4, 5]  # a measurement's log does not replace that of its step
    assert "eval_held_out_pass@2" in callback.history[0]


def test_measures_with_each_evaluation(make_trainer, held_out):
    trainer = make_trainer(max_steps=4, eval_strategy="steps", eval_steps=2)
    callback = train_with(trainer, held_out, num_samples=2, at_start=False)
    assert [entry["step"] for entry in callback.history] == [2, 4]
    first = trainer.evaluate()
    assert first["eval_pass@2"] == callback.history[-1]["eval_pass@2"]
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()  # every token as likely as any other
    assert trainer.evaluate()["eval_token_entropy"] == pytest.approx(math.log(trainer.model.config.vocab_size))


def test_evaluation_at_a_measured_step_has_its_numbers(make_trainer, held_out):
    seen = {}

    class Recording(RLVRTrainer):
        def _evaluate(self, *args, **kwargs):
            seen[self.state.global_step] = super()._evaluate(*args, **kwargs)
            return seen[self.state.global_step]

    trainer = make_trainer(Recording, max_steps=3, eval_strategy="steps", eval_steps=1)
    callback = train_with(trainer, held_out, num_samples=2, every=2)
    assert seen[2]["eval_pass@2"] == callback.history[-1]["eval_pass@2"] and "eval_reward" in seen[2]
    assert "eval_pass@2" not in seen[1] and "eval_pass@2" not in seen[3]


@pytest.mark.parametrize("trainer_class, config_class", [(RLVRTrainer, RLVRConfig), (DARSTrainer, DARSConfig)])
def test_training_does_not_notice(make_trainer, held_out, trainer_class, config_class):
    def draws(completions, **kwargs):  # a reward function may draw from any of them
        return [random.random() + np.random.random() + torch.rand(1).item() for _ in completions]

    runs = []
    for measure in (False, True):
        extra = {"max_generations": 8} if config_class is DARSConfig else {}
        trainer = make_trainer(
            trainer_class, config_class, draws, temperature=0.7, max_steps=4, num_iterations=2, **extra
        )
        trainer.model.load_state_dict(runs[0][0] if measure else weights_of(trainer))
        start = weights_of(trainer)
        if measure:
            trainer.add_callback(PassAtKCallback(trainer, held_out, num_samples=3, every=1))
        trainer.train()
        timed = re.compile("time|seconds|runtime|per_second|eval_")
        logs = [
            {name: value for name, value in entry.items() if not timed.search(name)}
            for entry in trainer.state.log_history
            if "eval_pass@1" not in entry
        ]
        runs.append((start, weights_of(trainer), logs, trainer.state.num_input_tokens_seen, dict(trainer._metrics)))
    (_, expected, logs, tokens, metrics), (_, weights, logs_measured, tokens_measured, metrics_measured) = runs
    assert_equal(weights, expected)
    assert any(not torch.equal(weights[name], runs[0][0][name]) for name in weights)
    assert json.dumps(logs_measured) == json.dumps(logs)
    assert (tokens_measured, metrics_measured) == (tokens, metrics) and not metrics_measured["eval"]


def test_a_measurement_can_be_repeated(make_trainer, held_out):
    trainer = make_trainer()
    callback = PassAtKCallback(trainer, held_out, num_samples=3, every=1)
    texts = []
    trainer.model.train()
    trainer.model.get_input_embeddings().eval()  # held in evaluation mode, whatever the rest does
    modes = [module.training for module in trainer.model.modules()]
    for step in (0, 0, 1):
        trainer.state.global_step = step
        callback._measure()
        texts.append(callback.latest.completions.texts)
        torch.rand(7), random.random(), np.random.random()
    assert texts[0] == texts[1] != texts[2]
    assert [module.training for module in trainer.model.modules()] == modes and 0 < sum(modes) < len(modes)
    assert len(set(texts[0])) > 5  # samples of a prompt are drawn one by one


def test_best_model_is_chosen_and_loaded(make_trainer, held_out):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_pass@4"}
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 5}
    trainer = make_trainer(**best, **steps)

    def rigged(completions, trainer_state, **kwargs):
        right = trainer_state.global_step == 2
        return [float(right) for _ in completions]

    callback = train_with(trainer, held_out, num_samples=4, reward_func=rigged, every=4)
    measured = {entry["step"]: entry["eval_pass@4"] for entry in callback.history}
    assert measured == {0: 0.0, 2: 1.0, 4: 0.0, 5: 0.0}  # also at the last step, which transformers evaluates
    assert trainer.state.best_metric == 1.0 and trainer.state.best_global_step == 2
    checkpoint = Path(trainer.state.best_model_checkpoint)
    assert checkpoint.name == "checkpoint-2"
    saved = load_file(checkpoint / "model.safetensors")
    weights = weights_of(trainer)
    assert saved.keys() <= weights.keys()
    assert_equal({name: weights[name] for name in saved}, saved)
    last = load_file(Path(trainer.args.output_dir) / "checkpoint-5" / "model.safetensors")
    assert any(not torch.equal(last[name], saved[name]) for name in saved)


def test_early_stopping_reads_it(make_trainer, held_out):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "pass@2"}
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 9}
    trainer = make_trainer(**best, **steps)
    callback = PassAtKCallback(trainer, held_out, 2, reward_func=lambda completions, **_: [0.0] * len(completions))
    stopping = EarlyStoppingCallback(early_stopping_patience=2)
    trainer.add_callback(stopping)
    trainer.add_callback(callback)
    with pytest.raises(ValueError, match="EarlyStoppingCallback was added before PassAtKCallback"):
        trainer.train()
    trainer.remove_callback(stopping)
    trainer.add_callback(stopping)
    trainer.train()
    assert trainer.state.global_step == 3  # the first evaluation is the best, two more are not better


def test_resumed_training_goes_on_measuring(make_trainer, held_out, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(**settings)
    start = weights_of(whole)
    expected = train_with(whole, held_out, num_samples=3, every=2)
    whole.model.load_state_dict(start)
    resumed = make_trainer(**settings)
    callback = PassAtKCallback(resumed, held_out, num_samples=3, every=2)
    resumed.add_callback(callback)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert [entry["step"] for entry in callback.history] == [0, 2, 4]  # step 2 not twice
    for again, once in zip(callback.history, expected.history, strict=True):
        assert {**again, "eval_seconds": 0} == {**once, "eval_seconds": 0}


def test_conversations(make_trainer, held_out, tokenizer):
    tokenizer.chat_template = TEMPLATE
    chats = held_out.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    trainer = make_trainer(learning_rate=0.0, max_steps=1)
    plain = PassAtKCallback(trainer, held_out, num_samples=3, every=1)
    chat = PassAtKCallback(trainer, chats, num_samples=3, every=1)
    plain._measure()
    chat._measure()
    assert chat.latest.completions.texts == plain.latest.completions.texts
    assert chat.latest.prompts == list(chats["prompt"])
    assert chat.latest.pass_at_k == plain.latest.pass_at_k


def test_trls_own_trainer(make_trainer, held_out):
    trainer = make_trainer(GRPOTrainer, GRPOConfig)
    with pytest.raises(ValueError, match="`reward_func` is needed: GRPOTrainer does not say"):
        PassAtKCallback(trainer, held_out, every=1)
    callback = train_with(trainer, held_out, num_samples=2, every=1, reward_func=first_move)
    assert [entry["step"] for entry in callback.history] == [0, 1, 2]


def test_unscorable_completions_are_no_samples(make_trainer, held_out):
    def first_of_each_is_missing(completions, **kwargs):
        return [None if index % 4 == 0 or index < 4 else float(index % 4 == 1) for index in range(len(completions))]

    trainer = make_trainer()
    callback = PassAtKCallback(trainer, held_out, 4, reward_func=first_of_each_is_missing, every=1)
    callback._measure()
    logged = callback.history[0]
    assert logged["eval_unscorable_problems"] == 1 and logged["eval_unscorable_completions"] == 8
    assert logged["eval_pass@3"] == 1.0 and logged["eval_pass@1"] == pytest.approx(1 / 3)
    assert "eval_answer_entropy" not in logged  # the function logs no answers
    metrics = {}
    callback.best_k = 4
    with pytest.raises(ValueError, match="only 3 of 4 completions"):
        callback.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)


def test_two_processes(tmp_path):
    launch("pass_at_k_callback.py", str(tmp_path), processes=2)
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=False) for rank in range(2))
    assert [entry["step"] for entry in first["history"]] == [0, 2, 4]
    assert first["history"] == second["history"]
    assert first["evaluated"] == second["evaluated"] and "eval_pass@3" in first["evaluated"]
    assert first["prompts"] == second["prompts"] and len(first["prompts"]) == 5
    assert first["texts"] == second["texts"] and len(first["texts"]) == 15
    asked = [[len(requests) for requests in rank["calls"]] for rank in (first, second)]
    assert asked == [[4, 4], [4, 4]]  # 16 rows for 15 completions, as many on each process in every call
    requests = [request for rank in (first, second) for call in rank["calls"] for request in call]
    assert sorted(requests) == sorted([(p, s) for p in range(5) for s in range(3)] + [(4, 2)])
    assert len(set(first["texts"])) > 8  # the two draw their own
    assert first["only"] == second["only"] and first["only"]["eval_only_pass@1"] in (0.0, 1.0)
    for name, weight in first["weights"].items():
        assert torch.equal(weight, first["unmeasured"][name]) and torch.equal(weight, second["weights"][name])
    assert re.search("broken reward", first["error"]) and re.search("Process 0 failed.*broken reward", second["error"])


class Reward(torch.nn.Module):
    pass


async def waits(completions, **kwargs):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": None}, "`every` is None.*`eval_strategy` is 'no'"),
        ({"every": 0}, "`every` must be an integer of at least 1, got 0"),
        ({"num_samples": 0}, "`num_samples` must be an integer of at least 1, got 0"),
        ({"batch_size": 1.5}, "`batch_size` must be an integer of at least 1, got 1.5"),
        ({"reward_func": Reward()}, "is a model.*not right or wrong.*Pass a function as `reward_func`"),
        ({"reward_func": waits}, "is an async function"),
        ({"dataset": Dataset.from_dict({"question": ["1"]})}, "needs a 'prompt' column"),
        ({"temperature": -1}, r"`temperature` must be 0 \(greedy\) or a positive number, got -1"),
        ({"temperature": True}, "must be 0 .*, got True"),
        ({"temperature": math.inf}, "must be 0 .*, got inf"),
        ({"temperature": 0}, "all 8 completions of a prompt would be the same greedy one. Set `num_samples` to 1"),
        ({"dataset": []}, "dataset is empty"),
        ({"dataset": [{"prompt": "a"}, {"prompt": [{"role": "user", "content": "b"}]}]}, "1 of 2 are"),
        ({"dataset": [{"prompt": [{"role": "user", "content": "b"}], "image": None}]}, "text prompts only"),
    ],
)
def test_arguments_that_cannot_work(make_trainer, held_out, settings, message):
    trainer = make_trainer()
    with pytest.raises(ValueError, match=message):
        PassAtKCallback(trainer, **{"dataset": held_out, "every": 1} | settings)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"metric_for_best_model": "eval_pass@3"}, "'eval_pass@3', but with `num_samples`=8.*powers of two up to 8"),
        ({"metric_for_best_model": "pass@16"}, "'pass@16', but with `num_samples`=8"),
        ({"metric_for_best_model": "eval_pass@8", "greater_is_better": False}, "`greater_is_better` is False"),
        ({"generation_kwargs": {"temperature": 0.5}}, "sets 'temperature', which would win over `temperature`=0.7"),
        ({"generation_kwargs": {"seed": 3}}, "seed=3, which makes all samples of a prompt identical"),
    ],
)
def test_configurations_that_cannot_work(make_trainer, held_out, config, message):
    trainer = make_trainer(**config)
    with pytest.raises(ValueError, match=message):
        PassAtKCallback(trainer, held_out, num_samples=8, every=1, temperature=0.7)

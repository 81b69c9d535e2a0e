"""Rows, settings, allocators and rewards that cannot be trained on are named, before training where possible."""

import re
import time

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from launching import on_processes, run_script
from tiny_training import ON_CPU, build, right_moves
from transformers import AutoTokenizer

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.rollouts import Allocation
from rlvr_trl.testbed import build_model
from rlvr_trl.trainer.reward_guard import _checked
from rlvr_trl.trainer.rows import check_end_token, fault_of_prompt


@pytest.fixture
def make(cpu_settings, mazes, tokenizer):
    """Makes a trainer on these mazes, or on others."""

    def build_trainer(dataset=None, rewards=right_moves, processor=tokenizer, **changes):
        parts = {name: changes.pop(name) for name in ("rollouts", "eval_dataset") if name in changes}
        dataset = mazes if dataset is None else dataset
        return build(RLVRTrainer, cpu_settings | changes, dataset, processor, rewards, **parts)

    return build_trainer


# --- rows ---


def with_prompt(mazes, prompt):
    rows = mazes.to_list()
    rows[17]["prompt"] = prompt
    return Dataset.from_list(rows)


TEXTS = {"": "its prompt is empty", None: "its prompt is None", "☃": "the tokenizer makes no token of its prompt '☃'"}


@pytest.mark.parametrize("prompt", TEXTS)
@pytest.mark.parametrize("which", ["train_dataset", "eval_dataset", "hard"])
def test_a_prompt_that_says_nothing_is_named_by_its_row(make, mazes, prompt, which):
    broken = with_prompt(mazes, prompt)
    evaluated = {"train_dataset": None, "eval_dataset": broken, "hard": {"easy": mazes, "hard": broken}}[which]
    dataset = broken if which == "train_dataset" else mazes
    with pytest.raises(ValueError, match=f"Row 17 of `{which}` cannot be trained on: {TEXTS[prompt]}"):
        make(dataset, eval_dataset=evaluated)


CONVERSATIONS = [
    ([], "is a conversation without messages"),
    ([{"role": "user", "content": ""}], "is a conversation whose messages are all empty"),
    ([{"role": "user", "content": None}], "is a conversation whose messages are all empty"),
    ([{"role": "user", "content": []}, {"role": "user", "content": ""}], "is a conversation whose messages are all"),
    (7, "is a int; a text or a list of messages is needed"),
    ([{"role": "system", "content": ""}, {"role": "user", "content": "x"}], None),
    ([{"role": "user", "content": [{"type": "image"}]}], None),
    (" ", None),
]


@pytest.mark.parametrize(("prompt", "fault"), CONVERSATIONS)
def test_what_is_wrong_with_a_prompt(prompt, fault):
    found = fault_of_prompt(prompt)
    assert found is None if fault is None else found.startswith(fault)


@pytest.mark.parametrize("prompt", ["", None])
def test_a_prompt_of_a_stream_is_looked_at_when_it_comes(make, mazes, prompt):
    rows = with_prompt(mazes, prompt).select(range(16, 20)).to_list()

    def those():
        yield from rows

    trainer = make(IterableDataset.from_generator(those), max_steps=2)
    with pytest.raises(ValueError, match=f"A row of this batch cannot be trained on: {TEXTS[prompt]}"):
        trainer.train()


def test_tokens_of_a_stream_are_looked_at_too(make, mazes):
    trainer = make(with_prompt(mazes, "☃").to_iterable_dataset(), max_steps=12)
    with pytest.raises(ValueError, match="A prompt of this batch has no tokens"):
        trainer.train()


def test_columns(make, mazes):
    with pytest.raises(ValueError, match="`train_dataset` has no column `prompt`; it has maze, size"):
        make(mazes.remove_columns("prompt"))
    with pytest.raises(ValueError, match="`eval_dataset` has no column `prompt`"):
        make(eval_dataset=mazes.remove_columns("prompt"))
    for column in ("completions", "prompts", "trainer_state", "log_extra", "log_metric"):
        with pytest.raises(ValueError, match=f"`train_dataset` has a column `{column}`, but reward functions get"):
            make(mazes.add_column(column, ["x"] * len(mazes)))
    make(mazes.add_column("completion", ["x"] * len(mazes)))


# --- settings of TRL ---


def test_a_tokenizer_without_an_end_token(make, tokenizer, tmp_path):
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no end token. Set its `eos_token` to the token with which"):
        make(processor=tokenizer)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no end token"):
        check_end_token(AutoTokenizer.from_pretrained(tmp_path))


def test_stop_strings_are_refused_by_name(tmp_path):
    for given in ({"stop_strings": ["</answer>"]}, '{"stop_strings": "</answer>"}'):
        with pytest.raises(ValueError, match=r"`generation_kwargs` sets stop_strings=.*</answer>"):
            RLVRConfig(str(tmp_path), generation_kwargs=given, **ON_CPU)


def test_the_metrics_of_several_datasets_have_their_names(make, mazes):
    def length(completions, size, **kwargs):
        return [float(each) for each in size]  # so that the two differ

    small = mazes.filter(lambda row: row["size"] == min(mazes["size"])).select(range(2))
    large = mazes.filter(lambda row: row["size"] == max(mazes["size"])).select(range(2))
    settings = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "per_device_eval_batch_size": 8}
    trainer = make(rewards=length, eval_dataset={"small": small, "large": large}, **settings)
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert logged["eval_small_reward"] == min(mazes["size"]) and logged["eval_large_reward"] == max(mazes["size"])
    assert "eval_small_completions/mean_length" in logged and "eval_reward" not in logged
    trainer.evaluate(small)
    assert trainer.state.log_history[-1]["eval_reward"] == min(mazes["size"])  # of one it is as in TRL


# --- allocators ---


class Allocates:
    """A rollout allocator that returns what it is told to."""

    max_generations = 8

    def __init__(self, answer):
        self.answer = answer

    def start_batch(self, progress):
        pass

    def __call__(self, *counts):
        return self.answer

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class AllocatesBatches(Allocates):
    needs_history = needs_new_prompts = False

    def first_stage(self, batch):
        return torch.full((len(batch),), 4)


@pytest.mark.parametrize("answer", [None, [0, 0], 3, np.zeros(2, int), torch.zeros(2), torch.zeros(3, dtype=int)])
def test_what_an_allocator_returns_is_named(make, answer):
    with pytest.raises(ValueError, match=r"The rollout allocator .*Allocates object.* must return one non-negative"):
        make(rollouts=Allocates(answer)).train()


@pytest.mark.parametrize("answer", [None, torch.zeros(2, dtype=int), Allocation([0, 0]), Allocation(None)])
def test_what_an_allocator_of_batches_returns_is_named(make, answer):
    with pytest.raises(ValueError, match=r"The rollout allocator .*AllocatesBatches object.* must return "):
        make(rollouts=AllocatesBatches(answer)).train()


# --- rewards ---

NO_REWARDS = {
    "a dict": lambda n: {float(i): 1.0 for i in range(n)},
    "a set": lambda n: {float(i) for i in range(n)},
    "text": lambda n: "1" * n,
    "bytes": lambda n: b"1" * n,
    "one number": lambda n: 1.0,
    "nothing": lambda n: None,
    "too many": lambda n: [1.0] * (n + 1),
    "too few": lambda n: [1.0] * (n - 1),
    "without an end": lambda n: iter(int, 1),
    "nested": lambda n: [[1.0]] * n,
    "nested arrays": lambda n: np.ones((n, 1)),
    "nested tensors": lambda n: torch.ones(n, 1),
    "complex": lambda n: [1j] * n,
    "complex arrays": lambda n: np.ones(n) * 1j,
    "complex tensors": lambda n: torch.ones(n) * 1j,
    "texts": lambda n: ["1"] * n,
    "infinite": lambda n: [1.0] * (n - 1) + [float("-inf")],
    "infinite tensors": lambda n: torch.ones(n) / 0,
    "a dict each": lambda n: [{"reward": 1.0}] * n,
}


@pytest.mark.parametrize("what", NO_REWARDS)
def test_rewards_that_are_none_are_named(make, what):
    def strange(completions, **kwargs):
        return NO_REWARDS[what](len(completions))

    with pytest.raises(ValueError, match="^The reward function 'strange' returned"):
        make(rewards=strange).train()


@pytest.mark.parametrize(
    "rewards",
    [
        [0, 1.5],
        [True, None],
        [float("nan"), 1],
        (0, 1),
        np.ones(2),
        np.ones(2, bool),
        torch.ones(2),
        [torch.tensor(1), 0],
    ]
    + [[np.float32(1), np.int64(2)], range(2), (float(i) for i in range(2))],
)
def test_rewards_that_are_some_are_taken(rewards):
    assert len(_checked(rewards, "fine", 2)) == 2


ENDINGS = {
    "sleeps": "TimeoutError: The reward function 'strange' has not returned within 3 seconds. Its stack is above",
    "matches": r"Timeout \(0:00:15\)!(.|\n)*in strange",
    "floods": "TimeoutError: The reward function 'strange' has not returned within 3 seconds",
    "floods a full pipe": None,
    "exits": "RuntimeError: The reward function 'strange' raised SystemExit: 0",
    "exits in a thread": None,
}
SECONDS = 30  # docs/distributed.md says so: beyond the limit


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_reward_that_does_not_come_back_ends_the_run(tmp_path, how, processes):
    arguments = ("rewards_that_do_not_return.py", str(tmp_path), how)
    ended = [run_script(*arguments)] if processes == 1 else on_processes(*arguments, processes=2)
    seconds = time.time() - float((tmp_path / "begun_at").read_text())
    print(f"{how} on {processes}: ended after {seconds:.1f} s")
    assert seconds < 3 + SECONDS
    failing, others = ended[-1], ended[:-1]
    assert failing.returncode == (0 if how == "exits in a thread" else 1)
    assert ENDINGS[how] is None or re.search(ENDINGS[how], failing.stderr)
    for other in others:
        assert other.returncode == 1
        said = re.findall(r"^Process 0 ends, because (.*)$", other.stderr, re.MULTILINE)
        assert said, other.stderr[-2000:]
        if how not in ("matches", "exits in a thread"):  # of which the others only see the end
            assert "The reward function 'strange'" in said[0]


@pytest.mark.slow
def test_a_process_whose_reward_does_not_come_back_waits_until_the_others_know(tmp_path):
    other, failing = on_processes("rewards_that_do_not_return.py", str(tmp_path), "sleeps", "--hasty", processes=2)
    assert failing.returncode == other.returncode == 1
    assert "Stack of the thread MainThread" in failing.stderr  # its own look into the store has not cut it off
    [said] = re.findall(r"^Process 0 ends, because (.*)$", other.stderr, re.MULTILINE)
    assert "The reward function 'strange' has not returned within 3 seconds" in said


@pytest.mark.parametrize("value", [10**400, 1e300, 1e39, float("-inf"), torch.tensor(1e39, dtype=torch.float64)])
def test_a_reward_that_is_too_large_is_named(make, value):
    def large(completions, **kwargs):
        return [value, *[0.0] * (len(completions) - 1)]

    with pytest.raises(ValueError, match="'large' returned something that is neither a number nor None"):
        make(rewards=large, max_steps=1).train()


def test_stop_strings_of_the_model_are_refused(cpu_settings, mazes, tokenizer):
    model = build_model(tokenizer, seed=0)
    model.generation_config.stop_strings = ["R"]
    with pytest.raises(ValueError, match="generation_config.stop_strings"):
        build(RLVRTrainer, cpu_settings, mazes, tokenizer, right_moves, model)


@pytest.mark.parametrize(
    "prompt", [["a"], [None], [{"content": "a"}], [{"role": "user", "content": [{"type": "text", "text": ""}]}]]
)
def test_lists_that_are_no_conversations(prompt):
    assert fault_of_prompt(prompt)

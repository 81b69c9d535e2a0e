"""What is compared of a run that is resumed: what its rewards, model and settings were made with, and no secret."""

import functools
import json

import pytest
from peft import LoraConfig
from test_checkpoint_faults import plain
from tiny_training import ON_CPU, build, right_moves, short
from trl.rewards import get_soft_overlong_punishment

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rewards import MathReward, ReasoningGymReward, WeightedReward
from rlvr_trl.testbed import build_model, build_tokenizer
from rlvr_trl.trainer.fingerprint import changes_of_run, describe_value


def factory(scale):
    def scaled_reward(completions, **kwargs):
        return [scale * len(completion) for completion in completions]

    return scaled_reward


def scaled(by):
    def wrap(function):
        @functools.wraps(function)
        def called(completions, **kwargs):
            return [by * reward for reward in function(completions, **kwargs)]

        return called

    return wrap


class Hidden:
    __name__ = "hidden"

    def __init__(self, scale):
        self._scale = scale

    def __call__(self, completions, **kwargs):
        return [self._scale * len(completion) for completion in completions]


class Slots:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, completions, **kwargs):
        return [self.scale * len(completion) for completion in completions]


class Bound:
    def __init__(self, scale):
        self.scale = scale

    def reward(self, completions, **kwargs):
        return [self.scale * len(completion) for completion in completions]


def default(scale):
    def with_default(completions, scale=scale, **kwargs):
        return [scale * len(completion) for completion in completions]

    return with_default


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (factory(1), factory(-1)),
        (get_soft_overlong_punishment(4, 2), get_soft_overlong_punishment(4, 1)),
        (short, scaled(-1)(short)),
        (scaled(1)(short), scaled(-1)(short)),
        (Hidden(1), Hidden(-1)),
        (Slots(1), Slots(-1)),
        (Bound(1).reward, Bound(-1).reward),
        (default(1), default(-1)),
        (MathReward(), MathReward(starts_thinking=True)),
        (ReasoningGymReward(), ReasoningGymReward(starts_thinking=True)),
        (WeightedReward({right_moves: 0.9, short: 0.1}), WeightedReward({right_moves: 0.9, short: 0.2})),
    ],
)
def test_what_a_reward_was_made_with_is_compared(tmp_path, before, after):
    runs = [plain(tmp_path, rewards=each)._describe_run() for each in (before, before, after)]
    assert not changes_of_run(runs[0], runs[1], RLVRConfig)
    assert [*changes_of_run(runs[0], runs[2], RLVRConfig)] == ["reward_funcs"]


def test_a_reward_that_keeps_something_goes_on_in_its_process(tmp_path):
    class Counts(Hidden):
        def __call__(self, completions, **kwargs):
            self._scale += 1
            return super().__call__(completions)

    seen = []

    def keeps(completions, **kwargs):
        seen.extend(completions)
        return [0.5] * len(completions)

    rewards = [Counts(1), keeps]
    plain(tmp_path, rewards=rewards, max_steps=1).train()
    assert seen and rewards[0]._scale > 1
    plain(tmp_path, rewards=rewards, max_steps=2, resume_with_changes=["max_steps"]).train(resume_from_checkpoint=True)


def test_no_address_in_memory_is_compared():
    assert " at 0x" not in json.dumps(describe_value(WeightedReward({right_moves: 0.9, short: 0.1})))


def test_no_secret_is_kept_or_shown(tmp_path):
    class Judge(Hidden):
        def __init__(self, api_key):
            self.api_key, self._token, self.options = api_key, api_key, {"api_key": api_key}

        def __call__(self, completions, **kwargs):
            return [float("R" in completion) for completion in completions]

    def judged_with(api_key):
        def judged(completions, **kwargs):
            return [float("R" in completion) for completion in completions] if api_key else []

        return judged

    def by(key):
        return [Judge(key), judged_with(key), functools.partial(right_moves, api_key=key)]

    plain(tmp_path / "run", rewards=by("sk-old"), max_steps=1).train()
    assert "sk-old" not in (tmp_path / "run/checkpoint-1/manifest.json").read_text()
    plain(tmp_path / "run", rewards=by("sk-new"), max_steps=1).train(resume_from_checkpoint=True)


def test_a_large_table_is_described_by_its_digest():
    class Lookup(Hidden):
        def __init__(self, answers):
            self.answers = answers

    one, other = (describe_value(Lookup({str(i): i + more for i in range(10_000)})) for more in (0, 1))
    assert len(json.dumps(one)) < 500 and one["answers"]["digest"] != other["answers"]["digest"]


@pytest.mark.parametrize("values", [("/think", "/no_think"), (["."], []), (["\n"], ["\n", "."])])
def test_texts_that_look_like_places_are_compared(tmp_path, values):
    one, other = (plain(tmp_path, chat_template_kwargs={"mode": value})._describe_run() for value in values)
    assert [*changes_of_run(one, other, RLVRConfig)] == ["chat_template_kwargs"]


def test_another_base_or_reference_is_another_run(tmp_path):
    tokenizer = build_tokenizer()
    for name in ("base", "instruct"):
        build_model(tokenizer, seed=0).save_pretrained(tmp_path / name)
    mazes = make_maze_dataset(8, prompt_style="bare", seed=5)
    settings = {"per_device_train_batch_size": 4, "num_generations": 4, "prompts_per_batch": 2}
    settings |= {"output_dir": str(tmp_path)}

    def described(name, peft_config=None, **more):
        model = str(tmp_path / name)
        trainer = build(RLVRTrainer, settings | ON_CPU | more, mazes, tokenizer, short, model, peft_config=peft_config)
        return trainer._describe_run()

    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    changed = changes_of_run(described("base", lora), described("instruct", lora), RLVRConfig)
    assert changed == {"model": ['model.base: "base" -> "instruct"']}
    changed = changes_of_run(described("base", beta=0.1), described("instruct", beta=0.1), RLVRConfig)
    assert changed == {"model": ['model.reference: "base" -> "instruct"']}
    assert not changes_of_run(described("base"), described("instruct"), RLVRConfig)


def test_the_second_training_of_a_trainer_is_described_anew(tmp_path):
    trainer = plain(tmp_path, max_steps=2)
    trainer.train()
    trainer.args.learning_rate = 1e-2
    with pytest.raises(ValueError, match="learning_rate: 0.001 -> 0.01"):
        trainer.train(resume_from_checkpoint=True)


def test_what_ends_a_completion_is_compared_and_not_with_what_is_unknown(tmp_path):
    one, other = (plain(tmp_path)._describe_run() for _ in range(2))
    other["end_tokens"] |= {"model": [1, 2]}
    assert [*changes_of_run(one, other, RLVRConfig)] == ["end_tokens"]
    del one["end_tokens"]  # as an earlier version has it
    assert not changes_of_run(one, other, RLVRConfig)

"""Without a package that is not always installed, a run ends before it begins, and says what to install."""

import importlib.util

import pytest
from datasets import Dataset
from trl.rewards import accuracy_reward, get_cosine_scaled_reward, reasoning_accuracy_reward, think_format_reward

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.checks import check_installed
from rlvr_trl.data import load_reasoning_gym
from rlvr_trl.evaluation import evaluate
from rlvr_trl.evaluation.engines import VLLMEngine
from rlvr_trl.rewards import (
    LengthReward,
    MathReward,
    NoisyReward,
    WeightedReward,
    choice_reward,
    math_reward,
    reasoning_gym_reward,
)
from rlvr_trl.rewards.wrappers import packages_of


DATA = Dataset.from_dict({"prompt": ["1+1"] * 8, "answer": ["2"] * 8})


@pytest.fixture
def without(monkeypatch):
    """Makes modules look as if they were not installed."""
    find = importlib.util.find_spec

    def hide(*modules):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in modules else find(name))

    return hide


@pytest.mark.parametrize(
    ("reward", "name"),
    [
        (math_reward, "math_reward"),
        ([choice_reward, MathReward()], "math_reward"),
        (accuracy_reward, "accuracy_reward"),
        (NoisyReward(LengthReward(math_reward), 0.1), "math_reward_length_noisy"),
        (WeightedReward({choice_reward: 0.1, accuracy_reward: 0.9}), "choice_reward_and_accuracy_reward"),
    ],
)
def test_a_reward_is_refused_before_the_model_is_loaded(reward, name, without):
    without("math_verify")
    message = (
        rf"^{name} needs math-verify, not installed here: pip install math-verify, or pip install '.\[eval\]' in a"
    )
    with pytest.raises(ImportError, match=message):
        RLVRTrainer("there-is/no-such-model", reward, RLVRConfig("out", bf16=False, use_cpu=True), DATA)
    with pytest.raises(ImportError, match="needs math-verify"):
        evaluate(None, None, DATA, reward[1] if isinstance(reward, list) else reward, num_samples=1, max_new_tokens=1)


def test_both_packages_are_named(without):
    without("math_verify", "flint")
    with pytest.raises(ImportError, match="math-verify and python-flint, .*pip install math-verify python-flint, or"):
        math_reward(["1"], answer=["1"])


def test_vllm(without):
    without("vllm")
    message = (
        r"needs trl\[vllm\], not installed here: pip install 'trl\[vllm\]', or pip install '.\[vllm\]' in a clone"
    )
    with pytest.raises(ImportError, match=f"use_vllm=True {message}"):
        RLVRTrainer("no/model", choice_reward, RLVRConfig("out", bf16=False, use_cpu=True, use_vllm=True), DATA)
    with pytest.raises(ImportError, match=f"VLLMEngine {message}"):
        VLLMEngine("no/model")


def test_reasoning_gym(without):
    without("reasoning_gym")
    message = (
        r"needs reasoning-gym, not installed here: pip install reasoning-gym, or pip install '.\[puzzles\]' in a clone"
    )
    with pytest.raises(ImportError, match=f"A task of reasoning-gym {message}"):
        load_reasoning_gym("leg_counting", 1)
    with pytest.raises(ImportError, match=f"reasoning_gym_reward {message}"):
        reasoning_gym_reward(["1"], task=["leg_counting"], item=["{}"])
    with pytest.raises(ImportError, match=f"reasoning_gym_reward {message}"):
        RLVRTrainer("no/model", reasoning_gym_reward, RLVRConfig("out", bf16=False, use_cpu=True), DATA)


def test_what_rewards_need():
    assert packages_of(reasoning_accuracy_reward) == packages_of(get_cosine_scaled_reward(9)) == ("math_verify",)
    assert packages_of(think_format_reward) == packages_of(lambda **kwargs: []) == packages_of(choice_reward) == ()
    check_installed("nothing")

"""Calls as the pages and docstrings write them, for the type checker that `tests/test_types.py` runs."""

from dataclasses import dataclass
from typing import assert_type

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from rlvr_trl import (
    AGRAETrainer,
    DARSConfig,
    DARSTrainer,
    PassAtKCallback,
    PassAtKConfig,
    PassAtKTrainer,
    RLVRConfig,
    RLVRTrainer,
)
from rlvr_trl.advantages import (
    AGRAE,
    AdaptivePassAtK,
    AdvantageEstimator,
    DifficultyFocused,
    GroupRelative,
    NegativeOnly,
    NestedEstimator,
    PassAtK,
    PositiveNegativeReinforce,
    RolloutGroups,
    Scheduled,
    WithoutEasy,
    build_estimator,
    combine_rewards,
)
from rlvr_trl.analysis import PRESETS, advantage_curves, plot_curves, simulate
from rlvr_trl.data import (
    filter_by_length,
    filter_by_pass_rate,
    filter_by_verifier,
    load_benchmark,
    load_math,
    load_source,
    make_maze_dataset,
)
from rlvr_trl.evaluation import compare, evaluate, pass_at_k
from rlvr_trl.rewards import boxed_format_reward, math_reward, maze_reward
from rlvr_trl.rollouts import DARS, ReinforceAda, RolloutAllocator, equal_treatment, hardness_weighted, within_budget
from rlvr_trl.testbed import build_model, build_tokenizer, warm_up


def mine(groups: RolloutGroups) -> torch.Tensor:
    right = groups.num_correct[groups.index]
    return groups.correct / right.clamp(min=1) - groups.sum(groups.rewards)[groups.index]


def with_another_name(batch: RolloutGroups) -> torch.Tensor:
    return torch.where(batch.judged, batch.rewards, 0.0)


@dataclass(frozen=True)
class Clipped(NestedEstimator):
    base: AdvantageEstimator = GroupRelative()
    limit: float = 1.0

    def __call__(self, groups):
        return self.base(groups).clamp(-self.limit, self.limit)


def advantages() -> list[AdvantageEstimator]:
    groups = RolloutGroups(torch.rand(4), torch.tensor([0, 0, 1, 1]), seed=1, progress=0.5)
    assert_type(PassAtK(8)(groups), torch.Tensor)
    assert_type(groups.correct, torch.Tensor)
    assert_type(groups.entropies, torch.Tensor | None)
    combine_rewards(torch.rand(4, 2), torch.arange(4), torch.ones(2), correctness_column=1, lengths=torch.ones(4))
    return [
        PassAtK(k=8, method="bootstrap"),
        GroupRelative(scale="none"),
        Scheduled([(0, PassAtK(8)), (0.7, PassAtK(1))]),
        Scheduled([(0, PassAtK(8))]),
        AGRAE(PassAtK(k=8)),
        AGRAE(alpha=0.5),
        NegativeOnly(AdaptivePassAtK(4)),
        WithoutEasy(mine, threshold=0.25),
        DifficultyFocused("easy"),
        PositiveNegativeReinforce.w_reinforce(),
        Clipped(PassAtK(4), limit=2.0),
        build_estimator({"name": "pass_at_k", "k": 8}),
        mine,
        with_another_name,
    ]


def rollouts(num_correct: torch.Tensor, num_samples: torch.Tensor) -> list[RolloutAllocator]:
    assert_type(equal_treatment(0, 8, 32), int)
    extra = assert_type(hardness_weighted(num_correct, num_samples, 32, scale="std"), torch.Tensor)
    within_budget(extra, num_correct, num_samples, budget=64)
    return [DARS("hardness_weighted", max_generations=32), ReinforceAda(max_generations=32, round_size=8)]


def data(tokenizer: PreTrainedTokenizerBase) -> Dataset:
    test = make_maze_dataset(200, size=4, prompt_style="bare", seed=1)
    mazes = make_maze_dataset(5_000, size=[4, 5], prompt_style="bare", seed=0, exclude=test)
    warm_up(build_model(build_tokenizer()), tokenizer, mazes["maze"], output_dir="warmup")
    train = assert_type(load_math(), Dataset)
    train = load_math("math_train.parquet", drop_unanswered=True, template="plain")
    train = filter_by_length(train, tokenizer, max_tokens=1024)
    train = filter_by_pass_rate(train, num_correct=[1, 2, 3], num_samples=8)
    train = filter_by_verifier(load_source("openr1"), tokenizer=tokenizer, max_tokens=8192)
    load_source("dapo", template=lambda row: row["problem"] + "\n")
    load_benchmark("aime24", template=[{"role": "user", "content": "{problem}"}])
    return train


def training(dataset: Dataset) -> None:
    trainer = RLVRTrainer(
        model="Qwen/Qwen2.5-Math-1.5B",
        reward_funcs=[math_reward, boxed_format_reward],
        args=RLVRConfig(output_dir="out", num_generations=8, prompts_per_batch=64),
        train_dataset=dataset,
        advantages=AGRAE(PassAtK(k=8)),
        rollouts=DARS("hardness_weighted", max_generations=32),
    )
    trainer.add_callback(PassAtKCallback(trainer, dataset, 8, every=50))
    trainer.train()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    RLVRTrainer(model, maze_reward, RLVRConfig("out"), dataset, processing_class=tokenizer, advantages=mine)
    DARSTrainer(model, maze_reward, DARSConfig("out", max_generations=32), dataset, advantages=PassAtK(8))
    PassAtKTrainer(model, maze_reward, PassAtKConfig("out", k=4), dataset)
    AGRAETrainer(model, maze_reward, train_dataset=dataset)


def evaluation(dataset: Dataset) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained("out"), AutoTokenizer.from_pretrained("out")
    result = evaluate(model, tokenizer, dataset, math_reward, num_samples=64, max_new_tokens=512)
    print(result.pass_at_k[8], compare(result, result, 8), pass_at_k(64, [3, 4], 8))


def analysis() -> None:
    curves = advantage_curves(mine, 8, rollouts=DARS(), batch_accuracy=0.3)
    plot_curves({"mine": curves}, "curves.png", "Mine", panels=["total"])
    assert_type(simulate([0.5, 1.0], [0.0, -3.0], 2, negative_only=True), torch.Tensor)
    for bandit in PRESETS["default"].values():
        bandit.simulate(seeds=10)

"""Every estimator in the trainer, alone, reshaped and with extra rollouts; rows left out of the loss; entropies."""

from itertools import combinations, product

import pytest
import torch
from row_by_row import gradient_in_passes
from tiny_training import build, flat_weights, sample, short

from rlvr_trl import (
    AGRAEConfig,
    AGRAETrainer,
    NegativeGRPOConfig,
    NegativeGRPOTrainer,
    PassAtKConfig,
    PassAtKTrainer,
    RLVRConfig,
    RLVRTrainer,
)
from rlvr_trl.advantages import (
    AGRAE,
    FGRPO,
    PKPO,
    RSGRPO,
    AdaptivePassAtK,
    CombinedPassAtK,
    DifficultyFocused,
    DominantSide,
    ExceedingPassAtK,
    GroupRelative,
    GRPOLead,
    LeaveOneOut,
    MaxAtK,
    MaxRL,
    NegativeOnly,
    PassAtK,
    PassRateObjective,
    PerPromptMean,
    PositiveNegativeReinforce,
    ReinforcePlusPlus,
    RolloutGroups,
    Scheduled,
    TrainingGroup,
    WithoutEasy,
)
from rlvr_trl.rollouts import DARS


pytestmark = pytest.mark.slow


BASES = [
    GroupRelative("group"),
    GroupRelative("none"),
    PassAtK(2),
    PassAtK(2, "bootstrap"),
    PassAtK(2, "full_sampling"),
    ExceedingPassAtK(2),
    CombinedPassAtK(2),
    AdaptivePassAtK(2),
    PositiveNegativeReinforce.psr(),
    PositiveNegativeReinforce.nsr(),
    PositiveNegativeReinforce.w_reinforce(),
]
RESHAPERS = {
    "alone": lambda base: base,
    "a_grae": lambda base: AGRAE(base),
    "dominant_side": lambda base: DominantSide(base=base),
    "difficulty_focused": lambda base: DifficultyFocused(base=base),
    "negative_only": lambda base: NegativeOnly(base),
    "grpo_lead": lambda base: GRPOLead(base),
    "f_grpo": lambda base: FGRPO(base),
    "without_easy": lambda base: WithoutEasy(base),
    "per_prompt_mean": lambda base: PerPromptMean(base),
    "pass_rate_objective": lambda base: PassRateObjective(base),
    "training_group": lambda base: TrainingGroup(4, base),
    "scheduled": lambda base: Scheduled([(0, base), (0.5, GroupRelative())]),
}
ROLLOUTS = {"fixed": None, "dars": DARS("hardness_weighted", 8)}


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"per_device_train_batch_size": 16, "max_completion_length": 4, "max_steps": 3}


def pairs_of(combination):
    """All pairs of two values of a combination, each value with its position."""
    return set(combinations(enumerate(combination), 2))


def pairwise(*factors):
    """
    A few combinations of one value of each factor in which any two values of two factors meet at least once.

    Greedy: the next combination is the first of those with the most pairs that are still missing.
    """
    every = [(indices, pairs_of(indices)) for indices in product(*(range(len(factor)) for factor in factors))]
    missing, chosen = set().union(*(pairs for _, pairs in every)), []
    while missing:
        indices, pairs = max(every, key=lambda one: len(missing & one[1]))
        missing -= pairs
        chosen.append(tuple(factor[index] for factor, index in zip(factors, indices, strict=True)))
    return chosen


def test_any_two_values_meet_in_few_combinations():
    for factors in (["abc", "de", "fgh", "ij"], ["abcdefgh", "ij", "kl"], [BASES, list(RESHAPERS), list(ROLLOUTS)]):
        chosen = pairwise(*factors)
        met = set().union(*map(pairs_of, chosen))
        for (i, first), (j, second) in combinations(enumerate(factors), 2):
            assert {((i, a), (j, b)) for a, b in product(first, second)} <= met
        sizes = sorted(map(len, factors))
        assert sizes[-1] * sizes[-2] <= len(chosen) <= sizes[-1] * sizes[-2] + 2 and len(set(chosen)) == len(chosen)
        assert chosen == pairwise(*factors)


@pytest.mark.parametrize(
    ("base", "reshape", "rollouts"),
    # PSR has positive advantages alone, and NegativeOnly refuses it
    [
        combination
        for combination in pairwise(BASES, list(RESHAPERS), list(ROLLOUTS))
        if combination[:2] != (PositiveNegativeReinforce.psr(), "negative_only")
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value).replace("PositiveNegativeReinforce", "PNR"),
)
def test_bases_reshapers_and_rollouts_train_together(settings, mazes, tokenizer, base, reshape, rollouts):
    trainer = build(
        RLVRTrainer, settings, mazes, tokenizer, advantages=RESHAPERS[reshape](base), rollouts=ROLLOUTS[rollouts]
    )
    before = flat_weights(trainer.model).clone()
    trainer.train()
    after = flat_weights(trainer.model)
    assert trainer.state.global_step == 3 and after.isfinite().all()
    logged = [entry["advantages/abs_sum_max"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3
    assert max(logged) > 0 and not torch.equal(before, after)


def one_of_each(rewards):
    """The first completion of each reward in each row, or the first two where all are alike."""
    kept = torch.zeros_like(rewards, dtype=torch.bool)
    for row, group in enumerate(rewards.tolist()):
        kept[row, [group.index(min(group)), group.index(max(group))] if len(set(group)) > 1 else [0, 1]] = True
    return kept


@pytest.mark.parametrize(
    "estimator",
    [
        MaxRL(), RSGRPO(), FGRPO(PKPO(2)), PKPO(3), AGRAE(MaxAtK(2)), NegativeOnly(LeaveOneOut()),
        FGRPO(ReinforcePlusPlus()), GRPOLead(ReinforcePlusPlus(group_baseline=True)),
    ],
    ids=repr,
)  # fmt: skip
def test_estimators_since_the_papers_train_with_extra_rollouts(settings, mazes, tokenizer, estimator):
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, advantages=estimator, rollouts=ROLLOUTS["dars"])
    before = flat_weights(trainer.model).clone()
    trainer.train()
    assert flat_weights(trainer.model).isfinite().all() and not torch.equal(before, flat_weights(trainer.model))
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert max(entry["advantages/abs_sum_max"] for entry in logged) > 0
    assert max(entry["rollouts/per_prompt_max"] for entry in logged) == 8  # ragged groups


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
@pytest.mark.parametrize(
    ("estimator", "keeps"),
    [
        (PositiveNegativeReinforce.psr(), lambda rewards: rewards == 1),
        (PositiveNegativeReinforce.nsr(), lambda rewards: rewards == 0),
        (PassAtK(2, "full_sampling"), lambda rewards: torch.arange(len(rewards)) % 5 < 4),
        (TrainingGroup(2), lambda rewards: one_of_each(rewards.view(-1, 5)).flatten()),
    ],
    ids=["psr", "nsr", "full_sampling", "training_group"],
)
def test_rows_out_of_the_loss_are_out_of_its_normalizer(settings, mazes, tokenizer, loss_type, estimator, keeps):
    settings |= {"loss_type": loss_type, "beta": 0.0, "num_generations": 5, "per_device_train_batch_size": 20}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, advantages=estimator)
    batch = sample(trainer, mazes, 4)
    rewards = torch.tensor(trainer.logged_completions["rewards"]["right_moves"])
    kept = keeps(rewards)
    assert batch["in_loss"].tolist() == kept.tolist() and 0 < kept.sum() < 20
    assert batch["num_items_in_batch"] == batch["completion_mask"][kept].sum()
    gradient = gradient_in_passes(trainer, batch)
    # the same gradient as of a batch that never had the other rows
    alone = {name: value[kept] if value.dim() else value for name, value in batch.items() if name != "in_loss"}
    expected = gradient_in_passes(trainer, alone)
    assert expected.norm() > 0
    assert (gradient - expected).norm() / expected.norm() < 1e-5


class Recording:
    """An estimator that keeps what it was given."""

    needs_entropies = True

    def __init__(self):
        self.seen = []

    def __call__(self, groups: RolloutGroups):
        self.seen.append(groups)
        return GroupRelative()(groups)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"trim_padding": True},
        {"num_iterations": 2},
        {"num_iterations": 2, "trim_padding": True, "per_device_train_batch_size": 4, "steps_per_generation": 4},
        {"rollouts": {"name": "dars", "max_generations": 8}},
    ],
    ids=str,
)
def test_entropies_are_those_of_the_completions(settings, mazes, tokenizer, extra):
    estimator = Recording()
    trainer = build(RLVRTrainer, settings | extra | {"max_steps": 1}, mazes, tokenizer, advantages=estimator)
    with torch.no_grad():  # away from a uniform distribution
        trainer.model.model.norm.weight.mul_(4.0)
    batch = sample(trainer, mazes, 4)
    entropies = estimator.seen[-1].entropies
    assert len(entropies) == len(batch["prompt_ids"]) and entropies.std() > 0.01
    for row, entropy in enumerate(entropies):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        completion = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
        of_tokens = torch.distributions.Categorical(logits=logits[len(prompt) - 1 : -1]).entropy()
        torch.testing.assert_close(entropy, of_tokens.mean(), rtol=1e-4, atol=1e-5)


def test_no_forward_pass_is_spent_on_entropies_nobody_reads(settings, mazes, tokenizer):
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, advantages=PassAtK(2))
    passes = []
    trainer.model.register_forward_pre_hook(lambda *args: passes.append(1))
    sample(trainer, mazes, 4)
    sampling = len(passes)
    adaptive = build(RLVRTrainer, settings, mazes, tokenizer, advantages=AdaptivePassAtK(2))
    passes.clear()
    adaptive.model.register_forward_pre_hook(lambda *args: passes.append(1))
    sample(adaptive, mazes, 4)
    assert len(passes) == sampling + 1


@pytest.mark.parametrize("schedule", [{0: 3, 0.5: 1}, [(0, 3), (0.5, 1)], {"0": 3, "0.5": 1}], ids=str)
def test_k_switches_during_the_run(settings, mazes, tokenizer, schedule):
    settings |= {"max_steps": 4, "k_schedule": schedule}
    trainer = build(PassAtKTrainer, settings, mazes, tokenizer)
    used = []
    generate = trainer._generate_and_score_completions

    def keep(inputs):
        batch = generate(inputs)
        logs = trainer.logged_completions
        used.append((torch.tensor(logs["rewards"]["right_moves"]), torch.tensor(logs["advantages"])))
        return batch

    trainer._generate_and_score_completions = keep
    trainer.train()
    for step, (rewards, advantages) in enumerate(used):
        groups = RolloutGroups(rewards, torch.arange(16) // 4)
        torch.testing.assert_close(advantages, PassAtK(3 if step < 2 else 1)(groups))
    assert len(used) == 4


def test_bootstrap_draws_anew_for_every_batch_and_again_after_a_resume(settings, mazes, tokenizer):
    seeds = []

    class Seeds(Recording):
        needs_entropies = False

        def __call__(self, groups):
            seeds.append(groups.seed)
            return super().__call__(groups)

    for _ in range(2):
        build(RLVRTrainer, settings, mazes, tokenizer, advantages=Seeds()).train()
    assert len(set(seeds[:3])) == 3 and seeds[:3] == seeds[3:]


def test_named_trainers_bind_their_estimator(settings):
    assert AGRAEConfig(**settings).build_advantages() == AGRAE(GroupRelative("group"))
    nested = AGRAEConfig(**settings, base={"name": "pass_at_k", "k": 2}, alpha=0.5, suppression=False)
    assert nested.build_advantages() == AGRAE(PassAtK(2), alpha=0.5, suppression=False)
    assert NegativeGRPOConfig(**settings, scale_rewards="none").build_advantages() == NegativeOnly(
        GroupRelative("none")
    )
    config = RLVRConfig(**settings, advantages={"name": "a_grae", "base": {"name": "pass_at_k", "k": 2}})
    assert config.build_advantages() == AGRAE(PassAtK(2))
    with pytest.raises(ValueError, match="makes its advantages from `base`"):
        NegativeGRPOConfig(**settings, advantages="psr")
    with pytest.raises(ValueError, match="at least 9 completions.*is 4"):
        AGRAEConfig(**settings, base={"name": "pass_at_k", "k": 9})
    for schedule in ({0.2: 3}, {0: 3, 0.5: 0}, "8 then 1", [1, 2]):
        with pytest.raises(ValueError, match="k_schedule"):
            PassAtKConfig(**settings, k_schedule=schedule)


@pytest.mark.parametrize(
    ("trainer_class", "extra"),
    [(AGRAETrainer, {}), (NegativeGRPOTrainer, {"importance_sampling_level": "sequence"})],
)
def test_named_trainers_train(settings, mazes, tokenizer, trainer_class, extra):
    trainer = build(trainer_class, settings | extra, mazes, tokenizer)
    before = flat_weights(trainer.model).clone()
    trainer.train()
    assert not torch.equal(flat_weights(trainer.model), before)


def test_reward_weights_that_let_the_mean_reward_exceed_1_are_refused_for_a_grae(cpu_settings, mazes, tokenizer):
    two, nested = [short, short], Scheduled([(0, GroupRelative()), (0.5, AGRAE(alpha=0.5))])
    for estimator in (AGRAE(), nested):
        with pytest.raises(
            ValueError, match=r"`reward_weights` is \[1.0, 1.0\]. Set weights that sum to 1, or `omega`"
        ):
            build(RLVRTrainer, cpu_settings, mazes, tokenizer, two, advantages=estimator)
    weighted = cpu_settings | {"reward_weights": [0.25, 0.75]}
    build(RLVRTrainer, weighted, mazes, tokenizer, two, advantages=nested)
    build(RLVRTrainer, cpu_settings, mazes, tokenizer, two, advantages=AGRAE(omega="accuracy"))

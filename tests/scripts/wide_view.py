"""
Training with completions that depend on their place in the batch alone: any number of processes makes the same.

An estimator reads all that it may and shapes tokens. What it saw, and the gradients, are written by each process.
"""

import sys

import torch
from tiny_training import ON_CPU, WatchesSteps
from torch import Tensor

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import REPO, CompletionTokens, EntropyShaped, RolloutGroups, UniquenessAware, Unlikeliness
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rollouts import DARS
from rlvr_trl.testbed import build_model, build_tokenizer


OF_COMPLETIONS = (
    *("rewards", "group_ids", "correct", "judged", "entropies", "lengths", "truncated", "log_probs", "answer_ids"),
    "rewards_per_func",
)
OF_PROMPTS = ("prompt_ids", "seen", "samples", "correct", "alpha", "beta")
EOS, LENGTH = 1, 6


def moves_right(completions, log_extra, **kwargs):
    """Right if there are more moves to the right than to the left; the answer is what is left of other symbols."""
    answers = ["".join(one for one in completion if one in "RL")[:2] or None for completion in completions]
    log_extra("extracted_answer", answers)
    return [
        None if "E" in completion else float(completion.count("R") > completion.count("L"))
        for completion in completions
    ]


def has_no_wall(completions, **kwargs):
    return [0.1 * float("*" not in completion) for completion in completions]


class Everything(EntropyShaped):
    """Keeps what it saw."""

    def __init__(self):
        super().__init__(0.3, 1.5, REPO(0.2, UniquenessAware(0.5, Unlikeliness())))
        object.__setattr__(self, "groups", [])
        object.__setattr__(self, "tokens", [])

    needs_entropies = needs_history = True

    def __call__(self, groups: RolloutGroups) -> Tensor:
        self.groups.append(groups)
        return super().__call__(groups)

    def shape_tokens(self, advantages: Tensor, tokens: CompletionTokens) -> Tensor:
        self.tokens.append((advantages, tokens))
        return super().shape_tokens(advantages, tokens)


class Placed(WatchesSteps, RLVRTrainer):
    """The completion of a row depends on the number of the call and on its place among the rows of all processes."""

    calls = 0

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        first = self.accelerator.process_index * len(prompt_ids)
        made = [self.completion(first + row) for row in range(len(prompt_ids))]
        self.calls += 1
        return made, None

    def completion(self, place: int) -> list[int]:
        generator = torch.Generator().manual_seed(1000 * self.calls + place)
        length = int(torch.randint(1, LENGTH + 1, (1,), generator=generator))
        ids = torch.randint(3, 12, (length,), generator=generator).tolist()  # one character each
        return ids if length == LENGTH else [*ids, EOS]

    def see_step(self, model, loss, passes):
        parameters = self.accelerator.unwrap_model(model).parameters()
        self.gradients.append(torch.cat([parameter.grad.flatten() for parameter in parameters]).clone())


def train_on_everything(output_dir: str, rows_per_pass: int, loss_type: str = "dapo", rollouts=None) -> dict:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    with torch.no_grad():  # away from a uniform distribution
        model.model.norm.weight.mul_(4.0)
    estimator = Everything()
    args = RLVRConfig(
        output_dir,
        loss_type=loss_type,
        prompts_per_batch=3,
        num_generations=4,  # the second of three groups spans both processes
        per_device_train_batch_size=rows_per_pass,
        max_completion_length=LENGTH,
        max_steps=4,
        num_train_epochs=2,
        learning_rate=1e-2,
        optim="sgd",
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        **ON_CPU,
    )
    mazes = make_maze_dataset(6, prompt_style="bare", seed=5)  # two batches: then each prompt comes again
    trainer = Placed(
        model, [moves_right, has_no_wall], args, mazes, processing_class=tokenizer, advantages=estimator,
        rollouts=rollouts,
    )  # fmt: skip
    trainer.gradients = []
    trainer.train()
    return {
        "groups": [
            {name: getattr(groups, name) for name in OF_COMPLETIONS}
            | {f"history of {name}": getattr(groups.history, name) for name in OF_PROMPTS}
            | {"names": groups.reward_names, "same_answer": groups.same_answer}
            for groups in estimator.groups
        ],
        "tokens": [
            (advantages, tokens.log_probs, tokens.entropies, tokens.mask) for advantages, tokens in estimator.tokens
        ],
        "gradients": torch.stack(trainer.gradients),
        "logged": trainer.logged_completions,
    }


ROLLOUTS = {"fixed": None, "dars": DARS("hardness_weighted", 9, zero_accuracy="cap")}


if __name__ == "__main__":
    for name, rollouts in ROLLOUTS.items():
        seen = train_on_everything(f"{sys.argv[1]}/{name}", 2, rollouts=rollouts)
        torch.save(seen, f"{sys.argv[1]}/{name}-{torch.distributed.get_rank()}.pt")

"""
Hand-made batches with uneven numbers of rows on each rank, and DARS for real. Writes what each rank trained on.

The test runs `train_cases` on one process as well, with the rows of both ranks.
"""

import sys
from itertools import product

import torch
from tiny_training import ON_CPU, WatchesSteps

from rlvr_trl import DARSConfig, DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_model, build_tokenizer
from rlvr_trl.trainer.batch_layout import COMPLETION_FIELDS, PROMPT_FIELDS


LOSS_TYPES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
ADVANTAGES = (0.9, 0.0, -1.3, 1.7, 0.0, -0.4, 0.6, 0.0, -0.8)
WITHOUT_ADVANTAGE = (1, 4, 7)
# The rows of rank 1; rank 0 has the others. Nine rows in all, so that they are never even.
SPLITS = {
    "five and four": (5, 6, 7, 8),
    "eight and one": (4,),  # a row without advantage: rank 1 has nothing to train on with beta 0
    "all of one rank skipped": WITHOUT_ADVANTAGE,
    "no advantage at all": (5, 6, 7, 8),
}
NEVER_SAMPLED = [0, 2]  # padding and unknown, which the text of a completion does not show
CASES = list(product(LOSS_TYPES, ("token", "sequence"), (0.0, 0.04), SPLITS))


def nine_rows() -> dict:
    """A batch of TRL's form. The seventh completion is truncated and masked, the ninth has a single token."""
    generator = torch.Generator().manual_seed(1)
    prompts, completions = torch.tensor([[4, 9, 5, 3, 8, 6, 9, 4, 7], [7, 2, 5, 3, 6, 4, 0, 7, 1]])
    prompt_mask = (torch.arange(9) >= 9 - prompts.unsqueeze(1)).long()
    completion_mask = (torch.arange(7) < completions.unsqueeze(1)).long()
    return {
        "prompt_ids": torch.randint(3, 14, (9, 9), generator=generator) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(3, 14, (9, 7), generator=generator) * completion_mask,
        "completion_mask": completion_mask,
        # around those of an untrained model, so that some ratios are clipped
        "old_per_token_logps": (-2.6 + 0.4 * torch.randn(9, 7, generator=generator)) * completion_mask,
        "ref_per_token_logps": (-2.6 + 0.4 * torch.randn(9, 7, generator=generator)) * completion_mask,
        "advantages": torch.tensor(ADVANTAGES),
        "num_items_in_batch": completion_mask.sum(),  # of all processes, as TRL and `merge_stages` set it
    }


def rows_of_rank(batch: dict, rows: list[int]) -> dict:
    """Some rows, padded to their own longest, as a rank has them."""
    prompts = int(batch["prompt_mask"][rows].sum(dim=1).max())
    completions = int(batch["completion_mask"][rows].sum(dim=1).clamp(min=1).max())
    own = {}
    for name, value in batch.items():
        if name in PROMPT_FIELDS:
            own[name] = value[rows, -prompts:]
        elif name in COMPLETION_FIELDS:
            own[name] = value[rows, :completions]
        else:
            own[name] = value[rows] if value.dim() > 0 else value
    return own


def check_processes(trainer, processes: int) -> None:
    assert trainer.accelerator.num_processes == processes
    kind = str(trainer.accelerator.distributed_type)
    assert kind.endswith("MULTI_CPU" if processes > 1 else "NO"), kind


class HandMade(WatchesSteps, RLVRTrainer):
    """Trains on one case after the other, with a learning rate of 0, so that all cases see the same weights."""

    cases: list
    gradients: list

    def _generate_and_score_completions(self, inputs):
        loss_type, level, beta, split = self.cases[len(self.gradients) // self.blocks]
        self.loss_type, self.importance_sampling_level, self.beta = loss_type, level, beta
        self.epsilon_high = 1.1 if loss_type == "cispo" else 0.2
        batch = nine_rows()
        if split == "no advantage at all":
            batch["advantages"] = torch.zeros(9)
        first = [row for row in range(9) if row not in SPLITS[split]]
        ranks = [first, list(SPLITS[split])]
        mine = ranks[self.accelerator.process_index] if self.accelerator.num_processes == 2 else list(range(9))
        return rows_of_rank(batch, mine)

    def see_step(self, model, loss, passes):
        parameters = self.accelerator.unwrap_model(model).parameters()
        gradient = torch.cat([parameter.grad.flatten() for parameter in parameters])
        every = self.accelerator.gather(gradient.unsqueeze(0))  # (W, N)
        assert (every == every[0]).all()
        self.gradients.append(gradient.clone())


def train_cases(output_dir: str, cases: list, processes: int, blocks: int = 1, **settings) -> dict:
    """The gradient of every block of every case, and the metrics of every case."""
    tokenizer = build_tokenizer()
    args = RLVRConfig(
        output_dir,
        per_device_train_batch_size=2,
        num_generations=2,
        steps_per_generation=blocks,
        max_completion_length=7,
        max_steps=len(cases) * blocks,
        learning_rate=0.0,
        optim="sgd",
        max_grad_norm=0.0,
        trim_padding=True,
        logging_steps=1,
        save_strategy="no",
        **ON_CPU,
        **settings,
    )
    trainer = HandMade(
        build_model(tokenizer, seed=0),
        a_third_is_right,
        args,
        make_maze_dataset(8, prompt_style="bare", seed=5),
        processing_class=tokenizer,
    )
    trainer.cases, trainer.gradients, trainer.blocks = cases, [], blocks
    check_processes(trainer, processes)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(history) == len(trainer.gradients) == len(cases) * blocks
    return {"gradients": torch.stack(trainer.gradients), "history": history}


def a_third_is_right(prompts, completions, maze, trainer_state, **kwargs):
    """Depends on the completion alone, except that the second batch is all right and the third all wrong."""
    assert prompts == [text + "\n" for text in maze]
    if trainer_state.global_step in (1, 2):
        return [float(trainer_state.global_step == 1)] * len(completions)
    return [float(sum(map(ord, completion)) % 3 == 0) for completion in completions]


class Recording(DARSTrainer):
    """Keeps what it logs and trains on, and how likely each logged completion is after its prompt."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        rows = [
            (
                self._tokenizer.decode(prompt[prompt_mask.bool()]),
                self._tokenizer.decode(completion[mask.bool()], skip_special_tokens=True),
                advantage.item(),
            )
            for prompt, prompt_mask, completion, mask, advantage in zip(
                *(output[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")),
                output["advantages"],
                strict=True,
            )
        ]
        logged = self.logged_completions
        logs = {name: logged[name] for name in ("prompt", "completion", "advantages")}
        logs["rewards"] = logged["rewards"]["a_third_is_right"]
        prompts, completions = logs["prompt"], logs["completion"]
        shifted = prompts[len(prompts) // 2 :] + prompts[: len(prompts) // 2]
        ranks = {"own": self._worst_ranks(prompts, completions), "other": self._worst_ranks(shifted, completions)}
        different = [own != other for own, other in zip(prompts, shifted, strict=True)]
        self.batches.append({"rows": rows, **logs, "ranks": ranks, "different": different})
        return output

    @torch.no_grad()
    def _worst_ranks(self, prompts, completions) -> list[int]:
        """For each completion, how many tokens are likelier than its least likely one at that position."""
        model, worst = self.accelerator.unwrap_model(self.model), []
        for prompt, completion in zip(prompts, completions, strict=True):
            before, after = self._tokenizer(prompt)["input_ids"], self._tokenizer(completion)["input_ids"]
            if not after:
                worst.append(0)
                continue
            logits = model(input_ids=torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
            logits[:, NEVER_SAMPLED] = -torch.inf
            chosen = logits.gather(1, torch.tensor(after).unsqueeze(1))
            worst.append(int((logits > chosen).sum(dim=1).max()))
        return worst


def train_dars(output_dir: str, steps: int, **settings) -> None:
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # an untrained model hardly looks at its prompt; with larger weights it does
                parameter.mul_(8)
    args = DARSConfig(
        output_dir,
        schedule="hardness_weighted",
        zero_accuracy="cap",
        max_generations=9,
        prompts_per_batch=3,
        num_generations=4,  # the second of three groups spans both ranks
        per_device_train_batch_size=4,
        max_completion_length=6,
        top_k=2,
        generation_kwargs={"suppress_tokens": NEVER_SAMPLED},
        max_steps=steps,
        learning_rate=1e-3,
        scale_rewards="none",
        logging_steps=1,
        save_strategy="no",
        **ON_CPU,
        **settings,
    )
    mazes = make_maze_dataset(12, prompt_style="bare", seed=5)
    trainer = Recording(model, a_third_is_right, args, mazes, processing_class=tokenizer)
    trainer.batches = []
    check_processes(trainer, 2)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer.train()
    weights = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    saved = {
        "moved": any(not torch.equal(weight, before[name]) for name, weight in weights.items()),
        "batches": trainer.batches,
        "weights": {name: weight.detach() for name, weight in weights.items()},
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
    }
    torch.save(saved, f"{output_dir}-{trainer.accelerator.process_index}.pt")


TWO_BLOCKS = [(loss_type, "token", 0.04, split) for loss_type in LOSS_TYPES for split in SPLITS]
BUDGET = [(loss_type, "token", 0.0, split) for loss_type in ("grpo", "dapo") for split in SPLITS]


if __name__ == "__main__":
    folder = sys.argv[1]
    results = {
        "cases": train_cases(f"{folder}/cases", CASES, 2),
        "two_blocks": train_cases(f"{folder}/two_blocks", TWO_BLOCKS, 2, blocks=2),
        "budget": train_cases(f"{folder}/budget", BUDGET, 2, max_tokens_per_micro_batch=30),
    }
    if torch.distributed.get_rank() == 0:
        torch.save(results, f"{folder}/gradients.pt")
    train_dars(f"{folder}/dars", 5)
    train_dars(f"{folder}/one_extra", 1, max_extra_rollouts=1)

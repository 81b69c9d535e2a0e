"""Groups of an asynchronous step that are made up, and their gradient by a second route: row by row, not packed."""

import random

import numpy as np
import torch
from trl.experimental.async_grpo.async_rollout_worker import TrainingSequence

from rlvr_trl.advantages import combine_rewards
from rlvr_trl.async_trainer.exchange import PromptGroup, PromptOrder


VOCABULARY = 14  # of the maze model


def random_groups(seed: int, sizes) -> list[PromptGroup]:
    """Groups of these sizes with tickets 0, 1, …: some completions have tokens of a tool, some two rows."""
    rng = random.Random(seed)
    groups = []
    for ticket, size in enumerate(sizes):
        prompt = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(2, 6))]
        sequences = [[random_row(rng, prompt) for _ in range(rng.choice([1, 1, 1, 2]))] for _ in range(size)]
        rewards = np.array([[round(rng.random(), 1)] for _ in range(size)], dtype=np.float32)
        lengths = np.array([sum(sum(row.completion_mask) for row in rows) for rows in sequences])
        stages, no = np.ones(size, dtype=int), np.zeros(size, dtype=bool)
        order = PromptOrder(ticket, ticket)
        groups.append(PromptGroup(order, "", [""] * size, rewards, stages, lengths, no, sequences, [{}] * size, 0))
    return groups


def random_row(rng: random.Random, prompt: list[int]) -> TrainingSequence:
    ids, mask = list(prompt), [0] * len(prompt)
    for turn in range(rng.choice([1, 1, 2])):
        if turn:
            tool = [rng.randrange(3, VOCABULARY) for _ in range(2)]
            ids, mask = ids + tool, mask + [0, 0]
        said = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 7))]
        ids, mask = ids + said, mask + [1] * len(said)
    return TrainingSequence(ids, mask, [-rng.uniform(1.5, 3.5) * on for on in mask], "")


def put_into(trainer, groups) -> None:
    """As if they had been sampled."""
    feed = trainer._feed
    feed._allowance = len(groups)
    while feed._next_ticket < len(groups):
        with feed.lock:
            feed._next_order()
    feed._waiting = list(groups)


def gradient_row_by_row(model, groups, estimator, low: float, high: float, temperature: float = 1.0) -> torch.Tensor:
    """
    The gradient of TRL's clipped loss, summed over the rows and divided by all their tokens in the loss.

    Each row goes through the model alone, from its logits.
    """
    rewards = torch.from_numpy(np.concatenate([group.rewards_per_func for group in groups]))
    ids = torch.cat([torch.full((len(group),), place) for place, group in enumerate(groups)])
    batch = combine_rewards(rewards, ids, torch.ones(1))
    advantages = estimator(batch)
    keep = estimator.rows_in_loss(batch) if hasattr(estimator, "rows_in_loss") else batch.scored
    rows = [rows for group in groups for rows in group.sequences]
    rows = [(row, advantage) for some, advantage, k in zip(rows, advantages, keep, strict=True) if k for row in some]
    total = sum(sum(row.completion_mask) for row, _ in rows)
    model.zero_grad()
    for row, advantage in rows:
        tokens, mask = torch.tensor([row.input_ids]), torch.tensor(row.completion_mask[1:]) > 0
        logits = model(input_ids=tokens).logits[0, :-1] / temperature
        log_probs = logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0][mask]
        ratio = (log_probs - torch.tensor(row.old_log_probs[1:])[mask]).exp()
        clipped = ratio.clamp(1 - low, 1 + high)
        (-torch.min(ratio * advantage, clipped * advantage).sum() / total).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).double()

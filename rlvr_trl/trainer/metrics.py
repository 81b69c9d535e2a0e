"""Metrics of several calls into TRL, joined into those of one batch."""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..advantages import RolloutGroups
from ..rollouts import PromptHistory, RolloutBatch
from ..trl_compat import borrow, nanstd
from .passes import UpdatePlan


ACCURACY_BUCKETS = ((0.0, 0.0), (0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0), (1.0, 1.0))


@dataclass
class Captured:
    """What a call into TRL wrote into the trainer's metrics and logs of completions."""

    metrics: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    logs: dict[str, Any] = field(default_factory=dict)


@contextmanager
def capture(trainer) -> Iterator[Captured]:
    """
    Within it, the trainer writes training metrics and logs of completions into the returned object, not into its own.

    If the call raises, nothing that it has written is kept.
    """
    tokens = trainer.state.num_input_tokens_seen
    captured = Captured(
        logs={name: defaultdict(deque) if isinstance(v, dict) else deque() for name, v in trainer._logs.items()}
    )
    with borrow(trainer._metrics, train=captured.metrics), borrow(trainer, _logs=captured.logs):
        try:
            yield captured
        except BaseException:
            trainer.state.num_input_tokens_seen = tokens
            trainer._pending_extra_logs.clear()
            trainer._pending_metrics.clear()
            raise


def combine_metrics(metrics: Sequence[dict[str, list[float]]], weights: Sequence[float]) -> dict[str, float]:
    """
    One value per metric from several calls: the smallest or largest if the name ends in min or max, otherwise the
    weighted mean. NaN values and calls that did not log a metric are left out; NaN where nothing is left.

    Args:
        metrics (`Sequence[dict]`): for each call, the name of each metric and the values logged under it.
        weights (`Sequence[float]`): weight of each call.
    """
    combined = {}
    for name in dict.fromkeys(name for call in metrics for name in call):
        values = [(v, w) for call, w in zip(metrics, weights, strict=True) for v in call.get(name, ())]
        values = [(v, w) for v, w in values if not math.isnan(v)]
        if name.endswith(("min", "max")):
            combined[name] = (min if name.endswith("min") else max)((v for v, _ in values), default=math.nan)
        else:
            total = sum(w for _, w in values)
            combined[name] = sum(v * w for v, w in values) / total if total else math.nan
    return combined


def update_metrics(logged: list[dict[str, list[float]]], update: UpdatePlan, sequence_level: bool) -> dict[str, float]:
    """
    The metrics of an optimizer step from those that TRL logged in each of its passes.

    Most are means over the tokens of a pass. Some are means over its rows, filler included; these are corrected for
    the filler, whose value is known: 1 for the weight of VESPO, 0 for a clip ratio.
    """
    per_row: dict[str, float | None] = {"vespo/phi_seq_mean": 1.0, "aux_loss": None}
    if sequence_level:
        names = {name for metrics in logged for name in metrics}
        per_row |= {name: 0.0 for name in names if name == "cispo_clip_ratio" or name.startswith("clip_ratio/")}
    combined = combine_metrics(logged, update.tokens)
    for name, filler in per_row.items():
        if name not in combined or name.endswith(("min", "max")):
            continue
        total = 0.0
        for metrics, forward_pass, rows in zip(logged, update.passes, update.rows, strict=True):
            all_rows = len(forward_pass.rows) * update.totals.num_processes
            value = metrics[name][0]
            total += value * rows if filler is None else value * all_rows - filler * (all_rows - rows)
        combined[name] = total / sum(update.rows)
    return combined


def join_logs(trainer, logs: list[dict[str, Any]], rows: list[list[int]], advantages: list[float]) -> None:
    """Logs completions of several stages as the trainer's last batch: of stage i those with the indices `rows[i]`."""

    def joined(columns: list) -> deque:
        values = [
            value
            for column, some in zip(map(list, columns), rows, strict=True)
            for value in ([column[row] for row in some] if column else [None] * len(some))
        ]
        return deque(values, maxlen=max(len(values), trainer.args.generation_batch_size))

    for name, first in logs[0].items():
        if isinstance(first, dict):
            names = dict.fromkeys(column for stage in logs for column in stage[name])
            for column in names:
                trainer._logs[name][column] = joined([stage[name].get(column, ()) for stage in logs])
        elif any(stage[name] for stage in logs):
            trainer._logs[name] = joined([stage[name] for stage in logs])
    trainer._logs["advantages"] = deque(advantages, maxlen=max(len(advantages), trainer.args.generation_batch_size))


def completion_metrics(lengths: Tensor, truncated: Tensor) -> dict[str, float]:
    """TRL's `completions/*` metrics from the length `(T,)` and the truncation `(T,)` of every completion."""
    lengths = lengths.float()
    ended = lengths[~truncated] if (~truncated).any() else lengths.new_zeros(1)
    metrics = {"completions/clipped_ratio": truncated.float().mean().item()}
    for name, values in (("", lengths), ("terminated_", ended)):
        metrics |= {
            f"completions/mean_{name}length": values.mean().item(),
            f"completions/min_{name}length": values.min().item(),
            f"completions/max_{name}length": values.max().item(),
        }
    return metrics


def reward_metrics(rewards_per_func: Tensor, names: list[str], groups: RolloutGroups, weights: Tensor) -> dict:
    """TRL's reward metrics from the rewards `(T, F)` of every completion, over groups of any size."""
    metrics = {}
    for name, rewards in zip(names, rewards_per_func.unbind(1), strict=True):
        metrics[f"rewards/{name}/mean"] = torch.nanmean(rewards).item()
        metrics[f"rewards/{name}/std"] = nanstd(rewards).item()
    rewards = (rewards_per_func * weights.to(rewards_per_func.device)).nansum(dim=1)
    rewards[rewards_per_func.isnan().all(dim=1)] = torch.nan
    padded = groups.pad(groups.rewards, torch.nan)  # (P, n)
    highest = padded.nan_to_num(-torch.inf).amax(dim=1)  # -inf, and the lowest inf, where nothing is scored
    spread = highest - padded.nan_to_num(torch.inf).amin(dim=1)
    return metrics | {
        "reward": torch.nanmean(rewards).item(),
        "reward_std": nanstd(rewards).item(),
        "frac_reward_zero_std": torch.isclose(spread, torch.zeros_like(spread)).float().mean().item(),
    }


def group_metrics(groups: RolloutGroups) -> dict[str, float]:
    """Share of prompts whose completions are all wrong, and all right."""
    judged = groups.num_judged > 0
    all_right = judged & (groups.num_correct == groups.num_judged)
    return {
        "groups/frac_all_wrong": (judged & (groups.num_correct == 0)).float().mean().item(),
        "groups/frac_all_right": all_right.float().mean().item(),
    }


def advantage_metrics(advantages: Tensor, groups: RolloutGroups) -> dict[str, float]:
    """Σ|A| of the groups, and the share of completions without advantage."""
    abs_sum = groups.sum(advantages.abs())  # (P,)
    return {
        "advantages/abs_sum_mean": abs_sum.mean().item(),
        "advantages/abs_sum_max": abs_sum.max().item(),
        "advantages/frac_zero": (advantages == 0).float().mean().item(),
    }


def rollout_metrics(first: RolloutGroups, merged: RolloutGroups, before: Tensor, after: Tensor) -> dict[str, float]:
    """
    What the extra stages did, with prompts in buckets by their accuracy after the first stage.

    Args:
        first ([`RolloutGroups`]), merged ([`RolloutGroups`]): the groups after the first stage and after all.
        before (`Tensor` of shape `(T1,)`), after (`Tensor` of shape `(T,)`): the advantages of their completions.
    """

    def is_mixed(groups: RolloutGroups) -> Tensor:
        return (groups.num_correct > 0) & (groups.num_correct < groups.num_judged)

    all_wrong = (first.num_judged > 0) & (first.num_correct == 0)
    rescued = all_wrong & is_mixed(merged)
    sizes = merged.sizes.float()
    metrics = {
        "rollouts/per_prompt_mean": sizes.mean().item(),
        "rollouts/per_prompt_max": sizes.max().item(),
        "rollouts/extra": float(len(merged.rewards) - len(first.rewards)),
        "rollouts/frac_rescued": (rescued.sum() / all_wrong.sum()).item() if all_wrong.any() else math.nan,
    }
    columns = {
        "rollouts/per_prompt": sizes,
        "advantages/abs_sum_first_stage": first.sum(before.abs()),
        "advantages/abs_sum_all_stages": merged.sum(after.abs()),
    }
    for low, high in ACCURACY_BUCKETS:
        name, inside = _bucket(first.accuracy, low, high)
        for column, values in columns.items():
            metrics[f"{column}/{name}"] = values[inside].mean().item()  # NaN for an empty one: left out of the log
    return metrics


def sampling_metrics(sampled: RolloutGroups, kept: RolloutGroups, rounds: int) -> dict[str, float]:
    """
    What was sampled for a batch and what of it is trained on.

    Args:
        sampled ([`RolloutGroups`]), kept ([`RolloutGroups`]): all groups, and those that were not dropped.
        rounds (`int`): rounds of generation.
    """
    assert sampled.lengths is not None
    mixed = ((kept.num_correct > 0) & (kept.num_correct < kept.num_judged)).sum().item()
    return {
        "rollouts/rounds": float(rounds),
        "rollouts/prompts_sampled": float(sampled.num_groups),
        "rollouts/completions_sampled": float(len(sampled.rewards)),
        "rollouts/tokens_sampled": sampled.lengths.sum().item(),
        "rollouts/frac_dropped": 1 - kept.num_groups / sampled.num_groups,
        "rollouts/frac_mixed": mixed / kept.num_groups,
        "rollouts/mixed_groups_per_million_tokens": mixed / max(sampled.lengths.sum().item(), 1) * 1e6,
    }


def history_metrics(history: PromptHistory, predicted: Tensor, batch: RolloutBatch) -> dict[str, float]:
    """
    What the history knows by now, and how well it has foretold a batch.

    Args:
        history ([`PromptHistory`]): after the batch.
        predicted (`Tensor` of shape `(P,)`): the accuracy of each prompt that it gave before.
        batch ([`RolloutBatch`]): what was sampled of these prompts.
    """
    judged = batch.num_judged > 0
    predicted, observed = predicted[judged], (batch.num_correct / batch.num_judged)[judged].double()
    known = history.samples > 0
    metrics = {
        "history/frac_seen": float((history.seen > 0).mean()),
        "history/frac_never_solved": float((history.correct[known] == 0).mean()) if known.any() else math.nan,
        "history/frac_always_solved": float((history.correct == history.samples)[known].mean())
        if known.any()
        else math.nan,
        "history/prediction_error": (predicted - observed).abs().mean().item(),
    }
    for low, high in ACCURACY_BUCKETS[1:-1]:  # a mean of a posterior is never 0 or 1
        name, inside = _bucket(predicted, low, high)
        metrics[f"history/observed/{name}"] = observed[inside].mean().item()  # NaN for an empty one
    return metrics


def _bucket(accuracy: Tensor, low: float, high: float) -> tuple[str, Tensor]:
    """A bucket is (low, high], without 0 and 1, which have buckets of their own."""
    if low == high:
        return f"accuracy_{low:g}", accuracy == low
    return f"accuracy_{low:g}_{high:g}", (accuracy > low) & (accuracy <= high) & (accuracy < 1)

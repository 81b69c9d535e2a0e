"""GRPOTrainer with a replaceable advantage."""

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import get_config_model_id

from ..advantages import AdvantageEstimator, RolloutGroups, combine_rewards
from ..advantages.combine import correctness_column
from .reward_errors import name_errors
from .rlvr_config import RLVRConfig, check_group_size
from .trl_seams import check_trl


check_trl()


def check_datasets(args: RLVRConfig, train_dataset, eval_dataset) -> None:
    """
    Refuses datasets on which TRL would train or evaluate zero steps without a word.

    Raises:
        `ValueError`: A dataset is empty, or one batch needs more prompts than the training set has.
    """
    splits = eval_dataset if isinstance(eval_dataset, (dict, DatasetDict)) else {"eval_dataset": eval_dataset}
    for name, dataset in {"train_dataset": train_dataset, **splits}.items():
        if isinstance(dataset, Dataset) and len(dataset) == 0:
            raise ValueError(f"The dataset `{name}` is empty: it has 0 rows, at least 1 is needed.")
    prompts_per_batch = args.generation_batch_size // args.num_generations
    if isinstance(train_dataset, Dataset) and len(train_dataset) < prompts_per_batch:
        raise ValueError(
            f"One batch needs {prompts_per_batch} prompts, but `train_dataset` has {len(train_dataset)}: every batch "
            f"would be dropped as incomplete and nothing trained. A batch has `generation_batch_size` / "
            f"`num_generations` = {args.generation_batch_size} / {args.num_generations} prompts; lower "
            f"`per_device_train_batch_size`, `gradient_accumulation_steps` or `steps_per_generation`, or raise "
            f"`num_generations`."
        )


class RLVRTrainer(GRPOTrainer):
    """
    TRL's [`~trl.GRPOTrainer`] whose advantage is an argument.

    Every argument and option of GRPOTrainer works as it does there. Without `advantages` the training is GRPO, to the
    last bit. During evaluation, which trains nothing and may use groups smaller than the estimator needs
    (`num_generations_eval`), TRL's own group-relative advantages are used and logged.

    ```python
    from datasets import load_dataset
    from rlvr_trl import RLVRConfig, RLVRTrainer
    from rlvr_trl.advantages import PassAtK
    from trl.rewards import accuracy_reward

    trainer = RLVRTrainer(
        model="Qwen/Qwen2.5-Math-1.5B",
        reward_funcs=accuracy_reward,
        args=RLVRConfig("Qwen2.5-Math-1.5B-PassAtK", num_generations=16),
        train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
        advantages=PassAtK(k=8),
    )
    trainer.train()
    ```

    Args:
        args ([`RLVRConfig`], *optional*):
            Configuration of the trainer. Not a plain `GRPOConfig`.
        advantages (`Callable[[RolloutGroups], Tensor]`, *optional*):
            Turns the rewards of a batch of groups into one advantage per completion, shape `(T,)` in the same order.
            It sees the whole batch, gathered from all processes, and must be deterministic: every process calls it and
            keeps its own rows. The default is what `args` describes, GRPO if they say nothing.

    All other arguments are those of [`~trl.GRPOTrainer`].

    Metrics, over the completions of all processes: `groups/frac_all_wrong` and `groups/frac_all_right` (share of
    prompts with no correct, or no wrong completion), `advantages/abs_sum_mean` and `advantages/abs_sum_max` (Σ|A| of a
    group), `advantages/frac_zero` (share of completions without advantage).

    Raises:
        `ValueError`: Before a model is loaded: the estimator needs larger groups than `num_generations`, `advantages`
        is given here and in `args`, a dataset is empty or smaller than one batch. Then: `correctness_reward` names no
        reward function.
    """

    _tag_names = ["trl", "rlvr-trl"]
    _name = "RLVR"
    _paper = {}
    _config_class = RLVRConfig

    def __init__(
        self,
        model,
        reward_funcs=None,
        args: RLVRConfig | None = None,
        train_dataset=None,
        eval_dataset=None,
        *positional,
        advantages: AdvantageEstimator | None = None,
        **kwargs,
    ):
        if args is None:
            model_id = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{model_id.split('/')[-1]}-{self._name}")
        if not isinstance(args, self._config_class):
            raise TypeError(
                f"`args` of {type(self).__name__} must be a {self._config_class.__name__}, got {type(args).__name__}."
            )
        if advantages is not None:
            if not callable(advantages):
                raise TypeError(
                    f"`advantages` must be a callable that takes RolloutGroups, got {type(advantages).__name__}. An "
                    f"estimator's name goes into `args.advantages`."
                )
            if args.advantages is not None:
                raise ValueError(
                    f"`advantages` is set both as a trainer argument ({advantages!r}) and in `args` "
                    f"({args.advantages!r}). Set it in one place."
                )
            check_group_size(advantages, args.num_generations)
        check_datasets(args, train_dataset, eval_dataset)

        super().__init__(model, reward_funcs, args, train_dataset, eval_dataset, *positional, **kwargs)

        self.advantages = args.build_advantages() if advantages is None else advantages
        self._correctness_column = correctness_column(self.reward_func_names, args.correctness_reward)
        self.reward_funcs = [
            name_errors(func, name) for func, name in zip(self.reward_funcs, self.reward_func_names, strict=True)
        ]
        self._rewards_per_func = None  # (T, F), of the last batch scored, from all processes

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards_per_func

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        mode = "train" if self.model.training else "eval"
        groups = self._rollout_groups(output, mode)
        self._log_groups(groups, mode)
        if mode == "train":
            advantages = self._estimate_advantages(groups)  # (T,), all processes
            start = self.accelerator.process_index * len(inputs)
            output["advantages"] = advantages[start : start + len(inputs)]  # (B,), this process
            self._log_advantages(advantages, groups)
        return output

    def _rollout_groups(self, output: dict, mode: str) -> RolloutGroups:
        """The groups of the batch that was just scored, from all processes."""
        num_generations = self.num_generations if mode == "train" else self.num_generations_eval
        rewards_per_func = self._rewards_per_func
        return combine_rewards(
            rewards_per_func,
            # TRL keeps the completions of a prompt together, across processes
            torch.arange(len(rewards_per_func), device=rewards_per_func.device) // num_generations,
            self.reward_weights,
            correctness_column=self._correctness_column,
            correctness_threshold=self.args.correctness_threshold,
            normalize=self.multi_objective_aggregation == "normalize_then_sum",
            lengths=self.accelerator.gather(output["completion_mask"].sum(dim=1)),
        )

    def _estimate_advantages(self, groups: RolloutGroups) -> Tensor:
        """
        What each completion is worth. Shape `(T,)`.

        Raises:
            `ValueError`: The estimator returned something else than one finite number per completion.
        """
        advantages = self.advantages(groups)
        if not isinstance(advantages, Tensor) or advantages.shape != groups.rewards.shape:
            found = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
            raise ValueError(
                f"The advantage estimator {self.advantages!r} must return a tensor of shape "
                f"{tuple(groups.rewards.shape)}, one advantage per completion, got {found}."
            )
        advantages = torch.where(groups.scored, advantages.detach(), 0.0).to(groups.rewards.dtype)
        if not advantages.isfinite().all():
            raise ValueError(
                f"The advantage estimator {self.advantages!r} returned {int((~advantages.isfinite()).sum())} "
                f"advantages that are NaN or infinite, for completions that have a reward."
            )
        return advantages

    def _log_groups(self, groups: RolloutGroups, mode: str) -> None:
        judged = groups.num_judged > 0
        metrics = self._metrics[mode]
        metrics["groups/frac_all_wrong"].append((judged & (groups.num_correct == 0)).float().mean().item())
        all_right = judged & (groups.num_correct == groups.num_judged)
        metrics["groups/frac_all_right"].append(all_right.float().mean().item())

    def _log_advantages(self, advantages: Tensor, groups: RolloutGroups) -> None:
        abs_sum = groups.sum(advantages.abs())  # (P,)
        metrics = self._metrics["train"]
        metrics["advantages/abs_sum_mean"].append(abs_sum.mean().item())
        metrics["advantages/abs_sum_max"].append(abs_sum.max().item())
        metrics["advantages/frac_zero"].append((advantages == 0).float().mean().item())
        # TRL has appended its own advantages to the log of completions; these are the ones that train
        logged = self._logs["advantages"]
        for _ in range(len(advantages)):
            logged.pop()
        logged.extend(advantages.tolist())

"""pass@k of a held-out set while a model trains, sampled by the engine that the trainer samples with."""

import copy
import math
import random
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from ..checks import check_integer
from ..distributed import Processes
from ..evaluation.engines.prompts import PromptSurvey, check_engine_prompts, survey_prompts
from ..evaluation.problems import IMAGE_COLUMNS, distinct_problems
from ..evaluation.results import EvaluationResult
from ..evaluation.samples import Completions, Sample
from ..evaluation.scoring import Scores, score
from ..trl_compat import add_fused_lm_head, borrow, get_callable_name, is_async_callable, pad
from .batch_watch import context_of_trainer
from .trackers import show_in_trackers


class PassAtKCallback(TrainerCallback):
    """
    Measures pass@k on prompts of its own while a model trains, as [`~rlvr_trl.evaluation.evaluate`] does afterwards.

    Completions come from the trainer's engine (vLLM where `use_vllm` is set) with the trainer's sampling settings, at
    another temperature if one is given, and are scored as in training. The measurement leaves no trace in the
    training: weights, metrics and random states are the same with and without it, except for the random state inside
    vLLM, which cannot be restored.

    ```python
    trainer = RLVRTrainer(..., args=RLVRConfig(..., eval_strategy="steps", eval_steps=50, save_steps=50,
                          load_best_model_at_end=True, metric_for_best_model="eval_pass@32"))
    trainer.add_callback(PassAtKCallback(trainer, test_set, num_samples=32))
    trainer.train()
    ```

    Logged as `eval_pass@1` and so on, `eval/pass@1` in trackers: pass@k for every k of
    [`~rlvr_trl.evaluation.EvaluationResult.ks`], `mean_length`, `truncated_share`, `token_entropy`, `answer_entropy`
    and `wrong_answer_diversity` where they are defined, `unscorable_problems`, `unscorable_completions`, `seconds`.
    An evaluation at a measured step also has them among its metrics, for `metric_for_best_model` and early stopping.

    A measurement is a function of the model, the settings, `args.seed`, the step, `batch_size` and the number of
    processes, except in what vLLM draws.

    Args:
        trainer ([`~trl.GRPOTrainer`]): the trainer, TRL's own or one of this package.
        dataset ([`~datasets.Dataset`] or iterable of rows): a `prompt` column and whatever the reward function reads.
            Any number of prompts on any number of processes.
        num_samples (`int`): completions per prompt, n.
        reward_func (`Callable`, *optional*): says which completions are correct. The default is the function that the
            trainer reads correctness from.
        every (`int`, *optional*): optimizer steps from one measurement to the next. The default measures with each
            evaluation. An evaluation that picks the best model by this metric measures in any case.
        at_start (`bool`): whether to measure before the first step. A resumed run does so unless it has measured that
            step already.
        batch_size (`int`, *optional*): completions that each process asks the engine for at once. The default is
            `args.per_device_eval_batch_size`; vLLM is faster with many.
        temperature (`float`, *optional*): at which completions are sampled, if not at `args.temperature`. At 0 they
            are greedy, all of a prompt the same: use `num_samples=1`.
        prefix (`str`): what the names of the metrics begin with. Two callbacks need two, such as `"eval_hard"`.

    Attributes:
        history (`list[dict]`): what was logged, with its `step`; in a resumed run also what was logged before it.
        latest ([`~rlvr_trl.evaluation.EvaluationResult`]): the last measurement with its completions.

    Raises:
        `ValueError`: A setting cannot work, see the message. In training an error of the reward function ends every
        process: as it is on the main one, elsewhere as a `ValueError` or `RuntimeError` that repeats it.
    """

    def __init__(
        self,
        trainer,
        dataset: Dataset | Iterable[dict],
        num_samples: int = 8,
        reward_func: Callable | None = None,
        every: int | None = None,
        at_start: bool = True,
        batch_size: int | None = None,
        temperature: float | None = None,
        prefix: str = "eval",
    ):
        batch_size = trainer.args.per_device_eval_batch_size if batch_size is None else batch_size
        check_integer("num_samples", num_samples, at_least=1)
        check_integer("batch_size", batch_size, at_least=1)
        if every is not None:
            check_integer("every", every, at_least=1)
        elif trainer.args.eval_strategy == "no":
            raise ValueError(
                "`every` is None, so pass@k is measured with each evaluation, but `eval_strategy` is 'no'. Set one."
            )
        _check_engine(trainer)
        _check_temperature(trainer, temperature, num_samples)
        self.best_k = _best_k(trainer.args, prefix, num_samples)
        self.problems, self.num_duplicates = distinct_problems(dataset)
        self._prompts = [problem.row["prompt"] for problem in self.problems]
        if images := sorted({*self.problems[0].row} & {*IMAGE_COLUMNS}):
            raise ValueError(f"`dataset` has the columns {images}, but PassAtKCallback measures text prompts only.")
        check_engine_prompts(self._prompts, why_no_images="PassAtKCallback measures text prompts only.")
        self.trainer = trainer
        self.reward_func = _correctness_reward(trainer, reward_func)
        self.num_samples, self.every, self.at_start = num_samples, every, at_start
        self.batch_size, self.temperature, self.prefix = batch_size, temperature, prefix
        self.latest: EvaluationResult | None = None
        self._prompt_ids: dict[int, list[int]] = {}  # of the problems that this process has sampled
        self._survey: PromptSurvey | None = None  # from the first measurement on
        self._is_resumed = False
        self._measured: tuple[int, dict[str, float]] | None = None  # the last step, and what was measured there

    @property
    def history(self) -> list[dict]:
        return [entry for entry in self.trainer.state.log_history if f"{self.prefix}_pass@1" in entry]

    def on_train_begin(self, args, state, control, **kwargs):
        self._check_order()
        self._is_resumed = state.global_step > 0
        is_measured = any(entry["step"] == state.global_step for entry in self.history)
        if self.at_start and not is_measured:
            self._measure()

    def on_step_end(self, args, state, control, **kwargs):
        if self.every is not None and state.global_step % self.every == 0:
            self._measure()

    def on_evaluate(self, args, state, control, metrics: dict[str, float] | None = None, **kwargs):
        # Outside training the weights may have changed without a step, as when the best model has been loaded
        is_current = self._measured is not None and self._measured[0] == state.global_step and self.trainer.is_in_train
        if not is_current and self.every is not None and self.best_k is None:
            return
        if not is_current:
            if self.trainer.use_vllm and not self.trainer.is_in_train:
                self.trainer._last_loaded_step = -1
            self._measure()
        assert self._measured is not None and self.latest is not None and metrics is not None
        metrics.update(self._measured[1])
        if self.best_k is not None and f"{self.prefix}_pass@{self.best_k}" not in metrics:
            num_scored = self.latest.num_samples[self.latest.is_scorable].min()
            raise ValueError(
                f"`metric_for_best_model` is {args.metric_for_best_model!r}, but a problem has only "
                f"{num_scored} of {self.num_samples} completions that the "
                f"reward function could score. Raise `num_samples`, or measure a smaller k."
            )

    def _check_order(self) -> None:
        """Callbacks see the metrics of an evaluation in turn, so one that reads ours must come later."""
        callbacks = self.trainer.callback_handler.callbacks
        earlier = callbacks[: callbacks.index(self)] if self in callbacks else []
        if self.best_k is not None and any(isinstance(callback, EarlyStoppingCallback) for callback in earlier):
            raise ValueError(
                f"EarlyStoppingCallback was added before PassAtKCallback and would not see "
                f"{self.prefix}_pass@{self.best_k}, its `metric_for_best_model`. Add it afterwards, with "
                f"`trainer.add_callback`."
            )

    def _measure(self) -> None:
        """Samples, scores, logs and keeps one measurement. Every process must call it."""
        trainer, step = self.trainer, self.trainer.state.global_step
        processes = Processes(PartialState())
        begin = time.perf_counter()
        seed = np.random.SeedSequence([trainer.args.seed, step, processes.index]).generate_state(1).item()
        with _random_state(trainer.accelerator.device, seed):
            with _evaluation_mode(trainer), _sampling_at(trainer, self.temperature):
                samples = self._sample(processes)
            if self._survey is None:
                self._survey = self._survey_prompts(processes)
            completions = Completions.from_samples(samples, len(self.problems), self.num_samples)
            scores = self._score(processes, completions)
        self.latest = EvaluationResult(
            problems=self.problems,
            completions=completions,
            rewards=scores.rewards,
            extra_columns=scores.extra_columns,
            reward_metrics=scores.metrics,
            num_duplicates=self.num_duplicates,
            settings=self._settings(step),
        )
        metrics = _metrics(self.latest) | {"seconds": processes.broadcast(time.perf_counter() - begin)}
        self._measured = step, {f"{self.prefix}_{name}": value for name, value in metrics.items()}
        self._log(self._measured[1])
        with processes.agreed("logging to the trackers"):
            if processes.is_main:
                show_in_trackers(trainer, self.prefix, self._curves(step), self.latest)

    def _curves(self, step: int) -> dict[int, dict[int, float]]:
        """pass@k over k of the first measurement of the run, and of the one at `step`."""
        assert self._measured is not None
        entries = {entry["step"]: entry for entry in self.history[:1]} | {step: self._measured[1]}
        names = {f"{self.prefix}_pass@{k}": k for k in range(1, self.num_samples + 1)}
        return {at: {k: entry[n] for n, k in names.items() if n in entry} for at, entry in entries.items()}

    def _sample(self, processes: Processes) -> list[Sample]:
        """
        All samples of all processes.

        Every process asks for the same number of completions in every call, as vLLM's server mode, tensor parallelism
        and sharded weights need. Filler in the last call is dropped.
        """
        requests = [(problem, sample) for problem in range(len(self.problems)) for sample in range(self.num_samples)]
        own = processes.share_of(requests)
        asked = own + requests[-1:] * (math.ceil(len(requests) / processes.count) - len(own))
        samples = []
        for start in range(0, len(asked), self.batch_size):
            samples += self._complete(asked[start : start + self.batch_size])
        return processes.gather(samples[: len(own)])

    def _survey_prompts(self, processes: Processes) -> PromptSurvey:
        """How the prompts fit the model. The main process warns, unless it has done so before the run was resumed."""
        args, tokenizer = self.trainer.args, self.trainer._tokenizer
        prompt_ids = dict(processes.gather(list(self._prompt_ids.items())))
        longest = args.max_completion_length or 0
        survey = survey_prompts(prompt_ids.values(), context_of_trainer(self.trainer), longest, tokenizer.bos_token_id)
        for message in survey.messages(longest) if processes.is_main and not self._is_resumed else ():
            warnings.warn(f"PassAtKCallback: {message}", stacklevel=2)
        return survey

    def _complete(self, requests: list[tuple[int, int]]) -> list[Sample]:
        trainer = self.trainer
        trainer.model.eval()
        prompts = [self._prompts[problem] for problem, _ in requests]
        prompt_ids, completion_ids, _, replies, *_ = trainer._generate(prompts)
        if self._survey is None:
            self._prompt_ids |= {problem: ids for (problem, _), ids in zip(requests, prompt_ids, strict=True)}
        trainer.model.eval()  # transformers' continuous batching leaves it in training mode
        ends = (*trainer.eos_token_ids, trainer._tokenizer.pad_token_id)  # as TRL decides what is truncated
        return [
            Sample(
                problem=problem,
                sample=sample,
                text=reply if isinstance(reply, str) else reply[-1].get("content") or "",
                token_ids=list(ids),
                length=len(ids),
                truncated=ids[-1] not in ends,
                entropy=entropy,
            )
            for (problem, sample), ids, reply, entropy in zip(
                requests, completion_ids, replies, score_tokens(trainer, prompt_ids, completion_ids)[1], strict=True
            )
        ]

    def _score(self, processes: Processes, completions: Completions) -> Scores:
        """Scores on the main process; every process gets the result, or the error."""
        scores = None
        with processes.agreed("scoring"):
            if processes.is_main:
                reward_func = _with_state(self.reward_func, self.trainer.state)
                scores = score(reward_func, self.problems, completions, self.num_samples)
        return processes.broadcast(scores)

    def _settings(self, step: int) -> dict:
        args = self.trainer.args
        return {
            "num_samples": self.num_samples,
            "max_new_tokens": args.max_completion_length,
            "temperature": args.temperature if self.temperature is None else self.temperature,
            "top_p": args.top_p,
            "top_k": args.top_k,
            "correctness_threshold": getattr(args, "correctness_threshold", 0.5),
            "seed": args.seed,
            "num_beyond_context": self._survey.num_beyond_context if self._survey else None,
            "step": step,
        }

    def _log(self, metrics: dict[str, float]) -> None:
        control = self.trainer.control
        with borrow(control, should_log=control.should_log):  # the training's own log of this step is still to come
            # Past TRL's `log`, which would add the metrics of the training and write its table of completions
            Trainer.log(self.trainer, dict(metrics))


def _check_engine(trainer) -> None:
    for name in ("tools", "environment_factories", "rollout_func"):
        if getattr(trainer, name):
            setting = "environment_factory" if name == "environment_factories" else name
            raise ValueError(f"PassAtKCallback cannot be used with `{setting}`: it measures single turns of text.")
    if "seed" in (trainer.args.generation_kwargs or {}):
        raise ValueError(
            f"`generation_kwargs` sets seed={trainer.args.generation_kwargs['seed']!r}, which makes all samples of a "
            f"prompt identical. Remove it; `seed` of the trainer is enough."
        )


def _check_temperature(trainer, temperature: float | None, num_samples: int) -> None:
    if temperature is None:
        return
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise ValueError(f"`temperature` must be 0 (greedy) or a positive number, got {temperature!r}.")
    if temperature == 0 and num_samples > 1:
        raise ValueError(
            f"`temperature` is 0, so that all {num_samples} completions of a prompt would be the same greedy one. Set "
            f"`num_samples` to 1."
        )
    if both := sorted({"temperature", "do_sample"} & {*(trainer.args.generation_kwargs or {})}):
        raise ValueError(
            f"`generation_kwargs` sets {both[0]!r}, which would win over `temperature`={temperature} of "
            f"PassAtKCallback. Remove one of them."
        )


def _best_k(args, prefix: str, num_samples: int) -> int | None:
    """The k of the pass@k that picks the best model, if one does."""
    metric = args.metric_for_best_model or ""
    metric = metric if metric.startswith("eval_") else f"eval_{metric}"  # as transformers completes it
    found = re.fullmatch(re.escape(prefix) + r"_pass@(\d+)", metric)
    if found is None:
        return None
    k = int(found[1])
    if not (1 <= k <= num_samples and (k == num_samples or k.bit_count() == 1)):
        raise ValueError(
            f"`metric_for_best_model` is {args.metric_for_best_model!r}, but with `num_samples`={num_samples} pass@k "
            f"is measured for the powers of two up to {num_samples}, and for {num_samples}."
        )
    if not args.greater_is_better:
        raise ValueError(
            f"`greater_is_better` is {args.greater_is_better}, but `metric_for_best_model` is "
            f"{args.metric_for_best_model!r}, which should be as high as possible. Set it to True."
        )
    return k


def _correctness_reward(trainer, reward_func: Callable | None) -> Callable:
    if reward_func is None:
        if not hasattr(trainer, "_correctness_reward"):
            raise ValueError(
                f"`reward_func` is needed: {type(trainer).__name__} does not say which of its reward functions tells "
                f"correct completions. RLVRTrainer does."
            )
        reward_func = trainer._correctness_reward
    if isinstance(reward_func, nn.Module):
        raise ValueError(
            "The correctness reward is a model, whose scores are not right or wrong. Pass a function as `reward_func`."
        )
    if is_async_callable(reward_func):
        raise ValueError("The correctness reward is an async function. Pass a synchronous one as `reward_func`.")
    return reward_func


def _with_state(reward_func: Callable, state) -> Callable:
    """The reward function with the `trainer_state` that it gets in training."""

    def with_state(**kwargs):
        return reward_func(**kwargs | {"trainer_state": state})

    with_state.__name__ = get_callable_name(reward_func)  # for errors
    return with_state


def _metrics(result: EvaluationResult) -> dict[str, float]:
    metrics = {f"pass@{k}": value for k, value in result.pass_at_k.items()} | {
        "mean_length": result.mean_length,
        "truncated_share": result.truncated_share,
        "token_entropy": result.token_entropy,
        "answer_entropy": result.answer_entropy,
        "wrong_answer_diversity": result.wrong_answer_diversity,
        "unscorable_problems": result.num_unscorable_problems,
        "unscorable_completions": result.num_unscorable_completions,
    }
    return {name: value for name, value in metrics.items() if value is not None and not math.isnan(value)}


@contextmanager
def _evaluation_mode(trainer) -> Iterator[None]:
    """Within this, TRL samples one completion for each listed prompt, and its metrics are discarded."""
    training = [module for module in trainer.model.modules() if module.training]
    try:
        with borrow(trainer, num_generations_eval=1), borrow(trainer._metrics, eval=defaultdict(list)):
            yield
    finally:
        trainer.model.eval()
        for module in training:  # one by one: some stay in evaluation mode while the rest trains
            module.training = True


@contextmanager
def _sampling_at(trainer, temperature: float | None) -> Iterator[None]:
    """Within this, the trainer samples at another temperature; at 0 greedily."""
    with ExitStack() as borrowed:
        if temperature is not None and trainer.use_vllm:
            borrowed.enter_context(borrow(trainer.vllm_generation, temperature=temperature))
        elif temperature is not None:
            greedy = {"do_sample": False} | dict.fromkeys(("temperature", "top_p", "top_k", "min_p"))
            changes = {"temperature": temperature} if temperature > 0 else greedy
            config = copy.deepcopy(trainer.generation_config)
            for name, value in changes.items():
                setattr(config, name, value)
            kwargs = trainer.generation_kwargs | changes
            borrowed.enter_context(borrow(trainer, generation_config=config, generation_kwargs=kwargs))
        yield


@contextmanager
def _random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Gives the measurement random states of its own, for every generator a model, engine or reward may draw from."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _head_without_temperature(trainer) -> Iterator[None]:
    """TRL's output head divides the logits by `temperature`; within this, it gives the model's own distribution."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    with borrow(model, forward=model.forward):  # which the next line replaces
        add_fused_lm_head(
            model, cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32, outputs=("log_probs", "entropy")
        )
        yield


def score_tokens(
    trainer, prompt_ids: list[list[int]], completion_ids: list[list[int]]
) -> tuple[list[float], list[float]]:
    """
    For each completion the log probability that the model's own distribution (temperature 1) gives it, and the mean
    entropy of that distribution over its tokens, both in nats.
    """
    pad_id, rows = trainer._tokenizer.pad_token_id, trainer.args.per_device_eval_batch_size
    totals, means = [], []
    for start in range(0, len(prompt_ids), rows):
        prompts = [torch.tensor(ids) for ids in prompt_ids[start : start + rows]]
        completions = [torch.tensor(ids) for ids in completion_ids[start : start + rows]]
        ids = torch.cat([pad(prompts, pad_id, padding_side="left"), pad(completions, pad_id)], dim=1)  # (B, P + C)
        mask = pad([torch.ones_like(row) for row in completions], 0)  # (B, C)
        prompt_mask = pad([torch.ones_like(row) for row in prompts], 0, padding_side="left")  # (B, P)
        attention_mask = torch.cat([prompt_mask, mask], dim=1)
        device, width = trainer.accelerator.device, mask.shape[1]
        with torch.no_grad(), _head_without_temperature(trainer):
            log_probs, entropies, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids.to(device), attention_mask.to(device), width, rows, compute_entropy=True
            )  # (B, C) each
        totals += (log_probs.double().cpu() * mask).sum(dim=1).tolist()
        means += ((entropies.float().cpu() * mask).sum(dim=1) / mask.sum(dim=1)).tolist()
    return totals, means

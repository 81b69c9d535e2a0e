"""The process that samples: TRL's worker, which here samples and scores prompt by prompt.

TRL's loop keeps its slots full with completions and scores a group of `num_generations` of them when all are there.
Here it runs with groups of one, so that every completion comes back alone, and its methods are overridden:

    _repeat_iterator   what a free slot does next: a further completion of a prompt in work, else the next prompt
    _score_group       gets a completion. With the last one of a stage it scores the stage and asks the allocator:
                       more completions of this prompt, or the prompt is finished and goes to the trainer
    _generate_loop     fills no slot while there is nothing to do, for which TRL has no word

No prompt waits for another one, and no completion for those of other prompts. Orders say which prompts come next; they
come from the trainer's process, where `prompt_feed.py` keeps the accounts. While it gives none, slots stay free.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..advantages import RolloutGroups, combine_rewards
from ..checks import check_installed
from ..rollouts import RolloutBatch
from ..rollouts.allocator import as_batch_allocator, check_counts_of
from ..trainer.reward_guard import RewardGuard
from ..trainer.vllm_watchdog import watch_server
from ..trl_compat import AsyncRolloutWorker, RolloutGroup, TrainingSequence, _AsyncRolloutLoop
from .exchange import Exchange, PromptGroup, PromptOrder, Sampling, StopSignal, leave_what_is_unsent


_ALONE = SimpleNamespace(num_processes=1, process_index=0)  # the process that samples belongs to no group of processes
REFUSED = (400, 413, 422)  # answers of a server that the same request gets again
REASON_WITHIN = 60.0  # seconds from a failure of the process that samples to its reason, if it does not end before
IDLE = 0.01  # seconds between two looks at whether there is something to do, as in TRL
RESUME = "The last checkpoint is whole: `resume_from_checkpoint=True` goes on from it."


# --- in the process that samples ---


class PlainCompletions:
    """
    A tokenizer that takes prompts of text too, and whose completions are decoded as they are.

    So reward functions see what those of a GRPOTrainer see. TRL's asynchronous worker knows conversations alone, and
    parses what the model says by the chat template: it refuses templates that it does not know, and takes reasoning
    out of the content of those that it knows. With tools this is needed; without them it is not.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the tokenizer.
        is_text (`bool`): whether prompts are texts, which get no chat template.
    """

    response_template: Any = "plain"  # so that TRL looks for none

    def __init__(self, tokenizer: PreTrainedTokenizerBase, is_text: bool):
        self._wrapped, self._is_text = tokenizer, is_text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_wrapped", "_is_text"):  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def apply_chat_template(self, messages: list[dict], **kwargs) -> Any:
        if self._is_text:
            return self._wrapped(messages[0]["content"])["input_ids"]
        return self._wrapped.apply_chat_template(messages, **kwargs)

    def parse_response(self, ids: list[int], **kwargs) -> dict[str, Any]:
        return {"role": "assistant", "content": self._wrapped.decode(ids, skip_special_tokens=True)}


@dataclass
class _PromptInWork:
    """A prompt of which something is being sampled."""

    order: PromptOrder
    row: dict[str, Any]
    asked: int  # completions of the present stage
    stage: list[RolloutGroup] = field(default_factory=list)  # those that are there, one group of TRL's for each
    sampled: list[RolloutGroup] = field(default_factory=list)  # of all stages
    stages: list[int] = field(default_factory=list)
    rewards: list[list[float]] = field(default_factory=list)  # by function, of each
    metrics: list[dict[str, float]] = field(default_factory=list)


class _StopOrPause:
    """
    What TRL's loop of generation takes for the event that stops it. While that is set it fills no slot, lets what is
    in flight end, and then returns: so it does while there is nothing to do.
    """

    def __init__(self, stop: asyncio.Event, has_work: Callable[[], bool]):
        self._stop, self._has_work = stop, has_work

    def is_set(self) -> bool:
        return self._stop.is_set() or not self._has_work()


class PromptLoop(_AsyncRolloutLoop):
    """TRL's loop of generation and scoring, by prompt."""

    rollout_buffer: Any  # an `Exchange`

    def __init__(self, *, sampling: Sampling, dataset, processing_class, tools=None, **kwargs):
        self._is_text = isinstance(dataset[0]["prompt"], str)
        if not tools:
            processing_class = PlainCompletions(processing_class, self._is_text)
        super().__init__(
            dataset=dataset,
            processing_class=processing_class,
            tools=tools,
            score_queue_maxsize=0,  # without a limit: there are no more than what was ordered
            **kwargs,
        )
        leave_what_is_unsent(kwargs["metrics_queue"])
        self._sampling = sampling
        self._allocator = None if sampling.rollouts is None else as_batch_allocator(sampling.rollouts)
        self._guard = RewardGuard(_ALONE, sampling.reward_timeout)
        named = zip(self.reward_funcs, self.reward_func_names, strict=True)
        self.reward_funcs = [self._guard.wrap(func, name) for func, name in named]
        self._ahead: PromptOrder | None = None  # which no slot has taken
        self._number = 0  # of the next completion
        self._in_work: dict[int, _PromptInWork] = {}  # by ticket
        self._further: deque[_PromptInWork] = deque()  # one entry for each further completion that no slot has taken
        self._prompt_of: dict[int, _PromptInWork] = {}  # by the number of a completion, which is TRL's group id

    async def _generate_loop(self, stop_event: Any) -> None:
        pausing: Any = _StopOrPause(stop_event, self._has_work)
        while not stop_event.is_set():
            if self._has_work():
                await super()._generate_loop(stop_event=pausing)
            self._heartbeat_value.value = time.time()  # the other loop may wait for a reward function
            await asyncio.sleep(IDLE)

    async def _score_loop(self, stop_event: asyncio.Event) -> None:
        while not stop_event.is_set():
            await super()._score_loop(stop_event=stop_event)  # TRL ends it with the loop above

    async def _post(self, path: str, payload: dict, *args, **kwargs) -> dict:
        try:
            return await super()._post(path, payload, *args, **kwargs)
        except Exception as error:
            if getattr(error, "status", None) not in REFUSED:
                raise
            raise ValueError(  # which TRL does not repeat for minutes, as it does with what `aiohttp` raises
                f"The vLLM server refuses a request: {error}. The prompt has {len(payload['prompt'])} tokens, and "
                f"{payload['max_tokens']} may follow; the server's own output says why, for instance its "
                f"`--max-model-len`."
            ) from error

    def _has_work(self) -> bool:
        if not self._further and self._ahead is None:
            self._ahead = self.rollout_buffer.next_order()
        return bool(self._further) or self._ahead is not None

    def _repeat_iterator(self) -> Iterator[tuple[int, dict[str, Any]]]:
        while True:  # TRL asks only while there is work
            number = self._number
            if not self._further:
                order, self._ahead = self._ahead, None
                assert order is not None
                if number == 0:  # TRL draws the seeds of its requests from it
                    random.seed(order.seed)
                prompt = _PromptInWork(order, self.dataset[order.row], self._first_stage(order))
                self._in_work[order.ticket] = prompt
                self._further.extend([prompt] * prompt.asked)
            prompt = self._further.popleft()
            self._prompt_of[number] = prompt
            said = prompt.row["prompt"]
            self._number += 1
            yield number, prompt.row | {"prompt": [{"role": "user", "content": said}] if self._is_text else said}

    async def _score_group(self, group: RolloutGroup) -> list[Any]:
        """The finished group of a prompt with the last of its completions, else nothing."""
        prompt = self._prompt_of.pop(group.group_id)
        prompt.stage.append(group)
        if len(prompt.stage) < prompt.asked:
            return []
        await self._score_stage(prompt)
        prompt.asked = self._further_completions(prompt)
        if prompt.asked:
            self._further.extend([prompt] * prompt.asked)
            return []
        del self._in_work[prompt.order.ticket]
        return [self._finished(prompt)]

    async def _score_stage(self, prompt: _PromptInWork) -> None:
        """Calls the reward functions with all completions of a stage at once, as a GRPOTrainer does."""
        stage = prompt.stage
        columns: dict[str, Any] = {
            name: [one.reward_kwargs[name][0] for one in stage] for name in stage[0].reward_kwargs
        }
        joined = replace(
            stage[0],
            prompts=[prompt.row["prompt"]] * len(stage),
            completions=[self._as_seen(one.completions[0]) for one in stage],
            reward_kwargs=columns | {"log_extra": _log_nothing, "log_metric": _log_nothing},
            completions_ids=[one.completions_ids[0] for one in stage],
            # TRL makes one sample for each row of a completion, of which there may be none
            completions_sequences=[[TrainingSequence([], [], [], "")] for _ in stage],
            tool_call_counts=[one.tool_call_counts[0] for one in stage],
            tool_failure_counts=[one.tool_failure_counts[0] for one in stage],
            env_rewards=[None] * len(stage),
            rollout_rewards=[None] * len(stage),
        )
        scored = await super()._score_group(joined)
        self._guard.raise_together(_ALONE)
        names = [f"rewards/{name}" for name in self.reward_func_names]
        prompt.rewards += [[sample.metrics[name] for name in names] for sample in scored]
        own = {"reward", "reward_std", *names}
        prompt.metrics += [{k: v for k, v in sample.metrics.items() if k not in own} for sample in scored]
        prompt.stages += [prompt.stages[-1] + 1 if prompt.stages else 1] * len(stage)
        prompt.sampled += stage
        prompt.stage = []

    def _as_seen(self, completion: list[dict]) -> Any:
        return completion[0]["content"] if self._is_text else completion

    # --- the allocator, which sees a batch of one prompt ---

    def _batch_of(self, order: PromptOrder) -> RolloutBatch:
        batch = RolloutBatch.unsampled(1, self._sampling.num_generations, 1)
        return replace(batch, seed=order.seed, progress=order.progress)

    def _first_stage(self, order: PromptOrder) -> int:
        if self._allocator is None:
            return self._sampling.num_generations
        batch = self._batch_of(order)
        return int(check_counts_of(self._allocator, self._allocator.first_stage(batch), batch))

    def _further_completions(self, prompt: _PromptInWork) -> int:
        if self._allocator is None:
            return 0
        groups = self._groups_of(prompt)
        batch = replace(
            self._batch_of(prompt.order),
            stage=prompt.stages[-1],
            num_stages=torch.tensor([prompt.stages[-1]]),
            num_samples=groups.sizes,
            num_correct=groups.num_correct,
            num_judged=groups.num_judged,
        )
        # its progress is that of the batch it was asked about last, and that was another prompt
        self._allocator.first_stage(batch)
        return int(check_counts_of(self._allocator, self._allocator(batch).extra, batch))

    def _groups_of(self, prompt: _PromptInWork) -> RolloutGroups:
        rewards = torch.tensor(prompt.rewards, dtype=torch.float32)  # (n, F)
        return combine_rewards(
            rewards,
            torch.zeros(len(rewards), dtype=torch.long),
            torch.ones(rewards.shape[1]),
            correctness_column=self._sampling.correctness_column,
            correctness_threshold=self._sampling.correctness_threshold,
        )

    def _finished(self, prompt: _PromptInWork) -> PromptGroup:
        ids = [one.completions_ids[0] for one in prompt.sampled]
        ends = (*self.eos_token_ids, self.tokenizer.pad_token_id)  # as TRL decides what is truncated
        return PromptGroup(
            order=prompt.order,
            prompt=prompt.row["prompt"],
            completions=[self._as_seen(one.completions[0]) for one in prompt.sampled],
            rewards_per_func=np.array(prompt.rewards, dtype=np.float32),
            stages=np.array(prompt.stages),
            lengths=np.array([len(each) for each in ids]),
            truncated=np.array([len(each) > 0 and each[-1] not in ends for each in ids]),
            sequences=[one.completions_sequences[0] for one in prompt.sampled],
            metrics=prompt.metrics,
            model_version=min(one.model_version for one in prompt.sampled),
            allocator_state=None if self._allocator is None else self._allocator.state_dict(),
        )


def _log_nothing(*args, **kwargs) -> None:
    """`log_extra` and `log_metric` of reward functions, for which TRL's asynchronous trainer has no place."""


# --- in the process of the trainer ---


class PromptWorker(AsyncRolloutWorker):
    """
    TRL's worker, which starts the process that samples, with [`PromptLoop`] in it.

    Args:
        sampling ([`Sampling`]): what TRL's settings do not say.
        kwargs: those of TRL's worker, as TRL's trainer gives them.
    """

    _loop_cls = PromptLoop
    rollout_buffer: Any  # an `Exchange`
    _stop_event_mp: Any  # a `StopSignal`

    def __init__(self, *, sampling: Sampling, **kwargs):
        # completions are logged where their advantages are known
        own = {"num_generations": 1, "queue_maxsize": 0, "log_completions": False}
        super().__init__(**kwargs | own, sampling=sampling)
        self.rollout_buffer = Exchange(self._mp_ctx, sampling)
        self._stop_event_mp = StopSignal(self._mp_ctx)
        # without locks, which a process that is stopped or killed may hold for ever: each is one aligned number
        self._heartbeat_value = self._mp_ctx.Value("d", 0.0, lock=False)
        self._model_version_value = self._mp_ctx.Value("i", 0, lock=False)
        self._server_url = kwargs["vllm_server_url"]

    def watch_server(self, timeout: float, accelerator) -> AbstractContextManager:
        """A context that ends with an error when the server has not answered for `timeout` seconds."""
        return watch_server(self._server_url, timeout, accelerator)

    @staticmethod
    def check_packages() -> None:
        """Raises an `ImportError` if vLLM is missing, which talks to the server and sends it the weights."""
        check_installed("AsyncRLVRTrainer", "vllm")

    def update_model_version(self, model_version: int) -> None:
        self._model_version_value.value = model_version

    def start(self) -> None:
        super().start()
        self._heartbeat_value.value = time.time()  # TRL counts from before the process has imported everything

    def check_health(self, stale_after_s: float) -> None:
        """
        Raises:
            `RuntimeError`: The process that samples has failed, has died, or has shown no sign of life for so long.
        """
        code = None if self._process is None else self._process.exitcode
        if code is None or code >= 0:  # it may have said why; one that was killed may have left a lock behind
            try:
                super().check_health(stale_after_s if code is None else math.inf)
            except RuntimeError as error:
                if error.__cause__ is not None or not self._failed_event.is_set():
                    raise
                self._wait_for_reason()
                super().check_health(math.inf)
        if code is not None:
            raise RuntimeError(f"The process that samples has died with exit code {code}. {RESUME}")

    def _wait_for_reason(self) -> None:
        """The process sets the event of its failure while a thread of it may still be sending what has failed."""
        deadline = time.monotonic() + REASON_WITHIN
        while self._exception_info_queue.empty() and time.monotonic() < deadline:
            if self._process is not None and self._process.exitcode is not None:
                return  # its end waits for that thread, so what it had to say is here
            time.sleep(IDLE)

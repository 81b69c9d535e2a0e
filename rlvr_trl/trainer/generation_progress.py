"""The progress of a long generation: completions done, tokens per second and time left, stage by stage."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from tqdm.auto import tqdm

from ..trl_compat import borrow


DELAY = 2.0  # seconds before a bar appears: shorter generations need none
REFRESH = 0.5  # seconds between two updates, each of which waits for the device


class GenerationProgress:
    """
    A bar on the main process while completions are sampled, unless `disable_tqdm` is set.

    It counts the completions of that process; the others have the same number. With transformers' `generate` the time
    left is an upper bound: the time if one completion of each batch runs to `max_completion_length`. With vLLM in the
    same process it is vLLM's own estimate. A vLLM server and continuous batching report nothing until they are done.

    Args:
        trainer ([`RLVRTrainer`]): whose generations are watched.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self._stage: int | None = None  # the current one, if the batch is sampled in stages

    @contextmanager
    def of_stage(self, number: int) -> Iterator[None]:
        """Labels everything sampled within it as this stage of the batch."""
        with borrow(self, _stage=number):
            yield

    @property
    def _is_shown(self) -> bool:
        return self.trainer.accelerator.is_main_process and not self.trainer.args.disable_tqdm

    def _bar(self, *rows, **settings) -> tqdm:
        processes = self.trainer.accelerator.num_processes
        parts = ["sampling"] if self._stage is None else [f"sampling, stage {self._stage}"]
        parts += [f"process 1 of {processes}"] if processes > 1 else []
        return tqdm(*rows, **settings | {"desc": ", ".join(parts), "delay": DELAY, "leave": False})

    def watch_vllm(self, llm) -> None:
        """Replaces vLLM's own bar, which TRL switches off in every call, with one of these."""
        if self._is_shown:
            generate = llm.generate
            llm.generate = lambda *args, use_tqdm, **kwargs: generate(*args, use_tqdm=self._bar, **kwargs)

    @contextmanager
    def watch_transformers(self, batches: list[int]) -> Iterator[Callable[[], None]]:
        """
        Watches the model while `generate` is called for each of `batches`, which are numbers of rows. Call what is
        yielded before each of these calls.
        """
        if not self._is_shown:
            yield lambda: None
            return
        model = self.trainer.model
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        ends = [*self.trainer.eos_token_ids, self.trainer._tokenizer.pad_token_id]
        layout = "{desc}: {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # without tqdm's guess of the time left
        with self._bar(total=sum(batches), bar_format=layout) as bar:
            counter = _TokenCounter(bar, batches, self.trainer.args.max_completion_length, ends)
            hook = model.register_forward_pre_hook(counter, with_kwargs=True)
            try:
                yield counter.next_batch
            finally:
                hook.remove()


class _TokenCounter:
    """A forward pre-hook: `generate` calls the model once for each next token of its rows."""

    def __init__(self, bar: tqdm, batches: list[int], max_length: int, ends: list[int]):
        self.bar, self.batches, self.max_length, self.ends = bar, batches, max_length, ends
        self.batch = -1  # which of the batches
        self.step = self.all_steps = 0  # forward passes: of this batch, of all
        self.tokens = self.unseen = 0  # tokens counted; passes whose tokens are not counted yet
        self.active = 0  # rows that had not ended at the last look
        self.begin = self.looked = time.perf_counter()

    def next_batch(self) -> None:
        """The next call of `generate` begins."""
        self._count_tokens()
        self.batch, self.step = self.batch + 1, 0
        self.active = self.batches[self.batch]

    def __call__(self, module, args, kwargs) -> None:
        self.step, self.all_steps = self.step + 1, self.all_steps + 1
        now = time.perf_counter()
        ids = kwargs.get("input_ids")
        # What the first pass reads is the prompt
        if ids is not None and self.step > 1 and now - self.looked >= REFRESH:
            self.looked = now
            ended = int(torch.isin(ids[:, -1], torch.tensor(self.ends, device=ids.device)).sum())
            self._show(ended, now - self.begin)
        self.unseen += 1

    def _count_tokens(self) -> None:
        self.tokens, self.unseen = self.tokens + self.active * self.unseen, 0

    def _show(self, ended: int, seconds: float) -> None:
        self._count_tokens()
        self.active = self.batches[self.batch] - ended
        later = len(self.batches) - self.batch - 1
        left = (self.max_length - self.step + later * self.max_length) * seconds / self.all_steps
        self.bar.n = sum(self.batches[: self.batch]) + ended
        self.bar.set_postfix_str(
            f"{self.tokens / seconds:,.0f} tokens/s, at most {tqdm.format_interval(max(left, 0))} left"
        )

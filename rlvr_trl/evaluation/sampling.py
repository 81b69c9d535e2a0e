"""Sampling with an engine: in one call, or for an evaluation that spreads over processes and saves as it goes."""

from collections.abc import Sequence
from contextlib import ExitStack

from tqdm.auto import tqdm

from ..distributed import Processes
from .problems import Problem
from .samples import Completions, Engine, Sample, SamplingSettings
from .store import RunFolder


def sample_completions(
    model,
    processing_class,
    prompts: Sequence,
    num_samples: int,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    token_budget: int = 16384,
    chat_template_kwargs: dict | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Completions:
    """
    Samples `num_samples` completions for every prompt, as described in [`TransformersEngine`].

    Args:
        model, processing_class, token_budget, chat_template_kwargs: as in [`TransformersEngine`].
        prompts (sequence of `str`, or of lists of messages): conversations get the chat template and a generation
            prompt. The two kinds cannot be mixed.
        num_samples (`int`): completions per prompt.
        max_new_tokens, temperature, top_p, top_k, seed: as in [`SamplingSettings`].
        progress (`bool`): whether to show a progress bar.

    Raises:
        ValueError: a setting is out of range; there are no prompts, or prompts of both kinds; or a prompt has no
            tokens, or has images that the tokenizer cannot take.
    """
    from .engines import TransformersEngine  # loads transformers, which other engines do not need

    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    settings = SamplingSettings(max_new_tokens, temperature, top_p, top_k, seed)
    engine = TransformersEngine(model, processing_class, token_budget, chat_template_kwargs)
    engine.check(prompts)
    requests = [(problem, sample) for problem in range(len(prompts)) for sample in range(num_samples)]
    samples = []
    with tqdm(total=len(requests), desc="sampling", unit="completion", disable=not progress) as bar:
        for batch in engine.sample(prompts, requests, settings):
            samples += batch
            bar.update(len(batch))
    return Completions.from_samples(samples, len(prompts), num_samples)


def sample_missing(
    engine: Engine,
    problems: list[Problem],
    num_samples: int,
    sampling: SamplingSettings,
    *,
    earlier: list[Sample],
    folder: RunFolder | None,
    processes: Processes,
    progress: bool,
) -> list[Sample]:
    """
    Samples what `earlier` lacks, on all processes together, and returns the new samples on each of them.

    Args:
        engine ([`Engine`]): the engine of this process.
        problems, num_samples, sampling: what the evaluation needs in all.
        earlier (`list[Sample]`): the samples that exist already, the same on every process.
        folder ([`RunFolder`], *optional*): where samples are written as they finish.
        processes ([`Processes`]): the processes that take part.
        progress (`bool`): whether the first process shows a progress bar.

    Raises:
        ValueError or RuntimeError: on some process the engine failed or did not return what it was asked for. The
            samples that had finished are in the folder.
    """
    there = {(sample.problem, sample.sample) for sample in earlier}
    wanted = [(p, s) for p in range(len(problems)) for s in range(num_samples) if (p, s) not in there]
    mine = processes.share_of(wanted)
    samples = []
    with processes.agreed("sampling"), ExitStack() as held:
        write = held.enter_context(folder.writer(processes.index)) if folder is not None and mine else None
        show = held.enter_context(_SamplingBar(len(mine), len(earlier), processes, progress))
        prompts, missing = [problem.prompt_with_images for problem in problems], set(mine)
        for batch in engine.sample(prompts, mine, sampling) if mine else ():
            _check_off(missing, batch)
            if write is not None:
                write(batch)
            samples += batch
            show(batch)
        if missing:
            problem, sample = min(missing)
            raise ValueError(
                f"The engine left out {len(missing)} of {len(mine)} samples; the first is sample {sample} of problem "
                f"{problem}."
            )
    return processes.gather(samples)


def _check_off(missing: set[tuple[int, int]], batch: list[Sample]) -> None:
    for sample in batch:
        if (sample.problem, sample.sample) not in missing:
            raise ValueError(
                f"The engine returned sample {sample.sample} of problem {sample.problem}, which it was not asked for "
                "or has returned before."
            )
        missing.remove((sample.problem, sample.sample))


class _SamplingBar:
    """The progress bar of the first process: its share of the completions, tokens per second, and the time left."""

    def __init__(self, num_mine: int, num_earlier: int, processes: Processes, progress: bool):
        notes = [f"{num_earlier} already done"] if num_earlier else []
        notes += [f"process 1 of {processes.count}"] if processes.count > 1 else []
        self.bar = tqdm(
            total=num_mine,
            desc=f"sampling ({', '.join(notes)})" if notes else "sampling",
            unit="completion",
            disable=not (progress and processes.is_main and num_mine),
        )
        self.tokens = 0

    def __enter__(self) -> "_SamplingBar":
        return self

    def __exit__(self, *exception) -> None:
        self.bar.close()

    def __call__(self, batch: list[Sample]) -> None:
        self.tokens += sum(sample.length for sample in batch)
        if not self.bar.disable:
            seconds = max(self.bar.format_dict["elapsed"], 1e-9)
            self.bar.set_postfix_str(f"{self.tokens / seconds:.0f} tokens/s", refresh=False)
            self.bar.update(len(batch))

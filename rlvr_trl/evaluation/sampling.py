"""Many completions for each prompt, from a model in this process."""

from collections.abc import Sequence

from tqdm.auto import tqdm

from .engines.transformers import TransformersEngine
from .samples import Completions, SamplingSettings


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
    Samples `num_samples` completions for every prompt with a [`TransformersEngine`], which says how.

    Args:
        model, processing_class, token_budget, chat_template_kwargs: as in [`TransformersEngine`].
        prompts (sequence of `str`, or of lists of messages): conversations get the chat template and a generation
            prompt. The two kinds cannot be mixed.
        num_samples (`int`): completions per prompt.
        max_new_tokens, temperature, top_p, top_k, seed: as in [`SamplingSettings`].
        progress (`bool`): whether to show a progress bar.

    Raises:
        ValueError: a setting out of range, no prompts, prompts of both kinds, without a single token, or with images
            that the tokenizer cannot take.
    """
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

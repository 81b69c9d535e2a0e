"""Settings that cannot work are refused at construction, before a model is loaded."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from torch import nn

from ..advantages import AGRAE, AdaptivePassAtK, AdvantageEstimator, Scheduled
from ..advantages.nesting import min_group_size_with_signal
from ..checks import check_integer, check_not_negative, check_positive, check_share, is_real
from ..rollouts import BatchAllocator, PromptHistory, RolloutAllocator
from ..shared_prefill import why_prefill_is_not_shared, why_scoring_is_not_shared
from .passes import LOSS_TYPES
from .rows import named_datasets


# Options of `generate` with which prompts can be read once for many completions: the values they may have
GENERATION_WITH_SHARED_PREFILL = {
    "cache_implementation": (None, "dynamic"),
    "use_cache": (True, None),
    "prefill_chunk_size": (None,),
}


def check_arguments(trainer: str, config_class: type, args, **given) -> None:
    """
    Refuses a configuration of another class, and an estimator or allocator that is given twice or cannot be called.

    Args:
        trainer (`str`): name of the trainer, for the errors.
        config_class (`type`): the class that `args` must have.
        given: `advantages` and `rollouts` as the trainer was given them, or None.

    Raises:
        `TypeError`: `args` is of another class, or something given is not callable.
        `ValueError`: Something given is also in `args`, or what `args` makes from fields of its own.
    """
    if not isinstance(args, config_class):
        raise TypeError(f"`args` of {trainer} must be a {config_class.__name__}, got {type(args).__name__}.")
    for name, value in given.items():
        if value is None:
            continue
        if not callable(value):
            raise TypeError(
                f"`{name}` must be a callable, got {type(value).__name__}. A name goes into `args.{name}`."
            )
        if name in args._bound:
            raise ValueError(
                f"{trainer} makes its {name} from {args._bound[name]} of `args`, but `{name}` is {value!r}. Use "
                f"RLVRTrainer to choose another."
            )
        if getattr(args, name) is not None:
            raise ValueError(
                f"`{name}` is set both as a trainer argument ({value!r}) and in `args` ({getattr(args, name)!r}). "
                f"Set it in one place."
            )


def check_server_address(args) -> None:
    """
    Refuses a user, password or query in the address of vLLM's server: checkpoints, trackers and errors hold it.

    Raises:
        `ValueError`: There is one; it is not repeated.
    """
    for name in ("vllm_server_base_url", "vllm_server_host"):
        if set("@?#") & set(getattr(args, name, None) or ""):
            raise ValueError(
                f"`{name}` must be an address without user, password and query, which would get into checkpoints and "
                f"trackers. TRL's requests take user and password from `~/.netrc`."
            )


def check_numbers(args) -> None:
    """
    Refuses numbers that neither sampling nor the loss can have, of which TRL and a server notice some amid training.

    Raises:
        `ValueError`: Names the setting, and what it may be.
    """
    check_positive("temperature", args.temperature)
    check_not_negative("learning_rate", args.learning_rate)
    check_positive("vllm_server_timeout", args.vllm_server_timeout)
    if args.reward_timeout is not None:
        check_positive("reward_timeout", args.reward_timeout)
    if args.top_k is not None:
        check_integer("top_k", args.top_k, at_least=-1)
    check_share("top_p", args.top_p, above_zero=True)
    check_positive("repetition_penalty", args.repetition_penalty)
    for name, check in (("min_p", check_share), ("epsilon_high", check_not_negative)):
        if getattr(args, name) is not None:
            check(name, getattr(args, name))
    check_not_negative("epsilon", args.epsilon)
    weights = () if args.reward_weights is None else args.reward_weights
    for weight in weights if isinstance(weights, list | tuple) else (weights,):
        if weight is weights or not is_real(weight) or not math.isfinite(weight):
            raise ValueError(f"`reward_weights` must be finite numbers, one for each reward function, got {weight!r}.")


def check_group_size(
    estimator: AdvantageEstimator, num_generations: int, allocator: RolloutAllocator | BatchAllocator | None = None
) -> None:
    """
    Refuses an estimator that cannot work on groups of `num_generations` completions, or on the smaller ones of an
    allocator.

    Raises:
        `ValueError`: The estimator's `min_group_size` is larger; names both numbers.
    """
    needed = getattr(estimator, "min_group_size", 1)
    for part, name, fewer in () if allocator is None else _smaller_groups(allocator):
        if fewer < needed <= num_generations:
            raise ValueError(
                f"{estimator!r} needs groups of at least {needed} completions, but {part!r} may give a prompt "
                f"`{name}`={fewer}. Raise it to {needed} or more, or lower `k` or `size` of the estimator."
            )
    if needed > num_generations:
        raise ValueError(
            f"{estimator!r} needs groups of at least {needed} completions, but `num_generations` is "
            f"{num_generations}. Raise `num_generations` to {needed} or more, or lower its `k` or `size`."
        )


def _smaller_groups(allocator: RolloutAllocator | BatchAllocator) -> Iterator[tuple[Any, str, int]]:
    """What an allocator or a part of it may give a prompt in place of `num_generations`: part, setting and count."""
    for part in (allocator, *getattr(allocator, "parts", ())):
        for name in ("min_generations", "easy_generations"):
            if (fewer := getattr(part, name, None)) is not None:
                yield part, name, fewer


def check_mean_reward(estimator: AdvantageEstimator, weights: list[float]) -> None:
    """
    Refuses reward weights whose sum lets the mean reward leave what A-GRAE can weigh by.

    Raises:
        `ValueError`: They sum to more than 1, and the estimator or a part of it takes the mean reward for its ω.
    """
    if isinstance(estimator, AGRAE) and estimator.omega == "reward" and sum(weights) > 1 + 1e-6:
        raise ValueError(
            f"{type(estimator).__name__} weighs by the mean reward of the batch, which must be from 0 to 1, but "
            f"`reward_weights` is {weights}. Set weights that sum to 1, or `omega` to 'accuracy'."
        )
    for part in getattr(estimator, "parts", ()):
        check_mean_reward(part, weights)


def warn_of_no_signal(
    estimator: AdvantageEstimator, num_generations: int, allocator: RolloutAllocator | BatchAllocator | None = None
) -> None:
    """
    Warns of an estimator, or of a stage of a schedule, whose advantages are all 0 in groups of `num_generations`.

    With an `allocator` groups grow, but not all of them: a prompt without extra completions keeps its first ones.
    """
    cap = None if allocator is None else allocator.max_generations
    largest = num_generations if cap is None else max(num_generations, cap)
    for silent in _without_signal(estimator, num_generations):
        needed = min_group_size_with_signal(silent)
        name = repr(silent) if silent is estimator else f"{silent!r}, a part of {estimator!r},"
        found = f"`num_generations`={num_generations}"
        if allocator is not None and needed <= largest:
            effect = "a prompt that gets no extra completions has only advantages of 0 and trains nothing"
        else:
            found += "" if allocator is None else f" and `max_generations`={largest}"
            effect = "every advantage is always 0 and nothing is trained"
        effect += "" if silent is estimator else " where it is in use"
        warnings.warn(
            f"{name} has a signal in groups of at least {needed} completions only, but {found}: {effect}. "
            f"Raise `num_generations` to {needed} or more, or lower `k`.",
            stacklevel=3,
        )


def _without_signal(estimator: AdvantageEstimator, num_generations: int) -> list[AdvantageEstimator]:
    """`estimator` if all its advantages are 0, else those of its parts that take turns, or of its base, alike."""
    if min_group_size_with_signal(estimator) > num_generations:
        return [estimator]
    parts = getattr(estimator, "parts", ())
    take_turns = isinstance(estimator, (Scheduled, AdaptivePassAtK)) or len(parts) == 1
    return [silent for part in parts for silent in _without_signal(part, num_generations)] if take_turns else []


def check_datasets(args, train_dataset, eval_dataset) -> None:
    """
    Refuses datasets on which TRL would silently train or evaluate for zero steps.

    Raises:
        `ValueError`: A dataset is empty, or one batch needs more prompts than the training set has.
    """
    for name, dataset in named_datasets(train_dataset, eval_dataset).items():
        if isinstance(dataset, Dataset) and len(dataset) == 0:
            raise ValueError(f"The dataset `{name}` is empty: it has 0 rows, at least 1 is needed.")
    prompts = prompts_per_batch(args)
    if isinstance(train_dataset, Dataset) and len(train_dataset) < prompts:
        lower = f"Lower `prompts_per_batch`, which is {prompts}."
        if args.prompts_per_batch is None:
            lower = (
                f"A batch has `generation_batch_size` / `num_generations` = {args.generation_batch_size} / "
                f"{args.num_generations} prompts; set `prompts_per_batch`, lower `per_device_train_batch_size`, "
                f"`gradient_accumulation_steps` and `steps_per_generation`, or raise `num_generations`."
            )
        raise ValueError(
            f"One batch needs {prompts} prompts, but `train_dataset` has {len(train_dataset)}: every batch would be "
            f"dropped as incomplete and nothing trained. {lower}"
        )


def check_allocator(
    allocator: RolloutAllocator | BatchAllocator, num_generations: int, generation_kwargs: dict | str | None
) -> None:
    """
    Refuses an allocator that cannot add to the first stage, and a seed that would make extra completions copies.

    Raises:
        `ValueError`: `max_generations` is below `num_generations`, what some prompts get at least or at most is above
        it, or `generation_kwargs` holds a seed.
    """
    cap = allocator.max_generations
    if cap is not None and cap < num_generations:
        raise ValueError(
            f"{allocator!r} allows {allocator.max_generations} completions a prompt, but the first stage samples "
            f"`num_generations`={num_generations}. Raise `max_generations` to {num_generations} or more."
        )
    for part, name, fewer in _smaller_groups(allocator):
        if fewer > num_generations:
            raise ValueError(
                f"`{name}`={fewer} of {part!r} is more than a prompt usually gets, `num_generations`="
                f"{num_generations}. Lower it to {num_generations} or less."
            )
    if isinstance(generation_kwargs, dict) and "seed" in generation_kwargs:
        raise ValueError(
            f"`generation_kwargs` sets seed={generation_kwargs['seed']!r}. Extra completions are sampled one request "
            f"each, and a seed makes those of one prompt identical. Remove it; `seed` of the trainer is enough."
        )


def check_prompt_source(train_dataset) -> None:
    """
    Refuses extra completions where environments invent the prompts, because each completion would get another prompt.

    Raises:
        `ValueError`: There is no training set, or its only column names environments.
    """
    columns = [] if train_dataset is None else train_dataset.column_names
    if columns is not None and set(columns) <= {"environment"}:  # a stream may not know its columns
        raise ValueError(
            f"`rollouts` and `selection` need prompts that can be sampled again, but `train_dataset` has the columns "
            f"{columns}, so the environment's `reset()` invents them: an extra completion would get another prompt "
            f"than its group. Give `train_dataset` a column from which `reset()` always makes the same prompt, or "
            f"remove them."
        )


def check_prompts_can_be_chosen(args, train_dataset, allocator=None) -> None:
    """
    Refuses training sets whose rows cannot be read in any order, where prompts are chosen or remembered.

    Raises:
        `ValueError`: The set is a stream, columns would be removed from its rows, or the allocator may sample fewer
        prompts than a batch has.
    """
    why = "`selection`, `prompt_history`, or what asks for other prompts or their history"
    if not isinstance(train_dataset, Dataset):
        raise ValueError(
            f"`train_dataset` is a {type(train_dataset).__name__}, whose rows come in an order of their own and have "
            f"no ids, and cannot be used with {why}. Give a `Dataset`, for instance by loading it without "
            f"`streaming=True`."
        )
    check_prompt_source(train_dataset)
    most, wanted = getattr(allocator, "max_prompts", None), prompts_per_batch(args)
    if most is not None and most < wanted:
        raise ValueError(
            f"`max_prompts`={most} of {allocator!r} is less than a batch has, {wanted} prompts. Raise it to {wanted} "
            f"or more."
        )
    if args.remove_unused_columns:
        raise ValueError(
            f"`remove_unused_columns`=True takes columns from the rows that the data loader gives, and with {why} "
            f"these are read elsewhere. Set it to False."
        )


def check_passes(args) -> None:
    """
    Refuses settings that depend on how rows are split into micro-batches, where this package splits them differently.

    Raises:
        `ValueError`: Names the setting and what to set.
    """
    why = "with `rollouts`, `prompts_per_batch`, `trim_padding` or `max_tokens_per_micro_batch`"
    steps, accumulation = args.steps_per_generation, args.gradient_accumulation_steps
    if max(steps, accumulation) % min(steps, accumulation) != 0:
        raise ValueError(
            f"`steps_per_generation`={steps} must divide `gradient_accumulation_steps`={accumulation} or be a "
            f"multiple of it {why}, so that an optimizer step never mixes two batches."
        )
    if args.use_adaptive_entropy:
        raise ValueError(f"`use_adaptive_entropy` measures single micro-batches, and cannot be used {why}.")
    if args.top_entropy_quantile < 1.0:
        raise ValueError(
            f"`top_entropy_quantile`={args.top_entropy_quantile} takes the quantile of single micro-batches, and must "
            f"be 1.0 {why}."
        )
    if args.loss_type not in LOSS_TYPES:
        raise ValueError(
            f"`loss_type` must be one of {', '.join(LOSS_TYPES)} {why}, got {args.loss_type!r}, for "
            f"which the weights of passes are not known."
        )
    limit = args.max_tokens_per_micro_batch
    if limit is not None and limit <= args.max_completion_length:
        raise ValueError(
            f"`max_tokens_per_micro_batch`={limit} must be above `max_completion_length`="
            f"{args.max_completion_length}, to hold one prompt and its completion."
        )


def check_token_advantages(args, estimator: AdvantageEstimator) -> None:
    """
    Refuses losses that take one advantage for a whole completion, if the estimator gives each token its own.

    Raises:
        `ValueError`: Names the setting and what to set.
    """
    why = f"but {estimator!r} gives each token an advantage of its own"
    if args.importance_sampling_level != "token":
        raise ValueError(
            f"`importance_sampling_level`={args.importance_sampling_level!r} has one ratio, and so one advantage, for "
            f"a whole completion, {why}. Set it to 'token'."
        )
    if args.loss_type == "vespo":
        raise ValueError(
            f"`loss_type`='vespo' weighs a whole completion by the sign of its advantage, {why}. Take another loss."
        )
    if args.off_policy_mask_threshold is not None:
        raise ValueError(
            f"`off_policy_mask_threshold`={args.off_policy_mask_threshold} drops a whole completion by the sign of "
            f"its advantage, {why}. Set it to None."
        )


def check_answers(correctness_reward, estimator: AdvantageEstimator) -> None:
    """
    Refuses an estimator that reads answers where a model says what is correct, which extracts none.

    Raises:
        `ValueError`: Names the estimator.
    """
    if isinstance(correctness_reward, nn.Module):
        raise ValueError(
            f"{estimator!r} reads the answers that the reward of correctness extracts, but this is a model, which "
            f"extracts none. Name a function in `correctness_reward` that logs `extracted_answer`."
        )


def check_prompt_history(settings: dict | str | None) -> None:
    """
    Refuses settings of the history of prompts that are unknown or out of their range.

    Raises:
        `ValueError`: Names them.
    """
    if settings is None:
        return
    if not isinstance(settings, dict):
        raise ValueError(f"`prompt_history` must be a dict of settings, got {settings!r}.")
    numbers = ("discount", "pool_discount", "prior_strength")
    known = ("ids", "pools", "start_from", *numbers)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"`prompt_history` has no {', '.join(map(repr, unknown))}. It may hold {', '.join(known)}.")
    PromptHistory(["a prompt"], **{name: settings[name] for name in numbers if name in settings})


def check_generation(args) -> None:
    """
    Refuses settings of transformers' `generate` where they would have no effect or cannot work.

    Raises:
        `ValueError`: Strings are to end completions, the limit on rows generated at once is below 1, another engine
        samples, or prompts are to be read once into a cache that cannot be copied.
    """
    if isinstance(args.generation_kwargs, dict) and args.generation_kwargs.get("stop_strings"):
        raise ValueError(
            f"`generation_kwargs` sets stop_strings={args.generation_kwargs['stop_strings']!r}, with which TRL cannot "
            f"train: it gives `generate` no tokenizer to find them with, and takes a completion without an end token "
            f"for one that was cut off. Set tokens in `model.generation_config.eos_token_id`, or use vLLM with "
            f"`generation_kwargs={{'stop': […]}}`."
        )
    limit, share = args.max_rows_per_generation, args.share_prompt_prefill
    if limit is not None and limit < 1:
        raise ValueError(f"`max_rows_per_generation` must be at least 1, got {limit}.")
    given = [f"`max_rows_per_generation`={limit}"] if limit is not None else []
    given += ["`share_prompt_prefill`=True"] if share else []
    for engine in ("use_vllm", "use_transformers_continuous_batching"):
        if given and getattr(args, engine):
            raise ValueError(f"{given[0]} has no effect with `{engine}`. Remove it.")
    options = {"cache_implementation": args.cache_implementation}
    options |= args.generation_kwargs if isinstance(args.generation_kwargs, dict) else {}
    for name, allowed in GENERATION_WITH_SHARED_PREFILL.items():
        if share and options.get(name, allowed[0]) not in allowed:
            raise ValueError(
                f"`share_prompt_prefill`=True needs `{name}` to be {' or '.join(map(repr, allowed))}, got "
                f"{options[name]!r}."
            )


def check_stop_strings_of_model(args, model) -> None:
    """
    Refuses a model whose generation config has strings that end a completion, as those of the trainer are refused.

    Raises:
        `ValueError`: It has.
    """
    found = getattr(getattr(model, "generation_config", None), "stop_strings", None)
    if found and not args.use_vllm:
        raise ValueError(
            f"`model.generation_config.stop_strings` is {found!r}, and TRL gives transformers no tokenizer to look "
            f"for them. Set it to None, and tokens in `model.generation_config.eos_token_id`."
        )


def check_shared_prefill(args, model) -> None:
    """
    Refuses to read the prompts of a model once for many completions where that cannot work.

    Raises:
        `ValueError`: Names the model's class, or the cache that its own generation config asks for.
    """
    if not args.share_prompt_prefill:
        return
    why = why_prefill_is_not_shared(model)
    own = model.generation_config.cache_implementation
    if why is None and own not in GENERATION_WITH_SHARED_PREFILL["cache_implementation"]:
        why = f"the model's generation config sets cache_implementation={own!r}"
    if why is not None:
        raise ValueError(f"`share_prompt_prefill`=True cannot be used, because {why}. Remove it.")


def check_shared_scoring(args, model) -> None:
    """
    Refuses to read the prompts of a model once for many completions that are scored where that cannot work.

    Raises:
        `ValueError`: Names the setting or the model's class.
    """
    if not args.share_prompt_scoring:
        return
    for name in ("gradient_checkpointing", "use_liger_kernel"):
        if getattr(args, name):
            raise ValueError(
                f"`share_prompt_scoring`=True cannot be used with `{name}`=True. Set one of them to False."
            )
    if why := why_scoring_is_not_shared(model):
        raise ValueError(f"`share_prompt_scoring`=True cannot be used, because {why}. Remove it.")


def check_breadth(args) -> None:
    """
    Refuses a batch or an update without a prompt, and an update that is larger than its batch.

    Raises:
        `ValueError`: Names the settings and their values.
    """
    batch, update = args.prompts_per_batch, args.prompts_per_update
    if batch is not None and batch < 1:
        raise ValueError(f"`prompts_per_batch` must be at least 1, got {batch}.")
    if update is None:
        return
    if batch is None:
        raise ValueError(
            f"`prompts_per_update`={update} is a part of a batch, and needs `prompts_per_batch`, which is not set."
        )
    if not 1 <= update <= batch:
        raise ValueError(f"`prompts_per_update`={update} must be at least 1 and at most `prompts_per_batch`={batch}.")


def prompts_per_batch(args) -> int:
    """Prompts of one batch, without filler."""
    return args._prompts_sampled - args._prompts_of_filler


def passes_per_batch(args) -> int:
    """Forward passes of `per_device_train_batch_size` rows that fill a generation batch on each process."""
    return -(-args.generation_batch_size // (args.world_size * args.per_device_train_batch_size))


def describe_batch(args, train_dataset=None) -> str:
    """How prompts, generations, passes, updates and processes make up a batch, and what an epoch leaves out."""
    prompts, processes = prompts_per_batch(args), args.world_size
    rows, sampled = prompts * args.num_generations, args.generation_batch_size
    filler = f" ({sampled - rows} in all are filler, which is dropped)" if sampled > rows else ""
    lines = [
        f"Batch: {_plural(prompts, 'prompt')} x {args.num_generations} generations = {rows} completions on "
        f"{_plural(processes, 'process', 'processes')}, {sampled // processes} each{filler}, at most "
        f"{args.per_device_train_batch_size} in one forward pass.",
        f"Optimizer steps: {_describe_updates(args, prompts)}, num_iterations={args.num_iterations}.",
    ]
    if args.prompts_per_batch is None:
        lines.append(
            "With another number of processes these are other numbers: per_device_train_batch_size, "
            "gradient_accumulation_steps and steps_per_generation multiply with it. `prompts_per_batch` and "
            "`prompts_per_update` say the same on any number."
        )
    if isinstance(train_dataset, Dataset) and (left := len(train_dataset) % prompts):
        which = "others each time" if args.shuffle_dataset else "always the last"
        lines.append(
            f"Epoch: {_plural(len(train_dataset) // prompts, 'batch', 'batches')}, which leave out {left} of "
            f"{len(train_dataset)} prompts, {which}."
        )
    return "\n".join(lines)


def _describe_updates(args, prompts: int) -> str:
    updates = args._updates_per_batch
    steps = f"{args.num_iterations * updates} per batch"
    if args.prompts_per_batch is not None:
        smaller, larger = prompts // updates, prompts % updates  # prompts of most updates, updates with one more
        if larger == 0:
            return f"{steps}: {_plural(updates, 'update')} of {_plural(smaller, 'prompt')}"
        return f"{steps}: {_plural(larger, 'update')} of {smaller + 1} prompts and {updates - larger} of {smaller}"
    batches = max(1, args.gradient_accumulation_steps // args.steps_per_generation)
    if batches > 1:
        return f"{args.num_iterations} for every {batches} batches, {batches * prompts} prompts"
    return (
        f"{steps}: {_plural(updates, 'update')} of {args.generation_batch_size // updates} completions, as many as "
        f"{prompts / updates:g} {'prompt has' if prompts == updates else 'prompts have'}"
    )


def _plural(count: int, word: str, words: str | None = None) -> str:
    return f"{count} {word if count == 1 else words or word + 's'}"

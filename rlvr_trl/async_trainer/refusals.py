"""What cannot work when prompts are sampled one by one in another process is refused before a model is loaded."""

import pickle
import sys
from typing import Any

from datasets import Dataset

from ..advantages import AdvantageEstimator
from ..advantages.nesting import shapes_tokens
from ..checks import first_repeated
from ..rewards.wrappers import function_name
from ..rollouts import BatchAllocator, RolloutAllocator
from ..rollouts.allocator import as_batch_allocator
from ..trainer.validation import check_allocator
from ..trl_compat import get_callable_name


# What an estimator may say that it reads and that is not known of a completion which another process has sampled
UNKNOWN = {"needs_log_probs": "log-probabilities", "needs_answers": "answers", "needs_history": "the prompt history"}


def check_estimator_of_samples(estimator: AdvantageEstimator, args) -> None:
    """
    Refuses an estimator that reads what the sampler does not report.

    Raises:
        `ValueError`: It reads entropies without `estimate_entropies`, or with settings of sampling with which they
        cannot be estimated; or something else, which is named.
    """
    for name, what in UNKNOWN.items():
        if getattr(estimator, name, False):
            raise ValueError(
                f"{estimator!r} reads {what}, which the asynchronous trainer does not have. Use RLVRTrainer."
            )
    if shapes_tokens(estimator):
        raise ValueError(
            f"{estimator!r} gives each token an advantage of its own, and the asynchronous trainer has one for each "
            f"completion. Use RLVRTrainer."
        )
    if not getattr(estimator, "needs_entropies", False):
        return
    if not args.estimate_entropies:
        raise ValueError(
            f"{estimator!r} reads entropies, which a vLLM server does not report. Set `estimate_entropies`=True to "
            f"take the mean of −log p of the sampled tokens instead, or use RLVRTrainer."
        )
    plain = {"temperature": (1.0,), "top_p": (1.0,), "top_k": (0, -1), "min_p": (None, 0.0)}
    plain |= {"repetition_penalty": (1.0,)}
    for name, values in plain.items():
        if getattr(args, name) not in values:
            raise ValueError(
                f"`estimate_entropies`=True needs `{name}`={values[0]}, got {getattr(args, name)!r}: the "
                f"log-probabilities of the sampled tokens are not those of the model then."
            )


def check_allocator_per_prompt(allocator: RolloutAllocator | BatchAllocator, num_generations: int) -> None:
    """
    Refuses an allocator that looks at a whole batch, of which there is none while prompts are sampled.

    Raises:
        `ValueError`: It is a [`~rlvr_trl.rollouts.BatchAllocator`], or its cap is below the first stage.
    """
    if hasattr(allocator, "first_stage"):
        raise ValueError(
            f"{allocator!r} decides from a whole batch, and the asynchronous trainer asks for each prompt alone, as "
            f"soon as its completions are there. Take an allocator that goes by the counts of each prompt, such as "
            f"DARS or ReinforceAda, or use RLVRTrainer."
        )
    as_batch_allocator(allocator)  # which names a member that is missing
    check_allocator(allocator, num_generations, None)


def check_reward_functions(reward_funcs: list[Any], weights: list[float] | None) -> list[str]:
    """
    The names of the reward functions, if they can be called in another process and be told apart.

    Raises:
        `ValueError`: There is none, one is a model or its name, two have one name, or there is not one weight for
        each.
    """
    if not reward_funcs:
        raise ValueError("`reward_funcs` is empty: at least 1 reward function is needed.")
    for function in reward_funcs:
        if not callable(function) or hasattr(function, "parameters"):
            raise ValueError(
                f"`reward_funcs` holds {function!r:.80}, but the asynchronous trainer takes functions alone: rewards "
                f"are computed in a process without a GPU."
            )
    names = [get_callable_name(function) for function in reward_funcs]
    if (twice := first_repeated(names)) is not None:
        raise ValueError(f"Two of `reward_funcs` have the name {twice!r}. Give each a `__name__` of its own.")
    if weights is not None and len(weights) != len(names):
        raise ValueError(f"`reward_weights` has {len(weights)} weights for {len(names)} reward functions.")
    return names


def check_picklable(**given: Any) -> None:
    """
    Refuses what cannot be sent to the process that samples.

    Args:
        given: what is sent, by the name of the argument; lists one by one.

    Raises:
        `ValueError`: Names the argument and what of it cannot be pickled.
    """
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            try:
                pickle.dumps(one)
            except Exception as error:  # whatever its own methods raise
                what = function_name(one) if callable(one) else type(one).__name__
                raise ValueError(
                    f"`{name}` cannot be sent to the process that samples: {what} cannot be pickled "
                    f"({type(error).__name__}: {error}). Use a function at the top of a module, a "
                    f"`functools.partial` of one, or an object of a class at the top of a module; no lambda and no "
                    f"function inside another one."
                ) from error
            kind = one if hasattr(one, "__qualname__") else type(one)
            if kind.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
                raise ValueError(
                    f"`{name}` cannot be sent to the process that samples: {kind.__qualname__} is of a notebook "
                    f"or a shell, which that process cannot import. Put it into a module."
                )


def check_is_dataset(train_dataset: Any) -> Dataset:
    """
    The training set, if its rows can be read again.

    Raises:
        `ValueError`: It is a stream or empty.
    """
    if not isinstance(train_dataset, Dataset):
        raise ValueError(
            f"`train_dataset` is a {type(train_dataset).__name__}, but prompts whose groups were stale are sampled "
            f"again, and a resumed run samples those again that were in work. Give a `Dataset`, for instance by "
            f"loading it without `streaming=True`."
        )
    if len(train_dataset) == 0:
        raise ValueError("The dataset `train_dataset` is empty: it has 0 rows, at least 1 is needed.")
    return train_dataset

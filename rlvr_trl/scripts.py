"""What training scripts share: arguments, rewards by name, the model as TRL's scripts load it, resume, save and push.

This module keeps the scripts in `examples/` short, and can do the same for yours.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl import ModelConfig, get_peft_config, get_quantization_config

from .data import BENCHMARKS, SOURCES, filter_by_length, load_benchmark, load_own, load_source
from .manifest import checkpoints_in
from .rewards.named_rewards import REWARDS, build_reward
from .rewards.wrappers import RewardWrapper, function_name, required_columns
from .trainer import RLVRConfig, RLVRTrainer
from .trainer.pass_at_k_callback import PassAtKCallback


@dataclass
class TrainingScriptArguments:
    """
    Arguments of every training script.

    Args:
        reward_funcs (`list`):
            Reward functions, each as [`build_reward`] takes it: a name, the dotted path of your own, or a dict. The
            first says what is correct, unless `correctness_reward` names another.
        reward_model_name_or_path (`str`, *optional*):
            Folder or id of the Hub of a reward model, whose reward comes before the others, as in `trl grpo`.
        eval_num_samples (`int`, *optional*, defaults to `8`):
            Completions per held-out prompt, where a script measures pass@k during training.
        eval_every (`int`, *optional*):
            Optimizer steps between two such measurements. By default with every evaluation of `eval_strategy`.
        eval_temperature (`float`, *optional*):
            Temperature of these completions. By default that of the training.
        eval_greedy (`bool`, *optional*, defaults to `False`):
            Whether greedy accuracy is measured as well, as `eval_greedy_pass@1`.

    Raises:
        `ValueError`: A reward function is unknown, or has a wrong field; or `eval_temperature` is out of its range.
    """

    reward_funcs: list[str] = field(
        default_factory=lambda: ["math_reward"],
        metadata={
            "help": f"Reward functions: {', '.join(REWARDS)}; or a dotted path, my_package.my_reward. With fields, as "
            "YAML or JSON: '{name: noisy_reward, reward_func: maze_reward, share: 0.1}'."
        },
    )
    reward_model_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or id of a reward model, before the reward functions."}
    )
    eval_num_samples: int = field(
        default=8, metadata={"help": "Completions per held-out prompt, for pass@k during training."}
    )
    eval_every: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps between two measurements of pass@k. By default with each evaluation."},
    )
    eval_temperature: float | None = field(
        default=None, metadata={"help": "Temperature of these completions. By default that of the training."}
    )
    eval_greedy: bool = field(
        default=False, metadata={"help": "Measure greedy accuracy on these prompts as well, as eval_greedy_pass@1."}
    )

    def __post_init__(self):
        for spec in self.reward_funcs or ():
            build_reward(spec)  # so that a wrong one is an error before anything is loaded
        temperature = self.eval_temperature
        if temperature is not None and not 0 <= temperature < math.inf:
            raise ValueError(f"`eval_temperature` must be 0 (greedy) or a positive number, got {temperature!r}.")
        if temperature == 0 and self.eval_num_samples > 1:
            raise ValueError(
                f"`eval_temperature` is 0, so that all {self.eval_num_samples} completions of a prompt would be the "
                f"same greedy one. Set `eval_num_samples` to 1, or `eval_greedy`, which measures it beside others."
            )


@dataclass
class SourceScriptArguments(TrainingScriptArguments):
    """
    Arguments of a script that trains on a dataset.

    Args:
        dataset_name (`str`, *optional*, defaults to `"math"`):
            One of `rlvr_trl.data.SOURCES`; or a file, a folder or an id of the Hub, as
            [`~rlvr_trl.data.loaders.load_own`] takes them.
        dataset_path (`str`, *optional*):
            A local file or folder, or another id of the Hub, with the columns of the source `dataset_name`.
        dataset_config (`str`, *optional*):
            Configuration of a dataset of the Hub that is not a source.
        dataset_train_split (`str`, *optional*):
            Split to train on. By default that of the source, or `"train"`.
        prompt_template (`str`, *optional*):
            Name of one of `rlvr_trl.data.PROMPT_TEMPLATES`. By default the source's own.
        max_prompt_length (`int`, *optional*):
            Prompts with more tokens are left out, with a warning that counts them.
        eval_benchmark (`str`, *optional*):
            One of `rlvr_trl.data.BENCHMARKS`, to measure pass@k on during training.
        eval_path (`str`, *optional*):
            A local file or folder, or another id of the Hub, with the columns of the benchmark.
    """

    dataset_name: str = field(
        default="math",
        metadata={
            "help": f"What to train on: {', '.join(SOURCES)}; or a .jsonl, .json, .parquet or .csv file, a folder, or "
            "an id of the Hub, with a column `prompt` (or `problem`) and, for most rewards, `answer` or `solution`."
        },
    )
    dataset_path: str | None = field(
        default=None, metadata={"help": "A local file or folder, or another id of the Hub, of the same shape."}
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of a dataset of the Hub that is not one of the names."}
    )
    dataset_train_split: str | None = field(
        default=None, metadata={"help": "Split to train on. By default that of the source, or 'train'."}
    )
    prompt_template: str | None = field(
        default=None, metadata={"help": "Name of one of PROMPT_TEMPLATES. By default that of the dataset."}
    )
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "Prompts of more tokens are left out, with a warning that counts them."}
    )
    eval_benchmark: str | None = field(
        default=None, metadata={"help": f"Where to measure pass@k during training: {', '.join(BENCHMARKS)}."}
    )
    eval_path: str | None = field(
        default=None, metadata={"help": "A local file or folder, or another id of the Hub, for the benchmark."}
    )


def load_training_set(script_args: SourceScriptArguments, model_args: ModelConfig) -> Dataset:
    """
    The dataset that the arguments name, without the rows that have no answer or too long a prompt.

    Raises:
        `ValueError`: As [`~rlvr_trl.data.loaders.load_source`] or [`~rlvr_trl.data.loaders.load_own`], or an argument
        has no effect with this dataset.
    """
    name, split = script_args.dataset_name, script_args.dataset_train_split
    if not name:
        raise ValueError(f"`dataset_name` is {name!r}, but a source, a file, a folder or an id of the Hub is needed.")
    options: dict[str, Any] = {"template": script_args.prompt_template, "drop_unanswered": True}
    useless = "dataset_config" if name in SOURCES else "dataset_path"
    if getattr(script_args, useless) is not None:
        what = "a source, which has its own" if name in SOURCES else "no source: put the file or the id there"
        raise ValueError(f"`{useless}` is {getattr(script_args, useless)!r}, but `dataset_name` {name!r} is {what}.")
    if name in SOURCES:
        dataset = load_source(name, script_args.dataset_path, split, **options)
    else:
        dataset = load_own(name, split or "train", config=script_args.dataset_config, **options)
    return without_long_prompts(dataset, script_args.max_prompt_length, model_args)


def without_long_prompts(dataset: Dataset, max_prompt_length: int | None, model_args: ModelConfig) -> Dataset:
    """The rows whose prompt has at most so many tokens of the model's tokenizer; all of them without a limit."""
    if max_prompt_length is None:
        return dataset
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    return filter_by_length(dataset, tokenizer, max_prompt_length)


def load_eval_set(script_args: SourceScriptArguments) -> Dataset | None:
    """The benchmark that the arguments name, if any, with the prompts of the training set."""
    name = script_args.eval_benchmark
    if name is None:
        return None
    try:
        return load_benchmark(name, script_args.eval_path, template=script_args.prompt_template)
    except ValueError as error:
        raise ValueError(
            f"`eval_benchmark`={name!r} cannot be loaded: {error} `eval_path` names a copy of it, and "
            f"`eval_benchmark` null measures nothing during training."
        ) from error


def make_trainer(
    script_args: TrainingScriptArguments,
    training_args: RLVRConfig,
    model_args: ModelConfig,
    train_dataset: Dataset,
    eval_dataset: Dataset | None = None,
    trainer_class: type[RLVRTrainer] = RLVRTrainer,
    **kwargs,
) -> RLVRTrainer:
    """
    Makes a trainer from three groups of arguments. Model, quantization and LoRA are as in the scripts of TRL.

    Args:
        eval_dataset ([`~datasets.Dataset`], *optional*):
            Where to measure pass@k during training, on `eval_num_samples` completions per prompt.
        trainer_class (`type`, *optional*, defaults to [`RLVRTrainer`]):
            The trainer that belongs to the class of `training_args`.
        kwargs:
            Further arguments of the trainer, such as `processing_class`.

    Raises:
        `ValueError`: No model or no reward is named, `model_init_kwargs` is no dict, the dataset lacks a column that a
        reward function needs, or a setting of the measurement is there without `eval_dataset`.
    """
    if model_args.model_name_or_path is None:
        raise ValueError("`model_name_or_path` is None, but the folder or the id of a model is needed.")
    if eval_dataset is None and (script_args.eval_greedy or script_args.eval_temperature is not None):
        name = "eval_greedy" if script_args.eval_greedy else "eval_temperature"
        raise ValueError(
            f"`{name}` is set, but there are no held-out prompts to measure on: see `eval_benchmark`, or, in the "
            f"scripts of puzzles and mazes, the number of problems to evaluate."
        )
    given = training_args.model_init_kwargs or {}
    if not isinstance(given, dict):
        raise ValueError(f"`model_init_kwargs` must be a dict, or one as JSON, got {given!r}.")
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    } | given
    reward_funcs = [build_reward(spec) for spec in script_args.reward_funcs or ()]
    check_reward_columns(reward_funcs, train_dataset)
    reward_model = script_args.reward_model_name_or_path
    if not reward_funcs and not reward_model:
        raise ValueError("`reward_funcs` is empty, but at least one reward function or a reward model is needed.")
    if reward_model and reward_funcs and training_args.correctness_reward is None:
        training_args.correctness_reward = function_name(reward_funcs[0])  # a score says nothing about correctness
    trainer = trainer_class(
        model_args.model_name_or_path,
        [*([reward_model] if reward_model else []), *reward_funcs],
        training_args,
        train_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        **kwargs,
    )
    if eval_dataset is not None:
        every, temperature = script_args.eval_every, script_args.eval_temperature
        trainer.add_callback(
            PassAtKCallback(trainer, eval_dataset, script_args.eval_num_samples, every=every, temperature=temperature)
        )
        if script_args.eval_greedy:
            trainer.add_callback(
                PassAtKCallback(trainer, eval_dataset, 1, every=every, temperature=0, prefix="eval_greedy")
            )
    return trainer


def check_reward_columns(reward_funcs: Sequence[Callable], dataset: Dataset) -> None:
    """
    Refuses a dataset without the columns that reward functions take.

    Those are their parameters without a default, and `answer` or `solution` where both are parameters.

    Raises:
        `ValueError`: Names the function, the columns needed and those found.
    """
    columns = dataset.column_names
    for function in reward_funcs:
        innermost = function
        while isinstance(innermost, RewardWrapper):
            innermost = innermost.reward_func
        parameters, needed = inspect.signature(innermost).parameters, required_columns(innermost)
        if {"answer", "solution"} <= parameters.keys() - {*needed}:
            needed.append("answer or solution")
        missing = [names for names in needed if not set(names.split(" or ")) & {*columns}]
        if missing:
            raise ValueError(
                f"The reward function {function_name(function)} needs the column {missing[0]}, but the dataset has "
                f"{', '.join(columns)}."
            )


def run_training(trainer: RLVRTrainer) -> None:
    """
    Trains, from a checkpoint if one is asked for, saves into `output_dir`, and pushes if `push_to_hub` is set.

    `resume_from_checkpoint` is the path of a checkpoint; `true` for the newest complete one in `output_dir`, an error
    if there is none; or `auto` for the same if there are checkpoints and a fresh start if not, for jobs that are
    started again.

    Args:
        trainer ([`RLVRTrainer`]): the trainer.
    """
    args = trainer.args
    assert args.output_dir is not None  # TrainingArguments has one by default
    say = trainer.accelerator.on_main_process(print)  # `accelerator.print` speaks on every machine
    if not args.report_to:
        say("No tracker: metrics are printed, and kept with each checkpoint. See `report_to`.")
    with trainer.alone_in_output_dir():
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir))
        trainer.save_model(args.output_dir)
        say(f"Model saved to {args.output_dir}.")
        if args.push_to_hub:
            trainer.push_to_hub()
            say(f"Model pushed to https://huggingface.co/{trainer.hub_model_id}.")
    if hasattr(trainer, "end"):  # transformers 5.18: finishes the trackers and the process group
        trainer.end()


def checkpoint_to_resume(wanted: str | bool | None, output_dir: str) -> str | bool | None:
    """A `resume_from_checkpoint`, which the command line gives as text, as `trainer.train` takes it."""
    word = str(wanted).lower()
    if word == "auto":
        return True if checkpoints_in(output_dir) else None
    return {"true": True, "false": None, "none": None}.get(word, wanted)

"""What training scripts share: arguments, rewards by name, the model as TRL's scripts load it, resume, save and push.

This module keeps the scripts in `examples/` short, and can do the same for yours.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from transformers.integrations import is_tensorboard_available
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

from . import rewards
from .data import BENCHMARKS, SOURCES, filter_by_length, load_benchmark, load_source
from .registry import build_by_name
from .trainer import RLVRConfig, RLVRTrainer
from .trainer.checkpoint import last_complete_checkpoint
from .trainer.pass_at_k_callback import PassAtKCallback


# A reward that is a plain function stands behind a function without parameters: it has no fields to set.
REWARDS: dict[str, Callable[..., Callable]] = {
    "math_reward": lambda: rewards.math_reward,
    "maze_reward": lambda: rewards.maze_reward,
    "choice_reward": lambda: rewards.choice_reward,
    "boxed_format_reward": lambda: rewards.boxed_format_reward,
    "noisy_reward": rewards.NoisyReward,
    "length_reward": rewards.LengthReward,
}


def build_reward(spec: str | dict[str, Any]) -> Callable:
    """
    Builds a reward function from its name and fields.

    Args:
        spec (`str` or `dict`):
            `"math_reward"`, or `{"name": "noisy_reward", "reward_func": "maze_reward", "share": 0.3}`, or such a dict
            as JSON, for the command line.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
    """
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        spec = json.loads(spec)
    return build_by_name(spec, REWARDS, "reward function", {"reward_func": build_reward})


@dataclass
class TrainingScriptArguments:
    """
    Arguments of every training script.

    Args:
        reward_funcs (`list`):
            Reward functions, each as [`build_reward`] takes it. The first says what is correct, unless
            `correctness_reward` names another.
        eval_num_samples (`int`, *optional*, defaults to `8`):
            Completions per held-out prompt, where a script measures pass@k during training.
        eval_every (`int`, *optional*):
            Optimizer steps between two such measurements. By default with every evaluation of `eval_strategy`.
    """

    reward_funcs: list[str] = field(
        default_factory=lambda: ["math_reward"],
        metadata={"help": f"Reward functions, by name or as JSON: {', '.join(REWARDS)}."},
    )
    eval_num_samples: int = field(
        default=8, metadata={"help": "Completions per held-out prompt, for pass@k during training."}
    )
    eval_every: int | None = field(
        default=None,
        metadata={"help": "Optimizer steps between two measurements of pass@k. By default with each evaluation."},
    )


@dataclass
class SourceScriptArguments(TrainingScriptArguments):
    """
    Arguments of a script that trains on one of `rlvr_trl.data.SOURCES`.

    Args:
        dataset_name (`str`, *optional*, defaults to `"math"`):
            The source. It determines which columns are expected.
        dataset_path (`str`, *optional*):
            A local file or folder, or another id of the Hub, with the columns of the source.
        prompt_template (`str`, *optional*):
            Name of one of `rlvr_trl.data.PROMPT_TEMPLATES`. By default the source's own.
        max_prompt_length (`int`, *optional*):
            Prompts with more tokens are left out, with a warning that counts them.
        eval_benchmark (`str`, *optional*):
            One of `rlvr_trl.data.BENCHMARKS`, to measure pass@k on during training.
        eval_path (`str`, *optional*):
            A local file or folder, or another id of the Hub, with the columns of the benchmark.
    """

    dataset_name: str = field(default="math", metadata={"help": f"What to train on: {', '.join(SOURCES)}."})
    dataset_path: str | None = field(
        default=None, metadata={"help": "A local file or folder, or another id of the Hub, of the same shape."}
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
    """The dataset that the arguments name, without the rows that have no answer or too long a prompt."""
    dataset = load_source(
        script_args.dataset_name,
        script_args.dataset_path,
        template=script_args.prompt_template,
        drop_unanswered=True,
    )
    if script_args.max_prompt_length is None:
        return dataset
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, revision=model_args.model_revision)
    return filter_by_length(dataset, tokenizer, script_args.max_prompt_length)


def load_eval_set(script_args: SourceScriptArguments) -> Dataset | None:
    """The benchmark that the arguments name, if any, with the prompts of the training set."""
    name = script_args.eval_benchmark
    if name is None:
        return None
    return load_benchmark(name, script_args.eval_path, template=script_args.prompt_template)


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
        `ValueError`: No model is named, or `model_init_kwargs` is no dict.
    """
    if model_args.model_name_or_path is None:
        raise ValueError("`model_name_or_path` is None, but the folder or the id of a model is needed.")
    given = training_args.model_init_kwargs or {}
    if not isinstance(given, dict):
        raise ValueError(f"`model_init_kwargs` must be a dict, or one as JSON, got {given!r}.")
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    } | given
    trainer = trainer_class(
        model_args.model_name_or_path,
        [build_reward(spec) for spec in script_args.reward_funcs],
        training_args,
        train_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        **kwargs,
    )
    if eval_dataset is not None:
        trainer.add_callback(
            PassAtKCallback(trainer, eval_dataset, script_args.eval_num_samples, every=script_args.eval_every)
        )
    return trainer


def script_parser(script_arguments: type, config: type = RLVRConfig) -> TrlParser:
    """
    TRL's parser for the arguments of a script, of the trainer and of the model.

    `report_to` has another default than in transformers, which logs to nothing: TensorBoard, where it is installed.

    Args:
        script_arguments (`type`): a class of arguments, such as [`SourceScriptArguments`].
        config (`type`): that of the trainer.
    """
    parser = TrlParser((script_arguments, config, ModelConfig))
    parser.set_defaults(report_to=["tensorboard"] if is_tensorboard_available() else ["none"])
    return parser


def run_training(trainer: RLVRTrainer) -> None:
    """
    Trains, from a checkpoint if one is asked for, saves into `output_dir`, and pushes if `push_to_hub` is set.

    `resume_from_checkpoint` is the path of a checkpoint; `true` for the newest complete one in `output_dir`, an error
    if there is none; or `auto` for that one if it exists and a fresh start if not, for jobs that are started again.

    Args:
        trainer ([`RLVRTrainer`]): the trainer.
    """
    args = trainer.args
    assert args.output_dir is not None  # TrainingArguments has one by default
    if not args.report_to:
        trainer.accelerator.print("No tracker: metrics are printed, and kept with each checkpoint. See `report_to`.")
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir))
    trainer.save_model(args.output_dir)
    trainer.accelerator.print(f"Model saved to {args.output_dir}.")
    if args.push_to_hub:
        trainer.push_to_hub()
        trainer.accelerator.print(f"Model pushed to https://huggingface.co/{trainer.hub_model_id}.")
    if hasattr(trainer, "end"):  # transformers 5.18: finishes the trackers and the process group
        trainer.end()


def checkpoint_to_resume(wanted: str | bool | None, output_dir: str) -> str | bool | None:
    """A `resume_from_checkpoint`, which the command line gives as text, as `trainer.train` takes it."""
    word = str(wanted).lower()
    if word == "auto":
        try:
            return last_complete_checkpoint(output_dir)
        except ValueError:
            return None
    return {"true": True, "false": None, "none": None}.get(word, wanted)

"""The undocumented parts of TRL, transformers, accelerate, torch and vLLM that this package relies on.

Whatever this package overrides, reads or changes that is private there, or public but undocumented, is a row of
[`PRIVATE_PARTS`]: what it must look like, why it is needed, and when the row can go. The rows are compared with what
is installed when the trainers are imported, so before a model loads: a part that is gone, renamed or takes other
arguments raises an ImportError that names it, instead of failing an hour into a run. A part that keeps its name and
changes its meaning is not noticed. Attributes of a trainer are checked again at the end of its constructor.

Functions of these libraries are imported from here. The libraries are loaded when the first one is asked for, so that
packages that need no trainer do not load TRL.
"""

import dis
import functools
import importlib.util
import inspect
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from packaging.version import Version


if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import _get_default_store
    from transformers.integrations import is_fsdp_managed_module, is_tensorboard_available
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, rotate_checkpoints
    from transformers.utils.hub import hf_api
    from trl.experimental.async_grpo.async_grpo_trainer import DataCollatorForRollout
    from trl.experimental.async_grpo.async_rollout_worker import (
        AsyncRolloutWorker,
        RolloutGroup,
        TrainingSequence,
        _AsyncRolloutLoop,
    )
    from trl.experimental.async_grpo.packing import TreeRow
    from trl.trainer.utils import (
        add_fused_lm_head,
        get_callable_name,
        get_config_model_id,
        is_async_callable,
        nanstd,
        pad,
        print_prompt_completions_sample,
        shuffle_sequence_dict,
        split_pixel_values_by_grid,
        unsplit_pixel_values_by_grid,
    )

__all__ = [
    "PREFIX_CHECKPOINT_DIR",
    "AsyncRolloutWorker",
    "DataCollatorForRollout",
    "HubStrategy",
    "RolloutGroup",
    "TrainingSequence",
    "TreeRow",
    "_AsyncRolloutLoop",
    "_get_default_store",
    "add_fused_lm_head",
    "borrow",
    "check_attributes",
    "check_generated",
    "check_private_parts",
    "get_callable_name",
    "get_config_model_id",
    "hf_api",
    "is_async_callable",
    "is_fsdp_managed_module",
    "is_tensorboard_available",
    "nanstd",
    "pad",
    "print_prompt_completions_sample",
    "rotate_checkpoints",
    "shuffle_sequence_dict",
    "split_pixel_values_by_grid",
    "unsplit_pixel_values_by_grid",
]

# Widened together with pyproject.toml; CONTRIBUTING.md says how to move to a new TRL
TESTED_TRL = ("1.16",)
TESTED = {
    "trl": f"trl=={TESTED_TRL[-1]}.*",
    "transformers": "transformers>=5.10.1,<5.25",
    "accelerate": "accelerate==1.15.*",
    "torch": "torch==2.13.*",
    "vllm": "trl[vllm]",
}

ABSENT = "does not exist"

# --- kinds of rows: each says what is wrong with the installed version, or None ---


@dataclass(frozen=True, kw_only=True)
class Part:
    """
    A part of another library. `Part` itself describes a constant of a module or of a class.

    Args:
        owner (`str`): the module, or `module:Class`.
        name (`str`): its name there.
        why (`str`): what this package does with it.
        until (`str`): when the row can go.
        since (`str`, *optional*): the version of the library that introduced it; not expected in earlier ones.
    """

    owner: str
    name: str
    why: str
    until: str
    since: str | None = None

    @property
    def library(self) -> str:
        return self.owner.split(".")[0].split(":")[0]

    @property
    def is_asynchronous(self) -> bool:
        """Whether it is of TRL's experimental AsyncGRPOTrainer, which only the asynchronous trainer here needs."""
        return self.owner.startswith(ASYNC)

    @property
    def path(self) -> str:
        return f"{self.owner.replace(':', '.')}.{self.name}"

    @property
    def is_expected(self) -> bool:
        return self.since is None or Version(installed_version(self.library)) >= Version(self.since)

    def find_owner(self) -> Any:
        module, _, name = self.owner.partition(":")
        loaded = importlib.import_module(module)
        return getattr(loaded, name) if name else loaded

    def problem(self) -> str | None:
        try:
            owner = self.find_owner()
        except (ImportError, AttributeError) as error:
            return f"cannot be imported ({type(error).__name__}: {error})"
        return self.problem_in(owner)

    def problem_in(self, owner: Any) -> str | None:
        return None if self.find_in(owner) is not None else ABSENT

    def find_in(self, owner: Any) -> Any:
        """
        The part, None without one. Of a class and its bases only those of the same library count: a base of another
        one that has a method of that name would hide a renaming.
        """
        if not isinstance(owner, type):
            return getattr(owner, self.name, None)
        found = [vars(base)[self.name] for base in _own_bases(owner, self.library) if self.name in vars(base)]
        return found[0] if found else None


@dataclass(frozen=True, kw_only=True)
class Function(Part):
    """
    A function or method.

    Args:
        leading (`tuple[str, ...]`): its first parameters, which are given or taken by position; without `self`.
        named (`tuple[str, ...]`): further parameters that are given by name.
        returns (`int`, *optional*): the size of the tuple it returns.
        fields (`tuple[str, ...]`): keys of the dict it returns.
        reads (`tuple[str, ...]`): attributes of its object that it must read, because they are set for it.
    """

    leading: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    returns: int | None = None
    fields: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    def problem_in(self, owner: Any) -> str | None:
        function = self.find_in(owner)
        if function is None:
            return ABSENT
        if not _is_of(function, self.library):
            return None  # somebody else has replaced or wrapped it, and answers for it
        parameters = inspect.signature(function).parameters
        found = [name for name in parameters if name != "self"]
        if tuple(found[: len(self.leading)]) != self.leading:
            return f"takes {tuple(found)} and not {self.leading} first"
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        missing = [name for name in self.named if name not in found]
        if missing and not takes_any:
            return f"has no parameter {missing[0]!r}"
        if not BYTECODE_IS_KNOWN:
            return None
        code = inspect.unwrap(function).__code__
        if self.returns is not None and (sizes := _returned_sizes(code)) != {self.returns}:
            return f"returns tuples of {sorted(sizes)} values and not of {self.returns}"
        missing = sorted(set(self.fields) - _returned_keys(code)) if self.fields else []
        if missing:
            return f"does not return the field {missing[0]!r}"
        missing = [name for name in self.reads if name not in _read_of_self(code)]
        return f"does not read `self.{missing[0]}`" if missing else None


@dataclass(frozen=True, kw_only=True)
class Attribute(Part):
    """
    An attribute that a method of a class, or of one of its bases, sets.

    Args:
        set_in (`str`): that method.
        kind (`type` or tuple of types): what its value must be an instance of; not for what copies a user's setting.
        keys (`tuple[str, ...]`): keys that it must have.
        only_with (`str`, *optional*): an option of the trainer without which it need not be there.
        unless (`str`, *optional*): an option of the trainer with which it need not be there.
    """

    set_in: str = "__init__"
    kind: type | tuple[type, ...] = object
    keys: tuple[str, ...] = ()
    only_with: str | None = None
    unless: str | None = None

    def problem_in(self, owner: Any) -> str | None:
        methods = [vars(base)[self.set_in] for base in _own_bases(owner, self.library) if self.set_in in vars(base)]
        if not BYTECODE_IS_KNOWN or not all(_is_of(method, self.library) for method in methods):
            return None  # somebody else may have replaced or wrapped one, and answers for it
        is_set = any(self.name in _attributes_set(method) for method in methods)
        return None if is_set else f"is not set by `{self.set_in}`"

    def problem_of(self, instance: Any) -> str | None:
        """What is wrong with the attribute of one object, at the end of its constructor."""
        is_off = self.only_with is not None and not getattr(instance, self.only_with, False)
        if self.set_in != "__init__" or is_off or (self.unless is not None and getattr(instance, self.unless, False)):
            return None
        if not hasattr(instance, self.name):
            return "is not set"
        value = getattr(instance, self.name)
        if not isinstance(value, self.kind):
            return f"is of type {type(value).__name__}"
        absent = [key for key in self.keys if key not in value]
        return f"has no key {absent[0]!r}" if absent else None


def _own_bases(owner: type, library: str) -> list[type]:
    """The class and its bases, as far as they are of a library."""
    return [base for base in inspect.getmro(owner) if base.__module__.partition(".")[0] == library]


def _is_of(function: Any, library: str) -> bool:
    return getattr(inspect.unwrap(function), "__module__", "").partition(".")[0] == library


# These read CPython's bytecode. It was looked at up to 3.13; on a newer Python these checks are left out.
BYTECODE_IS_KNOWN = sys.version_info < (3, 14)


@functools.cache  # a constructor sets dozens of attributes, and is looked at for each
def _steps(code: types.CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG")]


def _returned_sizes(code: types.CodeType) -> set[int]:
    """Sizes of the tuples that the code returns; 0 for a return value that is not written as a tuple."""
    return {
        (before.arg or 0) if before.opname == "BUILD_TUPLE" else 0
        for before, step in zip(_steps(code), _steps(code)[1:], strict=False)
        if step.opname == "RETURN_VALUE"
    }


def _returned_keys(code: types.CodeType) -> set[str]:
    """Keys of the dict that the code returns: those of the display it begins with, and those it is given later."""
    steps = _steps(code)
    pairs = zip(steps, steps[1:], strict=False)
    returned = {_last_name(before) for before, step in pairs if step.opname == "RETURN_VALUE"}
    keys: set[str] = set()
    for i, step in enumerate(steps):
        if step.opname == "STORE_SUBSCR" and _last_name(steps[i - 2]) in returned:  # name, key, store
            keys.add(steps[i - 1].argval)
        elif step.opname == "BUILD_CONST_KEY_MAP" and _first_name(steps[i + 1]) in returned:  # keys, build, store
            keys.update(steps[i - 1].argval)
    return keys


def _read_of_self(code: types.CodeType) -> set[str]:
    return {
        step.argval
        for before, step in zip(_steps(code), _steps(code)[1:], strict=False)
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and _last_name(before) == "self"
    }


def _first_name(step: dis.Instruction) -> Any:
    return step.argval[0] if isinstance(step.argval, tuple) else step.argval  # from 3.13 on one step may do two things


def _last_name(step: dis.Instruction) -> Any:
    return step.argval[-1] if isinstance(step.argval, tuple) and step.argval else step.argval


def _attributes_set(method: Any) -> frozenset[str]:
    code = getattr(inspect.unwrap(method), "__code__", None)  # a constructor written in C has none
    return _stored_in(code) if code else frozenset()


@functools.cache
def _stored_in(code: types.CodeType) -> frozenset[str]:
    return frozenset(step.argval for step in _steps(code) if step.opname == "STORE_ATTR")


# --- the table ---

GRPO, TRAINER = "trl:GRPOTrainer", "transformers:Trainer"
ASYNC = "trl.experimental.async_grpo"
ASYNC_GRPO, WORKER = f"{ASYNC}.async_grpo_trainer", f"{ASYNC}.async_rollout_worker"
UTILS = "trl.trainer.utils"

HOOK = "TRL has a hook that gets the rewards of a whole batch (huggingface/trl#7298 only transforms its advantages)"
STAGES = "TRL can sample more completions for some prompts of a batch"
REWARD_ERRORS = "TRL raises the error of a reward function on every process, with its name"
RAGGED = "TRL trains batches whose groups differ in size, and micro-batches that differ in length"
RESUME = "TRL saves and restores the batch in training"
ATOMIC = "transformers writes a checkpoint beside its final place and renames it once it is whole"
PUSHES = "transformers looks at what came of a push to the Hub, and does failed ones again"
TRANSLATED = "transformers loads a checkpoint with the key mapping of `from_pretrained`"
EVALUATION = "TRL samples completions for a caller, without training on them"
IMAGES = "TRL keeps the images of a batch as one entry per row"
PUBLIC = "the library makes it public"
ONE_PREFILL = "`generate` of transformers reads a prompt once for several rows"
SERVER_ENDS = "TRL's requests to the server end when it dies"
OWN_BAR = "TRL lets a caller choose `use_tqdm` of vLLM"
AS_THEY_END = "evaluation takes completions as they end, to save them before the longest is done"
ITERATOR = "vLLM has an iterator over finished completions"
PER_PROMPT = "TRL's asynchronous worker samples more completions for some prompts, and scores a prompt as a whole"
WHOLE_STEPS = "an optimizer step of TRL's asynchronous trainer is a number of whole groups"
ENDS = "TRL's asynchronous trainer ends when the process that samples has died"
SAYS_WHY = "TRL waits for the reason of a failure of the process that samples"

REQUIRED_FIELDS = (
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "advantages",
    "num_items_in_batch",
)
PRIVATE_PARTS: tuple[Part, ...] = (
    Function(
        owner=GRPO,
        name="__init__",
        named=(
            *("model", "reward_funcs", "args", "train_dataset", "eval_dataset", "processing_class"),
            *("reward_processing_classes", "callbacks", "optimizers", "quantization_config", "peft_config", "tools"),
            *("rollout_func", "environment_factory"),
        ),
        why="overridden with its parameters written out, which editors show",
        until="never: a new parameter of TRL has to be added",
    ),
    # one call of generation and scoring, and what is recorded of it
    Function(
        owner=GRPO,
        name="_generate_and_score_completions",
        leading=("inputs",),
        fields=(
            *REQUIRED_FIELDS,
            *("tool_mask", "old_per_token_logps", "ref_per_token_logps", "sampling_per_token_logps"),
            *("importance_sampling_ratio", "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask"),
            *("spatial_shapes", "num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids"),
            "image_position_ids",
        ),
        why="overridden: its advantages are replaced, and it is called once a stage",
        until=f"{HOOK}, and {STAGES}",
    ),
    Function(
        owner=GRPO,
        name="_generate",
        leading=("prompts",),
        returns=8,
        reads=("num_generations", "num_generations_eval"),
        why="overridden: records token ids and tool masks, and watches the vLLM server; PassAtKCallback samples by it",
        until=f"{HOOK}, {SERVER_ENDS}, and {EVALUATION}",
    ),
    Function(
        owner=GRPO,
        name="_generate_single_turn",
        leading=("prompt_ids", "images", "multimodal_fields", "num_generations"),
        returns=2,
        why="overridden: `max_rows_per_generation`, `share_prompt_prefill`, and the progress bar",
        until="TRL limits how many rows `generate` gets at once, and reads each prompt once",
    ),
    Function(
        owner=GRPO,
        name="_calculate_rewards",
        leading=("inputs", "prompts", "completions", "completion_ids_list"),
        why="overridden: records the rewards of every function; an error on one process is raised on all",
        until=f"{HOOK}, and {REWARD_ERRORS}",
    ),
    Function(
        owner=GRPO,
        name="_get_per_token_logps_and_entropies",
        leading=("model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"),
        named=("compute_entropy",),
        returns=3,
        why="overridden: scores a batch in trimmed passes and records entropies; PassAtKCallback calls it",
        until=f"{RAGGED}, and {EVALUATION}",
    ),
    Attribute(owner=GRPO, name="num_generations", why="is 1 for extra completions", until=STAGES),
    Attribute(owner=GRPO, name="num_generations_eval", why="is 1 to measure pass@k", until=EVALUATION),
    Attribute(
        owner=GRPO,
        name="generation_config",
        unless="use_vllm",
        why="has another temperature while pass@k is measured at one",
        until=EVALUATION,
    ),
    Attribute(
        owner=GRPO,
        name="generation_kwargs",
        kind=dict,
        unless="use_vllm",
        why="overrides the configuration, so it has that temperature too",
        until=EVALUATION,
    ),
    Attribute(owner=GRPO, name="_tokenizer", why="its pad token ends a completion", until=PUBLIC),
    Attribute(owner=GRPO, name="eos_token_ids", kind=(list, tuple), why="end a completion", until=PUBLIC),
    Attribute(owner=GRPO, name="reward_funcs", kind=list, why="each gets a guard that names it", until=REWARD_ERRORS),
    Attribute(owner=GRPO, name="reward_func_names", kind=list, why="name the metrics", until=PUBLIC),
    Attribute(owner=GRPO, name="reward_weights", why="weight the rewards of a completion", until=HOOK),
    Attribute(owner=GRPO, name="multi_objective_aggregation", why="how rewards are combined", until=HOOK),
    Attribute(owner=GRPO, name="use_vllm", why="decides who generates", until=PUBLIC),
    Attribute(owner=GRPO, name="vllm_mode", why="decides who generates", until=PUBLIC),
    Attribute(
        owner=GRPO,
        name="use_transformers_continuous_batching",
        why="decides who generates",
        until=PUBLIC,
    ),
    Attribute(owner=GRPO, name="tools", why="PassAtKCallback refuses them", until=EVALUATION),
    Attribute(owner=GRPO, name="environment_factories", why="PassAtKCallback refuses them", until=EVALUATION),
    Attribute(owner=GRPO, name="rollout_func", why="PassAtKCallback refuses one", until=EVALUATION),
    Attribute(
        owner=GRPO,
        name="vllm_generation",
        only_with="use_vllm",
        why="holds the engine, or the client of the server",
        until=f"{SERVER_ENDS}, and {OWN_BAR}",
    ),
    Attribute(
        owner=GRPO,
        name="_last_loaded_step",
        only_with="use_vllm",
        why="-1 makes vLLM load the weights of the best model",
        until=EVALUATION,
    ),
    # metrics and logs of completions
    Attribute(
        owner=GRPO,
        name="_metrics",
        kind=dict,
        keys=("train", "eval"),
        why="metrics of several calls, or of several passes, are joined into those of a batch",
        until=f"{STAGES}, and {RAGGED}",
    ),
    Attribute(
        owner=GRPO,
        name="_logs",
        kind=dict,
        keys=("images", "prompt", "completion", "rewards", "advantages", "extra"),
        why="completions of several stages are joined; its advantages are those that train",
        until=f"{HOOK}, and {STAGES}",
    ),
    Attribute(owner=GRPO, name="_pending_extra_logs", kind=dict, why="cleared after a call that failed", until=STAGES),
    Attribute(owner=GRPO, name="_pending_metrics", kind=dict, why="cleared after a call that failed", until=STAGES),
    Attribute(owner=GRPO, name="_current_train_step_time", kind=float, why="increased here in passes", until=RAGGED),
    # from a batch to gradient
    Function(
        owner=GRPO,
        name="training_step",
        leading=("model", "inputs", "num_items_in_batch"),
        why="overridden: the last call of an optimizer step makes all passes",
        until=RAGGED,
    ),
    Function(
        owner=TRAINER,
        name="training_step",
        leading=("model", "inputs", "num_items_in_batch"),
        why="called for each pass instead of TRL's, which would count the call",
        until=RAGGED,
    ),
    Function(
        owner=GRPO,
        name="compute_loss",
        leading=("model", "inputs", "return_outputs", "num_items_in_batch"),
        why="overridden: a loss that is not finite is an error",
        until="transformers refuses a loss that is not finite",
    ),
    Function(
        owner=GRPO,
        name="_compute_loss",
        leading=("model", "inputs"),
        reads=("entropy_coef", "router_aux_loss_coef", "current_gradient_accumulation_steps", "loss_type"),
        why="overridden: the loss of a pass is weighted by what it holds",
        until=RAGGED,
    ),
    Function(
        owner=GRPO,
        name="_prepare_inputs",
        leading=("generation_batch",),
        why="overridden: returns the batch of a pass unchanged",
        until=RAGGED,
    ),
    Function(
        owner=GRPO,
        name="get_train_dataloader",
        reads=("_train_batch_size", "train_dataset", "shuffle_dataset", "num_iterations"),
        why="overridden: with `prompts_per_batch` it yields whole generation batches, with filler",
        until=RAGGED,
    ),
    Function(
        owner=TRAINER,
        name="compute_loss_context_manager",
        why="mixed precision in passes without a gradient",
        until=RAGGED,
    ),
    Attribute(owner=GRPO, name="shuffle_dataset", kind=bool, why="not again, where it is done here", until=RAGGED),
    Attribute(owner=TRAINER, name="_train_batch_size", why="rows per data loader batch", until=RAGGED),
    Attribute(
        owner=TRAINER,
        name="current_gradient_accumulation_steps",
        set_in="_run_epoch",
        why="the loss is divided by it",
        until=PUBLIC,
    ),
    Attribute(
        owner=TRAINER,
        name="is_distributed_loading_by_transformers",
        since="5.19",
        why="True for a sharded model that accelerate does not know to be sharded",
        until=RAGGED,
    ),
    Function(
        owner=TRAINER,
        name="_defer_fsdp_gradient_reduction",
        since="5.23",
        why="keeps gradients on their process until the last pass, for a model that was sharded when loaded",
        until=RAGGED,
    ),
    Function(
        owner="transformers.integrations",
        name="is_fsdp_managed_module",
        leading=("module",),
        why="whether a model was sharded when it was loaded",
        until=RAGGED,
    ),
    Attribute(
        owner="accelerate.state:GradientState",
        name="sync_gradients",
        why="gradients are averaged over the processes in the last pass only",
        until=RAGGED,
    ),
    Attribute(owner=GRPO, name="loss_type", why="decides the weight of a pass", until=RAGGED),
    Attribute(owner=GRPO, name="importance_sampling_level", why="metrics by token or row", until=RAGGED),
    Attribute(owner=GRPO, name="num_iterations", why="how often a batch is trained on", until=PUBLIC),
    Attribute(owner=GRPO, name="beta", why="whether there is a KL term", until=PUBLIC),
    Attribute(owner=GRPO, name="ref_model", why="whether the reference is a model of its own", until=PUBLIC),
    Attribute(owner=GRPO, name="_entropy_bonus_enabled", why="gives every row a gradient", until=RAGGED),
    Attribute(owner=GRPO, name="entropy_coef", why="has its own weight in a pass", until=RAGGED),
    Attribute(owner=GRPO, name="aux_loss_enabled", why="gives every row a gradient", until=RAGGED),
    Attribute(owner=GRPO, name="router_aux_loss_coef", why="has its own weight in a pass", until=RAGGED),
    Attribute(owner=GRPO, name="_step", kind=int, why="increased here in passes; in checkpoints", until=RESUME),
    Attribute(owner=GRPO, name="_buffered_inputs", why="saved in checkpoints", until=RESUME),
    # resume
    Function(
        owner=GRPO,
        name="_get_train_sampler",
        leading=("dataset",),
        reads=("num_iterations",),
        why="overridden: a resumed run draws its permutations again; filler after a batch",
        until="transformers restores the generator of the sampler, and " + RAGGED,
    ),
    Function(
        owner=GRPO,
        name="_save_checkpoint",
        leading=("model", "trial"),
        why="overridden: written beside its place and renamed",
        until=ATOMIC,
    ),
    Function(
        owner=TRAINER,
        name="_run_epoch",
        why="overridden: a run that was saved at its last step has none left",
        until="transformers looks at the steps that are left before it trains",
    ),
    Function(
        owner=TRAINER,
        name="_get_output_dir",
        leading=("trial",),
        why="overridden: where a checkpoint is written while it is not whole",
        until=ATOMIC,
    ),
    Function(
        owner=TRAINER,
        name="_save_rng_state",
        leading=("output_dir",),
        why="overridden: every process saves its part of the batch as well",
        until=RESUME,
    ),
    Function(
        owner=GRPO,
        name="_load_optimizer_and_scheduler",
        leading=("checkpoint",),
        why="overridden: restores the batch as well",
        until=RESUME,
    ),
    Function(
        owner=TRAINER,
        name="_load_from_checkpoint",
        leading=("resume_from_checkpoint", "model"),
        why="overridden: adapters keep their dtype, and it is known where weights are loaded from",
        until=f"PEFT loads an adapter in the dtype in which it is trained, and {TRANSLATED}",
    ),
    Function(owner=TRAINER, name="_load_best_model", why="overridden: knows where it loads from", until=TRANSLATED),
    Function(
        owner=TRAINER,
        name="_issue_warnings_after_load",
        leading=("load_result",),
        why="overridden: weights that are saved under other names are loaded, not left as they were",
        until=TRANSLATED,
    ),
    Function(
        owner="transformers.trainer_utils",
        name="rotate_checkpoints",
        leading=("output_dir", "save_total_limit", "best_model_checkpoint", "use_mtime"),
        why="deletes old checkpoints once a new one is whole",
        until=ATOMIC,
    ),
    Part(owner="transformers.trainer_utils", name="PREFIX_CHECKPOINT_DIR", why="names checkpoints", until=PUBLIC),
    Attribute(owner=TRAINER, name="optimizer", why="a resumed run may change its settings on purpose", until=PUBLIC),
    Attribute(owner=TRAINER, name="lr_scheduler", why="likewise", until=PUBLIC),
    # trackers
    Function(
        owner="transformers.integrations",
        name="is_tensorboard_available",
        leading=(),
        why="scripts log to TensorBoard where it is installed",
        until=PUBLIC,
    ),
    # the Hub
    Part(owner="transformers.trainer_utils", name="HubStrategy", why="says what is pushed when", until=PUBLIC),
    Function(
        owner=TRAINER,
        name="_push_from_checkpoint",
        leading=("checkpoint_folder",),
        why="overridden: looks at what came of earlier pushes",
        until=PUSHES,
    ),
    Function(
        owner=TRAINER,
        name="_save",
        leading=("output_dir", "state_dict"),
        why="overridden: PEFT does not replace the card, and the saved arguments name no place of this machine",
        until="PEFT leaves a card alone, and transformers saves its arguments without folders",
    ),
    Function(owner=TRAINER, name="_finish_current_push", why="overridden: pushes what is missing", until=PUSHES),
    Function(
        owner=TRAINER,
        name="push_to_hub",
        leading=("commit_message", "blocking", "token", "revision"),
        why="overridden: tries again",
        until=PUSHES,
    ),
    Function(
        owner=TRAINER,
        name="init_hf_repo",
        leading=("token",),
        why="overridden: keeps the token out of the saved arguments",
        until="transformers does not push `hub_token` with its arguments",
    ),
    Attribute(
        owner=TRAINER,
        name="push_in_progress",
        set_in="init_hf_repo",
        why="holds the running uploads",
        until=PUSHES,
    ),
    Attribute(
        owner="transformers.utils.hub:PushInProgress", name="jobs", kind=list, why="the running uploads", until=PUSHES
    ),
    Function(
        owner="transformers.utils.hub",
        name="hf_api",
        why="uploads, with the same token; transformers' own uploads go through this package meanwhile",
        until=PUSHES,
    ),
    Function(
        owner="trl.trainer.base_trainer:_BaseTrainer",
        name="create_model_card",
        leading=("model_name", "dataset_name", "tags"),
        why="overridden: TRL's card is completed",
        until="never: it is public, but its parameters differ from those of transformers",
    ),
    Part(owner=GRPO, name="_tag_names", why="tags of the card", until=PUBLIC),
    Part(owner=GRPO, name="_name", why="method that the card names", until=PUBLIC),
    Part(owner=GRPO, name="_paper", why="paper that the card cites", until=PUBLIC),
    Part(
        owner="trl:GRPOConfig",
        name="_VALID_DICT_FIELDS",
        why="fields that may be given as JSON on the command line",
        until=PUBLIC,
    ),
    # the asynchronous trainer
    Function(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="__init__",
        named=(
            *("model", "reward_funcs", "args", "train_dataset", "processing_class", "callbacks", "optimizers"),
            *("peft_config", "tools", "weight_transfer"),
        ),
        why="the arguments that are passed on",
        until=PUBLIC,
    ),
    Part(
        owner=ASYNC_GRPO,
        name="AsyncRolloutWorker",
        why="replaced while the trainer is built, so that it makes a worker which samples by prompt",
        until="the worker class of TRL's asynchronous trainer is an argument",
    ),
    Function(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="get_train_dataloader",
        why="overridden: yields whole optimizer steps",
        until=WHOLE_STEPS,
    ),
    Function(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="training_step",
        leading=("model", "inputs", "num_items_in_batch"),
        why="overridden: makes all passes of an optimizer step",
        until=WHOLE_STEPS,
    ),
    Function(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="compute_loss",
        leading=("model", "inputs"),
        reads=("epsilon_low", "epsilon_high", "current_gradient_accumulation_steps"),
        why="divides the loss of a pass by `global_n_tokens`, which is that of the step here",
        until=WHOLE_STEPS,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="_metrics",
        kind=dict,
        keys=("train",),
        why="metrics of a step are added",
        until=PUBLIC,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="_trained_groups",
        kind=set,
        why="the prompts that were trained on, and no others",
        until=WHOLE_STEPS,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="_last_groups_trained",
        kind=int,
        why="how many these were before, for a metric that goes on after a resume",
        until=WHOLE_STEPS,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="_rollout_dataset",
        why="has the seconds in which a step was waited for",
        until=WHOLE_STEPS,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:RolloutQueueDataset",
        name="wait_s",
        why="what takes its place has it too: TRL logs it and sets it to 0",
        until=WHOLE_STEPS,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="_step_trained_tokens",
        kind=float,
        why="TRL adds the tokens of the step to it in every pass",
        until=WHOLE_STEPS,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="model_version",
        kind=int,
        why="how stale a group is",
        until=PUBLIC,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer",
        name="vllm_client",
        why="says how long a prompt and its completion may be",
        until=PUBLIC,
    ),
    Attribute(
        owner=f"{ASYNC_GRPO}:AsyncGRPOTrainer", name="rollout_worker", why="its health, its queue", until=PUBLIC
    ),
    Function(
        owner=f"{ASYNC}.vllm_client:VLLMClient",
        name="get_max_model_len",
        leading=(),
        why="the token budget of a pass by default, as in TRL",
        until=PUBLIC,
    ),
    Function(
        owner=f"{ASYNC}.vllm_client:VLLMClient",
        name="wait_for_server_ready",
        why="before the server is asked, as in TRL",
        until=PUBLIC,
    ),
    Function(
        owner=f"{ASYNC_GRPO}:DataCollatorForRollout",
        name="__init__",
        leading=("pad_token_id", "num_processes"),
        named=("metrics", "token_budget"),
        why="packs the rows of a pass",
        until=WHOLE_STEPS,
    ),
    Function(
        owner=f"{ASYNC_GRPO}:DataCollatorForRollout",
        name="torch_call",
        leading=("examples",),
        why="packs the rows of a pass",
        until=WHOLE_STEPS,
    ),
    Part(owner=ASYNC_GRPO, name="DataCollatorForRollout", why="packs the rows of a pass", until=WHOLE_STEPS),
    Part(owner=f"{ASYNC}.packing", name="TreeRow", why="a row of a pass, whose prompts are read once", until=PUBLIC),
    Function(
        owner=f"{ASYNC}.packing:TreeRow",
        name="fits",
        leading=("sample", "budget"),
        why="whether a row has room for a completion",
        until=WHOLE_STEPS,
    ),
    Function(owner=f"{ASYNC}.packing:TreeRow", name="add", leading=("sample",), why="fills a row", until=WHOLE_STEPS),
    *(
        Attribute(owner=f"{ASYNC}.packing:TreeRow", name=name, why="plans passes", until=WHOLE_STEPS)
        for name in ("samples", "groups", "load")
    ),
    # its worker, in the process of the trainer
    Part(owner=WORKER, name="AsyncRolloutWorker", why="base of the worker that samples by prompt", until=PER_PROMPT),
    Part(owner=f"{WORKER}:AsyncRolloutWorker", name="_loop_cls", why="overridden: what it runs", until=PER_PROMPT),
    Function(
        owner=f"{WORKER}:AsyncRolloutWorker",
        name="__init__",
        named=("queue_maxsize",),
        why="overridden: adds what the loop needs to know",
        until=PER_PROMPT,
    ),
    Function(
        owner=f"{WORKER}:AsyncRolloutWorker",
        name="check_health",
        leading=("stale_after_s",),
        reads=("_failed_event", "_exception_info_queue"),
        why="overridden: looks whether the process lives, and waits for what has failed in it",
        until=ENDS,
    ),
    Attribute(
        owner=f"{WORKER}:AsyncRolloutWorker", name="_failed_event", why="set before the next is full", until=SAYS_WHY
    ),
    Attribute(
        owner=f"{WORKER}:AsyncRolloutWorker", name="_exception_info_queue", why="what has failed", until=SAYS_WHY
    ),
    Function(
        owner=f"{WORKER}:AsyncRolloutWorker",
        name="stop",
        reads=("_stop_event_mp",),
        why="uses an event that can be set when nobody is left to wait for it",
        until=ENDS,
    ),
    Attribute(
        owner=f"{WORKER}:AsyncRolloutWorker", name="_stop_event_mp", why="replaced by such an event", until=ENDS
    ),
    Attribute(
        owner=f"{WORKER}:AsyncRolloutWorker", name="rollout_buffer", why="also takes prompts there", until=PER_PROMPT
    ),
    Attribute(owner=f"{WORKER}:AsyncRolloutWorker", name="_mp_ctx", why="makes its queues", until=PER_PROMPT),
    Attribute(owner=f"{WORKER}:AsyncRolloutWorker", name="_process", why="whether it lives", until=ENDS),
    Function(
        owner=f"{WORKER}:AsyncRolloutWorker", name="start", leading=(), why="overridden: sets the next", until=ENDS
    ),
    Attribute(
        owner=f"{WORKER}:AsyncRolloutWorker",
        name="_heartbeat_value",
        why="set when the process is ready, and replaced by a value without a lock",
        until="TRL counts from when the process that samples is ready, and does not wait for it where it is stopped",
    ),
    Attribute(
        owner=f"{WORKER}:AsyncRolloutWorker", name="_model_version_value", why="replaced by such a value", until=ENDS
    ),
    Function(
        owner=f"{WORKER}:AsyncRolloutWorker",
        name="update_model_version",
        leading=("model_version",),
        why="overridden: sets it without a lock",
        until=ENDS,
    ),
    # and in the process that samples
    Part(owner=WORKER, name="RolloutGroup", why="completions of a stage are joined into one", until=PER_PROMPT),
    Part(owner=WORKER, name="TrainingSequence", why="a row that is trained on", until=PER_PROMPT),
    Part(owner=WORKER, name="_AsyncRolloutLoop", why="base of the loop that samples by prompt", until=PER_PROMPT),
    Function(
        owner=f"{WORKER}:_AsyncRolloutLoop",
        name="__init__",
        named=("dataset", "reward_funcs", "processing_class", "tools", "num_generations", "score_queue_maxsize"),
        why="overridden: keeps what is known of the prompts in work",
        until=PER_PROMPT,
    ),
    Function(
        owner=f"{WORKER}:_AsyncRolloutLoop",
        name="_repeat_iterator",
        leading=(),
        why="overridden: says what a free slot does next, further completions before new prompts",
        until=PER_PROMPT,
    ),
    *(
        Function(
            owner=f"{WORKER}:_AsyncRolloutLoop",
            name=name,
            named=("stop_event",),
            reads=("_groups_to_score", *reads),
            why="overridden: goes on when there is something to do again",
            until="TRL's loop of generation waits where its iterator has nothing",
        )
        for name, reads in (("_generate_loop", ("max_inflight_tasks", "_repeat_iterator")), ("_score_loop", ()))
    ),
    Function(
        owner=f"{WORKER}:_AsyncRolloutLoop",
        name="_post",
        leading=("path", "payload"),
        why="overridden: says which request the server refuses",
        until="TRL does not repeat a request that was refused",
    ),
    Function(
        owner=f"{WORKER}:_AsyncRolloutLoop",
        name="_score_group",
        leading=("group",),
        why="overridden: collects the completions of a prompt, and asks the allocator",
        until=PER_PROMPT,
    ),
    *(
        Attribute(owner=f"{WORKER}:_AsyncRolloutLoop", name=name, why=why, until=PER_PROMPT)
        for name, why in (
            ("dataset", "has the rows of the prompts"),
            ("reward_funcs", "get a guard that names them"),
            ("reward_func_names", "name the rewards of a completion"),
            ("tokenizer", "its pad token ends a completion"),
            ("eos_token_ids", "end a completion"),
            ("rollout_buffer", "where prompts come from and groups go"),
        )
    ),
    Function(
        owner=f"{WORKER}:RolloutGroup",
        name="__init__",
        named=(
            *("prompts", "reward_kwargs", "completions", "completions_ids", "completions_sequences"),
            *("tool_call_counts", "tool_failure_counts", "model_version", "group_id", "env_rewards"),
            "rollout_rewards",
        ),
        why="completions of a stage are joined into one to be scored",
        until=PER_PROMPT,
    ),
    Function(
        owner=f"{WORKER}:RolloutSample",
        name="__init__",
        named=("input_ids", "completion_mask", "old_log_probs", "metrics"),
        why="`metrics` of a scored completion hold the rewards by function",
        until=PER_PROMPT,
    ),
    Function(
        owner=f"{WORKER}:TrainingSequence",
        name="__init__",
        leading=("input_ids", "completion_mask", "old_log_probs", "rollout_id"),
        why="rows of a completion; scoring sees one empty one for each",
        until=PER_PROMPT,
    ),
    # prompts that are read once
    Part(
        owner="transformers:GenerationMixin",
        name="_supports_default_dynamic_cache",
        why="whether what a model has read can be copied to other rows",
        until=ONE_PREFILL,
    ),
    Function(
        owner="transformers:DynamicCache",
        name="reorder_cache",
        leading=("beam_idx",),
        why="copies what was read of a prompt to all its rows",
        until=ONE_PREFILL,
    ),
    # small functions
    Function(
        owner=UTILS,
        name="add_fused_lm_head",
        leading=("model",),
        named=("cast_lm_head_to_fp32", "outputs"),
        why="entropies of the model's own distribution, without the sampling temperature",
        until="TRL's head takes the temperature with each call",
    ),
    Function(owner=UTILS, name="get_callable_name", leading=("func",), why="names reward functions", until=PUBLIC),
    Function(owner=UTILS, name="get_config_model_id", leading=("config",), why="names the run", until=PUBLIC),
    Function(owner=UTILS, name="is_async_callable", leading=("func",), why="finds async rewards", until=PUBLIC),
    Function(owner=UTILS, name="nanstd", leading=("tensor",), why="reward metrics of all stages", until=STAGES),
    Function(
        owner=UTILS,
        name="pad",
        leading=("tensors", "padding_value"),
        named=("padding_side",),
        why="pads prompts and completions as TRL does",
        until=EVALUATION,
    ),
    Function(
        owner=UTILS,
        name="print_prompt_completions_sample",
        leading=("prompts", "completions", "rewards", "advantages", "step", "num_samples"),
        why="completions of the asynchronous trainer, with the advantages that train",
        until=PER_PROMPT,
    ),
    Function(
        owner=UTILS,
        name="shuffle_sequence_dict",
        leading=("seq_dict",),
        why="shuffles the rows of a batch as TRL does",
        until=RAGGED,
    ),
    Function(owner=UTILS, name="split_pixel_values_by_grid", leading=("batch",), why="images by row", until=IMAGES),
    Function(
        owner=UTILS, name="unsplit_pixel_values_by_grid", leading=("batch",), why="images by batch", until=IMAGES
    ),
    # several processes
    Function(
        owner="torch.distributed.distributed_c10d",
        name="_get_default_store",
        why="a failed process leaves its error there, where the others look",
        until="torch ends all processes of a group when one fails, whatever the launcher and the backend",
    ),
    # vLLM, which is looked at when it is used
    Attribute(
        owner="trl.generation.vllm_generation:VLLMGeneration",
        name="llm",
        set_in="_init_vllm",
        why="the engine in this process, whose progress bar is replaced",
        until=OWN_BAR,
    ),
    Attribute(
        owner="trl.generation.vllm_generation:VLLMGeneration",
        name="temperature",
        why="is another one while pass@k is measured at it",
        until=EVALUATION,
    ),
    Attribute(
        owner="trl.generation.vllm_generation:VLLMGeneration",
        name="vllm_client",
        set_in="_init_vllm",
        why="has the address of the server that must answer",
        until=SERVER_ENDS,
    ),
    Attribute(
        owner="trl.generation.vllm_client:VLLMClient",
        name="base_url",
        why="the address of the server that must answer",
        until=SERVER_ENDS,
    ),
    Function(
        owner="vllm:LLM",
        name="generate",
        named=("use_tqdm",),
        why="replaced, for a progress bar like that of `generate` of transformers",
        until=OWN_BAR,
    ),
    Function(
        owner="vllm:LLM",
        name="enqueue",
        leading=("prompts", "sampling_params"),
        named=("lora_request", "use_tqdm"),
        why=AS_THEY_END,
        until=ITERATOR,
    ),
    Attribute(
        owner="vllm:LLM",
        name="llm_engine",
        why=AS_THEY_END,
        until=ITERATOR,
    ),
    Attribute(
        owner="vllm.v1.engine.llm_engine:LLMEngine",
        name="model_config",
        why="says how long a prompt and its completion may be, and what is sampled from",
        until=PUBLIC,
    ),
    Function(
        owner="vllm.v1.engine.llm_engine:LLMEngine",
        name="step",
        why=AS_THEY_END,
        until=ITERATOR,
    ),
    Function(
        owner="vllm.v1.engine.llm_engine:LLMEngine",
        name="abort_request",
        leading=("request_ids",),
        why="an evaluation that stops cancels its open requests",
        until=ITERATOR,
    ),
)
_MODULE_OF = {part.name: part.owner for part in PRIVATE_PARTS if ":" not in part.owner}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


# --- the checks ---


def check_private_parts(*libraries: str, asynchronous: bool = False) -> None:
    """
    Compares the rows of these libraries with what is installed; warns of a TRL that was never tested.

    Args:
        libraries (`str`): `"trl"`, `"transformers"`, `"accelerate"`, `"torch"`, `"vllm"`.
        asynchronous (`bool`, *optional*, defaults to `False`): the rows of TRL's experimental asynchronous trainer,
            and no others.

    Raises:
        `ImportError`: Parts are missing or look different; names all of them, and versions that work.
    """
    rows = [part for part in PRIVATE_PARTS if part.library in libraries and part.is_asynchronous == asynchronous]
    rows = [part for part in rows if part.is_expected]
    _raise_for([(part, problem) for part in rows if (problem := part.problem()) is not None])
    if "trl" in libraries and ".".join(map(str, Version(version("trl")).release[:2])) not in TESTED_TRL:
        warnings.warn(
            f"rlvr_trl is tested with TRL {', '.join(TESTED_TRL)}, but TRL {version('trl')} is installed.",
            stacklevel=2,
        )


def check_attributes(trainer: Any, owner: str = GRPO) -> None:
    """
    Looks at the attributes that the constructor of a trainer must have set.

    Args:
        trainer: the trainer.
        owner (`str`, *optional*, defaults to `GRPO`): the class of TRL that it extends, as rows name it.

    Raises:
        `ImportError`: Some are missing or of another type; names all of them.
    """
    rows = [part for part in PRIVATE_PARTS if isinstance(part, Attribute) and part.owner in (owner, TRAINER)]
    _raise_for([(part, problem) for part in rows if part.is_expected and (problem := part.problem_of(trainer))])


def check_generated(batch: dict, rewards_per_func: Any, num_reward_funcs: int) -> None:
    """
    Looks at what a call of TRL's generation and scoring made, before anything is added to it.

    Raises:
        `ImportError`: The batch lacks a field, or the rewards are not a tensor of shape `(T, F)`.
    """
    missing = [name for name in REQUIRED_FIELDS if name not in batch]
    shape = getattr(rewards_per_func, "shape", ())
    if missing:
        problem = f"`{GRPO}._generate_and_score_completions` returned a batch without {missing[0]!r}"
    elif len(shape) != 2 or shape[1] != num_reward_funcs:
        problem = f"`{GRPO}._calculate_rewards` returned no tensor of shape (completions, {num_reward_funcs})"
    else:
        return
    raise ImportError(
        f"{problem.replace(':', '.')} in trl {version('trl')}, on which rlvr_trl relies. Install a tested version: "
        f"pip install '{TESTED['trl']}'."
    )


def _raise_for(problems: list[tuple[Part, str]]) -> None:
    if not problems:
        return
    found = [
        f"`{part.path}`, which {problem} in {part.library} {installed_version(part.library)} (used here: {part.why})"
        for part, problem in problems
    ]
    tested = " ".join(f"'{TESTED[library]}'" for library in dict.fromkeys(part.library for part, _ in problems))
    raise ImportError(f"rlvr_trl relies on {'; on '.join(found)}. Install tested versions: pip install {tested}.")


def installed_version(library: str) -> str:
    """The version of a library, which may have been installed under another name, as builds of vLLM are."""
    try:
        return version(library)
    except PackageNotFoundError:
        return getattr(importlib.import_module(library), "__version__", "of an unknown version")


@contextmanager
def borrow(owner: Any, **values: Any) -> Iterator[None]:
    """
    Sets attributes of an object, or entries of a dict, and puts back what was there, whatever happens in between.

    Args:
        owner: the object or the dict, which must have all of them already.
        values: name -> what it is within the context.
    """
    is_dict = isinstance(owner, MutableMapping)
    usual = {name: owner[name] if is_dict else getattr(owner, name) for name in values}

    def put(those: Mapping[str, Any]) -> None:
        for name, value in those.items():
            if is_dict:
                owner[name] = value
            else:
                setattr(owner, name, value)

    try:
        put(values)
        yield
    finally:
        put(usual)


if __name__ == "__main__":  # python -m rlvr_trl.trl_compat: every row that does not fit what is installed
    for row in PRIVATE_PARTS:
        is_installed = importlib.util.find_spec(row.library) is not None
        if is_installed and row.is_expected and (trouble := row.problem()) is not None:
            print(f"{row.path} {trouble}\n    use:   {row.why}\n    until: {row.until}")

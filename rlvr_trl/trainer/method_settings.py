"""The settings of a method, which configurations of several of TRL's trainers have: all of them by name, from YAML."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..plain_yaml import read_yaml
from ..rollouts import (
    BatchAllocator,
    PromptHistory,
    PromptSelection,
    RolloutAllocator,
    build_allocator,
    build_selection,
    ids_of_prompts,
)


@dataclass
class MethodSettings:
    """
    A mixin for configurations of TRL, whose docstrings describe the fields.

    Attributes:
        dict_fields (`list[str]`): for `_VALID_DICT_FIELDS` of the configuration.
    """

    dict_fields = ["advantages", "rollouts", "selection", "prompt_history"]
    _VALID_DICT_FIELDS = dict_fields
    # `advantages` or `rollouts`, which a named configuration builds itself, so that it must not be set as well -> the
    # fields that it is built from
    _bound = {}

    advantages: dict | str | None = field(
        default=None,
        metadata={
            "help": "Advantage estimator by name, for example 'group_relative', or a dict with its name and fields. "
            "Group-relative by default, that is GRPO."
        },
    )
    correctness_reward: str | None = field(
        default=None,
        metadata={
            "help": "Name of the reward function that says which completions are correct. The first by default."
        },
    )
    correctness_threshold: float = field(
        default=0.5,
        metadata={"help": "A completion is correct when the reward of `correctness_reward` is above this."},
    )
    rollouts: dict | str | None = field(
        default=None,
        metadata={
            "help": "Rollout allocator by name, a dict with its name and fields. By default every prompt gets "
            "`num_generations` completions."
        },
    )
    selection: dict | str | None = field(
        default=None,
        metadata={
            "help": "Which prompts come next, by name, or a dict with its name and fields. By default in the order of "
            "the training set."
        },
    )
    prompt_history: dict | str | None = field(
        default=None,
        metadata={
            "help": "How prompts are remembered: a dict with `ids` and `pools` (columns), `start_from` (a file), "
            "`discount`, `pool_discount` and `prior_strength`."
        },
    )
    resume_with_changes: list[str] | None = field(
        default=None,
        metadata={"help": "Settings that may differ from those of the checkpoint to resume from. By default none."},
    )

    def _read_dict_fields(self) -> None:
        """Before TRL's `__post_init__`: on the command line transformers reads JSON, and here YAML will do."""
        for name in self._VALID_DICT_FIELDS:
            value = getattr(self, name)
            if isinstance(value, str) and value.startswith("{"):
                setattr(self, name, json.dumps(read_yaml(value, f"`{name}`={value!r}")))

    def build_rollouts(self) -> RolloutAllocator | BatchAllocator | None:
        """The rollout allocator that these settings describe, if any."""
        return None if self.rollouts is None else build_allocator(self.rollouts)

    def build_selection(self) -> PromptSelection | None:
        """What chooses the prompts, if these settings say so."""
        return None if self.selection is None else build_selection(self.selection)

    def build_prompt_history(self, dataset: Dataset) -> tuple[PromptHistory, np.ndarray]:
        """An empty history of the prompts of a training set, or one that was read, and the place of each row in it."""
        assert not isinstance(self.prompt_history, str)
        settings: dict[str, Any] = dict(self.prompt_history or {})
        ids, pools, start_from = (settings.pop(name, None) for name in ("ids", "pools", "start_from"))
        for name, column in (("ids", ids), ("pools", pools)):
            if column is not None and column not in dataset.column_names:
                raise ValueError(
                    f"`prompt_history` takes `{name}` from the column {column!r}, but `train_dataset` has the columns "
                    f"{dataset.column_names}."
                )
        if start_from is not None and not isinstance(start_from, str | Path):
            raise ValueError(f"`start_from` of `prompt_history` must be the path of a file, got {start_from!r}.")
        named = None if ids is None else dataset[ids][:]
        if named is not None and any(each is None or each != each for each in named):
            raise ValueError(f"`prompt_history` takes `ids` from the column {ids!r}, which is empty in some rows.")
        names = ids_of_prompts(dataset) if named is None else [str(each) for each in named]
        history = PromptHistory(names, None if pools is None else list(dataset[pools]), **settings)
        if start_from is not None and history.read(start_from) == 0:
            raise ValueError(
                f"`prompt_history` starts from '{start_from}', which holds none of the {len(history)} prompts of "
                f"`train_dataset`: their ids differ. Set `ids` to the column that has them."
            )
        return history, history.find(names)

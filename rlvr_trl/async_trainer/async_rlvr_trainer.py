"""TRL's AsyncGRPOTrainer with a replaceable advantage and a replaceable number of completions, whole groups a step."""

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import send_to_device, slice_tensors
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl.experimental.async_grpo import AsyncGRPOTrainer

from ..advantages import AdvantageEstimator, RolloutGroups, combine_rewards
from ..advantages.combine import correctness_column
from ..advantages.nesting import drops_rows, rows_in_loss
from ..distributed import Processes
from ..rewards.wrappers import check_reward_packages
from ..rollouts import PromptHistory, PromptSelection, PromptSource, RolloutAllocator
from ..rollouts.allocator import RolloutBatch
from ..trainer import metrics
from ..trainer.batch_watch import BatchWatch
from ..trainer.checkpoint import WholeCheckpoints, arrays_as_tensors, strategy_of, tensors_as_arrays
from ..trainer.nonfinite import ChecksGradients, check_loss
from ..trainer.rlvr_trainer import RLVRTrainer, remember
from ..trainer.stages import view_of_batch
from ..trainer.validation import check_arguments, check_group_size, check_mean_reward, warn_of_no_signal
from ..trainer.vllm_watchdog import watch_server
from ..trl_compat import ASYNC_GRPO, borrow, check_attributes
from .async_rlvr_config import AsyncRLVRConfig
from .packed_step import pack_passes, plan_passes, samples_of
from .prompt_feed import PromptFeed
from .prompt_worker import PromptGroup, PromptWorker, Sampling
from .refusals import (
    check_allocator_per_prompt,
    check_estimator_of_samples,
    check_picklable,
    check_reward_functions,
    check_rows,
)


if TYPE_CHECKING:
    from peft import PeftConfig

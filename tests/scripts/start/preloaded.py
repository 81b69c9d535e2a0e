"""What the scripts of tests import, for the server that their processes are forked from."""

import gc

import torch
from accelerate.utils import extract_model_from_parallel
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer  # noqa: F401

from rlvr_trl import DARSTrainer, PassAtKCallback  # noqa: F401
from rlvr_trl.cli import main  # noqa: F401
from rlvr_trl.evaluation import evaluate  # noqa: F401
from rlvr_trl.testbed import build_model  # noqa: F401


torch.set_num_threads(1)
extract_model_from_parallel(torch.nn.Linear(1, 1))  # which imports DeepSpeed, if it is there
gc.freeze()

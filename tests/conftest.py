"""A tiny maze model built from a config, and a GRPO configuration for the CPU. No test uses the Hub."""

import functools
import gc
import importlib.metadata
import os


os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from accelerate import PartialState
from tiny_training import ON_CPU

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_model, build_tokenizer


@pytest.fixture(scope="session")
def mazes():
    return make_maze_dataset(24, prompt_style="bare", seed=5)


@pytest.fixture
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def model(tokenizer):
    return build_model(tokenizer, seed=0)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """A folder, from which TRL's asynchronous trainer loads the model itself."""
    from scripted_sampler import save_maze_model  # which imports what is experimental in TRL

    return save_maze_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cpu(monkeypatch):
    """No GPU and no vLLM for TRL's asynchronous trainer, which needs both."""
    from scripted_sampler import without_gpu

    PartialState(cpu=True)
    without_gpu(monkeypatch.setattr)


@pytest.fixture
def cpu_settings(tmp_path):
    """Keyword arguments that make any GRPOConfig small and CPU-only: 2 prompts of 4 completions a step."""
    return {
        "output_dir": str(tmp_path / "run"),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        **ON_CPU,
    }


def pytest_collection_finish():
    # Two thirds of the time of tiny training: a full collection at its end, which would go through all that was
    # imported, and the metadata of DeepSpeed and peft, which accelerate parses whenever it unwraps a model
    gc.collect()
    gc.freeze()
    importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)


def pytest_collection_modifyitems(items):
    # so that no process is left with a long file at the end
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)

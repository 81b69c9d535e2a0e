"""What lets TRL's vLLM code run without a GPU. For these tests alone: nothing here belongs into the package."""

import atexit
import functools
import importlib.metadata
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlvr_trl.testbed import build_tokenizer


SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default takes what is free
    "VLLM_SERVER_DEV_MODE": "1",  # /collective_rpc and /server_info
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


def is_installed() -> bool:
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def save_model(folder: str) -> None:
    """
    A Qwen2 model that vLLM's CPU attention can run (32 dimensions a head), and the tokenizer of mazes.

    An untrained model hardly looks at its prompt. With larger weights it does, which tells completions apart. The
    embeddings are not tied: when a CPU server reloads tied ones, the output layer keeps its packed copy of the old.
    """
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def use_cpu_engine() -> None:
    """Makes TRL's two vLLM modes work on a CPU. To be called before a trainer is built."""
    import trl.generation.vllm_generation as generation
    import vllm._custom_ops

    # The CPU matrix product packs its weights, after which none can be loaded
    vllm._custom_ops._supports_onednn = False
    generation.LLM = _engine_of_process(generation.LLM)
    generation.VLLMClient = _checkpoint_client(generation.VLLMClient)


def _engine_of_process(engine_class):
    """vLLM's LLM in float32, one for all trainers of a process, with random numbers of its own."""

    @functools.cache
    def build(**kwargs):
        # TRL gives no dtype, and vLLM then runs a float32 model in bfloat16
        engine = engine_class(**kwargs, dtype="float32", enforce_eager=True)
        engine.generate = _with_own_randomness(engine.generate)
        return engine

    return build


def _with_own_randomness(generate):
    """
    Every rank of a tensor parallel group samples by itself and must draw the same numbers. On a GPU these are the
    device's. On a CPU they are those that also shuffle the rows of a batch, of which each rank has its own number.
    """
    state = torch.get_rng_state()

    def sample(*args, **kwargs):
        nonlocal state
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            outputs = generate(*args, **kwargs)
            state = torch.get_rng_state()
        return outputs

    return sample


def _checkpoint_client(client_class):
    """TRL's client, with weights sent through a checkpoint in memory instead of NCCL."""

    class CheckpointClient(client_class):
        def init_communicator(self, device):
            self.folder = Path(tempfile.mkdtemp(prefix="weights-", dir="/dev/shm"))
            atexit.register(shutil.rmtree, self.folder)

        def update_named_params(self, metadata, named_params):
            from safetensors.torch import save_file

            weights = {name: value.detach().clone() for name, value in named_params}
            save_file(weights, self.folder / "model.safetensors", metadata={"format": "pt"})
            body = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}}
            self._post(f"{self.base_url}/collective_rpc", json=body)

    return CheckpointClient


def server_command(folder: str, port: int) -> list[str]:
    """The command of a vLLM server for the model in `folder`."""
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1", "--max-num-seqs", "64"),
    ]

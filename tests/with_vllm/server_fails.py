"""
A training with a vLLM server, which is killed or stopped in its third step. Run by test_server_failures.py.

It writes the time at which that is done into `failed_at`; until then the time at which the trainer is built.
"""

import argparse
import contextlib
import signal
import time
from pathlib import Path

import psutil
import torch
from bounded import answer_with_stacks
from cpu_engine import use_cpu_engine
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset


STEP = 2  # optimizer steps done when it happens


def send(process: int, number: int) -> None:
    """A signal to the server and all processes that it started."""
    parent = psutil.Process(process)
    for member in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(number)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("model")
    parser.add_argument("processes", type=int)
    parser.add_argument("server")
    parser.add_argument("--timeout", type=float, default=240.0, help="`vllm_server_timeout`")
    parser.add_argument("--pid", type=int, help="process of the server, if it is to fail")
    parser.add_argument("--sends", type=int, help="the signal that it gets then")
    parser.add_argument("--deaf", action="store_true", help="nothing interrupts the training")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    answer_with_stacks(arguments.folder)
    use_cpu_engine()
    if arguments.deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def moves(completions, trainer_state, **kwargs):
        if arguments.pid and trainer_state.global_step == STEP and trainer.accelerator.is_main_process:
            failed_at.write_text(str(time.time()))
            send(arguments.pid, arguments.sends)
        return [len(set(completion) & set("UDLR")) / 4 for completion in completions]

    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    failed_at = Path(arguments.folder, "failed_at")
    failed_at.write_text(str(time.time()))
    trainer = RLVRTrainer(
        model,
        moves,
        RLVRConfig(
            f"{arguments.folder}/run",
            **{"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 6, "max_steps": 4},
            **{"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": arguments.server},
            **{"vllm_server_timeout": arguments.timeout, "save_strategy": "steps", "save_steps": 1},
            **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False},
            **{"report_to": "none", "disable_tqdm": True},
        ),
        make_maze_dataset(8, prompt_style="bare", seed=5),
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
    )
    assert trainer.accelerator.num_processes == arguments.processes
    trainer.train(resume_from_checkpoint=arguments.resume)
    print(f"process {trainer.accelerator.process_index} is at step {trainer.state.global_step}")


if __name__ == "__main__":
    main()

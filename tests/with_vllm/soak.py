"""
Trains DARS on two processes with colocated vLLM for many steps, and tells how the memory of each process grows.

    python tests/with_vllm/soak.py --steps 200

A run that hangs ends with the stacks of both ranks. See docs/vllm.md for a measurement.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path


sys.path.append(str(Path(__file__).parents[1]))  # where bounded.py finds launching.py

from bounded import answer_with_stacks, run


WARM_UP = 20  # steps until every buffer has been used


def train(folder: str, model_folder: str, steps: int) -> None:
    """What each rank does."""
    import psutil
    import torch
    from cpu_engine import use_cpu_engine
    from train import a_third_is_right
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

    from rlvr_trl import DARSConfig, DARSTrainer
    from rlvr_trl.data import make_maze_dataset

    class Memory(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step in (1, WARM_UP, steps) or state.global_step % 50 == 0:
                resident = psutil.Process().memory_info().rss / 2**20
                with open(f"{folder}/memory-{os.environ['RANK']}.txt", "a") as file:
                    file.write(f"{state.global_step} {resident:.0f}\n")

    answer_with_stacks(folder)
    use_cpu_engine()
    args = DARSConfig(
        f"{folder}/run",
        **{"schedule": "hardness_weighted", "zero_accuracy": "cap", "max_generations": 16},
        **{"num_generations": 4, "prompts_per_batch": 6, "per_device_train_batch_size": 8},
        **{"max_completion_length": 8, "max_steps": steps, "learning_rate": 1e-5},
        **{"use_vllm": True, "vllm_max_model_length": 128},
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        **{"report_to": "none", "logging_steps": 10, "save_strategy": "no", "disable_tqdm": True},
    )
    trainer = DARSTrainer(
        AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
        a_third_is_right,
        args,
        make_maze_dataset(64, prompt_style="bare", seed=5),
        processing_class=AutoTokenizer.from_pretrained(model_folder),
        callbacks=[Memory()],
    )
    trainer.remove_callback(PrinterCallback)
    assert trainer.accelerator.num_processes == 2
    trainer.train()
    assert trainer.state.global_step == steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    from cpu_engine import save_model

    with tempfile.TemporaryDirectory() as folder:
        save_model(f"{folder}/model")
        begin = time.monotonic()
        run("soak.py", Path(folder), f"{folder}/model", str(steps), processes=2, timeout=300 + 5 * steps)
        print(f"{steps} steps in {time.monotonic() - begin:.0f} s. Resident memory in MiB after each step:")
        for file in sorted(Path(folder).glob("memory-*.txt")):
            print(f"{file.stem.replace('memory-', 'rank ')}: {', '.join(file.read_text().splitlines())}")


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()

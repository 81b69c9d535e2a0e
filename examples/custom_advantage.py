r"""
Your own advantage and your own trainer, in a minute on a CPU: `python examples/custom_advantage.py`.

On two processes, also on a CPU: `accelerate launch --multi_gpu --num_processes 2 examples/custom_advantage.py`. All
settings of RLVRConfig (`--max_steps 20`), `--config FILE`, `--resume_from_checkpoint true` and `--push_to_hub` work.
"""

import torch
from transformers import PrinterCallback
from trl import TrlParser

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import RolloutGroups
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rewards import maze_reward
from rlvr_trl.scripts import run_training
from rlvr_trl.testbed import build_model, build_tokenizer, warm_up


def first_blood(groups: RolloutGroups) -> torch.Tensor:  # (T,), groups may have different sizes
    """One right answer is enough: a group's right completions share 1 between them, its wrong ones share -1."""
    correct = groups.correct.float()
    right, size = groups.num_correct[groups.index], groups.sizes[groups.index]  # (T,), those of the completion's group
    advantages = correct / right.clamp(min=1) - (1 - correct) / (size - right).clamp(min=1)
    return torch.where((right > 0) & (right < size), advantages, 0.0)


class FirstBloodTrainer(RLVRTrainer):
    """Binds the advantage, as the named trainers do, and prints one line instead of all of TRL's numbers."""

    _tag_names = ["trl", "rlvr-trl", "first-blood"]
    _name = "First blood"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, advantages=first_blood, **kwargs)
        self.remove_callback(PrinterCallback)

    def log(self, logs, start_time=None):
        super().log(logs, start_time)
        entry = self.state.log_history[-1]
        if "reward" in entry:
            found = 1 - entry["groups/frac_all_wrong"]
            self.accelerator.print(f"step {entry['step']}: {entry['reward']:.0%} right, a way in {found:.0%} of mazes")


SETTINGS = {"output_dir": "first_blood", "max_steps": 60, "num_generations": 16, "max_completion_length": 12}
SETTINGS |= {"per_device_train_batch_size": 128, "learning_rate": 3e-4, "loss_type": "dapo", "logging_steps": 10}
SETTINGS |= {"bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True}


if __name__ == "__main__":
    parser = TrlParser(RLVRConfig)
    parser.set_defaults(**SETTINGS)
    (args,) = parser.parse_args_and_config()
    mazes = make_maze_dataset(4000, prompt_style="bare")
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    warm_up(model, tokenizer, mazes[:2000]["maze"], steps=300, output_dir=f"{args.output_dir}/warmup")
    trainer = FirstBloodTrainer(model, maze_reward, args, mazes.select(range(2000, 4000)), processing_class=tokenizer)
    run_training(trainer)

"""Two ranks of 6 completions with groups of 4: the second group spans both. Writes what each rank trained on."""

import sys

import torch
from tiny_training import ON_CPU, build, logged_by_trl, share_of_right_moves
from trl import GRPOTrainer

from rlvr_trl import RLVRTrainer
from rlvr_trl.advantages import GroupRelative, PassAtK
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer


def train(trainer_class, output_dir, **kwargs):
    batches = []

    class Recording(trainer_class):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            batches.append((output["completion_ids"], output["advantages"]))
            return output

    settings = {"per_device_train_batch_size": 6, "num_generations": 4, "max_completion_length": 6, "max_steps": 3}
    settings |= {"output_dir": output_dir, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", **ON_CPU}
    mazes = make_maze_dataset(12, prompt_style="bare", seed=5)
    trainer = build(Recording, settings, mazes, build_tokenizer(), share_of_right_moves, **kwargs)
    assert trainer.accelerator.num_processes == 2
    assert str(trainer.accelerator.distributed_type).endswith("MULTI_CPU"), trainer.accelerator.distributed_type
    trainer.train()
    rank = trainer.accelerator.process_index
    logged = logged_by_trl(trainer)
    logs = {"rewards": logged["rewards"], "advantages": logged["advantages"], "history": trainer.state.log_history}
    weights = {
        name: weight.cpu() for name, weight in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    }
    torch.save({"batches": batches, "weights": weights, **logs}, f"{output_dir}-{rank}.pt")


if __name__ == "__main__":
    folder = sys.argv[1]
    train(GRPOTrainer, f"{folder}/stock")
    train(RLVRTrainer, f"{folder}/group_relative", advantages=GroupRelative())
    train(RLVRTrainer, f"{folder}/pass_at_k", advantages=PassAtK(2))
